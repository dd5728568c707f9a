//! Unit tests of `context_cache`, apart from it because `tests/context_proof.rs` includes that.

use gasp::GuestPhys;
use gasp_page_tables::vtd::{Levels, Table};

use crate::context::Context;
use crate::context_cache::ContextCache;

fn context(domain: u16) -> Context {
    let table = Table { root: GuestPhys(0xf_ffff_ffff_f000), levels: Levels::Four };
    Context { domain, table: Some(table), is_silent: false }
}

fn entry(cache: &ContextCache, read: impl FnOnce() -> Context) -> Context {
    cache.entry(|| Ok::<_, ()>(read())).unwrap()
}

#[test]
fn an_entry_is_what_was_entered() {
    for levels in [Levels::Three, Levels::Four, Levels::Five] {
        for (domain, root) in [(0, 0), (0xffff, 0x1000), (0x8001, (1 << 52) - 4096)] {
            for is_silent in [false, true] {
                let table = Some(Table { root: GuestPhys(root), levels });
                for table in [table, None] {
                    let context = Context { domain, table, is_silent };
                    let cache = ContextCache::new();
                    entry(&cache, || context);
                    assert_eq!(entry(&cache, || unreachable!()), context);
                }
            }
        }
    }
}

#[test]
fn the_first_entry_holds_until_it_is_cleared() {
    let cache = ContextCache::new();
    assert_eq!(cache.domain(), None);
    assert_eq!(cache.entry(|| Err(7)), Err(7));
    assert_eq!(cache.domain(), None, "errors are not kept");
    // A walk that has read something else meanwhile goes on with what is there.
    let raced = entry(&cache, || {
        assert_eq!(entry(&cache, || context(1)), context(1));
        context(2)
    });
    assert_eq!((raced, cache.domain()), (context(1), Some(1)));
    assert_eq!(entry(&cache, || unreachable!()), context(1));
    cache.clear();
    assert_eq!(cache.domain(), None);
    assert_eq!(entry(&cache, || context(3)), context(3));
}

#[test]
fn what_was_read_before_a_clear_is_not_entered_after_it() {
    let cache = ContextCache::new();
    for _ in 0..3 {
        let read = entry(&cache, || {
            cache.clear();
            context(1)
        });
        assert_eq!((read, cache.domain()), (context(1), None));
    }
    // Nor if there is another one by then, which is newer.
    let read = entry(&cache, || {
        cache.clear();
        entry(&cache, || context(2));
        context(1)
    });
    assert_eq!((read, cache.domain()), (context(2), Some(2)));
}
