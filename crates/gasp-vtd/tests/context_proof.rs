//! The context entry that a requester keeps, in every interleaving of walks and invalidations: the
//! production code, with loom's atomics.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "of a module of the library")]
#[path = "../src/context_cache.rs"]
mod context_cache;

/// As `src/context.rs`.
mod context {
    use gasp_page_tables::vtd::Table;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Context {
        pub(crate) domain: u16,
        pub(crate) table: Option<Table>,
        pub(crate) is_silent: bool,
    }
}

/// As `src/sync.rs`, of loom.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

use std::sync::Arc;

use context::Context;
use context_cache::ContextCache;
use loom::thread;
use sync::{AtomicU64, Ordering};

/// A requester, and the guest's memory: a context entry, which is a domain id, and a page entry.
struct Scene {
    cache: ContextCache,
    context: AtomicU64,
    page: AtomicU64,
}

impl Scene {
    fn new() -> Arc<Self> {
        let (context, page) = (AtomicU64::new(1), AtomicU64::new(1));
        Arc::new(Self { cache: ContextCache::new(), context, page })
    }

    /// A walk: the domain id, and the page entry.
    fn walk(&self) -> (u16, u64) {
        let read = || {
            let domain = self.context.load(Ordering::Acquire) as u16;
            Ok::<_, ()>(Context { domain, table: None, is_silent: false })
        };
        (self.cache.entry(read).unwrap().domain, self.page.load(Ordering::Acquire))
    }
}

fn walks(scene: &Arc<Scene>) -> thread::JoinHandle<(u16, u64)> {
    let scene = Arc::clone(scene);
    thread::spawn(move || scene.walk())
}

#[test]
fn an_invalidation_finds_the_domain_id_or_the_walk_finds_the_change() {
    loom::model(|| {
        let scene = Scene::new();
        let walk = walks(&scene);
        scene.page.store(2, Ordering::Relaxed);
        ContextCache::look();
        let is_found = scene.cache.domain() == Some(1);
        let (_, page) = walk.join().unwrap();
        assert!(is_found || page == 2);
    });
}

#[test]
fn after_an_invalidation_no_earlier_entry_is_kept() {
    loom::model(|| {
        let scene = Scene::new();
        let before = walks(&scene);
        scene.context.store(2, Ordering::Release);
        scene.cache.clear();
        assert_eq!(scene.walk().0, 2);
        before.join().unwrap();
        assert_eq!(scene.cache.domain(), Some(2));
    });
}

#[test]
fn walks_go_on_with_the_same_entry_if_there_is_no_invalidation() {
    loom::model(|| {
        let scene = Scene::new();
        let other = walks(&scene);
        scene.context.store(2, Ordering::Release);
        let (domain, _) = scene.walk();
        assert_eq!(other.join().unwrap().0, domain);
        assert_eq!(scene.cache.domain(), Some(domain));
    });
}
