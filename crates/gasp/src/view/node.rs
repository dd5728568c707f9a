//! The nodes of a table: 512 words, or as many as are in use.
//!
//! A node stands for a range of 512 pages. A *full* node has a word for each, found by
//! its index. Where few pages are in use that would waste up to 4 KiB a page, and a guest
//! could ask for a million such ranges; a *small* node has 2 to 256 words, each carrying
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

use smallvec::SmallVec;

use super::arena::{self, Arena};
use super::entry::{self, EMPTY, TAG_NODE, TOMBSTONE};

/// Pages that a node stands for.
pub(crate) const FANOUT: u64 = 512;
/// The most words of a small node.
const SMALL_MAX: u64 = 256;
const TAG_FULL: u64 = 10;
/// A full node that is kept in the table's arena.
const TAG_ARENA: u64 = 11;
const _: () = assert!(TAG_FULL ^ TAG_ARENA == 1 && TAG_FULL & 1 == 0, "one bit tells them apart");
const POINTER: u64 = 0x007f_ffff_ffff_fff0;

/// A node, as the word that points to it. Copies are the same node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Node(u64);

impl Node {
    /// An empty node with room for `pages`; a full one comes from `arena`, if there is
    /// one.
    pub(super) fn with_capacity(pages: u64, arena: Option<&mut Arena>) -> Self {
        let mut words = 2;
        while words <= SMALL_MAX && pages > capacity(words) {
            words *= 2;
        }
        if words <= SMALL_MAX {
            return Self::allocate(words);
        }
        match arena.and_then(Arena::take) {
            Some(node) => Self(node.as_ptr().expose_provenance() as u64 | TAG_ARENA),
            None => Self::allocate(FANOUT),
        }
    }

    /// The node that a word points to, if it does.
    #[inline]
    pub(super) fn from_word(word: u64) -> Option<Self> {
        let tag = entry::tag(word);
        (tag >= TAG_NODE && tag != TOMBSTONE).then_some(Self(entry::content(word)))
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        self.0
    }

    /// The word for page `index` (below 512), or [`EMPTY`], of the node that `word` points
    /// to, if it does. The test for a full node comes first, and is one mask and compare.
    #[inline(always)]
    pub(super) fn get_through(word: u64, index: u64) -> Option<u64> {
        const FULL: u64 = entry::TAG & !(TAG_FULL ^ TAG_ARENA);
        if word & FULL == TAG_FULL {
            return Some(Self(word).cell(index).load(Ordering::Acquire));
        }
        Self::from_word(word).map(|node| node.get_small(index))
    }

    /// The word for page `index` (below 512), or [`EMPTY`].
    #[inline]
    pub(super) fn get(self, index: u64) -> u64 {
        match self.is_full() {
            true => self.cell(index).load(Ordering::Acquire),
            false => self.get_small(index),
        }
    }

    /// Out of line, so that the registers it takes are not taken from the way through full
    /// nodes.
    #[inline(never)]
    fn get_small(self, index: u64) -> u64 {
        let (first, mask) = self.first(index);
        let word = self.cell(first).load(Ordering::Acquire);
        // An empty word has index 0, so it is right for page 0 and wrong for others.
        if entry::index(word) == index && entry::tag(word) != TOMBSTONE {
            return word;
        }
        if word == EMPTY { EMPTY } else { self.find(index, first, mask) }
    }

    /// The word for page `index`, which is not in the first place.
    #[inline(never)]
    fn find(self, index: u64, first: u64, mask: u64) -> u64 {
        for step in 1..=mask {
            let word = self.cell((first + step) & mask).load(Ordering::Acquire);
            if word == EMPTY || (entry::index(word) == index && entry::tag(word) != TOMBSTONE) {
                return word;
            }
        }
        EMPTY
    }

