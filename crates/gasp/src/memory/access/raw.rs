//! Copies between this process's memory and a guest's.
//!
//! The guest may write its memory during the copy, so no reference to it may ever exist, and the
//! compiler must not assume that two reads agree. Each function here moves bytes with relaxed
//! atomic accesses or, many at once, with the C library's `memcpy`, called such that the compiler
//! cannot see what it is. Bytes that change during the copy come out old or new; nothing else can
//! happen.
#![allow(unsafe_code, reason = "guest memory is only reachable through raw pointers")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a load and a store make one move")]

use core::ffi::c_void;
use core::hint::black_box;
use core::ptr;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// The length in bytes from which the C library's copy is faster than a loop of 8-byte accesses
/// (measured).
const MANY: usize = 128;

/// Copies guest memory at `src` into `dst`.
///
/// # Safety
/// `src` must be valid for reads of `dst.len()` bytes for the whole call. It may be written
/// concurrently by anyone outside the Rust abstract machine, and inside it only through this module
/// or atomically.
pub(crate) unsafe fn copy_out(src: *const u8, dst: &mut [u8]) {
    // SAFETY: `src` is valid for reads of `dst.len()` bytes, as this function's caller promises.
    // `dst` is valid for writes of as many, and overlaps no guest memory, because it is a slice and
    // there are no slices of guest memory.
    unsafe { copy(src, dst.as_mut_ptr(), dst.len(), Guest::Source) }
}

/// Copies `src` into guest memory at `dst`.
///
/// # Safety
/// `dst` must be valid for writes of `src.len()` bytes for the whole call. It may be accessed
/// concurrently by anyone outside the Rust abstract machine, and inside it only through this module
/// or atomically.
pub(crate) unsafe fn copy_in(src: &[u8], dst: *mut u8) {
    // SAFETY: `dst` is valid for writes of `src.len()` bytes, as this function's caller promises.
    // `src` is valid for reads of as many, and overlaps no guest memory, because it is a slice and
    // there are no slices of guest memory.
    unsafe { copy(src.as_ptr(), dst, src.len(), Guest::Destination) }
}

/// The side of a copy that is the guest's memory.
#[derive(Clone, Copy)]
enum Guest {
    Source,
    Destination,
}

/// Copies `len` bytes between a guest's memory and other memory.
///
/// # Safety
/// `src` must be valid for reads and `dst` for writes of `len` bytes; they must not overlap. The
/// side that is not the guest's must not be accessed by anyone else during the call.
unsafe fn copy(src: *const u8, dst: *mut u8, len: usize, guest: Guest) {
    if len >= MANY && !cfg!(miri) {
        type Copy = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;
        let copy: Copy = black_box(libc::memcpy);
        // SAFETY: `memcpy` requires that `src` is valid for reads and `dst` for writes of `len`
        // bytes, and that they do not overlap; this function's caller promises both. The compiler
        // cannot know that it is `memcpy`, so it is code outside the abstract machine, in which a
        // concurrent write by the guest is no race.
        unsafe { copy(dst.cast(), src.cast(), len) };
        return;
    }
    const WORD: usize = size_of::<u64>();
    let misaligned = match guest {
        Guest::Source => src.align_offset(WORD),
        Guest::Destination => dst.align_offset(WORD),
    };
    let head = misaligned.min(len);
    let body = (len - head) / WORD * WORD;
    let byte = |index: usize| {
        // SAFETY: `index < len`: it is in `0..head` or `head + body..len`. Both ranges are valid
        // for `len` bytes, as this function's caller promises, so both sums stay inside them.
        let (from, to) = unsafe { (src.add(index), dst.add(index)) };
        match guest {
            // SAFETY: `from` is valid for the read of a byte, which is atomic because the guest may
            // write it meanwhile; a relaxed load is allowed of memory that is mapped only for
            // reading. `to` is valid for the write of a byte, and nobody else accesses it during
            // this call. A byte is always aligned.
            Guest::Source => unsafe { *to = atomic_u8(from.cast_mut()).load(Ordering::Relaxed) },
            // SAFETY: `to` is valid for the write of a byte, which is atomic because the guest may
            // access it meanwhile. `from` is valid for the read of a byte, and nobody writes it
            // during this call. A byte is always aligned.
            Guest::Destination => unsafe { atomic_u8(to).store(*from, Ordering::Relaxed) },
        }
    };
    (0..head).for_each(byte);
    for index in (head..head + body).step_by(WORD) {
        // SAFETY: `index + WORD <= head + body <= len`, and both ranges are valid for `len` bytes,
        // as this function's caller promises, so both sums stay inside them, with a word to go.
        let (from, to) = unsafe { (src.add(index).cast::<u64>(), dst.add(index).cast::<u64>()) };
        match guest {
            // SAFETY: `from` is valid for the read of a word, and aligned: `head` is where
            // alignment begins and `index` is whole words past it (with `body` 0 there is no such
            // `index`). The load is atomic because the guest may write meanwhile; a relaxed load is
            // allowed of memory that is mapped only for reading. `to` is valid for the write of a
            // word, which `write_unaligned` may make at any alignment, and nobody else accesses it
            // during this call.
            Guest::Source => unsafe {
                let word = AtomicU64::from_ptr(from.cast_mut()).load(Ordering::Relaxed);
                ptr::write_unaligned(to, word);
            },
            // SAFETY: `to` is valid for the write of a word, and aligned: `head` is where alignment
            // begins and `index` is whole words past it (with `body` 0 there is no such `index`).
            // The store is atomic because the guest may access it meanwhile. `from` is valid for
            // the read of a word, which `read_unaligned` may make at any alignment, and nobody
            // writes it during this call.
            Guest::Destination => unsafe {
                AtomicU64::from_ptr(to).store(ptr::read_unaligned(from), Ordering::Relaxed);
            },
        }
    }
    (head + body..len).for_each(byte);
}

/// A byte of a guest's memory, for one access.
///
/// # Safety
/// `target` must be valid for an atomic access of one byte, of the kind that takes place, while the
/// result is used.
unsafe fn atomic_u8<'a>(target: *mut u8) -> &'a AtomicU8 {
    // SAFETY: a byte is always aligned. `target` is valid for the access that takes place through
    // the reference while that is used, as this function's caller promises; accesses meanwhile are
    // outside the abstract machine or atomic.
    unsafe { AtomicU8::from_ptr(target) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_exact_for_every_alignment_and_length() {
        let source: Vec<u8> = (0..600_usize).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for start in 0..9 {
            for len in (0..40).chain(250..270).chain([511, 512, 513]) {
                let mut out = vec![0xee; len + 2];
                // SAFETY: `start + len` is at most 8 + 513, so inside `source`, which is valid for
                // reads and which nobody writes.
                unsafe { copy_out(source.as_ptr().add(start), &mut out[1..=len]) };
                assert_eq!(&out[1..=len], &source[start..start + len]);
                assert_eq!((out[0], out[len + 1]), (0xee, 0xee));
                let mut into = vec![0xee; start + len + 1];
                // SAFETY: `into` has `start + len + 1` bytes, is valid for writes, and nobody else
                // accesses it.
                unsafe { copy_in(&source[..len], into.as_mut_ptr().add(start)) };
                assert_eq!(&into[start..start + len], &source[..len]);
                assert_eq!(into[start + len], 0xee);
            }
        }
    }
}
