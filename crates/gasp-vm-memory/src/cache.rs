//! What a burst holds, and where to find what is used next.
#![allow(unsafe_code, reason = "values that are written once, and read without a lock")]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::OnceLock;

/// Keys that are told apart; a power of two.
const SETS: usize = 256;
/// How many values of one set are compared before one is not found.
const DEPTH: usize = 8;
/// Values that are kept without an allocation.
const INLINE: usize = 64;

/// A value, with its key.
struct Entry<T> {
    key: u64,
    /// What `recent` said of its set when it was inserted: the value before it.
    before: u32,
    value: T,
}

/// Values that stay where they are until all of them are dropped, with a key each.
///
/// What a burst has mapped stays until it ends, because slices of it may be in use. Any number
/// of threads read and insert at once. `recent` says which value was inserted last for a set of
/// keys, and each value which one was before it. A value that is not found, because `DEPTH` others
/// of its set came after it or two threads inserted at once, is inserted again, and is never wrong.
pub(crate) struct Kept<T> {
    /// For each set of keys, one more than the index of a value; 0 if there is none. A value is
    /// complete before its index is stored here.
    recent: [AtomicU32; SETS],
    /// How many indices have been given out.
    count: AtomicUsize,
    /// The values of the first indices. Each is written once, by whoever was given its index.
    inline: [UnsafeCell<MaybeUninit<Entry<T>>>; INLINE],
    /// The values of the others.
    more: OnceLock<Box<boxcar::Vec<Entry<T>>>>,
}

// SAFETY: a `Kept<T>` owns its values, like a `Vec<T>`, so it may be sent if they may.
unsafe impl<T: Send> Send for Kept<T> {}
// SAFETY: through `&Kept<T>` threads insert values, which others then drop or reach (`T: Send`),
// and share references to them (`T: Sync`). A cell is written once, by the only thread that
// was given its index, and read only after an acquire load of that index, which was stored
// with release after the write.
unsafe impl<T: Send + Sync> Sync for Kept<T> {}

