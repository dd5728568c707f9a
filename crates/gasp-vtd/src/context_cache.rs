//! The context entry of a requester, as it was when its translations were read.

use gasp::GuestPhys;
use gasp_page_tables::vtd::{Levels, Table};

use crate::context::Context;
use crate::sync::{AtomicU64, Ordering, fence};

/// A valid context entry, from the first miss until the context cache is invalidated. All
/// translations of the requester have been read with it, so they belong to its domain id.
///
/// | a walk | an invalidation |
/// |---|---|
/// | look here: there is none, of generation *n* | the guest has changed its tables |
/// | read root and context entry | of the context cache: from now on there is none, of generation *n* + 1; make void what is on its way |
/// | enter it, if there is still none of generation *n* | of translations: look which domain id is here |
/// | read the page tables | |
///
/// A context entry of before an invalidation is not entered after it. And with a fence between the last
/// two steps of a walk, and one before an invalidation looks here, either the invalidation finds the
/// domain id, or the walk finds the tables as they are by then.
#[derive(Debug)]
pub(crate) struct ContextCache {
    /// An entry, with [`VALID`]; or the generation, shifted by one.
    word: AtomicU64,
    generation: AtomicU64,
}

const VALID: u64 = 1 << 0;
const PASSES: u64 = 1 << 1;
const SILENT: u64 = 1 << 2;
/// The number of levels, the domain id and the address of the table begin at these bits.
const LEVELS: u32 = 3;
const DOMAIN: u32 = 8;
const ADDRESS: u32 = 24;

impl ContextCache {
    /// Without an entry.
    pub(crate) fn new() -> Self {
        Self { word: AtomicU64::new(0), generation: AtomicU64::new(0) }
    }

    /// The entry that is here, or else what `read` returns, which is entered.
    #[inline]
    pub(crate) fn entry<E>(&self, read: impl FnOnce() -> Result<Context, E>) -> Result<Context, E> {
        let word = self.word.load(Ordering::Acquire);
        match unpack(word) {
            Some(context) => Ok(context),
            None => self.enter(word, read()?),
        }
    }

    #[cold]
    fn enter<E>(&self, none: u64, context: Context) -> Result<Context, E> {
        let entered =
            self.word.compare_exchange(none, pack(context), Ordering::SeqCst, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // Another walk has read it before. Or there was an invalidation, which has made void what
        // comes of this one.
        Ok(entered.map_or_else(|other| unpack(other).unwrap_or(context), |_| context))
    }

    /// Orders what comes after it after the guest's changes: to be called before
    /// [`domain`](Self::domain).
    pub(crate) fn look() {
        fence(Ordering::SeqCst);
    }

    /// The domain id of the requester's translations; `None` if it has none.
    pub(crate) fn domain(&self) -> Option<u16> {
        unpack(self.word.load(Ordering::SeqCst)).map(|context| context.domain)
    }

    /// Removes the entry. All translations of the requester are to be invalidated next.
    pub(crate) fn clear(&self) {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        self.word.swap(generation << 1, Ordering::SeqCst);
    }
}

fn pack(context: Context) -> u64 {
    let Context { domain, table, is_silent } = context;
    let bit = |is_set, bit| if is_set { bit } else { 0 };
    let (root, levels) = table.map_or((0, 0), |table| (table.root.0 >> 12, table.levels as u64));
    VALID
        | bit(table.is_none(), PASSES)
        | bit(is_silent, SILENT)
        | levels << LEVELS
        | u64::from(domain) << DOMAIN
        | root << ADDRESS
}

fn unpack(word: u64) -> Option<Context> {
    let has = |bit| word & bit != 0;
    if !has(VALID) {
        return None;
    }
    let levels = match word >> LEVELS & 7 {
        3 => Levels::Three,
        4 => Levels::Four,
        _ => Levels::Five,
    };
    let table = Table { root: GuestPhys(word >> ADDRESS << 12), levels };
    let domain = (word >> DOMAIN) as u16;
    Some(Context { domain, table: (!has(PASSES)).then_some(table), is_silent: has(SILENT) })
}
