//! The nodes of a table: 512 words, or as many as are in use.
//!
//! A node stands for a range of 512 pages. A *full* node has a word for each, found by
//! its index. For a range with few pages in use that would waste up to 4 KiB a page, and a
//! guest could request a million such ranges; a *small* node has 2 to 256 words, each with
//! its index, in a hash table with open addressing. So the memory that a guest can make the
//! host spend stays within 64 bytes for each page granted, wherever it grants them.
//!
//! Readers look words up while the one writer changes them: a word never moves within a
//! node, and a node that is too small or too large is replaced, never resized. The replaced
//! one is *retired*: freed when no reader can be in it.
#![allow(unsafe_code, reason = "nodes are reached through tagged pointers, without locks")]

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use super::arena::{self, Arena};
use super::entry::{self, EMPTY, TAG_NODE, TOMBSTONE};

/// Pages that a node stands for.
pub(crate) const FANOUT: u64 = 512;
/// Maximum number of words of a small node.
const SMALL_MAX: u64 = 256;
const TAG_FULL: u64 = 10;
/// The tag of a full node in the table's arena.
const TAG_ARENA: u64 = 11;
const _: () = assert!(TAG_FULL ^ TAG_ARENA == 1 && TAG_FULL & 1 == 0, "one bit tells them apart");
const POINTER: u64 = 0x007f_ffff_ffff_fff0;

/// A reference to a node: the word that points to it. Copies refer to the same node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Node(u64);

impl Node {
    /// Allocates an empty node with room for `pages` words; a full one in `arena`, if there
    /// is one with memory.
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

    /// The node that a word points to; `None` if the word is no pointer.
    #[inline]
    pub(super) fn from_word(word: u64) -> Option<Self> {
        let is_node = entry::tag(word).wrapping_sub(TAG_NODE) <= TAG_ARENA - TAG_NODE;
        is_node.then_some(Self(entry::content(word)))
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        self.0
    }

    /// The word for page `index` (below 512), or [`EMPTY`], in the node that `word` points
    /// to; `None` if `word` is no pointer. The test for a full node comes first, and is one
    /// mask and compare.
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

    /// [`get`](Self::get) of a small node. Out of line, so that its registers are not taken
    /// from the path through full nodes.
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

    /// The word for page `index`, or [`EMPTY`], at the positions after the first.
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

    /// Sets the word for page `index`; [`EMPTY`] removes it. Returns `false`, and changes
    /// nothing, if the node has no room for one more word.
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

    /// Whether the node is much larger than its live words need.
    pub(super) fn is_oversized(self) -> bool {
        let (live, _) = self.counts();
        match self.words() {
            FANOUT => live <= 128,
            words => words > 2 && live * 4 <= words,
        }
    }

    /// All live words, in no particular order.
    pub(super) fn words_in_use(self) -> impl Iterator<Item = u64> {
        (0..self.words())
            .map(move |position| self.cell(position).load(Ordering::Relaxed))
            .filter(|&word| word != EMPTY && entry::tag(word) != TOMBSTONE)
    }

    /// The live words of pages `first` to `last`, in the order of their pages.
    pub(super) fn in_order(self, first: u64, last: u64) -> SmallVec<[u64; 16]> {
        let in_use = |&word: &u64| word != EMPTY && entry::tag(word) != TOMBSTONE;
        // Looking up few pages is faster than filtering all words.
        if self.is_full() || last - first < self.words() / 8 {
            return (first..=last).map(|index| self.get(index)).filter(in_use).collect();
        }
        let wanted = |&word: &u64| (first..=last).contains(&entry::index(word));
        let mut words: SmallVec<_> = self.words_in_use().filter(wanted).collect();
        words.sort_unstable_by_key(|&word| entry::index(word));
        words
    }

    /// Number of live words.
    pub(super) fn live(self) -> u64 {
        self.counts().0
    }

