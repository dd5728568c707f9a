//! The translator of a domain.

use gasp::{
    Access, DeviceAddr, Following, PageTables, Span, Translation, TranslationFault, Translator,
};

use super::capabilities::Capabilities;
use super::levels::{Levels, Table};
use super::walk::{walk, walk_run};
use crate::root::AtomicRoot;

/// The second-level tables of a VT-d domain, as its translator.
pub struct SecondLevel {
    capabilities: Capabilities,
    root: AtomicRoot,
}

impl SecondLevel {
    /// The tables of a domain, in the memory of its guest.
    pub fn new(capabilities: Capabilities, table: Table) -> Self {
        let root = AtomicRoot::new(table.root, table.levels as u64);
        Self { capabilities, root }
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
    fn translate(
        &self,
        memory: &PageTables<'_>,
        addr: DeviceAddr,
        access: Access,
    ) -> Result<Translation, TranslationFault> {
        Ok(walk(memory, &self.capabilities, self.table(), addr, access)?)
    }

    fn translate_run(
        &self,
        memory: &PageTables<'_>,
        run: Span<DeviceAddr>,
        access: Access,
        following: &mut Following,
    ) -> Result<Translation, TranslationFault> {
        Ok(walk_run(memory, &self.capabilities, self.table(), run, access, following)?)
    }
}
