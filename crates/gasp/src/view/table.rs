//! A table from device addresses to leaves, in three levels: 1 GiB, 2 MiB, 4 KiB.
//!
//! One writer changes it, under its view's lock; readers look words up at any time. Every
//! change of a page is one store, so a reader sees each page as it was before or after.
#![allow(unsafe_code, reason = "frees retired nodes, and makes a large array without touching it")]

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

use super::arena::Arena;
use super::entry::{self, EMPTY, Leaf};
use super::node::{FANOUT, Node};
use crate::addr::{DeviceAddr, GRANULE};
use crate::span::Span;

const PAGE_SHIFT: u32 = 12;
const TOP_SHIFT: u32 = 30;
const LEVEL_BITS: u32 = 9;

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    top: Box<[AtomicU64]>,
}

/// What the writer knows beside the table, and the nodes it has taken out of it.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    leaves: u64,
    bytes: usize,
    retired: Vec<Node>,
    retired_bytes: usize,
    /// Where full nodes come from once there are many.
    arena: Arena,
    full_nodes: usize,
}

/// A table with fewer full nodes than this, 1 MiB of them, is not worth a huge page.
const SMALL_TABLE: usize = 256;
/// The first nodes of a table are full ones whatever they hold, because they are looked
/// up sooner: 128 KiB that a table may take beside what its grants account for.
const ROOMY: usize = 32;

/// A word that was looked up, and the size of the page it stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) word: u64,
    pub(crate) shift: u32,
}

impl Found {
    /// Bytes from `addr` to the end of its page.
    #[inline]
    pub(crate) fn rest(&self, addr: u64) -> u64 {
        let size = 1 << self.shift;
        size - (addr & (size - 1))
    }

    /// How many entries more the word's page becomes, at most, when `len` bytes of it are
    /// changed; none where that is all of it.
    pub(crate) fn entries_of_a_split(&self, len: u64) -> u64 {
        match self.shift {
            shift if len >= 1 << shift => 0,
            // Into 2 MiB, and those at both ends into 4 KiB.
            TOP_SHIFT => 3 * (FANOUT - 1),
            _ => FANOUT - 1,
        }
    }

    /// Where in its object the byte at `addr` is, if the word is a leaf of memory.
    #[inline]
    pub(crate) fn offset_of(&self, leaf: Leaf, addr: u64) -> u64 {
        (leaf.page() << PAGE_SHIFT) + (addr & ((1 << self.shift) - 1))
    }

    /// The leaf for the granule of `addr` itself, if the word is one.
    #[inline]
    pub(crate) fn leaf_at(&self, addr: u64) -> Option<Leaf> {
        let within = addr & ((1 << self.shift) - 1);
        Leaf::from_word(self.word).map(|leaf| leaf.advanced(within >> PAGE_SHIFT))
    }
}

impl Table {
    /// A table for addresses of `bits` bits. Memory is taken for what is used of it.
    pub(crate) fn new(bits: u32) -> Self {
        let len = 1_usize << bits.saturating_sub(TOP_SHIFT);
        let zeros: Box<[u64]> = vec![0; len].into_boxed_slice();
        // SAFETY: AtomicU64 has the size, alignment and valid values of u64, and the box
        // is owned. (This way the kernel gives zero pages when they are touched.)
        let top = unsafe { Box::from_raw(Box::into_raw(zeros) as *mut [AtomicU64]) };
        Self { top }
    }

    /// A table that has no addresses.
    pub(crate) fn empty() -> Self {
        Self { top: Box::default() }
    }

    /// The word for an address.
    #[inline(always)]
    pub(crate) fn find(&self, addr: u64) -> Found {
        const MIDDLE_SHIFT: u32 = TOP_SHIFT - LEVEL_BITS;
        let Some(top) = self.top.get((addr >> TOP_SHIFT) as usize) else {
            return Found { word: EMPTY, shift: TOP_SHIFT };
        };
        let word = top.load(Ordering::Acquire);
        let Some(node) = Node::from_word(word) else { return Found { word, shift: TOP_SHIFT } };
        let word = node.get(addr >> MIDDLE_SHIFT & (FANOUT - 1));
        let Some(node) = Node::from_word(word) else { return Found { word, shift: MIDDLE_SHIFT } };
        let word = node.get(addr >> PAGE_SHIFT & (FANOUT - 1));
        Found { word, shift: PAGE_SHIFT }
    }