    /// Sets the word for page `index`, and says whether that was possible: a node may
    /// have no room for one more. [`EMPTY`] removes the word.
    pub(super) fn put(self, index: u64, word: u64) -> bool {
        let word = if word == EMPTY { EMPTY } else { entry::with_index(word, index) };
        if self.is_full() {
            let cell = self.cell(index);
            let was = cell.load(Ordering::Relaxed) != EMPTY;
            cell.store(word, Ordering::Release);
            self.add_counts(i64::from(word != EMPTY) - i64::from(was), 0);
            return true;
        }
        let mut free = None;
        for cell in self.probe(index) {
            let there = cell.load(Ordering::Relaxed);
            if there == EMPTY {
                free = free.or(Some((cell, true)));
                break;
            }
            if entry::tag(there) == TOMBSTONE {
                free = free.or(Some((cell, false)));
            } else if entry::index(there) == index {
                cell.store(if word == EMPTY { TOMBSTONE } else { word }, Ordering::Release);
                self.add_counts(if word == EMPTY { -1 } else { 0 }, 0);
                return true;
            }
        }
        if word == EMPTY {
            return true;
        }
        match free {
            Some((cell, fresh)) if !fresh || self.counts().1 < capacity(self.words()) => {
                cell.store(word, Ordering::Release);
                self.add_counts(1, i64::from(fresh));
                true
            }
            _ => false,
        }
    }

    /// Whether the node is much larger than what it holds needs.
    pub(super) fn is_oversized(self) -> bool {
        let (live, _) = self.counts();
        match self.words() {
            FANOUT => live <= 128,
            words => words > 2 && live * 4 <= words,
        }
    }

    /// All words in use, in no order.
    pub(super) fn words_in_use(self) -> impl Iterator<Item = u64> {
        (0..self.words())
            .map(move |position| self.cell(position).load(Ordering::Relaxed))
            .filter(|&word| word != EMPTY && entry::tag(word) != TOMBSTONE)
    }

    /// The words in use of pages `first` to `last`, in the order of their pages.
    pub(super) fn in_order(self, first: u64, last: u64) -> SmallVec<[u64; 16]> {
        let in_use = |&word: &u64| word != EMPTY && entry::tag(word) != TOMBSTONE;
        // Few pages are looked up sooner than they are searched for among all words.
        if self.is_full() || last - first < self.words() / 8 {
            return (first..=last).map(|index| self.get(index)).filter(in_use).collect();
        }
        let wanted = |&word: &u64| (first..=last).contains(&entry::index(word));
        let mut words: SmallVec<_> = self.words_in_use().filter(wanted).collect();
        words.sort_unstable_by_key(|&word| entry::index(word));
        words
    }

    /// How many pages have words.
    pub(super) fn live(self) -> u64 {
        self.counts().0
    }

    /// The bytes of memory that the node takes from the allocator, without those that its
    /// arena counts.
    pub(super) fn bytes(self) -> usize {
        // An allocator of the usual kind keeps a word beside each block, in units of 16.
        const KEPT: usize = size_of::<usize>();
        const UNIT: usize = 16;
        if self.is_in_arena() {
            0
        } else {
            (layout(self.words()).size() + KEPT).next_multiple_of(UNIT)
        }
    }

    /// Frees the node.
    ///
    /// # Safety
    /// Nothing points to it any more, no reader can be in it, it is freed once, and
    /// `arena` is the one that it was made with.
    pub(super) unsafe fn free(self, arena: &mut Arena) {
        if self.is_in_arena() {
            self.counter().store(0, Ordering::Relaxed);
            // SAFETY: the caller has the arena that this node was made with, and frees it once,
            // with no pointer to it and no reader in it.
            return unsafe { arena.release(self.base()) };
        }
        // SAFETY: allocated with this layout by `allocate`, as it is not in an arena; the caller
        // frees it once, with no pointer to it and no reader in it.
        unsafe { std::alloc::dealloc(self.base().as_ptr().cast(), layout(self.words())) }
    }

    /// Puts the node's words into `target`, which has room for them.
    pub(super) fn copy_into(self, target: Self) {
        for word in self.words_in_use() {
            // A full node's words carry their index, too.
            let put = target.put(entry::index(word), word);
            debug_assert!(put, "the target was made large enough");
        }
    }

    fn allocate(words: u64) -> Self {
        let layout = layout(words);
        // SAFETY: the layout's size is not 0.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { std::alloc::handle_alloc_error(layout) };
        let address = memory.as_ptr().expose_provenance() as u64;
        assert_eq!(address & !POINTER, 0, "user addresses have at most 55 bits");
        Self(address | (TAG_NODE + u64::from(words.trailing_zeros()) - 1).min(TAG_FULL))
    }

    /// Whether the node has a word for every page.
    #[inline]
    pub(super) fn is_full(self) -> bool {
        entry::tag(self.0) >= TAG_FULL
    }

    fn is_in_arena(self) -> bool {
        entry::tag(self.0) == TAG_ARENA
    }

