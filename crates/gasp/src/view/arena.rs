//! Where the full nodes of a large table are kept: 511 of them in each 2 MiB, which the
//! kernel can back with one huge page.
//!
//! A random look-up in a large table misses the processor's address cache as well as its
//! data cache; with huge pages the first miss is gone. A freed node gives its page back
//! at once, and a slab without nodes is unmapped, so a table that shrinks does not keep
//! the memory of when it was large.
#![allow(unsafe_code, reason = "hands out parts of memory that it maps")]

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use std::collections::BTreeMap;

use crate::memory::window::Window;

/// The size of a slab and of the page that it hopes for.
const SLAB: usize = 2 << 20;
/// The size of a full node: 512 words.
pub(super) const NODE: usize = 4096;
const NODES: usize = SLAB / NODE;

/// The slabs, by address.
#[derive(Debug, Default)]
pub(super) struct Arena {
    slabs: BTreeMap<usize, Slab>,
    /// Chunks that have a free node.
    open: Vec<usize>,
}

/// The first node's place holds the counts of the others, one word each.
#[derive(Debug)]
struct Slab {
    window: Window,
    free: Vec<u16>,
    used: usize,
}

impl Arena {
    /// A zeroed node; `None` where the kernel gives no memory for one.
    pub(super) fn take(&mut self) -> Option<NonNull<AtomicU64>> {
        let base = match self.open.last() {
            Some(&base) => base,
            None => {
                let window = Window::anonymous(SLAB, SLAB).ok()?;
                // Where there are no huge pages, ordinary ones do.
                let _ = window.want_huge();
                let base = window.base().expose_provenance();
                let free = (1..NODES as u16).rev().collect();
                self.slabs.insert(base, Slab { window, free, used: 0 });
                self.open.push(base);
                base
            }
        };
        let slab = self.slabs.get_mut(&base)?;
        let node = slab.free.pop()?;
        slab.used += 1;
        if slab.free.is_empty() {
            self.open.pop();
        }
        // SAFETY: `node < NODES`, so the sum is inside the slab.
        let pointer = unsafe { slab.window.base().add(usize::from(node) * NODE) };
        NonNull::new(pointer.cast())
    }

    /// Takes a node back, which is zero again when it is handed out next.
    ///
    /// # Safety
    /// It came from [`take`](Self::take) of this arena, nobody uses it, and it is given
    /// back once.
    pub(super) unsafe fn release(&mut self, node: NonNull<AtomicU64>) {
        let base = slab_of(node.addr().get());
        let Some(slab) = self.slabs.get_mut(&base) else { return };
        let offset = node.addr().get() - base;
        if slab.free.is_empty() {
            self.open.push(base);
        }
        slab.free.push((offset / NODE) as u16);
        slab.used -= 1;
        if slab.used == NODES / 4 {
            // Mostly free: the kernel must not gather it into a huge page again.
            let _ = slab.window.want_small();
        }
        if slab.used == 0 {
            self.slabs.remove(&base);
            self.open.retain(|&open| open != base);
        } else if slab.window.discard(offset, NODE).is_err() {
            // SAFETY: the node is `NODE` bytes of this arena's slab, and the caller has given it
            // back: nobody reads or writes it any more.
            unsafe { node.cast::<u8>().write_bytes(0, NODE) };
        }
    }

    /// The bytes of all nodes that are handed out, and of the counts beside them.
    pub(super) fn bytes(&self) -> usize {
        self.slabs.values().map(|slab| (slab.used + 1) * NODE).sum()
    }
}

/// Where the count of an arena's node is kept.
#[inline]
pub(super) fn count_of(node: usize) -> usize {
    let base = slab_of(node);
    base + (node - base) / NODE * size_of::<u64>()
}

fn slab_of(node: usize) -> usize {
    node & !(SLAB - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::Ordering;

    #[test]
    fn nodes_are_zero_and_apart_and_their_memory_goes_when_they_do() {
        let mut arena = Arena::default();
        for _ in 0..2 {
            let nodes: Vec<_> = (0..NODES * 2).map(|_| arena.take().unwrap()).collect();
            let mut starts: Vec<usize> = nodes.iter().map(|node| node.addr().get()).collect();
            starts.sort_unstable();
            assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= NODE));
            assert_eq!(arena.slabs.len(), 3, "511 nodes in each");
            for node in &nodes {
                for word in 0..NODE / 8 {
                    // SAFETY: inside the node.
                    let word = unsafe { node.add(word) };
                    // SAFETY: the node is ours.
                    let word = unsafe { word.as_ref() };
                    assert_eq!(word.swap(7, Ordering::Relaxed), 0);
                }
            }
            for node in nodes {
                // SAFETY: taken above, and given back once.
                unsafe { arena.release(node) };
            }
            assert_eq!((arena.slabs.len(), arena.open.len(), arena.bytes()), (0, 0, 0));
        }
    }

    #[test]
    fn a_node_that_comes_again_is_zero() {
        let mut arena = Arena::default();
        let (kept, node) = (arena.take().unwrap(), arena.take().unwrap());
        // SAFETY: ours.
        unsafe { node.as_ref() }.store(1, Ordering::Relaxed);
        // SAFETY: taken above, and given back once.
        unsafe { arena.release(node) };
        let again = arena.take().unwrap();
        assert_eq!(again, node);
        // SAFETY: ours.
        let word = unsafe { again.as_ref() };
        assert_eq!(word.load(Ordering::Relaxed), 0);
        assert_ne!(kept, again);
    }
}
