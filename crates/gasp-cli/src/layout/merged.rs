//! The cells of a domain, merged if there are very many of them.
//!
//! A guest can map a million pages, in any order. What a picture shows of them is at most a row for
//! each pixel, so they are counted in rows, and are never all cells or elements of the picture.

use gasp::Access;

use super::cell::{Cell, Device};
use super::scale::Part;

/// The most cells that are kept as they are.
pub(super) const FEW: usize = 256;
/// The rows of all memory together. Each region of memory has at least one.
const ROWS: usize = 1024;
/// The kinds of access, each counted for itself.
const KINDS: [Access; 3] = [Access::READ, Access::WRITE, Access::EXEC];

/// The cells themselves, if they are few; otherwise those of the rows, in order of guest-physical
/// address. Each cell lies in one part of the memory; these are in order.
pub(super) fn cells(all: impl Iterator<Item = Cell>, memory: &[Part]) -> Vec<Cell> {
    let mut all = all;
    let few: Vec<Cell> = all.by_ref().take(FEW + 1).collect();
    if few.len() <= FEW {
        return few;
    }
    let mut bars = bars(memory);
    few.into_iter().chain(all).for_each(|cell| count(&mut bars, &cell));
    bars.iter().flat_map(Bar::cells).collect()
}

/// A region of memory, in rows.
struct Bar {
    part: Part,
    /// The bytes of a row; the last one can be shorter.
    row: u64,
    /// For each row, and one more, how many more cells than in the row before allow each kind.
    changes: Vec<[i64; KINDS.len()]>,
}

fn bars(memory: &[Part]) -> Vec<Bar> {
    let rows = u64::try_from(ROWS / memory.len().max(1)).unwrap_or(1).max(1);
    let bar = |&part: &Part| {
        let row = part.size().div_ceil(rows).checked_next_multiple_of(4096).unwrap_or(u64::MAX);
        let rows = usize::try_from(part.size().div_ceil(row)).unwrap_or(ROWS);
        Bar { part, row, changes: vec![[0; KINDS.len()]; rows + 1] }
    };
    memory.iter().map(bar).collect()
}

fn count(bars: &mut [Bar], cell: &Cell) {
    let at = bars.partition_point(|bar| bar.part.last < cell.part.first);
    let Some(bar) = bars.get_mut(at) else { return };
    let row = |addr: u64| usize::try_from(addr.saturating_sub(bar.part.first) / bar.row).ok();
    let (Some(from), Some(last)) = (row(cell.part.first), row(cell.part.last)) else { return };
    for (at, change) in [(from, 1), (last + 1, -1)] {
        let Some(changes) = bar.changes.get_mut(at) else { continue };
        for (sum, kind) in changes.iter_mut().zip(KINDS) {
            *sum += if cell.access.contains(kind) { change } else { 0 };
        }
    }
}

impl Bar {
    /// A cell for each sequence of rows with the same access: all that is allowed to any of it.
    fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        let mut counts = [0_i64; KINDS.len()];
        let mut first = self.part.first;
        let mut before = Access::empty();
        for changes in &self.changes {
            counts.iter_mut().zip(changes).for_each(|(count, change)| *count += change);
            let allowed = counts.iter().zip(KINDS).filter(|(count, _)| **count > 0);
            let access = allowed.fold(Access::empty(), |all, (_, kind)| all | kind);
            let last = first.saturating_add(self.row - 1).min(self.part.last);
            match cells.last_mut() {
                _ if access.is_empty() => {}
                Some(cell) if access == before => cell.part.last = last,
                _ => {
                    cells.push(Cell { part: Part { first, last }, access, device: Device::Several })
                }
            }
            before = access;
            first = last.saturating_add(1);
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn cell(page: u64, pages: u64, access: Access) -> Cell {
        let part = Part { first: page * PAGE, last: (page + pages) * PAGE - 1 };
        Cell { part, access, device: Device::Same }
    }

    fn drawn(memory: &[Part], all: &[Cell]) -> Vec<(Part, Access)> {
        let mut bars = bars(memory);
        all.iter().for_each(|cell| count(&mut bars, cell));
        bars.iter().flat_map(Bar::cells).map(|cell| (cell.part, cell.access)).collect()
    }

    #[test]
    fn a_row_has_all_the_access_that_is_allowed_to_any_of_it_and_no_more() {
        let memory = [
            Part { first: 0, last: 1024 * PAGE - 1 },
            Part { first: 4096 * PAGE, last: 4097 * PAGE - 1 },
        ];
        // A row is two pages.
        let found = drawn(
            &memory,
            &[
                cell(4096, 1, Access::EXEC),
                cell(100, 8, Access::READ),
                cell(103, 1, Access::WRITE),
                cell(1022, 2, Access::RW),
                cell(0, 1, Access::READ),
            ],
        );
        let part = |page: u64, pages: u64| cell(page, pages, Access::READ).part;
        assert_eq!(
            found,
            [
                (part(0, 2), Access::READ),
                (part(100, 2), Access::READ),
                (part(102, 2), Access::RW),
                (part(104, 4), Access::READ),
                (part(1022, 2), Access::RW),
                (part(4096, 1), Access::EXEC),
            ]
        );
    }

    #[test]
    fn memory_of_any_size_has_a_bounded_number_of_rows() {
        let pages = 1 << 40;
        let memory = [Part { first: 0, last: pages * PAGE - 1 }];
        let scattered: Vec<Cell> = (0..1 << 16)
            .map(|at| cell(at << 24, 1, if at % 2 == 0 { Access::READ } else { Access::RW }))
            .collect();
        assert!(drawn(&memory, &scattered).len() <= ROWS);
        let whole = [Part { first: 0, last: u64::MAX }];
        let all = Cell { part: whole[0], access: Access::RW, device: Device::Same };
        assert_eq!(drawn(&whole, &[all]), [(whole[0], Access::RW)]);
    }
}
