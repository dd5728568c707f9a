//! The page tables of a domain that asks: what the model grants, and nothing is told.

use std::ops::Range;
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
pub(crate) struct Tables {
    grants: Mutex<Vec<Granted>>,
    /// The large pages that have been answered since they were last invalidated.
    answered: Mutex<Vec<Range<usize>>>,
}

impl Tables {
    /// The domain of this index, and its tables if it asks. Only those kinds ask that are told
    /// grants otherwise.
    pub(crate) fn domain(guest: &Guest, index: usize, asks: bool) -> (Domain, Option<Arc<Tables>>) {
        let told = matches!(KINDS[index], DomainKind::Identity | DomainKind::Translate);
        let tables = (asks && told).then(|| Arc::new(Self::new()));
        let options = match &tables {
            Some(tables) => DomainOptions::ask(Arc::clone(tables) as _),
            None => DomainOptions::new(KINDS[index]),
        };
        (guest.domain(&format!("d{index}"), options).unwrap(), tables)
    }

    fn new() -> Self {
        Self { grants: Mutex::new(vec![None; PAGES]), answered: Mutex::default() }
    }

    pub(crate) fn set(&self, grants: &[Granted]) {
        self.grants.lock().copy_from_slice(grants);
    }

    /// The pages, with the large pages of which they are a part, which are invalidated with them.
    pub(crate) fn invalidated(&self, mut pages: Range<usize>) -> Range<usize> {
        let mut answered = self.answered.lock();
        let is_part = |page: &Range<usize>, pages: &Range<usize>| {
            page.start < pages.end && pages.start < page.end
        };
        // They nest, or are apart.
        for page in &*answered {
            if is_part(page, &pages) {
                pages = pages.start.min(page.start)..pages.end.max(page.end);
            }
        }
        answered.retain(|page| !is_part(page, &pages));
        pages
    }

    /// The largest page around one, of the sizes that are tried.
    fn page(&self, at: usize) -> Option<(Range<usize>, usize, Access)> {
        let grants = self.grants.lock();
        [PAGES, 512, 16, 1].into_iter().find_map(|count| {
            let first = at / count * count;
            let (to, access) = grants.get(first).copied().flatten()?;
            let block = grants.get(first..first + count)?;
            let goes_on = (to..).zip(block).all(|(to, grant)| *grant == Some((to, access)));
            goes_on.then_some((first..first + count, to, access))
        })
    }
}

impl Translator for Tables {
    fn translate(
        &self,
        _: &PageTables<'_>,
        addr: DeviceAddr,
        _: Access,
    ) -> Result<Translation, TranslationFault> {
        match self.page((addr.0 / PAGE) as usize) {
            Some((page, to, access)) => {
                let size = page.len() as u64 * PAGE;
                if page.len() > 1 {
                    self.answered.lock().push(page);
                }
                Ok(Translation { size, guest: GuestPhys(to as u64 * PAGE), access })
            }
            None => Err(TranslationFault { reason: ABSENT, keep: false }),
        }
    }
}