    /// Calls `each` with every leaf of `span`, in order, cut to the span; addresses
    /// without one are passed over.
    pub(crate) fn visit<B>(
        &self,
        span: Span<DeviceAddr>,
        mut each: impl FnMut(Span<DeviceAddr>, Leaf) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut addr = span.start().0;
        // Behind its last word the table has nothing, however far the span goes.
        while addr >> TOP_SHIFT < self.top.len() as u64 {
            let found = self.find(addr);
            let rest = found.rest(addr).min(span.last().0 - addr + 1);
            if let (Some(leaf), Ok(part)) = (found.leaf_at(addr), Span::new(DeviceAddr(addr), rest))
            {
                each(part, leaf)?;
            }
            match addr.checked_add(rest) {
                Some(next) if next <= span.last().0 => addr = next,
                _ => break,
            }
        }
        ControlFlow::Continue(())
    }

    /// Puts leaves over all of `span`, which is granular: `leaf` for its first granule,
    /// and those that follow it.
    pub(crate) fn fill(&self, writer: &mut Writer, span: Span<DeviceAddr>, leaf: Leaf) {
        let start = span.start().0;
        self.edit(writer, span, &mut |addr, _| Some(leaf.advanced((addr - start) >> PAGE_SHIFT)));
    }

    /// Replaces every leaf of `span`, which is granular, by what `change` makes of it.
    /// `None` removes it. Addresses without a leaf stay without.
    pub(crate) fn update(
        &self,
        writer: &mut Writer,
        span: Span<DeviceAddr>,
        mut change: impl FnMut(u64, Leaf) -> Option<Leaf>,
    ) {
        self.edit(writer, span, &mut |addr, leaf| change(addr, leaf?));
    }

    /// Removes every leaf of `span`, which is granular.
    pub(crate) fn clear(&self, writer: &mut Writer, span: Span<DeviceAddr>) {
        self.edit(writer, span, &mut |_, _| None);
    }

    fn edit(&self, writer: &mut Writer, span: Span<DeviceAddr>, change: &mut Change<'_>) {
        debug_assert!(span.is_granular());
        let (first, last) = (span.start().0, span.last().0);
        for index in first >> TOP_SHIFT..=last >> TOP_SHIFT {
            let Some(top) = self.top.get(index as usize) else { return };
            let unit = Unit { start: index << TOP_SHIFT, shift: TOP_SHIFT };
            let word = top.load(Ordering::Relaxed);
            let new = writer.edit(word, unit, (first, last), change);
            if new != word {
                top.store(new, Ordering::Release);
            }
        }
    }
}

/// What to make of a page: its first address and its leaf, if any, to the new one.
type Change<'a> = dyn FnMut(u64, Option<Leaf>) -> Option<Leaf> + 'a;

/// A page-sized and page-aligned part of the address space.
#[derive(Clone, Copy)]
struct Unit {
    start: u64,
    shift: u32,
}

impl Unit {
    fn last(self) -> u64 {
        self.start + ((1 << self.shift) - 1)
    }

    fn within(self, (first, last): (u64, u64)) -> bool {
        first <= self.start && self.last() <= last
    }

    fn child(self, index: u64) -> Self {
        let shift = self.shift - LEVEL_BITS;
        Self { start: self.start + (index << shift), shift }
    }

    /// The first and last child that `range` touches.
    fn children(self, (first, last): (u64, u64)) -> (u64, u64) {
        let shift = self.shift - LEVEL_BITS;
        let index = |addr: u64| (addr - self.start) >> shift;
        (index(first.max(self.start)), index(last.min(self.last())))
    }
}

impl Writer {
    /// How many leaves the table has.
    pub(crate) fn leaves(&self) -> u64 {
        self.leaves
    }

