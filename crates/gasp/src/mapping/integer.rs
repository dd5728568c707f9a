//! Atomic accesses to integers in guest memory.
#![allow(unsafe_code, reason = "atomic accesses through a pointer that its slot keeps valid")]

use core::sync::atomic::{AtomicU8, Ordering};

use sealed::Atomic as _;

use super::handle::Mapping;
use crate::access::Access;
use crate::error::{Errno, Reason, Result};
use crate::memory::access::reach;

impl Mapping {
    /// Reads one integer, atomically, in the host's byte order.
    ///
    /// # Errors
    /// `EINVAL` where it passes the end or is not aligned; `EACCES` where the mapping was
    /// not made for reading; `EIO` as for [`read_at`](Self::read_at).
    ///
    /// # Panics
    /// Where `order` is not an order for loads, as [`AtomicU64::load`] does.
    ///
    /// [`AtomicU64::load`]: core::sync::atomic::AtomicU64::load
    pub fn load<T: Integer>(&self, offset: usize, order: Ordering) -> Result<T> {
        let at = self.reach_aligned::<T>(offset, Access::READ)?;
        if self.object().is_guarded() {
            // Orders that are none for loads panic as they do below.
            let _ = AtomicU8::new(0).load(order);
            // SAFETY: inside the mapping and aligned, checked by `reach_aligned`.
            let loaded = unsafe { reach::load(at, size_of::<T>()) };
            let gone = |reason| self.error(offset, size_of::<T>(), reason);
            return loaded.map(T::from_word).map_err(gone);
        }
        // SAFETY: inside the mapping and aligned, checked by `reach_aligned`.
        Ok(unsafe { T::atomic(at) }.load(order))
    }

    /// Writes one integer, atomically, in the host's byte order.
    ///
    /// # Errors
    /// `EINVAL` where it passes the end or is not aligned; `EACCES` where the mapping was
    /// not made for writing; `EIO` as for [`write_at`](Self::write_at).
    ///
    /// # Panics
    /// Where `order` is not an order for stores, as [`AtomicU64::store`] does.
    ///
    /// [`AtomicU64::store`]: core::sync::atomic::AtomicU64::store
    pub fn store<T: Integer>(&self, offset: usize, value: T, order: Ordering) -> Result<()> {
        let at = self.reach_aligned::<T>(offset, Access::WRITE)?;
        if self.object().is_guarded() {
            // Orders that are none for stores panic as they do below.
            AtomicU8::new(0).store(0, order);
            // SAFETY: inside the mapping, aligned and writable, checked by `reach_aligned`.
            let stored = unsafe { reach::store(at, value.to_word(), size_of::<T>()) };
            return stored.map_err(|reason| self.error(offset, size_of::<T>(), reason));
        }
        // SAFETY: inside the mapping, aligned and writable, checked by `reach_aligned`.
        unsafe { T::atomic(at) }.store(value, order);
        Ok(())
    }

    /// Writes `new` where `current` is, atomically: `Ok` with what was there if it was that,
    /// else `Err` with what is there, as [`AtomicU64::compare_exchange`] does.
    ///
    /// # Errors
    /// `EINVAL` where it passes the end or is not aligned; `EACCES` where the mapping was not
    /// made for reading and writing; `ENOTSUP` where the memory is
    /// [guarded](crate::MemoryObject::is_guarded): whether it is gone is only found out by an
    /// access, and there is none of this kind that could fail.
    ///
    /// # Panics
    /// Where `failure` is not an order for loads.
    ///
    /// [`AtomicU64::compare_exchange`]: core::sync::atomic::AtomicU64::compare_exchange
    pub fn compare_exchange<T: Integer>(
        &self,
        offset: usize,
        current: T,
        new: T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<core::result::Result<T, T>> {
        Ok(self.atomic::<T>(offset)?.compare_exchange(current, new, success, failure))
    }

    /// Writes one integer and returns what was there, atomically.
    ///
    /// # Errors
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn swap<T: Integer>(&self, offset: usize, value: T, order: Ordering) -> Result<T> {
        Ok(self.atomic::<T>(offset)?.swap(value, order))
    }

    /// Adds to one integer, wrapping, and returns what was there, atomically.
    ///
    /// # Errors
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn fetch_add<T: Integer>(&self, offset: usize, value: T, order: Ordering) -> Result<T> {
        Ok(self.atomic::<T>(offset)?.fetch_add(value, order))
    }

    /// Clears the bits of one integer that `value` does not have, and returns what was there,
    /// atomically.
    ///
    /// # Errors
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn fetch_and<T: Integer>(&self, offset: usize, value: T, order: Ordering) -> Result<T> {
        Ok(self.atomic::<T>(offset)?.fetch_and(value, order))
    }

    /// Sets bits of one integer, and returns what was there, atomically.
    ///
    /// # Errors
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn fetch_or<T: Integer>(&self, offset: usize, value: T, order: Ordering) -> Result<T> {
        Ok(self.atomic::<T>(offset)?.fetch_or(value, order))
    }

    /// The integer, for reading and writing, of memory that stays.
    fn atomic<T: Integer>(&self, offset: usize) -> Result<&T::Atomic> {
        const WHAT: &str = "an atomic exchange in memory whose owner can take it away";
        let at = self.reach_aligned::<T>(offset, Access::RW)?;
        if self.object().is_guarded() {
            let reason = Reason::Os { what: WHAT, errno: Errno::OPNOTSUPP };
            return Err(self.error(offset, size_of::<T>(), reason));
        }
        // SAFETY: inside the mapping, aligned and writable, checked by `reach_aligned`; the
        // mapping, and so the memory, lives as long as the reference. Others change it by
        // atomic accesses only, or outside the abstract machine.
        Ok(unsafe { T::atomic(at) })
    }
}

/// Integers that can be read and written atomically: `u8`, `u16`, `u32`, `u64`.
pub trait Integer: Copy + sealed::Sealed {}

mod sealed {
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

