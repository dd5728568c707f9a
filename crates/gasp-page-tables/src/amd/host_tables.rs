//! The translator of a domain.

use gasp::{Access, DeviceAddr, PageTables, Translation, TranslationFault, Translator};

use super::table::{Levels, Table};
use super::walk::walk;
use crate::root::AtomicRoot;

/// The host tables of an AMD-Vi domain, as its translator.
pub struct HostTables {
    root: AtomicRoot,
}

impl HostTables {
    /// The tables of a domain, in the memory of its guest.
    pub fn new(table: Table) -> Self {
        Self { root: AtomicRoot::new(table.root, packed(table)) }
    }

    /// Where walks begin.
    pub fn table(&self) -> Table {
        let (root, bits) = self.root.get();
        let access = Access::from_bits_truncate((bits >> 3) as u8);
        Table { root, levels: Levels((bits & 7) as u8), access }
    }

    /// Lets walks that begin from now on begin at another table. What was translated before stays
    /// valid until it is invalidated ([`Domain::invalidate_all`](gasp::Domain::invalidate_all)).
    pub fn set_table(&self, table: Table) {
        self.root.set(table.root, packed(table));
    }
}

/// The levels and the access of a table, in 6 bits.
fn packed(table: Table) -> u64 {
    u64::from(table.levels.0) | u64::from(table.access.bits()) << 3
}

impl Translator for HostTables {
    fn translate(
        &self,
        memory: &PageTables<'_>,
        addr: DeviceAddr,
        access: Access,
    ) -> Result<Translation, TranslationFault> {
        Ok(walk(memory, self.table(), addr, access)?)
    }
}