    /// The bytes of all nodes, the retired ones included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.retired_bytes + self.arena.bytes()
    }

    /// Whether enough nodes are retired that waiting for readers pays.
    pub(crate) fn wants_grace(&self) -> bool {
        const ENOUGH: usize = 64 << 10;
        self.retired_bytes >= ENOUGH
    }

    /// Frees the retired nodes.
    ///
    /// # Safety
    /// Every reader that was in the table when the last of them was retired has left it.
    pub(crate) unsafe fn free_retired(&mut self) {
        for node in self.retired.drain(..) {
            // SAFETY: a retired node is out of the table, so no reader can come to it,
            // and by the caller's promise none is left in it. Draining frees it once.
            unsafe { node.free(&mut self.arena) };
        }
        self.retired_bytes = 0;
    }

    /// The word that is to stand for `unit` once `change` has been applied to all of
    /// `range` in it; changes below happen in place.
    fn edit(&mut self, word: u64, unit: Unit, range: (u64, u64), change: &mut Change<'_>) -> u64 {
        let leaf = Leaf::from_word(word);
        let node = match Node::from_word(word) {
            Some(node) if unit.within(range) && unit.shift > PAGE_SHIFT => {
                // All of the node's pages become one leaf, if a leaf is what comes.
                match change(unit.start, None) {
                    Some(new) => {
                        self.retire_all(node);
                        self.leaves += 1;
                        return new.word();
                    }
                    None => node,
                }
            }
            Some(node) => node,
            None if unit.within(range) => {
                let new = change(unit.start, leaf);
                self.leaves -= u64::from(leaf.is_some());
                self.leaves += u64::from(new.is_some());
                return new.map_or(EMPTY, Leaf::word);
            }
            None => match leaf {
                Some(leaf) => self.split(leaf, unit),
                None if change(range.0.max(unit.start), None).is_none() => return EMPTY,
                None => {
                    let (first, last) = unit.children(range);
                    self.allocate(last - first + 1)
                }
            },
        };
        self.edit_children(node, unit, range, change)
    }

    fn edit_children(
        &mut self,
        mut node: Node,
        unit: Unit,
        range: (u64, u64),
        change: &mut Change<'_>,
    ) -> u64 {
        let (first, last) = unit.children(range);
        for index in first..=last {
            let word = entry::content(node.get(index));
            let new = self.edit(word, unit.child(index), range, change);
            if new != word && !node.put(index, new) {
                node = self.resized(node, node.live() + 1);
                let put = node.put(index, new);
                debug_assert!(put, "it was made large enough");
            }
        }
        if node.live() == 0 {
            self.retire(node);
            return EMPTY;
        }
        if node.is_oversized() && (!node.is_full() || self.full_nodes > ROOMY) {
            node = self.resized(node, node.live());
        }
        node.word()
    }

    /// A node whose pages are those of one larger page.
    fn split(&mut self, leaf: Leaf, unit: Unit) -> Node {
        let node = self.allocate(FANOUT);
        let pages = 1 << (unit.shift - LEVEL_BITS - PAGE_SHIFT);
        for index in 0..FANOUT {
            node.put(index, leaf.advanced(index * pages).word());
        }
        self.leaves += FANOUT - 1;
        node
    }

    fn allocate(&mut self, pages: u64) -> Node {
        let arena = (self.full_nodes >= SMALL_TABLE).then_some(&mut self.arena);
        let pages = if self.full_nodes < ROOMY { FANOUT } else { pages };
        let node = Node::with_room(pages, arena);
        self.bytes += node.bytes();
        self.full_nodes += usize::from(node.is_full());
        node
    }

    /// A node with room for `pages` that has the words of `node`, which is retired.
    fn resized(&mut self, node: Node, pages: u64) -> Node {
        let new = self.allocate(pages);
        node.copy_into(new);
        self.retire(node);
        new
    }

    fn retire(&mut self, node: Node) {
        self.bytes = self.bytes.saturating_sub(node.bytes());
        self.full_nodes = self.full_nodes.saturating_sub(usize::from(node.is_full()));
        self.retired_bytes += node.bytes();
        self.retired.push(node);
    }

    fn retire_all(&mut self, node: Node) {
        for word in node.words_in_use() {
            match Node::from_word(word) {
                Some(child) => self.retire_all(child),
                None => self.leaves = self.leaves.saturating_sub(1),
            }
        }
        self.retire(node);
    }
}

impl Writer {
    /// Frees every node of the table, and leaves it empty.
    ///
    /// # Safety
    /// Nobody reads the table, now or later.
    pub(crate) unsafe fn free_all(&mut self, table: &mut Table) {
        for top in &mut table.top {
            if let Some(node) = Node::from_word(core::mem::replace(top.get_mut(), EMPTY)) {
                self.retire_all(node);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.free_retired() };
    }
}

const _: () = assert!(1 << PAGE_SHIFT == GRANULE);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::view::entry::Behind;
    use proptest::prelude::*;

    const BITS: u32 = 34;

