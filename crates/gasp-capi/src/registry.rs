//! Objects that C identifies by number: each kind in a list, with an index and a generation that
//! counts the uses of that index.
//!
//! What a number looks like is a matter of its kind's [`Names`]: that of a vdev is the address of
//! its page ([`arena`](crate::arena)), all others are [`Numbered`]. In either case the number of a
//! destroyed object, of an object of another kind, and a fabricated number are detected: what is
//! listed is compared with all of the number.
#![allow(unsafe_code, reason = "lends objects that are freed after a grace period")]

use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::collections::VecDeque;

use gasp::Errno;
use gasp::ffi::{Section, grace_period};
use parking_lot::{Mutex, MutexGuard};

pub(crate) const INDEX_BITS: u32 = 18;
const GENERATION_BITS: u32 = 30;
const KIND_SHIFT: u32 = INDEX_BITS + GENERATION_BITS;
/// The most objects of one kind at a time.
pub(crate) const OBJECTS_MAX: usize = 1 << INDEX_BITS;

/// The numbers of a kind of objects.
///
/// The numbers of any two different indexes, whatever their generations, have different places.
pub(crate) trait Names {
    /// Whether each index is used once before one is used again.
    const FRESH_FIRST: bool;

    /// The place in the list where an object of this number would be, below [`OBJECTS_MAX`].
    /// `None` for a number that is not of this kind. Does not have to notice all of them.
    fn place(number: usize) -> Option<usize>;

    /// How many indexes there are.
    fn indexes() -> Result<usize, Errno>;

    /// The number of an index below [`indexes`](Self::indexes).
    fn number(key: Key) -> usize;

    /// The generation that follows; `None` if the index is not used again.
    fn next_generation(generation: u32) -> Option<u32>;

    /// Prepares what belongs to a number, before an object has it.
    fn open(_number: usize) -> Result<(), Errno> {
        Ok(())
    }

    /// Releases what belongs to a number, after no object has it.
    fn close(_number: usize) {}
}

/// Numbers that are not addresses, beginning with `KIND`, which no other kind may use. A program
/// that dereferences one faults at once: it is not a canonical address.
///
/// ```text
/// 63      48 47        18 17       0
/// |  kind   | generation |  index  |
/// ```
pub(crate) struct Numbered<const KIND: u16>;

impl<const KIND: u16> Names for Numbered<KIND> {
    const FRESH_FIRST: bool = false;

    #[inline(always)]
    fn place(number: usize) -> Option<usize> {
        (number >> KIND_SHIFT == usize::from(KIND)).then_some(number & (OBJECTS_MAX - 1))
    }

    fn indexes() -> Result<usize, Errno> {
        Ok(OBJECTS_MAX)
    }

    fn number(Key { index, generation }: Key) -> usize {
        usize::from(KIND) << KIND_SHIFT | (generation as usize) << INDEX_BITS | index
    }

    fn next_generation(generation: u32) -> Option<u32> {
        Some(generation + 1).filter(|&next| next < 1 << GENERATION_BITS)
    }
}

/// A kind of [`Numbered`], named by two letters.
pub(crate) const fn kind(letters: [u8; 2]) -> u16 {
    u16::from_be_bytes(letters)
}

/// What a number is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) index: usize,
    pub(crate) generation: u32,
}

/// Why there is no number for a new object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lack {
    /// As many objects as this exist.
    Limit(usize),
    /// The host refuses what belongs to a number.
    Host(Errno),
}

/// All objects of one kind.
///
/// A new registry is all zeros, so that it takes no space in the library's file.
pub(crate) struct Registry<T: 'static, N> {
    /// A fixed array, so that a look-up is one load. Its pages are populated as they are used.
    entries: [AtomicPtr<Listed<T>>; OBJECTS_MAX],
    free: Mutex<Free>,
    names: PhantomData<fn() -> N>,
}

/// Indexes for new objects.
struct Free {
    /// Indexes to be used again, the longest unused first, each with its next generation.
    /// (An empty `VecDeque` is not all zeros; `None` is.)
    #[expect(clippy::box_collection, reason = "so that a new registry is all zeros")]
    again: Option<Box<VecDeque<Key>>>,
    /// The first index that has never been used.
    fresh: usize,
}

struct Listed<T> {
    number: usize,
    key: Key,
    object: T,
}

/// A number that is reserved for an object; dropping it releases the number.
pub(crate) struct Reserved<'list, T: 'static, N: Names> {
    registry: &'list Registry<T, N>,
    listed: &'list AtomicPtr<Listed<T>>,
    key: Key,
    number: usize,
}

