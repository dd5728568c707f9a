//! Storage of the full nodes of a large table: slabs of 2 MiB, of 511 nodes each, which the
//! kernel can back with one huge page.
//!
//! A random look-up in a large table misses the TLB as well as the data cache; huge pages
//! remove the TLB miss. The page of a released node returns to the kernel at once, and a
//! slab without nodes is unmapped, so a table that shrinks does not keep the memory of its
//! largest size.
#![allow(unsafe_code, reason = "allocates nodes in memory that it maps")]

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use std::collections::BTreeMap;

use crate::memory::window::Window;

/// Size of a slab, and of the huge page that can back it, in bytes.
const SLAB: usize = 2 << 20;
/// Size of a full node, 512 words, in bytes.
pub(super) const NODE: usize = 4096;
const NODES: usize = SLAB / NODE;

/// An allocator of full nodes.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// All slabs, by address.
    slabs: BTreeMap<usize, Slab>,
    /// Slabs with a free node.
    open: Vec<usize>,
}

/// Memory for 512 nodes, of which the first holds the counts of the others, one word each.
#[derive(Debug)]
struct Slab {
    window: Window,
    free: Vec<u16>,
    used: usize,
}

impl Arena {
    /// Allocates a zeroed node; `None` if the kernel has no memory for a slab.
    pub(super) fn take(&mut self) -> Option<NonNull<AtomicU64>> {
        let base = match self.open.last() {
            Some(&base) => base,
            None => {
                let window = Window::anonymous(SLAB, SLAB).ok()?;
                // Without huge pages, ordinary ones will do.
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
        // SAFETY: `node < NODES`, so the sum is inside the slab's window, which is one mapping
        // of `SLAB` bytes.
        let pointer = unsafe { slab.window.base().add(usize::from(node) * NODE) };
        NonNull::new(pointer.cast())
    }

    /// Releases a node. It is zero again when it is allocated next.
    ///
    /// # Safety
    /// The node came from [`take`](Self::take) of this arena, nobody uses it any more, and it
    /// is released once.
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
            // Mostly free: the kernel should not collapse it into a huge page again.
            let _ = slab.window.want_small();
        }
        if slab.used == 0 {
            self.slabs.remove(&base);
            self.open.retain(|&open| open != base);
        } else if slab.window.discard(offset, NODE).is_err() {
            // SAFETY: the node is `NODE` bytes of this arena's slab, which is mapped for reading
            // and writing as long as the slab lives, and aligned for bytes. The caller promises
            // that nobody uses the node any more, so this writes to it alone.
            unsafe { node.cast::<u8>().write_bytes(0, NODE) };
        }
    }

    /// The memory of all allocated nodes and of their counts, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.slabs.values().map(|slab| (slab.used + 1) * NODE).sum()
    }
}

/// The address of the counts of an arena's node.
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
                    // SAFETY: `word` is below the node's 512 words.
                    let word = unsafe { node.add(word) };
                    // SAFETY: an aligned word of a mapped node, which is only used here and is
                    // valid with any value.
                    let word = unsafe { word.as_ref() };
                    assert_eq!(word.swap(7, Ordering::Relaxed), 0);
                }
            }
            for node in nodes {
                // SAFETY: taken from this arena above, not used below, and released once.
                unsafe { arena.release(node) };
            }
            assert_eq!((arena.slabs.len(), arena.open.len(), arena.bytes()), (0, 0, 0));
        }
    }

    #[test]
    fn a_node_that_comes_again_is_zero() {
        let mut arena = Arena::default();
        let (kept, node) = (arena.take().unwrap(), arena.take().unwrap());
        // SAFETY: the node is mapped, aligned and only used here; a word is valid with any value.
        unsafe { node.as_ref() }.store(1, Ordering::Relaxed);
        // SAFETY: taken from this arena above, not used until it is taken again, and released
        // once.
        unsafe { arena.release(node) };
        let again = arena.take().unwrap();
        assert_eq!(again, node);
        // SAFETY: the node is mapped, aligned and only used here; a word is valid with any value.
        let word = unsafe { again.as_ref() };
        assert_eq!(word.load(Ordering::Relaxed), 0);
        assert_ne!(kept, again);
    }
}
