//! Atomic accesses to integers in guest memory.
#![allow(unsafe_code, reason = "atomic accesses through a pointer that its slot keeps valid")]

use core::sync::atomic::{AtomicU8, Ordering};

use sealed::Atomic as _;

use super::handle::Mapping;
use crate::access::Access;
use crate::error::{Errno, Reason, Result};
use crate::memory::access::reach;

impl Mapping {
    /// Reads the integer at `offset` in bytes, atomically, in the host's byte order.
    ///
    /// # Errors
    /// `EINVAL` if it extends past the end or its address is not aligned to its size; `EACCES` if
    /// the mapping was not created for reading; `EIO` as for [`read_at`](Self::read_at).
    ///
    /// # Panics
    /// If `order` is not an order for loads, as [`AtomicU64::load`] does.
    ///
    /// [`AtomicU64::load`]: core::sync::atomic::AtomicU64::load
    pub fn load<T: Integer>(&self, offset: usize, order: Ordering) -> Result<T> {
        let pointer = self.reach_aligned::<T>(offset, Access::READ)?;
        if self.object().is_guarded() {
            // An order that is not one for loads panics as it does below.
            let _ = AtomicU8::new(0).load(order);
            // SAFETY: `reach::load` asks that the bytes are inside a mapping of the object's memory
            // for the whole call, and for a size of 1, 2, 4 or 8 to which the address is aligned:
            // `reach_aligned` checked both, `T` is one of `u8` to `u64`, and the slot keeps the
            // object mapped while `self` lives.
            let loaded = unsafe { reach::load(pointer, size_of::<T>()) };
            let gone = |reason| self.error(offset, size_of::<T>(), reason);
            return loaded.map(T::from_word).map_err(gone);
        }
        // SAFETY: `atomic` asks for an address that is valid and aligned for an atomic load while
        // the reference lives: `reach_aligned` checked that it is inside the mapping and aligned,
        // and the slot keeps the memory, which is not guarded, mapped while `self` lives.
        Ok(unsafe { T::atomic(pointer) }.load(order))
    }

    /// Writes the integer at `offset` in bytes, atomically, in the host's byte order.
    ///
    /// # Errors
    /// `EINVAL` if it extends past the end or its address is not aligned to its size; `EACCES` if
    /// the mapping was not created for writing; `EIO` as for [`write_at`](Self::write_at).
    ///
    /// # Panics
    /// If `order` is not an order for stores, as [`AtomicU64::store`] does.
    ///
    /// [`AtomicU64::store`]: core::sync::atomic::AtomicU64::store
    pub fn store<T: Integer>(&self, offset: usize, value: T, order: Ordering) -> Result<()> {
        let pointer = self.reach_aligned::<T>(offset, Access::WRITE)?;
        if self.object().is_guarded() {
            // An order that is not one for stores panics as it does below.
            AtomicU8::new(0).store(0, order);
            // SAFETY: `reach::store` asks that the bytes are inside a writable mapping of the
            // object's memory for the whole call, and for a size of 1, 2, 4 or 8 to which the
            // address is aligned: `reach_aligned` checked that they are inside this mapping,
            // writable and aligned, `T` is one of `u8` to `u64`, and the slot keeps the object
            // mapped while `self` lives.
            let stored = unsafe { reach::store(pointer, value.to_word(), size_of::<T>()) };
            return stored.map_err(|reason| self.error(offset, size_of::<T>(), reason));
        }
        // SAFETY: `atomic` asks for an address that is valid and aligned for an atomic store while
        // the reference lives: `reach_aligned` checked that it is inside the mapping, writable and
        // aligned, and the slot keeps the memory, which is not guarded, mapped while `self` lives.
        unsafe { T::atomic(pointer) }.store(value, order);
        Ok(())
    }

