//! Values that one thread inserts and any thread finds, without an allocation or a lock.
#![allow(unsafe_code, reason = "values that are written once, and read without a lock")]

use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// How many values there is room for.
pub(crate) const PLACES: usize = 64;
/// Keys that are told apart; a power of two.
const SETS: usize = 128;

/// A value, with its key.
struct Entry<T> {
    key: u64,
    /// What `recent` said of its set when it was inserted: the value before it.
    before: u8,
    value: T,
}

/// Up to [`PLACES`] values that stay where they are until all of them are dropped, with a key each.
///
/// `recent` says which value was inserted last for a set of keys, and each value which one was
/// before it. Only one thread inserts, so that an insertion needs no locked instruction.
///
/// It is large, and is used again: see [`Spare`](crate::cache::Spare).
pub(crate) struct Near<T> {
    /// For each set of keys, one more than the index of a value; 0 if there is none. A value is
    /// complete before its index is stored here.
    recent: [AtomicU8; SETS],
    /// How many cells are written. Only the owner changes it.
    count: AtomicU8,
    /// The thread that inserts.
    owner: u64,
    /// The first `count` are written, once each.
    cells: [UnsafeCell<MaybeUninit<Entry<T>>>; PLACES],
}

// SAFETY: a `Near<T>` owns its values, like a `Vec<T>`, so it may be sent if they may. On a thread
// other than the owner it is only read and dropped.
unsafe impl<T: Send> Send for Near<T> {}
// SAFETY: through `&Near<T>` the owner inserts values, which another thread may drop (`T: Send`),
// and threads share references to them (`T: Sync`). A cell is written once, by the owner, and read
// only after an acquire load of its index, which was stored with release after the write.
unsafe impl<T: Send + Sync> Sync for Near<T> {}

/// A number of this thread that no other thread of the process has had, or will have.
#[inline]
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    #[cold]
    fn new() -> u64 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(number);
        number
    }
    match NUMBER.get() {
        0 => new(),
        number => number,
    }
}

impl<T> Near<T> {
    /// None yet. Only this thread will insert.
    pub(crate) fn new() -> Self {
        Self {
            recent: [const { AtomicU8::new(0) }; SETS],
            count: AtomicU8::new(0),
            owner: this_thread(),
            cells: [const { UnsafeCell::new(MaybeUninit::uninit()) }; PLACES],
        }
    }

    /// Lets this thread insert, and no other.
    #[inline]
    pub(crate) fn own(&mut self) {
        self.owner = this_thread();
    }

    /// Drops all values.
    #[inline]
    pub(crate) fn clear(&mut self) {
        let count = usize::from(core::mem::take(self.count.get_mut()));
        for cell in self.cells.iter_mut().take(count) {
            // SAFETY: the first `count` cells are initialised, as `insert` increments it after the
            // write, and that has happened before this call, as nobody else has a reference to
            // `self`; each value is read out once, as `count` is 0 now.
            let entry = unsafe { cell.get_mut().assume_init_read() };
            *self.recent[set_of(entry.key)].get_mut() = 0;
        }
    }

    /// The number of values.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        usize::from(self.count.load(Ordering::Relaxed))
    }

    /// The value of a key that was inserted last.
    #[inline]
    pub(crate) fn find(&self, key: u64) -> Option<&T> {
        let mut named = self.recent[set_of(key)].load(Ordering::Acquire);
        // A value names one that was inserted before it, so this ends.
        loop {
            let cell = self.cells.get(usize::from(named).wrapping_sub(1))?;
            // SAFETY: the cell is `self`'s, and only read from now on: its index was found in
            // `recent`, so it was written before (release and acquire), or in an entry that was,
            // and whose writer, the owner, had written it before; and a cell is written once.
            let cell = unsafe { &*cell.get() };
            // SAFETY: initialised, for the same reason: its index is stored only after the write,
            // and this thread has acquired that store, or a later one of the same thread.
            let entry = unsafe { cell.assume_init_ref() };
            if entry.key == key {
                return Some(&entry.value);
            }
            named = entry.before;
        }
    }

    /// Keeps a value; returns it if there is no room, or another thread has created `self`.
    #[inline]
    pub(crate) fn insert(&self, key: u64, value: T) -> Result<&T, T> {
        if self.owner != this_thread() {
            return Err(value);
        }
        let index = self.count.load(Ordering::Relaxed);
        let Some(cell) = self.cells.get(usize::from(index)) else { return Err(value) };
        let recent = &self.recent[set_of(key)];
        let entry = Entry { key, before: recent.load(Ordering::Relaxed), value };
        // SAFETY: the cell is `self`'s, and nobody else has a reference to it: only this thread
        // inserts, as no other has its number; each cell is written once, as `count` only grows,
        // and is stored before anything else of this thread can run; and nobody reads it before
        // its index is in `recent`.
        let cell = unsafe { &mut *cell.get() };
        let entry = &*cell.write(entry);
        self.count.store(index + 1, Ordering::Relaxed);
        recent.store(index + 1, Ordering::Release);
        Ok(&entry.value)
    }
}