    #[inline]
    pub(super) fn words(self) -> u64 {
        match entry::tag(self.0) {
            TAG_FULL | TAG_ARENA => FANOUT,
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

    /// The counts of the node, behind its words or where its arena keeps them.
    fn counter(self) -> &'static AtomicU64 {
        if !self.is_in_arena() {
            return self.cell(self.words());
        }
        let address = arena::count_of(self.base().addr().get());
        // SAFETY: an arena's chunk begins with a word for each of its nodes, and lives as
        // long as they do; for the rest see `cell`.
        unsafe { &*core::ptr::with_exposed_provenance::<AtomicU64>(address) }
    }

    /// The word at a position, not at an index, except in a full node. Outside an arena
    /// position `words()` is the count.
    #[inline]
    fn cell(self, position: u64) -> &'static AtomicU64 {
        debug_assert!(position <= self.words());
        // SAFETY: the allocation has `words() + 1` words; zeroed memory is a valid
        // AtomicU64. A `Node` is only made from a word read from the table while the
        // reader's slot is busy, or by the writer, and `free` demands that neither is
        // left: so the memory outlives every use of the reference, none of which leaves
        // this module.
        let word = unsafe { self.base().add(position as usize) };
        // SAFETY: an aligned word of a live allocation, valid as an AtomicU64, that outlives the
        // reference, as the paragraph before says.
        unsafe { word.as_ref() }
    }

    /// Where the word for `index` is, if there is no other; and the last position. The
    /// places behind it, round and round, are where it may be otherwise.
    #[inline]
    fn first(self, index: u64) -> (u64, u64) {
        // A small node of tag t has `1 << (t - 1)` words; the hash's upper bits choose.
        let bits = entry::tag(self.0) - (TAG_NODE - 1);
        let hash = index.wrapping_mul(0x9e37_79b9) & 0xffff_ffff;
        (hash >> (32 - bits), (1 << bits) - 1)
    }

    /// The positions where the word for `index` may be, in order.
    fn probe(self, index: u64) -> impl Iterator<Item = &'static AtomicU64> {
        let (first, mask) = self.first(index);
        (0..=mask).map(move |step| self.cell((first + step) & mask))
    }

    /// Live words, and words used up by live or dead ones.
    fn counts(self) -> (u64, u64) {
        let counts = self.counter().load(Ordering::Relaxed);
        (counts & 0xffff_ffff, counts >> 32)
    }

    fn add_counts(self, live: i64, used: i64) {
        let (was_live, was_used) = self.counts();
        let live = was_live.saturating_add_signed(live);
        let used = was_used.saturating_add_signed(used);
        self.counter().store(live | used << 32, Ordering::Relaxed);
    }
}

/// How many words of a node may be used up: the smallest ones all, larger ones three
/// quarters, so that probing stays short.
fn capacity(words: u64) -> u64 {
    if words <= 4 { words } else { words * 3 / 4 }
}

fn layout(words: u64) -> Layout {
    let size = (words as usize + 1) * size_of::<u64>();
    // The tag takes four bits of the address. Allocators give as much anyway; more would
    // make them leave gaps, up to half of what a small node takes.
    match Layout::from_size_align(size, 16) {
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
            let mut arena = Arena::default();
            let mut node = Node::with_capacity(1, Some(&mut arena));
            let mut model = BTreeMap::new();
            for (index, page) in steps {
                let word = page.map_or(EMPTY, leaf);
                match page {
                    Some(_) => { model.insert(index, word); }
                    None => { model.remove(&index); }
                }
                let put = node.put(index, word);
                if !put || node.is_oversized() {
                    let other = Node::with_capacity(node.live() + 1, Some(&mut arena));
                    node.copy_into(other);
                    prop_assert!(put || other.put(index, word));
                    // SAFETY: this test is the only reader, and goes on with `other`.
                    unsafe { node.free(&mut arena) };
                    node = other;
                }
                prop_assert_eq!(node.live(), model.len() as u64);
                let bytes = node.bytes() + arena.bytes().saturating_sub(4096);
                if model.len() > 1 {
                    prop_assert!(bytes <= 66 * model.len() + 16, "{} for {}", bytes, model.len());
                }
            }
            for index in 0..FANOUT {
                let got = node.get(index);
                prop_assert_eq!(entry::content(got), model.get(&index).copied().unwrap_or(EMPTY));
            }
            // SAFETY: nothing uses it behind this line.
            unsafe { node.free(&mut arena) };
        }
    }
}