    /// Replaces the integer at `offset` in bytes by `new` if it equals `current`, atomically.
    /// Returns `Ok` of the previous value if it was replaced, else `Err` of the present one, as
    /// [`AtomicU64::compare_exchange`] does.
    ///
    /// # Errors
    /// `EINVAL` if it extends past the end or its address is not aligned to its size; `EACCES` if
    /// the mapping was not created for reading and writing; `ENOTSUP` if the memory is
    /// [guarded](crate::MemoryObject::is_guarded): an access to it must be able to fail, and
    /// exchanges that can fail are not implemented.
    ///
    /// # Panics
    /// If `failure` is not an order for loads.
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

    /// Replaces the integer at `offset` in bytes, and returns the previous value, atomically.
    ///
    /// # Errors
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn swap<T: Integer>(&self, offset: usize, value: T, order: Ordering) -> Result<T> {
        Ok(self.atomic::<T>(offset)?.swap(value, order))
    }

    /// Adds `value` to the integer at `offset` in bytes, wrapping, and returns the previous
    /// value, atomically.
    ///
    /// # Errors
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn fetch_add<T: Integer>(&self, offset: usize, value: T, order: Ordering) -> Result<T> {
        Ok(self.atomic::<T>(offset)?.fetch_add(value, order))
    }

    /// Clears the bits of the integer at `offset` in bytes that are 0 in `value`, and returns the
    /// previous value, atomically.
    ///
    /// # Errors
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn fetch_and<T: Integer>(&self, offset: usize, value: T, order: Ordering) -> Result<T> {
        Ok(self.atomic::<T>(offset)?.fetch_and(value, order))
    }

    /// Sets the bits of the integer at `offset` in bytes that are 1 in `value`, and returns the
    /// previous value, atomically.
    ///
    /// # Errors
    /// As [`compare_exchange`](Self::compare_exchange).
    pub fn fetch_or<T: Integer>(&self, offset: usize, value: T, order: Ordering) -> Result<T> {
        Ok(self.atomic::<T>(offset)?.fetch_or(value, order))
    }

    /// The atomic integer at `offset`, for reading and writing; not in guarded memory.
    fn atomic<T: Integer>(&self, offset: usize) -> Result<&T::Atomic> {
        const WHAT: &str = "an atomic exchange in memory whose owner can take it away";
        let pointer = self.reach_aligned::<T>(offset, Access::RW)?;
        if self.object().is_guarded() {
            let reason = Reason::Os { what: WHAT, errno: Errno::OPNOTSUPP };
            return Err(self.error(offset, size_of::<T>(), reason));
        }
        // SAFETY: `atomic` asks for an address that is valid and aligned for all atomic accesses
        // while the reference lives: `reach_aligned` checked that it is inside the mapping,
        // readable, writable and aligned, and the slot keeps the memory, which is not guarded,
        // mapped while `self` lives, which the reference borrows. Other code of the process
        // accesses it only atomically or through `memory::access`, and the guest outside the
        // abstract machine.
        Ok(unsafe { T::atomic(pointer) })
    }
}

/// Integers that can be read and written atomically: `u8`, `u16`, `u32`, `u64`.
pub trait Integer: Copy + sealed::Sealed {}

mod sealed {
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

    pub trait Sealed: Sized {
        type Atomic: Atomic<Self> + 'static;

        /// The atomic integer at an address.
        ///
        /// # Safety
        /// While the reference lives, `pointer` must be aligned to the size of the integer, and
        /// valid for every atomic access that takes place through it.
        unsafe fn atomic<'a>(pointer: NonNull<u8>) -> &'a Self::Atomic;
        /// The low bytes of a word.
        fn from_word(word: u64) -> Self;
        fn to_word(self) -> u64;
    }

    /// The operations that the types `AtomicU8` to `AtomicU64` have in common.
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

                unsafe fn atomic<'a>(pointer: NonNull<u8>) -> &'a $atomic {
                    // SAFETY: `from_ptr` asks for an address that is aligned, and valid for reads
                    // and writes while the reference lives: this function's contract has it
                    // aligned, and valid for every access that takes place; of memory that cannot
                    // be written only loads do. It also asks for no conflicting accesses that are
                    // not atomic: our own go through `memory::access`, which says why they are
                    // none, and a guest's are outside the abstract machine.
                    unsafe { $atomic::from_ptr(pointer.as_ptr().cast()) }
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
