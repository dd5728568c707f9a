//! The nodes of a table: 512 words, or as many as are in use.
//!
//! A node stands for a range of 512 pages. A *full* node has a word for each, found by
//! its index. Where few pages are in use that would waste up to 4 KiB a page, and a guest
//! could ask for a million such ranges; a *small* node has 2 to 128 words, each carrying
//! its index, in a hash table with open addressing. So the memory a guest can make us
//! spend stays within 64 bytes for each page granted, wherever it grants them.
//!
//! Readers look words up while the one writer changes them: a word never moves within a
//! node, and a node that is too small or too large is replaced, never changed in size.
//! The replaced one is *retired*: freed when no reader can be in it.
#![allow(unsafe_code, reason = "nodes are reached through tagged pointers, without locks")]

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::entry::{self, DEAD, EMPTY, TAG_NODE};

/// Pages that a node stands for.
pub(crate) const FANOUT: u64 = 512;
/// The most words of a small node.
const SMALL_MAX: u64 = 128;
const TAG_FULL: u64 = 9;
const POINTER: u64 = 0x007f_ffff_ffff_fff0;

/// A node, as the word that points to it. Copies are the same node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Node(u64);

impl Node {
    /// An empty node with room for `pages`.
    pub(super) fn with_room(pages: u64) -> Self {
        let mut words = 2;
        while words <= SMALL_MAX && pages > room(words) {
            words *= 2;
        }
        Self::allocate(if words > SMALL_MAX { FANOUT } else { words })
    }

    /// The node that a word points to, if it does.
    #[inline]
    pub(super) fn from_word(word: u64) -> Option<Self> {
        let tag = entry::tag(word);
        (tag >= TAG_NODE && tag != DEAD).then_some(Self(entry::content(word)))
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        self.0
    }

    /// The word for page `index` (below 512), or [`EMPTY`].
    #[inline]
    pub(super) fn get(self, index: u64) -> u64 {
        if entry::tag(self.0) == TAG_FULL {
            return self.at(index).load(Ordering::Acquire);
        }
        self.find(index).unwrap_or(EMPTY)
    }

    #[inline]
    fn find(self, index: u64) -> Option<u64> {
        for word in self.probe(index) {
            let word = word.load(Ordering::Acquire);
            if word == EMPTY {
                return None;
            }
            if entry::index(word) == index && entry::tag(word) != DEAD {
                return Some(word);
            }
        }
        None
    }

    /// Sets the word for page `index`; gives back a larger node that has it if this one
    /// has no room, for the caller to put in place. [`EMPTY`] removes the word.
    pub(super) fn put(self, index: u64, word: u64) -> Option<Self> {
        let word = if word == EMPTY { EMPTY } else { entry::with_index(word, index) };
        if entry::tag(self.0) == TAG_FULL {
            let at = self.at(index);
            let was = at.load(Ordering::Relaxed) != EMPTY;
            at.store(word, Ordering::Release);
            self.count(i64::from(word != EMPTY) - i64::from(was), 0);
            return None;
        }
        let mut free = None;
        for at in self.probe(index) {
            let there = at.load(Ordering::Relaxed);
            if there == EMPTY {
                free = free.or(Some((at, true)));
                break;
            }
            if entry::tag(there) == DEAD {
                free = free.or(Some((at, false)));
            } else if entry::index(there) == index {
                at.store(if word == EMPTY { DEAD } else { word }, Ordering::Release);
                self.count(if word == EMPTY { -1 } else { 0 }, 0);
                return None;
            }
        }
        if word == EMPTY {
            return None;
        }
        let (live, used) = self.counts();
        match free {
            Some((at, fresh)) if !fresh || used < room(self.words()) => {
                at.store(word, Ordering::Release);
                self.count(1, i64::from(fresh));
                None
            }
            _ => {
                let larger = self.copied_into(Self::with_room(live + 1));
                larger.put(index, word);
                Some(larger)
            }
        }
    }

    /// A smaller node with the same words, where this one is much too large.
    pub(super) fn shrunk(self) -> Option<Self> {
        let (live, _) = self.counts();
        let oversized = match self.words() {
            FANOUT => live < 64,
            words => words > 2 && live * 6 < words,
        };
        (oversized && live > 0).then(|| self.copied_into(Self::with_room(live)))
    }

    /// All words in use, in no order.
    pub(super) fn words_in_use(self) -> impl Iterator<Item = u64> {
        (0..self.words())
            .map(move |position| self.at(position).load(Ordering::Relaxed))
            .filter(|&word| word != EMPTY && entry::tag(word) != DEAD)
    }

    /// How many pages have words.
    pub(super) fn live(self) -> u64 {
        self.counts().0
    }

    /// The bytes of memory behind the node.
    pub(super) fn bytes(self) -> usize {
        layout(self.words()).size()
    }

    /// Frees the node.
    ///
    /// # Safety
    /// Nothing points to it any more, no reader can be in it, and it is freed once.
    pub(super) unsafe fn free(self) {
        // SAFETY: allocated with this layout by `allocate`; freed once, by the caller's
        // promise.
        unsafe { std::alloc::dealloc(self.base().as_ptr().cast(), layout(self.words())) }
    }