    pub trait Sealed: Sized {
        type Atomic: Atomic<Self> + 'static;

        /// # Safety
        /// `at` must be valid and aligned for an atomic access of this size, and for every
        /// access that is made through the reference, while that lives.
        unsafe fn atomic<'a>(at: NonNull<u8>) -> &'a Self::Atomic;
        /// The lower bytes of a word.
        fn from_word(word: u64) -> Self;
        fn to_word(self) -> u64;
    }

    /// What the types `AtomicU8` to `AtomicU64` have in common.
    pub trait Atomic<T> {
        fn load(&self, order: Ordering) -> T;
        fn store(&self, value: T, order: Ordering);
        fn compare_exchange(
            &self,
            current: T,
            new: T,
            success: Ordering,
            failure: Ordering,
        ) -> Result<T, T>;
        fn swap(&self, value: T, order: Ordering) -> T;
        fn fetch_add(&self, value: T, order: Ordering) -> T;
        fn fetch_and(&self, value: T, order: Ordering) -> T;
        fn fetch_or(&self, value: T, order: Ordering) -> T;
    }

    macro_rules! integers {
        ($($integer:ident $atomic:ident),*) => {$(
            impl super::Integer for $integer {}
            impl Sealed for $integer {
                type Atomic = $atomic;

                unsafe fn atomic<'a>(at: NonNull<u8>) -> &'a $atomic {
                    // SAFETY: the caller promises what `from_ptr` asks for: the address is
                    // valid and aligned while the reference lives.
                    unsafe { $atomic::from_ptr(at.as_ptr().cast()) }
                }
                fn from_word(word: u64) -> Self {
                    word as $integer
                }
                fn to_word(self) -> u64 {
                    self.into()
                }
            }
            impl Atomic<$integer> for $atomic {
                #[inline]
                fn load(&self, order: Ordering) -> $integer {
                    $atomic::load(self, order)
                }
                #[inline]
                fn store(&self, value: $integer, order: Ordering) {
                    $atomic::store(self, value, order);
                }
                #[inline]
                fn compare_exchange(
                    &self,
                    current: $integer,
                    new: $integer,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$integer, $integer> {
                    $atomic::compare_exchange(self, current, new, success, failure)
                }
                #[inline]
                fn swap(&self, value: $integer, order: Ordering) -> $integer {
                    $atomic::swap(self, value, order)
                }
                #[inline]
                fn fetch_add(&self, value: $integer, order: Ordering) -> $integer {
                    $atomic::fetch_add(self, value, order)
                }
                #[inline]
                fn fetch_and(&self, value: $integer, order: Ordering) -> $integer {
                    $atomic::fetch_and(self, value, order)
                }
                #[inline]
                fn fetch_or(&self, value: $integer, order: Ordering) -> $integer {
                    $atomic::fetch_or(self, value, order)
                }
            }
        )*};
    }
    integers!(u8 AtomicU8, u16 AtomicU16, u32 AtomicU32, u64 AtomicU64);
}
