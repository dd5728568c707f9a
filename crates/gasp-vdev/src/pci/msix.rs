//! The MSI-X table and pending bits, as registers.
//!
//! Interrupts are delivered by eventfds, and a VMM such as QEMU keeps a table of its own: it never
//! writes this one, and removes the eventfd of a masked vector instead. So a vector's mask bit
//! reads as set after reset, as PCI requires, but masks the vector only once it has been written.

use super::interrupts::Interrupts;
use super::model::Msix;
use super::register::{Register, Width};

/// The table of one function.
#[derive(Debug)]
pub(crate) struct Table {
    msix: Msix,
    /// Address (low, high), data and control of each vector.
    words: Vec<[u32; 4]>,
}

/// What an access reaches, and the offset in it.
pub(crate) enum Part {
    Table(u64),
    Pending(u64),
}

impl Table {
    pub(crate) fn new(msix: Msix) -> Self {
        let mut table = Self { msix, words: Vec::new() };
        table.reset();
        table
    }

    pub(crate) fn reset(&mut self) {
        self.words = vec![[0, 0, 0, 1]; usize::from(self.msix.vectors)];
    }

    /// What `at` reaches, if it is in the table or the pending bits.
    pub(crate) fn part(&self, at: Register) -> Option<Part> {
        let Msix { vectors, bar, table, pending } = self.msix;
        let within = |start: u32, len: u64| {
            let offset = at.offset.checked_sub(u64::from(start))?;
            (at.bar == bar && offset < len).then_some(offset)
        };
        let vectors = u64::from(vectors);
        within(table, 16 * vectors)
            .map(Part::Table)
            .or_else(|| within(pending, 8 * vectors.div_ceil(64)).map(Part::Pending))
    }

    pub(crate) fn read(&self, offset: u64, width: Width) -> u64 {
        let low = u64::from(self.word(offset & !3));
        match width {
            Width::Eight => low | u64::from(self.word(offset + 4)) << 32,
            _ => (low >> (8 * (offset & 3))) & width.mask(),
        }
    }

    pub(crate) fn write(&mut self, offset: u64, width: Width, value: u64, irqs: &Interrupts) {
        match width {
            Width::Eight => {
                self.write_word(offset, value as u32, irqs);
                self.write_word(offset + 4, (value >> 32) as u32, irqs);
            }
            // PCI leaves narrower writes undefined; they are ignored.
            Width::Four => self.write_word(offset, value as u32, irqs),
            Width::One | Width::Two => {}
        }
    }

    fn word(&self, offset: u64) -> u32 {
        let words = self.words.get((offset / 16) as usize);
        words.and_then(|words| words.get((offset % 16 / 4) as usize)).copied().unwrap_or(0)
    }

    fn write_word(&mut self, offset: u64, value: u32, irqs: &Interrupts) {
        let vector = (offset / 16) as usize;
        let Some([low, high, data, control]) = self.words.get_mut(vector) else { return };
        match offset % 16 / 4 {
            0 => *low = value & !3,
            1 => *high = value,
            2 => *data = value,
            _ => {
                *control = value & 1;
                irqs.set_table_mask(vector, value & 1 != 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::IDENTITY;
    use super::super::{Bar, Model};
    use super::*;

    #[test]
    fn entries_read_back_as_written_and_are_masked_after_reset() {
        let msix = Msix { vectors: 4, bar: 1, table: 0x100, pending: 0x800 };
        let model = Model::new(IDENTITY).bar(Bar::memory(1, 4096)).msix(msix);
        let irqs = Interrupts::new(&model);
        let mut table = Table::new(msix);
        assert_eq!(table.read(3 * 16 + 12, Width::Four), 1);
        table.write(16, Width::Eight, 0x1_fee0_0007, &irqs);
        table.write(16 + 8, Width::Eight, 0x4041, &irqs);
        assert_eq!(table.read(16, Width::Four), 0xfee0_0004);
        assert_eq!(table.read(16, Width::Eight), 0x1_fee0_0004);
        assert_eq!(table.read(16 + 8, Width::Eight), 0x4041);
        assert_eq!(table.read(16 + 8, Width::One), 0x41);
        let at = |offset| Register { bar: 1, offset, width: Width::Four };
        assert!(matches!(table.part(at(0x13c)), Some(Part::Table(0x3c))));
        assert!(table.part(at(0x140)).is_none());
        assert!(matches!(table.part(at(0x804)), Some(Part::Pending(4))));
        table.reset();
        assert_eq!(table.read(16, Width::Eight), 0);
    }
}