    /// The memory that the node takes from the allocator, in bytes; 0 for a node in an
    /// arena, which counts it.
    pub(super) fn bytes(self) -> usize {
        // The usual allocators keep one word with each block, and round up to 16 bytes.
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
    /// No word points to it any more, no reader can be in it, it is freed once and not used
    /// afterwards, and `arena` is the one that it was allocated with.
    pub(super) unsafe fn free(self, arena: &mut Arena) {
        if self.is_in_arena() {
            self.counter().store(0, Ordering::Relaxed);
            // SAFETY: the tag says that the node came from an arena, and by the caller's promise
            // that is this one. Nobody uses the node any more, as the caller promises that no
            // word points to it and no reader is in it; and it frees the node once.
            return unsafe { arena.release(self.base()) };
        }
        // SAFETY: the node is not in an arena, so `allocate` got this pointer from the same
        // allocator, with the layout for as many words as the tag says. It is still allocated,
        // as the caller frees it once; and the caller promises that nobody uses it any more.
        unsafe { std::alloc::dealloc(self.base().as_ptr().cast(), layout(self.words())) }
    }

    /// Copies the live words into `target`, which must have room for them.
    pub(super) fn copy_into(self, target: Self) {
        for word in self.words_in_use() {
            // The words of a full node have their index as well.
            let put = target.put(entry::index(word), word);
            debug_assert!(put, "the target is large enough");
        }
    }

    fn allocate(words: u64) -> Self {
        let layout = layout(words);
        // SAFETY: the layout's size is not 0: it is at least one word.
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
        // SAFETY: not null: a node's address came from a successful allocation.
        unsafe { NonNull::new_unchecked(pointer) }
    }

    /// The node's counts: the word after its last, or the one that its arena has for it.
    fn counter(self) -> &'static AtomicU64 {
        if !self.is_in_arena() {
            return self.cell(self.words());
        }
        let address = arena::count_of(self.base().addr().get());
        // SAFETY: not null, aligned and initialised: an arena's slab begins with one word for
        // each of its nodes, `count_of` is the address of this node's, and zeroed memory is a
        // valid AtomicU64. Only atomic accesses reach it. The slab is mapped as long as one of
        // its nodes is allocated, and this one is: only the writer asks for counts, of nodes
        // that it has not freed, and the reference does not leave this module.
        unsafe { &*core::ptr::with_exposed_provenance::<AtomicU64>(address) }
    }

    /// The cell of a word by position, which is its index only in a full node. Outside an
    /// arena, position `words()` has the counts.
    #[inline]
    fn cell(self, position: u64) -> &'static AtomicU64 {
        debug_assert!(position <= self.words());
        // SAFETY: the sum is inside the allocation: that has `words() + 1` words, or `words()`
        // in an arena, where the position is below that, as the counts are elsewhere; and no
        // caller passes a greater position.
        let word = unsafe { self.base().add(position as usize) };
        // SAFETY: not null, and aligned, as a word of the node; initialised, as it was zeroed
        // when it was allocated, and zero is a valid AtomicU64; changed only atomically until
        // it is freed. It outlives the reference, which does not leave this module: a `Node`
        // comes from the writer, or from a word that was read from the table while the
        // reader's slot was busy, and `free` demands that neither uses it any more.
        unsafe { word.as_ref() }
    }

    /// The first position to probe for `index`, and the last position of the node, which is
    /// a mask. Probing continues at the following positions, and wraps around.
    #[inline]
    fn first(self, index: u64) -> (u64, u64) {
        // A small node of tag t has `1 << (t - 1)` words; the upper bits of the hash are used.
        let bits = entry::tag(self.0) - (TAG_NODE - 1);
        let hash = index.wrapping_mul(0x9e37_79b9) & 0xffff_ffff;
        (hash >> (32 - bits), (1 << bits) - 1)
    }

    /// The cells where the word for `index` can be, in the order of probing.
    fn probe(self, index: u64) -> impl Iterator<Item = &'static AtomicU64> {
        let (first, mask) = self.first(index);
        (0..=mask).map(move |step| self.cell((first + step) & mask))
    }

    /// Number of live words, and of words used up: live ones and tombstones.
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

/// Maximum number of used-up words of a node of `words`: all of the smallest nodes, three
/// quarters of larger ones, so that probing stays short.
fn capacity(words: u64) -> u64 {
    if words <= 4 { words } else { words * 3 / 4 }
}

fn layout(words: u64) -> Layout {
    let size = (words as usize + 1) * size_of::<u64>();
    // The tag takes four bits of the address. Allocators align to 16 anyway; a larger
    // alignment would cost gaps of up to half the size of a small node.
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
                    // SAFETY: allocated with this arena. This test is the only user, and uses
                    // `other` from here on; so the node is freed once.
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
            // SAFETY: allocated with this arena, and not used after this line.
            unsafe { node.free(&mut arena) };
        }
    }
}