    fn span(page: u64, pages: u64) -> Span<DeviceAddr> {
        Span::new(DeviceAddr(page << 12), pages << 12).unwrap()
    }

    fn leaf(page: u64) -> Leaf {
        let behind = Behind::Memory { segment: 3, page, offered: Access::RW, ram: true };
        Leaf::new(Access::RW, behind)
    }

    fn page_at(table: &Table, page: u64) -> Option<u64> {
        table.find(page << 12).leaf_at(page << 12).map(Leaf::page)
    }

    /// Ranges that like to begin and end at the sizes of pages.
    fn ranges() -> impl Strategy<Value = (u64, u64)> {
        let unit = prop_oneof![Just(1_u64), Just(512), Just(512 * 512)];
        (unit, 0_u64..8, 0_u64..3, 1_u64..1200).prop_map(|(unit, at, off, len)| {
            let first = (unit * at + off).min((1 << (BITS - 12)) - 1);
            (first, len.min((1 << (BITS - 12)) - first))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_table_behaves_as_an_array_of_pages(
            steps in prop::collection::vec((0..3, ranges(), 0u64..1 << 20), 1..12)
        ) {
            let table = Table::new(BITS);
            let mut writer = Writer::default();
            let mut model = vec![None; 1 << (BITS - 12)];
            for (what, (first, pages), value) in steps {
                let range = first as usize..(first + pages) as usize;
                match what {
                    0 => {
                        table.fill(&mut writer, span(first, pages), leaf(value));
                        for (page, cell) in range.clone().zip(&mut model[range]) {
                            *cell = Some(value + page as u64 - first);
                        }
                    }
                    1 => {
                        table.clear(&mut writer, span(first, pages));
                        model[range].fill(None);
                    }
                    _ => {
                        table.update(&mut writer, span(first, pages), |_, leaf| {
                            Some(leaf.advanced(value))
                        });
                        for cell in model[range].iter_mut().flatten() {
                            *cell += value;
                        }
                    }
                }
                // SAFETY: this test is the only reader.
                unsafe { writer.free_retired() };
            }
            let mut wrong = Vec::new();
            for (page, &want) in model.iter().enumerate() {
                if page_at(&table, page as u64) != want {
                    wrong.push(page);
                }
            }
            prop_assert!(wrong.is_empty(), "{:?}", wrong);
            let mut seen = 0;
            let mut leaves = 0;
            let _: ControlFlow<()> = table.visit(span(0, 1 << (BITS - 12)), |part, leaf| {
                seen += part.len() >> 12;
                leaves += 1;
                assert_eq!(model[(part.start().0 >> 12) as usize], Some(leaf.page()));
                ControlFlow::Continue(())
            });
            prop_assert_eq!(seen, model.iter().flatten().count() as u64);
            prop_assert_eq!(leaves, writer.leaves());
        }
    }

    #[test]
    fn whole_gigabytes_take_one_word() {
        let table = Table::new(BITS);
        let mut writer = Writer::default();
        table.fill(&mut writer, span(0, 4 << 18), leaf(7));
        assert_eq!((writer.leaves(), writer.bytes()), (4, 0));
        assert_eq!(page_at(&table, 3 << 18), Some(7 + (3 << 18)));
    }

    #[test]
    fn memory_is_returned_after_removal() {
        let table = Table::new(BITS);
        let mut writer = Writer::default();
        for page in 0..4096 {
            table.fill(&mut writer, span(page, 1), leaf(4096 - page));
        }
        assert!(writer.bytes() > 0);
        table.clear(&mut writer, span(0, 4096));
        // SAFETY: this test is the only reader.
        unsafe { writer.free_retired() };
        assert_eq!((writer.leaves(), writer.bytes()), (0, 0));
    }

    #[test]
    fn a_grant_costs_at_most_64_bytes_however_it_is_spread() {
        for stride in [1_u64, 3, 64, 511, 512, 513, 4096, 1 << 18] {
            let table = Table::new(48);
            let mut writer = Writer::default();
            let grants = 4096_u64;
            for grant in 0..grants {
                table.fill(&mut writer, span(grant * stride % (1 << 36), 1), leaf(grant));
                // SAFETY: this test is the only reader.
                unsafe { writer.free_retired() };
            }
            let each = writer.bytes().saturating_sub(ROOMY * 4200) as u64 / grants;
            assert!(each <= 64, "{each} bytes a grant at stride {stride}");
        }
    }
}
