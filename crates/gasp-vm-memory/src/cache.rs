//! What a burst holds, and where to find what is used next.
#![allow(unsafe_code, reason = "gives the table of a burst back when that is dropped")]

use core::cell::Cell;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

use gasp::Mapping;

use crate::near::Near;

/// Keys that are told apart; a power of two.
const SETS: usize = 256;
/// How many values of one set are compared before one is not found.
const DEPTH: usize = 8;

/// Values that stay where they are until all of them are dropped, with a key each.
///
/// What a burst has mapped stays until it ends, because slices of it may be in use. Any number
/// of threads read and insert at once. The first values of the thread that has created it take no
/// allocation.
pub(crate) struct Kept<T: Spare> {
    near: ManuallyDrop<Box<Near<T>>>,
    far: OnceLock<Box<Far<T>>>,
}

/// Values whose tables are used again.
pub(crate) trait Spare: Sized {
    /// A table that [`put`](Self::put) was called with on this thread.
    fn take() -> Option<Box<Near<Self>>> {
        None
    }

    /// Keeps an empty table for later.
    fn put(empty: Box<Near<Self>>) {
        drop(empty);
    }
}

thread_local! {
    /// The table of the burst that this thread has ended last.
    static SPARE: Cell<Option<Box<Near<Mapping>>>> = const { Cell::new(None) };
}

impl Spare for Mapping {
    #[inline]
    fn take() -> Option<Box<Near<Self>>> {
        SPARE.try_with(Cell::take).ok().flatten()
    }

    #[inline]
    fn put(empty: Box<Near<Self>>) {
        // A thread that is ending has no use for it.
        let _ = SPARE.try_with(|spare| spare.set(Some(empty)));
    }
}

/// The values for which [`Near`] has no room, or which another thread has inserted.
///
/// As there, `recent` says which value was inserted last for a set of keys, and each value which
/// one was before it. A value that is not found, because `DEPTH` others of its set came after it or
/// two threads inserted at once, is inserted again, and is never wrong.
struct Far<T> {
    /// For each set of keys, one more than the index of a value; 0 if there is none.
    recent: [AtomicU32; SETS],
    values: boxcar::Vec<Entry<T>>,
}

/// A value, with its key.
struct Entry<T> {
    key: u64,
    before: u32,
    value: T,
}

impl<T: Spare> Kept<T> {
    #[inline]
    pub(crate) fn new() -> Self {
        let near = match T::take() {
            Some(mut near) => {
                near.own();
                near
            }
            None => Self::new_near(),
        };
        Self { near: ManuallyDrop::new(near), far: OnceLock::new() }
    }

    #[cold]
    fn new_near() -> Box<Near<T>> {
        Box::new(Near::new())
    }

    /// The number of values.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.near.count() + self.far.get().map_or(0, |far| far.values.count())
    }

    /// All values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let far = self.far.get().into_iter().flat_map(|far| far.values.iter());
        self.near.iter().chain(far.map(|(_, entry)| &entry.value))
    }

    /// The value of a key that was inserted last, if it is among the first ones.
    #[inline]
    pub(crate) fn find_near(&self, key: u64) -> Option<&T> {
        self.near.find(key)
    }

    /// The value of a key that was inserted last, if it is among the later ones.
    #[inline]
    pub(crate) fn find_far(&self, key: u64) -> Option<&T> {
        self.far.get()?.find(key)
    }

    /// Keeps a value.
    #[inline]
    pub(crate) fn insert(&self, key: u64, value: T) -> &T {
        match self.near.insert(key, value) {
            Ok(kept) => kept,
            Err(value) => self.far.get_or_init(Far::new).insert(key, value),
        }
    }
}

impl<T: Spare> Drop for Kept<T> {
    #[inline]
    fn drop(&mut self) {
        self.near.clear();
        // SAFETY: `take` asks that `near` is not used again: this is the only place that takes
        // it, `self` is being dropped, and a `ManuallyDrop` field is not dropped after that.
        T::put(unsafe { ManuallyDrop::take(&mut self.near) });
    }
}

