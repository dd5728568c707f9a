//! The translator of a domain.

use gasp::{Access, DeviceAddr, Guest, Translation, TranslationFault, Translator, WeakGuest};

use super::fault::Fault;
use super::table::{Levels, Table};
use super::walk::walk;
use crate::root::AtomicRoot;

/// The host tables of an AMD-Vi domain, as its translator. It does not keep the guest, which keeps
/// it: if the guest is gone, every table is inaccessible.
pub struct HostTables {
    guest: WeakGuest,
    root: AtomicRoot,
}

impl HostTables {
    /// The tables of a domain, in the memory of `guest`.
    pub fn new(guest: &Guest, table: Table) -> Self {
        Self { guest: guest.downgrade(), root: AtomicRoot::new(table.root, packed(table)) }
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
    fn translate(&self, addr: DeviceAddr, access: Access) -> Result<Translation, TranslationFault> {
        let guest = self.guest.upgrade().ok_or(Fault::TableInaccessible)?;
        Ok(walk(&guest, self.table(), addr, access)?)
    }
}