/// Sets take the upper bits of a product, so that keys at any regular distance are spread over
/// them.
#[inline]
fn set_of(key: u64) -> usize {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    (key.wrapping_mul(GOLDEN) >> (u64::BITS - SETS.trailing_zeros())) as usize % SETS
}

impl<T> Drop for Near<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use super::*;

    const ALL: u64 = PLACES as u64;

    #[test]
    fn a_value_stays_where_it_is_and_is_found_by_its_key() {
        let near = Near::new();
        assert!(near.find(0).is_none());
        let first: *const u64 = near.insert(0, 100_u64).unwrap();
        for key in 1..ALL {
            assert_eq!(near.insert(key, 100 + key), Ok(&(100 + key)));
        }
        assert_eq!(near.insert(ALL, 7), Err(7), "there is no room");
        assert_eq!(near.count(), PLACES);
        for key in 0..ALL {
            assert_eq!(near.find(key), Some(&(100 + key)));
        }
        assert!(core::ptr::eq(first, near.find(0).unwrap()));
        assert!(near.find(ALL).is_none());
    }

    #[test]
    fn all_keys_of_one_set_are_found() {
        let near = Near::new();
        let same: Vec<u64> = (0..).filter(|&key| set_of(key) == 0).take(PLACES).collect();
        same.iter().for_each(|&key| assert!(near.insert(key, key).is_ok()));
        assert!(same.iter().all(|&key| near.find(key) == Some(&key)));
    }

    #[test]
    fn the_value_that_was_inserted_last_is_the_one_of_its_key() {
        let near = Near::new();
        let first = near.insert(1, "first").unwrap();
        near.insert(1, "again").unwrap();
        assert_eq!((near.find(1), *first), (Some(&"again"), "first"));
    }

    #[test]
    fn keys_at_any_regular_distance_are_spread_over_the_sets() {
        for shift in 0..50 {
            let mut sets: Vec<usize> = (0..ALL).map(|key| set_of(key << shift)).collect();
            sets.sort_unstable();
            sets.dedup();
            assert!(sets.len() * 3 >= PLACES, "{shift}: {}", sets.len());
        }
    }

    #[test]
    fn each_value_is_dropped_once_and_only_with_all_of_them() {
        for count in [0, 1, PLACES] {
            let value = Arc::new(());
            let near = Near::new();
            for key in 0..count as u64 {
                near.insert(key % 5, Arc::clone(&value)).unwrap();
            }
            assert_eq!(Arc::strong_count(&value), count + 1);
            drop(near);
            assert_eq!(Arc::strong_count(&value), 1);
        }
    }

    #[test]
    fn after_it_is_cleared_there_is_room_again_and_nothing_is_found() {
        let value = Arc::new(());
        let mut near = Near::new();
        for _ in 0..3 {
            (0..ALL).for_each(|key| assert!(near.insert(key * 5, Arc::clone(&value)).is_ok()));
            near.clear();
            assert_eq!((Arc::strong_count(&value), near.count()), (1, 0));
            assert!((0..5 * ALL).all(|key| near.find(key).is_none()));
        }
    }

    #[test]
    fn only_its_own_thread_inserts_and_others_find_what_is_complete() {
        for _ in 0..if cfg!(miri) { 3 } else { 200 } {
            let near = Near::new();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        assert!(near.insert(0, [0; 8]).is_err());
                        for key in (0..ALL).rev() {
                            assert!(near.find(key).is_none_or(|value| *value == [key; 8]));
                        }
                    });
                }
                (0..ALL).for_each(|key| assert!(near.insert(key, [key; 8]).is_ok()));
            });
            assert_eq!(near.count(), PLACES);
        }
    }
}