impl<T, N: Names> Reserved<'_, T, N> {
    /// The number that the object will have.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Lists the object that `make` creates from its number; returns the number.
    pub(crate) fn fill(self, make: impl FnOnce(usize) -> T) -> usize {
        let Self { key, number, .. } = self;
        let entry = Box::new(Listed { number, key, object: make(number) });
        self.listed.store(Box::into_raw(entry), Ordering::Release);
        core::mem::forget(self);
        number
    }
}

impl<T, N: Names> Drop for Reserved<'_, T, N> {
    fn drop(&mut self) {
        N::close(self.number);
        // Nobody has seen the number, so the generation can be used again.
        self.registry.lock_free().put(self.key);
    }
}

impl<T: Send + Sync, N: Names> Registry<T, N> {
    /// An empty registry.
    pub(crate) const fn new() -> Self {
        Self {
            entries: [const { AtomicPtr::new(ptr::null_mut()) }; OBJECTS_MAX],
            free: Mutex::new(Free { again: None, fresh: 0 }),
            names: PhantomData,
        }
    }

    /// Lists the object that `make` creates from its number; returns the number.
    pub(crate) fn insert(&self, make: impl FnOnce(usize) -> T) -> Result<usize, Lack> {
        Ok(self.reserve()?.fill(make))
    }

    /// Reserves a number for an object that is yet to be created.
    pub(crate) fn reserve(&self) -> Result<Reserved<'_, T, N>, Lack> {
        let indexes = N::indexes().map_err(Lack::Host)?;
        let full = Lack::Limit(indexes);
        let key = self.lock_free().next(indexes, N::FRESH_FIRST).ok_or(full)?;
        let number = N::number(key);
        let listed = N::place(number).and_then(|place| self.entries.get(place)).ok_or(full)?;
        if let Err(errno) = N::open(number) {
            self.lock_free().put(key);
            return Err(Lack::Host(errno));
        }
        Ok(Reserved { registry: self, listed, key, number })
    }

    /// The object of this number, if it is listed, for as long as the section lasts.
    #[inline]
    pub(crate) fn find<'section>(
        &self,
        _section: &'section Section,
        number: usize,
    ) -> Option<&'section T> {
        // SAFETY: the section is borrowed for `'section`, so it does not end while the reference is
        // used.
        unsafe { self.find_unprotected(number) }
    }

    /// The object of this number, if it is listed.
    ///
    /// # Safety
    /// This is called in a section, or in a look-up of [`gasp::Vdev::map_page_of`], and the
    /// reference is not used after that has ended.
    #[inline(always)]
    pub(crate) unsafe fn find_unprotected<'section>(&self, number: usize) -> Option<&'section T> {
        let entry = self.entries.get(N::place(number)?)?.load(Ordering::Acquire);
        // SAFETY: the pointer is null, or one of `Box::into_raw` that `fill` has stored with
        // release, which the acquiring load has seen: aligned and initialized. `remove` frees an
        // entry only after it has taken it out of the list and a grace period has passed. The
        // section or look-up that this is called in began before that, as it found the entry, so
        // the grace period ends after it; and the reference is not used after it, as this function
        // asks. Until then nobody writes to the entry.
        let entry = unsafe { entry.as_ref() }?;
        (entry.number == number).then_some(&entry.object)
    }

    /// A clone of the object of this number, if it is listed.
    pub(crate) fn get(&self, number: usize) -> Option<T>
    where
        T: Clone,
    {
        self.find(&Section::enter(), number).cloned()
    }

    /// Removes an object, and waits until no section or look-up that could have found it is in
    /// progress. Of several threads that remove one, one succeeds. Must not be called in a section.
    pub(crate) fn remove(&self, number: usize) -> Option<T> {
        let section = Section::enter();
        self.find(&section, number)?;
        let listed = self.entries.get(N::place(number)?)?;
        let entry = listed.load(Ordering::Acquire);
        // SAFETY: the pointer is null, or one of `Box::into_raw` that `fill` has stored with
        // release, which the acquiring load has seen. It was loaded inside `section`, which is
        // dropped below, after the last use of the reference; another thread's `remove` frees the
        // entry only after a grace period that ends after `section`.
        let is_it = unsafe { entry.as_ref() }.is_some_and(|entry| entry.number == number);
        // An entry that was listed is not freed, and its address not reused, while this section
        // lasts, so the exchange takes out the entry that was examined.
        let null = ptr::null_mut();
        let taken = is_it
            && listed.compare_exchange(entry, null, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        drop(section);
        if !taken {
            return None;
        }
        grace_period();
        // SAFETY: `entry` is not null, as `is_it` says, and so comes from `Box::into_raw` in
        // `fill`. It is turned back once: the exchange took it out of the list, in which one of
        // several threads succeeds. And nobody has a reference to it: sections and look-ups that
        // could have found it ended in the grace period, and this thread is in none, as this
        // function asks.
        let entry = unsafe { Box::from_raw(entry) };
        N::close(number);
        let Listed { key: Key { index, generation }, object, .. } = *entry;
        if let Some(generation) = N::next_generation(generation) {
            self.lock_free().put(Key { index, generation });
        }
        Some(object)
    }
}

