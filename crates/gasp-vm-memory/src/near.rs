//! Values that one thread inserts and any thread finds, without an allocation or a lock.
#![allow(unsafe_code, reason = "values that are written once, and read without a lock")]

use core::mem::MaybeUninit;

use crate::sync::{AtomicU8, Ordering, PLACES, SETS, UnsafeCell, this_thread};

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

impl<T> Near<T> {
    /// None yet. Only this thread will insert.
    pub(crate) fn new() -> Self {
        Self {
            recent: core::array::from_fn(|_| AtomicU8::new(0)),
            count: AtomicU8::new(0),
            owner: this_thread(),
            cells: core::array::from_fn(|_| UnsafeCell::new(MaybeUninit::uninit())),
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
        let count = self.count();
        self.count.store(0, Ordering::Relaxed);
        for cell in self.cells.iter().take(count) {
            // SAFETY: the cell is `self`'s, to which nobody else has a reference.
            let cell = cell.with(|pointer| unsafe { &*pointer });
            // SAFETY: `assume_init_read` asks that the cell is initialised: the first `count` are,
            // as `insert` increments it after the write, and that has happened before this call,
            // as nobody else has a reference to `self`; and that the value is not used twice: it
            // is read out once, as `count` is 0 now.
            let entry = unsafe { cell.assume_init_read() };
            self.recent[set_of(entry.key)].store(0, Ordering::Relaxed);
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
            let cell = cell.with(|pointer| unsafe { &*pointer });
            // SAFETY: initialised, for the same reason: its index is stored only after the write,
            // and this thread has acquired that store, or a later one of the same thread.
            let entry = unsafe { cell.assume_init_ref() };
            if entry.key == key {
                return Some(&entry.value);
            }
            named = entry.before;
        }
    }

    /// All values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        // The cells that `count` says are written have been, as this acquires its store.
        let count = usize::from(self.count.load(Ordering::Acquire));
        self.cells.iter().take(count).map(|cell| {
            // SAFETY: the cell is `self`'s, and only read from now on: it is one of the first
            // `count`, which were written before (release and acquire), once.
            let cell = cell.with(|pointer| unsafe { &*pointer });
            // SAFETY: initialised, for the same reason.
            &unsafe { cell.assume_init_ref() }.value
        })
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
        let entry = &*cell.with_mut(|pointer| unsafe { &mut *pointer }.write(entry));
        self.count.store(index + 1, Ordering::Release);
        recent.store(index + 1, Ordering::Release);
        Ok(&entry.value)
    }
}

/// Sets take the upper bits of a product, so that keys at any regular distance are spread over
/// them.
#[inline]
pub(crate) fn set_of(key: u64) -> usize {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    (key.wrapping_mul(GOLDEN) >> (u64::BITS - SETS.trailing_zeros())) as usize % SETS
}

impl<T> Drop for Near<T> {
    fn drop(&mut self) {
        self.clear();
    }
}
