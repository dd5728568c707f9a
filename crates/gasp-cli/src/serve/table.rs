//! The state of all devices, as a table that fits a terminal: columns are shown by importance.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::event::thousands;
use super::sink::Row;
use crate::quantity::length;

/// The space between two columns.
const GAP: usize = 2;
/// A longer name is cut.
const NAME_MAX: usize = 24;

/// Title, rank (0 is the most important), and the text for a device.
type Column = (&'static str, u8, fn(&Row) -> String);

/// In the order in which they are shown. The device's own counters follow.
const COLUMNS: [Column; 9] = [
    ("device", 0, |row| cut(&row.name, NAME_MAX)),
    ("VMM", 1, vmm),
    ("mapped", 2, |row| length(row.now.mapped_bytes())),
    ("by message", 5, |row| length(row.now.status.by_message_bytes)),
    ("maps", 7, |row| thousands(row.now.status.maps)),
    ("unmaps", 8, |row| thousands(row.now.status.unmaps)),
    ("rate", 4, |row| format!("{:.0}/s", row.rate)),
    ("faults", 3, |row| thousands(row.now.faults)),
    ("drains", 6, drains),
];

/// The VMM's process, unless its device has failed.
fn vmm(row: &Row) -> String {
    match row.now.status.pid {
        _ if row.now.failed => "failed".into(),
        None => "–".into(),
        Some(pid) => pid.to_string(),
    }
}

fn drains(row: &Row) -> String {
    match row.now.status.draining {
        0 => thousands(row.now.status.drains),
        draining => format!("{} ({} now)", thousands(row.now.status.drains), thousands(draining)),
    }
}

/// A column with its cells.
struct Filled {
    title: &'static str,
    rank: u8,
    cells: Vec<String>,
    width: usize,
}

impl Filled {
    fn new((title, rank, cell): Column, rows: &[Row]) -> Self {
        let cells: Vec<_> = rows.iter().map(cell).collect();
        let widest = cells.iter().map(|cell| cell.width()).max();
        Self { title, rank, cells, width: widest.unwrap_or(0).max(title.width()) }
    }

    /// Aligns a text: names to the left, numbers to the right.
    fn aligned(&self, text: &str) -> String {
        let space = " ".repeat(self.width.saturating_sub(text.width()));
        if self.rank == 0 { format!("{text}{space}") } else { format!("{space}{text}") }
    }
}

/// A header and a row for each device, in at most `width` columns and `height` lines.
pub(super) fn render(rows: &[Row], width: usize, height: usize) -> Vec<String> {
    let shown = match rows.len() < height {
        true => rows.len(),
        // The last line says how many are not shown.
        false => height.saturating_sub(2),
    };
    let (rows, hidden) = rows.split_at(shown);
    let columns = COLUMNS.map(|column| Filled::new(column, rows));
    let columns = chosen(&columns, width);
    let used = columns.iter().map(|column| column.width + GAP).sum::<usize>();
    let titles: Vec<_> = columns.iter().map(|column| column.aligned(column.title)).collect();
    let mut lines = vec![cut(titles.join("  ").trim_end(), width)];
    for (number, row) in rows.iter().enumerate() {
        let cells =
            columns.iter().filter_map(|column| Some(column.aligned(column.cells.get(number)?)));
        let mut line = cells.collect::<Vec<_>>().join("  ");
        line += &counters(row, width.saturating_sub(used));
        lines.push(cut(line.trim_end(), width));
    }
    if !hidden.is_empty() {
        lines.push(cut(&format!("and {} more devices", thousands(hidden.len() as u64)), width));
    }
    lines.truncate(height);
    lines
}

/// The columns that fit: the most important ones, never a less important one instead of
/// another. The name is always shown, cut if necessary.
fn chosen(columns: &[Filled], width: usize) -> Vec<&Filled> {
    let mut by_rank: Vec<_> = columns.iter().collect();
    by_rank.sort_by_key(|column| column.rank);
    let mut used = 0;
    by_rank.retain(|column| {
        used += column.width + GAP;
        column.rank == 0 || used <= width + GAP
    });
    let least = by_rank.last().map_or(0, |column| column.rank);
    columns.iter().filter(|column| column.rank <= least).collect()
}

/// The device's own counters, as far as they fit into `room`.
fn counters(row: &Row, room: usize) -> String {
    let mut text = String::new();
    for counter in row.now.counted() {
        let gap = if text.is_empty() { "  " } else { ", " };
        if text.width() + GAP + counter.width() > room + GAP {
            break;
        }
        text += &format!("{gap}{counter}");
    }
    text
}

/// The text, cut to `width` columns with an ellipsis.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.into();
    }
    let mut used = 1;
    let fits = |character: &char| {
        used += character.width().unwrap_or(0);
        used <= width
    };
    let mut cut: String = text.chars().take_while(fits).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::event::Snapshot;
    use gasp_vfio_user::Status;

    fn row(name: &str) -> Row {
        let status = Status {
            pid: Some(123_456),
            window_bytes: 65 << 20,
            by_message_bytes: 1 << 20,
            maps: 1_234_567,
            unmaps: 1_234_560,
            ..Status::default()
        };
        let now = Snapshot {
            status,
            faults: 3,
            counters: vec![("reads", 10), ("read_bytes", 4096), ("writes", 2)],
            ..Snapshot::default()
        };
        Row { name: name.into(), rate: 1500.4, now }
    }

    #[test]
    fn every_line_fits_at_every_width_and_height() {
        let rows = [row("disk"), row("ein sehr langer Name 磁盘 mit allem, was dazu gehört")];
        for width in 0..200 {
            for height in 0..6 {
                let lines = render(&rows, width, height);
                assert!(lines.len() <= height, "{width} x {height}: {lines:?}");
                let fits = |line: &String| line.width() <= width;
                assert!(lines.iter().all(fits), "{width} x {height}: {lines:?}");
            }
        }
    }

    #[test]
    fn columns_are_dropped_by_importance() {
        let rows = [row("disk"), row("scratch")];
        let header = |width| render(&rows, width, 9).remove(0);
        let titles = |width| header(width).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(titles(5), "devi…");
        assert_eq!(titles(30), "device VMM mapped");
        assert_eq!(titles(58), "device VMM mapped by message rate faults");
        assert_eq!(titles(59), "device VMM mapped by message rate faults drains");
        assert_eq!(titles(79), "device VMM mapped by message maps rate faults drains");
        assert_eq!(titles(119), "device VMM mapped by message maps unmaps rate faults drains");
        assert_eq!(
            render(&rows, 119, 9)[1],
            "disk     123456  64 MiB       1 MiB  1,234,567  1,234,560  1500/s       3       0  \
             10 reads, 4 KiB read, 2 writes"
        );
    }

    #[test]
    fn devices_that_do_not_fit_are_counted() {
        let rows: Vec<_> = (0..9).map(|number| row(&format!("disk{number}"))).collect();
        let lines = render(&rows, 79, 5);
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[4], "and 6 more devices");
        assert_eq!(render(&rows, 79, 10).len(), 10);
    }
}