    fn copied_into(self, target: Self) -> Self {
        for word in self.words_in_use() {
            // A full node's words carry their index, too.
            let moved = target.put(entry::index(word), word);
            debug_assert!(moved.is_none(), "the target was made large enough");
        }
        target
    }

    fn allocate(words: u64) -> Self {
        let layout = layout(words);
        // SAFETY: the layout's size is not 0.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { std::alloc::handle_alloc_error(layout) };
        let address = memory.as_ptr().expose_provenance() as u64;
        debug_assert_eq!(address & !POINTER, 0, "user addresses have at most 55 bits");
        Self(address | (TAG_NODE + u64::from(words.trailing_zeros()) - 1).min(TAG_FULL))
    }

    #[inline]
    fn words(self) -> u64 {
        match entry::tag(self.0) {
            TAG_FULL => FANOUT,
            tag => 2 << (tag - TAG_NODE),
        }
    }

    #[inline]
    fn base(self) -> NonNull<AtomicU64> {
        let address = (self.0 & POINTER) as usize;
        let pointer = core::ptr::with_exposed_provenance_mut(address);
        // SAFETY: a node's address came from a successful allocation.
        unsafe { NonNull::new_unchecked(pointer) }
    }

    /// The word at a position, not at an index, except in a full node. Position
    /// `words()` is the count.
    #[inline]
    fn at(self, position: u64) -> &'static AtomicU64 {
        debug_assert!(position <= self.words());
        // SAFETY: the allocation has `words() + 1` words; zeroed memory is a valid
        // AtomicU64. A `Node` is only made from a word read from the table while the
        // reader's slot is busy, or by the writer, and `free` demands that neither is
        // left: so the memory outlives every use of the reference, none of which leaves
        // this module.
        let word = unsafe { self.base().add(position as usize) };
        // SAFETY: as above.
        unsafe { word.as_ref() }
    }

    /// The positions where the word for `index` may be, in order.
    #[inline]
    fn probe(self, index: u64) -> impl Iterator<Item = &'static AtomicU64> {
        // A small node of tag t has `1 << (t - 1)` words; the hash's upper bits choose.
        let bits = entry::tag(self.0) - (TAG_NODE - 1);
        let mask = (1 << bits) - 1;
        let hash = index.wrapping_mul(0x9e37_79b9) & 0xffff_ffff;
        let first = hash >> (32 - bits);
        (0..=mask).map(move |step| self.at((first + step) & mask))
    }

    /// Live words, and words used up by live or dead ones.
    fn counts(self) -> (u64, u64) {
        let counts = self.at(self.words()).load(Ordering::Relaxed);
        (counts & 0xffff_ffff, counts >> 32)
    }

    fn count(self, live: i64, used: i64) {
        let (was_live, was_used) = self.counts();
        let live = was_live.saturating_add_signed(live);
        let used = was_used.saturating_add_signed(used);
        self.at(self.words()).store(live | used << 32, Ordering::Relaxed);
    }
}

/// How many words of a node may be used up: the smallest ones all, larger ones three
/// quarters, so that probing stays short.
fn room(words: u64) -> u64 {
    if words <= 4 { words } else { words * 3 / 4 }
}

fn layout(words: u64) -> Layout {
    let size = (words as usize + 1) * size_of::<u64>();
    let align = if words >= 8 { 64 } else { 16 };
    match Layout::from_size_align(size, align) {
        Ok(layout) => layout,
        Err(_) => unreachable!("at most 4104 bytes, and a power of two"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::view::entry::{Behind, Leaf};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn leaf(page: u64) -> u64 {
        Leaf::new(Access::RW, Behind::Hole { guest_page: page }).word()
    }

    proptest! {
        #[test]
        fn a_node_behaves_as_a_map_whatever_its_size(
            steps in prop::collection::vec((0u64..512, prop::option::of(0u64..1000)), 1..600)
        ) {
            let mut node = Node::with_room(1);
            let mut model = BTreeMap::new();
            for (index, page) in steps {
                let word = page.map_or(EMPTY, leaf);
                match page {
                    Some(_) => { model.insert(index, word); }
                    None => { model.remove(&index); }
                }
                for replaced in [node.put(index, word), None] {
                    let replaced = replaced.or_else(|| node.shrunk());
                    if let Some(other) = replaced {
                        // SAFETY: this test is the only reader, and goes on with `other`.
                        unsafe { node.free() };
                        node = other;
                    }
                }
                prop_assert_eq!(node.live(), model.len() as u64);
                if model.len() > 1 {
                    prop_assert!(node.bytes() <= 66 * model.len() + 16, "{} for {}", node.bytes(), model.len());
                }
            }
            for index in 0..FANOUT {
                let got = node.get(index);
                prop_assert_eq!(entry::content(got), model.get(&index).copied().unwrap_or(EMPTY));
            }
            // SAFETY: nothing uses it behind this line.
            unsafe { node.free() };
        }
    }
}