impl<T> Far<T> {
    #[cold]
    fn new() -> Box<Self> {
        Box::new(Self { recent: [const { AtomicU32::new(0) }; SETS], values: boxcar::Vec::new() })
    }

    fn find(&self, key: u64) -> Option<&T> {
        let mut named = self.recent_of(key).load(Ordering::Acquire);
        for _ in 0..DEPTH {
            let entry = self.values.get((named as usize).checked_sub(1)?)?;
            if entry.key == key {
                return Some(&entry.value);
            }
            named = entry.before;
        }
        None
    }

    #[cold]
    #[inline(never)]
    fn insert(&self, key: u64, value: T) -> &T {
        let recent = self.recent_of(key);
        let before = recent.load(Ordering::Acquire);
        let index = self.values.push(Entry { key, before, value });
        recent.store(u32::try_from(index + 1).unwrap_or(0), Ordering::Release);
        &self.values[index].value
    }

    /// What is known of the set of a key. Sets take the upper bits of a product, so that keys at
    /// any regular distance are spread over them.
    fn recent_of(&self, key: u64) -> &AtomicU32 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let set = key.wrapping_mul(GOLDEN) >> (u64::BITS - SETS.trailing_zeros());
        &self.recent[set as usize % SETS]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::sync::PLACES;

    const MANY: u64 = 3 * PLACES as u64;

    impl Spare for u64 {}
    impl Spare for [u64; 8] {}

    fn find<T: Spare>(kept: &Kept<T>, key: u64) -> Option<&T> {
        kept.find_far(key).or_else(|| kept.find_near(key))
    }

    #[test]
    fn there_is_room_for_any_number_of_values() {
        let kept = Kept::new();
        for key in 0..MANY {
            assert_eq!(*kept.insert(key, 100 + key), 100 + key);
        }
        assert_eq!(kept.count() as u64, MANY);
        for key in 0..MANY {
            assert_eq!(find(&kept, key), Some(&(100 + key)));
        }
        assert!(kept.find_near(0).is_some() && kept.find_far(MANY - 1).is_some());
        assert!(find(&kept, MANY).is_none());
    }

    #[test]
    fn later_keys_of_one_set_are_all_found_as_long_as_they_are_few() {
        let far = Far::new();
        let set = |key| core::ptr::from_ref(far.recent_of(key));
        let same: Vec<u64> = (0..).filter(|&key| set(key) == set(0)).take(DEPTH + 1).collect();
        for &key in &same[..DEPTH] {
            far.insert(key, key);
        }
        assert!(same[..DEPTH].iter().all(|&key| far.find(key) == Some(&key)));
        far.insert(same[DEPTH], same[DEPTH]);
        assert_eq!((far.find(same[0]), far.find(same[1])), (None, Some(&same[1])));
        far.insert(same[0], 100);
        assert_eq!((far.find(same[0]), far.find(same[1])), (Some(&100), None));
    }

    #[test]
    fn later_keys_at_any_regular_distance_are_spread_over_the_sets() {
        for shift in 0..32 {
            let far = Far::new();
            for key in 0..MANY {
                far.insert(key << shift, key);
            }
            let lost = (0..MANY).filter(|key| far.find(key << shift).is_none()).count();
            assert_eq!(lost, 0, "{shift}");
        }
    }

    #[test]
    fn what_another_thread_has_inserted_is_complete() {
        for _ in 0..if cfg!(miri) { 3 } else { 200 } {
            let kept = Kept::new();
            let work = |thread: u64| {
                for key in 0..MANY {
                    assert!(find(&kept, key).is_none_or(|value| *value == [key; 8]));
                    if key % 2 == thread {
                        kept.insert(key, [key; 8]);
                    }
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(|| work(1));
                work(0);
            });
            assert_eq!(kept.count() as u64, MANY);
        }
    }
}
