//! Layout of text in columns. No word, address or path is ever split.

use std::ops::Range;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table};
use textwrap::{Options, WordSeparator, WordSplitter};

/// The least room for the last column in which it is wrapped.
const WRAPPED: usize = 24;
/// Indentation of the second and further lines of a folded row.
const INDENT: &str = "    ";

/// Wraps a text to lines of at most `width`. A longer word gets a line of its own.
pub(crate) fn wrapped(text: &str, width: usize, first: &str, rest: &str) -> Vec<String> {
    let options = Options::new(width)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .initial_indent(first)
        .subsequent_indent(rest);
    textwrap::wrap(text, options).into_iter().map(|line| line.trim_end().to_owned()).collect()
}

/// A table before its layout.
pub(crate) struct Columns<'a> {
    pub(crate) header: &'a [&'a str],
    /// The indices of the columns that are aligned right.
    pub(crate) right: &'a [usize],
    pub(crate) rows: Vec<Row>,
}

impl Columns<'_> {
    /// Lays out the header and the rows in lines of at most `width`. If the columns do not
    /// fit, the last one is wrapped; if that is not enough, each row is folded into several
    /// lines.
    pub(crate) fn lines(&self, width: usize) -> (Vec<String>, Vec<String>) {
        let natural = self.natural();
        let total: usize = natural.iter().sum();
        let last = natural.last().copied().unwrap_or(0);
        if total <= width {
            return self.part(0..natural.len(), None);
        }
        if let Some(rest) = width.checked_sub(total - last).filter(|rest| *rest >= WRAPPED) {
            return self.part(0..natural.len(), Some(rest));
        }
        self.folded(&natural, width)
    }

    /// The width of each column, with its margins.
    fn natural(&self) -> Vec<usize> {
        let widths = self.table(0..self.header.len(), None).column_max_content_widths();
        widths.into_iter().map(|width| usize::from(width) + 2).collect()
    }

    /// Each row on several lines, with as many columns per line as fit.
    fn folded(&self, natural: &[usize], width: usize) -> (Vec<String>, Vec<String>) {
        let mut groups = Vec::new();
        let (mut from, mut used) = (0, 0);
        for (index, column) in natural.iter().enumerate() {
            let indent = if groups.is_empty() { 0 } else { INDENT.len() };
            if index > from && used + column + indent > width {
                groups.push(from..index);
                (from, used) = (index, 0);
            }
            used += column;
        }
        groups.push(from..natural.len());
        let (mut head, mut parts) = (Vec::new(), Vec::new());
        for (index, group) in groups.into_iter().enumerate() {
            let indent = if index == 0 { "" } else { INDENT };
            let before = natural.get(group.start..natural.len() - 1).unwrap_or_default();
            let rest = width.saturating_sub(indent.len() + before.iter().sum::<usize>());
            let last = (group.end == natural.len()).then_some(rest);
            let (names, lines) = self.part(group.clone(), last);
            head.extend(names.iter().map(|line| format!("{indent}{line}").trim_end().to_owned()));
            parts.push((indent, last, lines.into_iter()));
        }
        let mut rows = Vec::new();
        for row in &self.rows {
            for (indent, last, lines) in &mut parts {
                let height = last.map_or(1, |last| last_cell(row, last).len().max(1));
                let lines = lines.by_ref().take(height);
                let lines = lines.map(|line| format!("{indent}{line}").trim_end().to_owned());
                rows.extend(lines.filter(|line| !line.is_empty()));
            }
        }
        (head, rows)
    }

    /// Lays out some of the columns; the last of them is at most `last` wide, if that is given.
    fn part(&self, columns: Range<usize>, last: Option<usize>) -> (Vec<String>, Vec<String>) {
        let table = self.table(columns, last);
        let mut lines = table.lines().map(|line| line.trim_end().to_owned());
        let head = lines.by_ref().take(1).collect();
        (head, lines.collect())
    }

    fn table(&self, columns: Range<usize>, last: Option<usize>) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let header = self.header.get(columns.clone()).unwrap_or_default();
        table.set_header(header.iter().copied());
        for row in &self.rows {
            let cells = row.cell_iter().skip(columns.start).take(columns.len());
            let cells = cells.enumerate().map(|(index, cell)| {
                match last.filter(|_| index + 1 == columns.len()) {
                    Some(width) => last_cell(row, width).join("\n"),
                    None => cell.content(),
                }
            });
            table.add_row(cells);
        }
        for column in table.column_iter_mut() {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        for index in self.right.iter().filter_map(|index| index.checked_sub(columns.start)) {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// The last cell of a row, wrapped at spaces only; `width` includes its margins.
fn last_cell(row: &Row, width: usize) -> Vec<String> {
    let text = row.cell_iter().last().map(Cell::content).unwrap_or_default();
    wrapped(&text, width.saturating_sub(2), "", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 4] = ["device", "address", "host-physical", "remark"];

    fn lines(remark: &str, width: usize) -> (Vec<String>, Vec<String>) {
        let row = ["disk", "0x800000", "0x5b0c00000", remark];
        let net = ["net", "0x0", "0x53a600000", "one run"];
        Columns { header: &HEADER, right: &[1, 2], rows: vec![row.into(), net.into()] }.lines(width)
    }

    #[test]
    fn at_any_width_no_word_is_split_and_no_line_is_too_long() {
        let remark = "the longest of all of its runs in host memory";
        let words: Vec<&str> =
            remark.split(' ').chain(["0x800000", "0x5b0c00000", "0x53a600000", "disk"]).collect();
        for width in 48..140 {
            let (head, rows) = lines(remark, width);
            let text = rows.join("\n");
            let shown: Vec<&str> = text.split_whitespace().collect();
            for word in &words {
                assert!(shown.contains(word), "{width}: {word} is not in\n{text}");
            }
            assert!(HEADER.iter().all(|name| head.concat().contains(name)), "{width}: {head:?}");
            let widest = head.iter().chain(&rows).map(|line| line.chars().count()).max();
            assert!(widest.is_some_and(|widest| widest <= width), "{width}:\n{text}");
        }
    }

    #[test]
    fn columns_that_do_not_fit_are_folded() {
        let (head, rows) = lines("one run", 60);
        assert_eq!((head.len(), rows.len()), (1, 2));
        assert!(rows[1].contains("     0x0  "), "{rows:?}");
        let (head, rows) = lines("one run", 30);
        assert_eq!((head.len(), rows.len()), (2, 4), "{rows:?}");
        assert!(rows[1].starts_with(INDENT));
    }

    #[test]
    fn a_word_that_is_longer_than_a_line_is_not_split() {
        let path = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
        let lines = wrapped(&format!("fill {path} first"), 40, "  pages  ", "         ");
        assert_eq!(lines.len(), 3);
        assert!(lines[1].ends_with(path));
    }
}