impl<T> Kept<T> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            recent: [const { AtomicU32::new(0) }; SETS],
            count: AtomicUsize::new(0),
            inline: [const { UnsafeCell::new(MaybeUninit::uninit()) }; INLINE],
            more: OnceLock::new(),
        }
    }

    /// The number of values.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The value of a key that was inserted last, if it is among the recent ones.
    #[inline]
    pub(crate) fn find(&self, key: u64) -> Option<&T> {
        let mut next = self.recent_of(key).load(Ordering::Acquire);
        for _ in 0..DEPTH {
            let entry = self.entry(next)?;
            if entry.key == key {
                return Some(&entry.value);
            }
            next = entry.before;
        }
        None
    }

    /// The entry that `recent`, or the entry after it, names.
    #[inline]
    fn entry(&self, named: u32) -> Option<&Entry<T>> {
        let index = (named as usize).checked_sub(1)?;
        let Some(cell) = self.inline.get(index) else {
            return self.more.get()?.get(index - INLINE);
        };
        // SAFETY: the cell is `self`'s, and only read from now on: its index was found in
        // `recent`, so it was written before (release and acquire), or in an entry that was, and
        // whose writer had found it in `recent`; and an index is written once.
        let cell = unsafe { &*cell.get() };
        // SAFETY: initialised, because its index was stored after the cell was written, and this
        // thread has seen that index, or what another thread wrote after it had seen it.
        Some(unsafe { cell.assume_init_ref() })
    }

    /// Keeps a value.
    pub(crate) fn insert(&self, key: u64, value: T) -> &T {
        let recent = self.recent_of(key);
        // Acquire: who reads the new entry reads the one before it, too.
        let entry = Entry { key, before: recent.load(Ordering::Acquire), value };
        let index = self.count.fetch_add(1, Ordering::Relaxed);
        let (index, entry) = match self.inline.get(index) {
            Some(cell) => {
                // SAFETY: the cell is `self`'s, and nobody else has a reference to it:
                // `fetch_add` gives each index once (a count that wraps would need more values
                // than memory has room for), and nobody reads it before its index is in
                // `recent`.
                let cell = unsafe { &mut *cell.get() };
                (index, &*cell.write(entry))
            }
            None => {
                let more = self.more.get_or_init(Box::default);
                let place = more.push(entry);
                (INLINE + place, &more[place])
            }
        };
        recent.store(u32::try_from(index + 1).unwrap_or(0), Ordering::Release);
        &entry.value
    }

    /// What is known of the set of a key. Sets take the upper bits of a product, so that keys at
    /// any regular distance are spread over them.
    #[inline]
    fn recent_of(&self, key: u64) -> &AtomicU32 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let set = key.wrapping_mul(GOLDEN) >> (u64::BITS - SETS.trailing_zeros());
        &self.recent[set as usize % SETS]
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        let count = *self.count.get_mut();
        for cell in self.inline.iter_mut().take(count) {
            // SAFETY: an index that was given out was written by its `insert`, which has
            // returned, as nobody else has a reference to `self`; it is dropped once.
            unsafe { cell.get_mut().assume_init_drop() };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use super::*;

    const MANY: u64 = 3 * INLINE as u64;

    #[test]
    fn a_value_stays_where_it_is_and_is_found_by_its_key() {
        let kept = Kept::new();
        assert!(kept.find(0).is_none());
        let first: *const u64 = kept.insert(0, 100_u64);
        for key in 1..MANY {
            assert_eq!(*kept.insert(key, 100 + key), 100 + key);
        }
        assert_eq!(kept.count() as u64, MANY);
        for key in 0..MANY {
            assert_eq!(kept.find(key), Some(&(100 + key)));
        }
        assert!(core::ptr::eq(first, kept.find(0).unwrap()));
        assert!(kept.find(MANY).is_none());
    }

    #[test]
    fn keys_of_one_set_are_all_found_as_long_as_they_are_few() {
        let kept = Kept::new();
        let set = |key| core::ptr::from_ref(kept.recent_of(key));
        let same: Vec<u64> = (0..).filter(|&key| set(key) == set(0)).take(DEPTH + 1).collect();
        for &key in &same[..DEPTH] {
            kept.insert(key, key);
        }
        assert!(same[..DEPTH].iter().all(|&key| kept.find(key) == Some(&key)));
        kept.insert(same[DEPTH], same[DEPTH]);
        assert_eq!((kept.find(same[0]), kept.find(same[1])), (None, Some(&same[1])));
        kept.insert(same[0], 100);
        assert_eq!((kept.find(same[0]), kept.find(same[1])), (Some(&100), None));
    }

    #[test]
    fn the_value_that_was_inserted_last_is_the_one_of_its_key() {
        let kept = Kept::new();
        let first = kept.insert(1, "first");
        kept.insert(1, "again");
        assert_eq!((kept.find(1), *first), (Some(&"again"), "first"));
    }

    #[test]
    fn keys_at_any_regular_distance_are_spread_over_the_sets() {
        for shift in 0..32 {
            let kept = Kept::new();
            for key in 0..MANY {
                kept.insert(key << shift, key);
            }
            let lost = (0..MANY).filter(|key| kept.find(key << shift).is_none()).count();
            assert_eq!(lost, 0, "{shift}");
        }
    }

    #[test]
    fn each_value_is_dropped_once_and_only_with_all_of_them() {
        for count in [0, 1, INLINE as u64, MANY] {
            let value = Arc::new(());
            let kept = Kept::new();
            for key in 0..count {
                kept.insert(key % 5, Arc::clone(&value));
            }
            assert_eq!(Arc::strong_count(&value) as u64, count + 1);
            drop(kept);
            assert_eq!(Arc::strong_count(&value), 1);
        }
    }

    #[test]
    fn what_another_thread_has_inserted_is_complete() {
        for _ in 0..200 {
            let kept = Kept::new();
            std::thread::scope(|scope| {
                for thread in 0..2_u64 {
                    let kept = &kept;
                    scope.spawn(move || {
                        for key in 0..MANY {
                            if let Some(value) = kept.find(key) {
                                assert_eq!(*value, [key; 8]);
                            }
                            if key % 2 == thread {
                                kept.insert(key, [key; 8]);
                            }
                        }
                    });
                }
            });
            assert_eq!(kept.count() as u64, MANY);
        }
    }
}
