//! What a burst holds, in every interleaving of two threads: the production code, with loom's
//! atomics and cells.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "of a module of the library")]
#[path = "../src/near.rs"]
mod near;

/// As `src/sync.rs`, of loom.
mod sync {
    use core::cell::Cell;
    use core::sync::atomic::AtomicU64;

    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};

    pub(crate) const PLACES: usize = 2;
    pub(crate) const SETS: usize = 2;

    pub(crate) fn this_thread() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loom::thread_local! {
            static NUMBER: Cell<u64> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        NUMBER.with(Cell::get)
    }
}

use std::sync::Arc;

use loom::thread;
use near::Near;
use sync::SETS;

/// In every interleaving another thread finds a value that is complete, or none; loom reports
/// a cell that is read and written at once.
#[test]
fn whoever_finds_a_value_comes_after_its_insertion() {
    loom::model(|| {
        let near = Arc::new(Near::<Box<u64>>::new());
        let keys = [0, SETS as u64 * 8];
        let reader = {
            let near = Arc::clone(&near);
            thread::spawn(move || {
                for key in keys {
                    assert!(near.find(key).is_none_or(|value| **value == key));
                }
                assert!(near.iter().all(|value| keys.contains(value)));
                assert!(near.insert(1, Box::new(1)).is_err());
            })
        };
        for key in keys {
            assert!(near.insert(key, Box::new(key)).is_ok());
        }
        assert!(keys.iter().all(|&key| near.find(key).is_some_and(|value| **value == key)));
        reader.join().unwrap();
    });
}

#[test]
fn a_table_that_another_thread_clears_and_uses_is_its_own() {
    loom::model(|| {
        let mut near = Near::<Box<u64>>::new();
        assert!(near.insert(0, Box::new(0)).is_ok());
        let other = thread::spawn(move || {
            near.clear();
            near.own();
            assert!(near.find(0).is_none() && near.insert(0, Box::new(7)).is_ok());
        });
        other.join().unwrap();
    });
}
