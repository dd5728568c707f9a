//! The page tables of a domain that asks: what the model grants, and nothing is told.

use std::sync::Arc;

use gasp::{
    Access, DeviceAddr, Domain, DomainKind, DomainOptions, Guest, GuestPhys, PageTables,
    Translation, TranslationFault, Translator,
};
use parking_lot::Mutex;

use crate::naive::{Granted, KINDS};
use crate::steps::PAGES;
use crate::support::PAGE;

/// The reason with which the tables refuse an address that they do not have.
pub(crate) const ABSENT: u32 = 6;

/// The grants of one domain, page by page.
pub(crate) struct Tables(Mutex<Vec<Granted>>);

impl Tables {
    /// The domain of this index, and its tables if it asks. Only those kinds ask that are told
    /// grants otherwise.
    pub(crate) fn domain(guest: &Guest, index: usize, asks: bool) -> (Domain, Option<Arc<Tables>>) {
        let told = matches!(KINDS[index], DomainKind::Identity | DomainKind::Translate);
        let tables = (asks && told).then(|| Arc::new(Self(Mutex::new(vec![None; PAGES]))));
        let options = match &tables {
            Some(tables) => DomainOptions::ask(Arc::clone(tables) as _),
            None => DomainOptions::new(KINDS[index]),
        };
        (guest.domain(&format!("d{index}"), options).unwrap(), tables)
    }

    pub(crate) fn set(&self, grants: &[Granted]) {
        self.0.lock().copy_from_slice(grants);
    }
}

impl Translator for Tables {
    fn translate(
        &self,
        _: &PageTables<'_>,
        addr: DeviceAddr,
        _: Access,
    ) -> Result<Translation, TranslationFault> {
        let page = (addr.0 / PAGE) as usize;
        match self.0.lock().get(page).copied().flatten() {
            Some((to, access)) => {
                Ok(Translation { size: PAGE, guest: GuestPhys(to as u64 * PAGE), access })
            }
            None => Err(TranslationFault { reason: ABSENT, keep: false }),
        }
    }
}