impl<T, N> Registry<T, N> {
    fn lock_free(&self) -> MutexGuard<'_, Free> {
        self.free.lock()
    }
}

impl Free {
    fn put(&mut self, key: Key) {
        self.again.get_or_insert_default().push_back(key);
    }

    fn next(&mut self, indexes: usize, fresh_first: bool) -> Option<Key> {
        if fresh_first {
            return self.fresh(indexes).or_else(|| self.again());
        }
        self.again().or_else(|| self.fresh(indexes))
    }

    fn again(&mut self) -> Option<Key> {
        self.again.as_mut()?.pop_front()
    }

    fn fresh(&mut self, indexes: usize) -> Option<Key> {
        let index = self.fresh;
        self.fresh = index.checked_add(1).filter(|&next| next <= indexes)?;
        Some(Key { index, generation: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_number_is_valid_for_one_object_only() {
        static LIST: Registry<u32, Numbered<{ kind(*b"t1") }>> = Registry::new();
        let first = LIST.insert(|_| 1).unwrap();
        assert_eq!(LIST.get(first), Some(1));
        assert_eq!(LIST.remove(first), Some(1));
        assert_eq!((LIST.get(first), LIST.remove(first)), (None, None));
        let second = LIST.insert(|_| 2).unwrap();
        assert_ne!(first, second, "the index is the same, the generation is not");
        assert_eq!(first & (OBJECTS_MAX - 1), second & (OBJECTS_MAX - 1));
        assert_eq!((LIST.get(first), LIST.get(second)), (None, Some(2)));
    }

    #[test]
    fn numbers_that_never_were_one_are_refused() {
        static LIST: Registry<u32, Numbered<{ kind(*b"t2") }>> = Registry::new();
        static OTHER: Registry<u32, Numbered<{ kind(*b"t3") }>> = Registry::new();
        let number = LIST.insert(|_| 1).unwrap();
        assert_eq!(OTHER.insert(|_| 2).map(|other| LIST.get(other)), Ok(None));
        for wrong in [0, 1, usize::MAX, number + 1, number ^ 1 << 63, number + (1 << INDEX_BITS)] {
            assert_eq!(LIST.get(wrong), None, "{wrong:#x}");
            assert_eq!(LIST.remove(wrong), None, "{wrong:#x}");
        }
        assert_eq!(LIST.get(number), Some(1));
    }

    #[test]
    fn an_index_is_reserved_until_it_is_filled_or_released() {
        static LIST: Registry<u32, Numbered<{ kind(*b"t5") }>> = Registry::new();
        let mut kept: Vec<_> = core::iter::from_fn(|| LIST.reserve().ok()).collect();
        assert_eq!(kept.len(), OBJECTS_MAX);
        assert_eq!(LIST.insert(|_| 1), Err(Lack::Limit(OBJECTS_MAX)));
        let number = kept.pop().unwrap().fill(|_| 2);
        assert_eq!(LIST.get(number), Some(2));
        assert!(LIST.insert(|_| 3).is_err());
        drop(kept.pop());
        let other = LIST.insert(|_| 4).unwrap();
        assert_eq!((LIST.get(number), LIST.get(other)), (Some(2), Some(4)));
        assert!(LIST.insert(|_| 5).is_err());
    }

    #[test]
    fn objects_are_freed_while_others_use_them() {
        use std::sync::atomic::{AtomicU64, AtomicUsize};
        static LIST: Registry<Arc<AtomicU64>, Numbered<{ kind(*b"t4") }>> = Registry::new();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let user = || {
            while NUMBER.load(Ordering::Acquire) != usize::MAX {
                let section = Section::enter();
                if let Some(object) = LIST.find(&section, NUMBER.load(Ordering::Acquire)) {
                    // Long enough that it is removed meanwhile.
                    assert!((0..1000).all(|_| object.load(Ordering::Relaxed) == 7), "in use");
                }
            }
        };
        let users = [std::thread::spawn(user), std::thread::spawn(user)];
        // Not freed before the end, so that a user that is too late reads a 0.
        let objects: Vec<_> = (0..2000).map(|_| Arc::new(AtomicU64::new(7))).collect();
        for object in &objects {
            let number = LIST.insert(|_| Arc::clone(object)).unwrap();
            NUMBER.store(number, Ordering::Release);
            (0..100).for_each(|_| std::hint::spin_loop());
            LIST.remove(number).unwrap().store(0, Ordering::Relaxed);
        }
        NUMBER.store(usize::MAX, Ordering::Release);
        users.into_iter().for_each(|user| user.join().unwrap());
    }
}
