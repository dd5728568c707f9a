//! The translator of a domain.

use gasp::{Access, DeviceAddr, Guest, Translation, TranslationFault, Translator, WeakGuest};

use super::capabilities::Capabilities;
use super::fault::Fault;
use super::levels::{Levels, Table};
use super::walk::walk;
use crate::root::AtomicRoot;

/// The second-level tables of a VT-d domain, as its translator.
///
/// It does not keep the guest, which keeps it: if the guest is gone, every table is inaccessible.
pub struct SecondLevel {
    guest: WeakGuest,
    capabilities: Capabilities,
    root: AtomicRoot,
}

impl SecondLevel {
    /// The tables of a domain, in the memory of `guest`.
    pub fn new(guest: &Guest, capabilities: Capabilities, table: Table) -> Self {
        let root = AtomicRoot::new(table.root, table.levels as u64);
        Self { guest: guest.downgrade(), capabilities, root }
    }

    /// Where walks begin.
    pub fn table(&self) -> Table {
        let (root, levels) = self.root.get();
        let levels = match levels {
            3 => Levels::Three,
            4 => Levels::Four,
            _ => Levels::Five,
        };
        Table { root, levels }
    }

    /// Lets walks that begin from now on begin at another table. What was translated before stays
    /// valid until it is invalidated ([`Domain::invalidate_all`](gasp::Domain::invalidate_all)).
    pub fn set_table(&self, table: Table) {
        self.root.set(table.root, table.levels as u64);
    }
}

impl Translator for SecondLevel {
    fn translate(&self, addr: DeviceAddr, access: Access) -> Result<Translation, TranslationFault> {
        let guest = self.guest.upgrade().ok_or(Fault::TableInaccessible)?;
        Ok(walk(&guest, &self.capabilities, self.table(), addr, access)?)
    }
}
