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
use super::work::Work;
use crate::addr::{DeviceAddr, GRANULE};
use crate::span::Span;

const PAGE_SHIFT: u32 = 12;
const TOP_SHIFT: u32 = 30;
const LEVEL_BITS: u32 = 9;
const MIDDLE_SHIFT: u32 = TOP_SHIFT - LEVEL_BITS;
/// The bits of an address within a page of each size.
const TOP: u64 = (1 << TOP_SHIFT) - 1;
const MIDDLE: u64 = (1 << MIDDLE_SHIFT) - 1;
const PAGE: u64 = (1 << PAGE_SHIFT) - 1;

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    top: Box<[AtomicU64]>,
}

/// What the writer knows beside the table, and the nodes it has taken out of it.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    /// What the chunk has gone through; see [`Work`].
    pub(crate) work: Work,
    leaves: u64,
    /// Leaves that a change of several chunks is yet to add, within its domain's limit.
    pub(crate) promised: u64,
    bytes: usize,
    retired: Vec<Node>,
    /// The bytes of all retired nodes, those included that wait for a scan elsewhere.
    retired_bytes: usize,
    /// Where full nodes come from once there are many.
    arena: Arena,
    full_nodes: usize,
}

/// Nodes that were taken out of a table and can still have readers.
#[derive(Debug, Default)]
#[must_use = "its memory is freed by `Writer::free`"]
pub(crate) struct Retired {
    nodes: Vec<Node>,
}

/// What freeing a node counts as in words of [`Work`]: the kernel may be told.
const FREE_COST: u64 = 64;
/// A table with fewer full nodes than this, 1 MiB of them, is not worth a huge page.
const SMALL_TABLE: usize = 256;
/// The first nodes of a table are full ones whatever they hold, because they are looked
/// up sooner: 128 KiB that a table may take beside what its grants account for.
const ROOMY: usize = 32;

/// A word that was looked up, and the page that it stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) word: u64,
    /// The bits of an address within the page: its size, less one.
    within: u64,
}

impl Found {
    /// The size of its page.
    pub(crate) fn size(&self) -> u64 {
        self.within + 1
    }

    /// Whether two addresses, of which one was looked up, are in the page.
    #[inline]
    pub(crate) fn covers(&self, first: u64, last: u64) -> bool {
        first ^ last <= self.within
    }

    /// Bytes from `addr` to the end of its page.
    #[inline]
    pub(crate) fn rest(&self, addr: u64) -> u64 {
        self.within + 1 - (addr & self.within)
    }

    /// Where in its object the byte at `addr` is, if the word is a leaf of memory.
    #[inline]
    pub(crate) fn offset_of(&self, leaf: Leaf, addr: u64) -> u64 {
        (leaf.page() << PAGE_SHIFT) + (addr & self.within)
    }

    /// The leaf for the granule of `addr` itself, if the word is one.
    #[inline]
    pub(crate) fn leaf_at(&self, addr: u64) -> Option<Leaf> {
        let within = addr & self.within;
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
        let Some(top) = self.top.get((addr >> TOP_SHIFT) as usize) else {
            return Found { word: EMPTY, within: TOP };
        };
        let top = top.load(Ordering::Acquire);
        match Node::get_through(top, addr >> MIDDLE_SHIFT & (FANOUT - 1)) {
            None => Found { word: top, within: TOP },
            Some(middle) => match Node::get_through(middle, addr >> PAGE_SHIFT & (FANOUT - 1)) {
                None => Found { word: middle, within: MIDDLE },
                Some(word) => Found { word, within: PAGE },
            },
        }
    }

    /// Calls `each` with every leaf that begins in or reaches into `span`, in order, until
    /// the chunk is spent: then where to go on is what comes back. Each leaf comes with
    /// the whole range that it stands for.
    ///
    /// The caller is the table's one writer, so nothing changes meanwhile.
    pub(crate) fn visit<B>(
        &self,
        work: &mut Work,
        span: Span<DeviceAddr>,
        mut each: impl FnMut(Span<DeviceAddr>, Leaf) -> ControlFlow<B>,
    ) -> ControlFlow<B, Option<DeviceAddr>> {
        let range = (span.start().0, span.last().0);
        for index in range.0 >> TOP_SHIFT..=range.1 >> TOP_SHIFT {
            // Past its last word the table has nothing, however far the span goes.
            let Some(top) = self.top.get(index as usize) else { break };
            let unit = Unit { start: index << TOP_SHIFT, shift: TOP_SHIFT };
            if work.is_spent() {
                return ControlFlow::Continue(Some(DeviceAddr(unit.start.max(range.0))));
            }
            work.spend(1);
            let word = top.load(Ordering::Relaxed);
            if let Some(next) = visit_word(word, unit, range, work, &mut each)? {
                return ControlFlow::Continue(Some(next));
            }
        }
        ControlFlow::Continue(None)
    }

    /// Puts leaves over all of `span`, which is granular: `leaf` for its first granule,
    /// and those that follow it. Ends early if the chunk is spent, and returns from where
    /// on the span is as it was.
    pub(crate) fn fill(
        &self,
        writer: &mut Writer,
        span: Span<DeviceAddr>,
        leaf: Leaf,
    ) -> Option<DeviceAddr> {
        let start = span.start().0;
        let change = &mut |addr, _| Some(leaf.advanced((addr - start) >> PAGE_SHIFT));
        self.edit(writer, span, Change { adds: true, to: change })
    }

    /// Replaces every leaf of `span`, which is granular, by what `change` makes of it.
    /// `None` removes it. Addresses without a leaf stay without. Ends early as
    /// [`fill`](Self::fill) does.
    pub(crate) fn update(
        &self,
        writer: &mut Writer,
        span: Span<DeviceAddr>,
        mut change: impl FnMut(u64, Leaf) -> Option<Leaf>,
    ) -> Option<DeviceAddr> {
        let change = &mut |addr, leaf: Option<Leaf>| change(addr, leaf?);
        self.edit(writer, span, Change { adds: false, to: change })
    }

    /// Removes every leaf of `span`, which is granular. Ends early as
    /// [`fill`](Self::fill) does.
    pub(crate) fn clear(&self, writer: &mut Writer, span: Span<DeviceAddr>) -> Option<DeviceAddr> {
        self.update(writer, span, |_, _| None)
    }

    fn edit(
        &self,
        writer: &mut Writer,
        span: Span<DeviceAddr>,
        mut change: Change<'_>,
    ) -> Option<DeviceAddr> {
        debug_assert!(span.is_granular());
        let range = (span.start().0, span.last().0);
        for index in range.0 >> TOP_SHIFT..=range.1 >> TOP_SHIFT {
            let top = self.top.get(index as usize)?;
            let unit = Unit { start: index << TOP_SHIFT, shift: TOP_SHIFT };
            if writer.work.is_spent() {
                return Some(DeviceAddr(unit.start.max(range.0)));
            }
            writer.work.spend(1);
            let word = top.load(Ordering::Relaxed);
            let Edited { word: new, paused } = writer.edit(word, unit, range, &mut change);
            if new != word {
                top.store(new, Ordering::Release);
            }
            if paused.is_some() {
                return paused.map(DeviceAddr);
            }
        }
        None
    }
}

/// [`Table::visit`] for what one word stands for.
fn visit_word<B>(
    word: u64,
    unit: Unit,
    range: (u64, u64),
    work: &mut Work,
    each: &mut impl FnMut(Span<DeviceAddr>, Leaf) -> ControlFlow<B>,
) -> ControlFlow<B, Option<DeviceAddr>> {
    let Some(node) = Node::from_word(word) else {
        if let (Some(leaf), Some(span)) = (Leaf::from_word(word), unit.span()) {
            each(span, leaf)?;
        }
        return ControlFlow::Continue(None);
    };
    let (first, last) = unit.children(range);
    if first == last {
        work.spend(1);
        let word = entry::content(node.get(first));
        return visit_word(word, unit.child(first), range, work, each);
    }
    // What is gone through is that part of the node, however little of it is in use.
    work.spend(node.words().min(last - first + 1));
    for word in node.in_order(first, last) {
        let child = unit.child(entry::index(word));
        if work.is_spent() {
            return ControlFlow::Continue(Some(DeviceAddr(child.start.max(range.0))));
        }
        if let Some(next) = visit_word(entry::content(word), child, range, work, each)? {
            return ControlFlow::Continue(Some(next));
        }
    }
    ControlFlow::Continue(None)
}

/// What to make of pages.
struct Change<'a> {
    /// Whether it makes something of addresses without a leaf.
    adds: bool,
    /// From a page's first address and its leaf, if any, to the new one.
    to: &'a mut dyn FnMut(u64, Option<Leaf>) -> Option<Leaf>,
}

/// What became of a word: the new one, and from where on its pages are as they were, if
/// the chunk was spent before the last.
struct Edited {
    word: u64,
    paused: Option<u64>,
}

impl Edited {
    fn all(word: u64) -> Self {
        Self { word, paused: None }
    }
}

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

    fn span(self) -> Option<Span<DeviceAddr>> {
        Span::inclusive(DeviceAddr(self.start), DeviceAddr(self.last()))
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

impl Retired {
    /// Takes over what another has.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.nodes.append(&mut other.nodes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
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

    /// The retired nodes, to be freed after a scan.
    pub(crate) fn take_retired(&mut self) -> Retired {
        Retired { nodes: core::mem::take(&mut self.retired) }
    }

    /// Frees nodes that were retired, as many as a chunk allows.
    ///
    /// # Safety
    /// They came from [`take_retired`](Self::take_retired) of this writer, and every reader
    /// that was in the table then has left it.
    pub(crate) unsafe fn free(&mut self, retired: &mut Retired) {
        while let Some(node) = retired.nodes.pop() {
            let bytes = node.bytes();
            self.work.spend(FREE_COST);
            // SAFETY: a retired node is out of the table, so no reader can come to it, and
            // the caller has waited until none is left in it. `pop` frees it once. Its arena is
            // that of the writer that retired it: this one.
            unsafe { node.free(&mut self.arena) };
            self.retired_bytes = self.retired_bytes.saturating_sub(bytes);
            if self.work.is_spent() {
                break;
            }
        }
    }

    /// The word that is to stand for `unit` once `change` has been applied to all of
    /// `range` in it; changes below happen in place.
    fn edit(
        &mut self,
        word: u64,
        unit: Unit,
        range: (u64, u64),
        change: &mut Change<'_>,
    ) -> Edited {
        let leaf = Leaf::from_word(word);
        let node = match Node::from_word(word) {
            Some(node) if change.adds && unit.within(range) => {
                // All of the node's pages become one leaf, if a leaf is what comes.
                match (change.to)(unit.start, None) {
                    Some(new) => {
                        self.retire_all(node);
                        self.leaves += 1;
                        return Edited::all(new.word());
                    }
                    None => node,
                }
            }
            Some(node) => node,
            None if unit.within(range) => {
                let new = (change.to)(unit.start, leaf);
                self.leaves -= u64::from(leaf.is_some());
                self.leaves += u64::from(new.is_some());
                return Edited::all(new.map_or(EMPTY, Leaf::word));
            }
            None => match leaf {
                Some(leaf) => self.split(leaf, unit),
                None if !change.adds => return Edited::all(EMPTY),
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
    ) -> Edited {
        let (first, last) = unit.children(range);
        let mut paused = None;
        // If nothing is added, only what is in use is gone through.
        let in_use = (!change.adds && first != last).then(|| {
            self.work.spend(node.words().min(last - first + 1));
            node.in_order(first, last)
        });
        let count = in_use.as_ref().map_or(last - first + 1, |words| words.len() as u64);
        for place in 0..count {
            let in_use = in_use.as_ref().and_then(|words| words.get(place as usize));
            let index = in_use.map_or(first + place, |&word| entry::index(word));
            let child = unit.child(index);
            if self.work.is_spent() {
                paused = Some(child.start.max(range.0));
                break;
            }
            self.work.spend(1);
            let word = entry::content(node.get(index));
            let edited = self.edit(word, child, range, change);
            if edited.word != word && !node.put(index, edited.word) {
                node = self.resized(node, node.live() + 1);
                let put = node.put(index, edited.word);
                debug_assert!(put, "it was made large enough");
            }
            if edited.paused.is_some() {
                paused = edited.paused;
                break;
            }
        }
        if node.live() == 0 {
            self.retire(node);
            return Edited { word: EMPTY, paused };
        }
        if node.is_oversized() && (!node.is_full() || self.full_nodes > ROOMY) {
            node = self.resized(node, node.live());
        }
        Edited { word: node.word(), paused }
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
        self.work.spend(node.words());
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
        self.work.spend(node.words());
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
                // Nobody waits for this.
                self.work.begin();
            }
        }
        for node in self.retired.drain(..) {
            // SAFETY: the caller promises that nobody reads the table, so no reader is in a
            // node that was retired from it; draining frees each once, and its arena is
            // that of this writer, which made it.
            unsafe { node.free(&mut self.arena) };
        }
        self.retired_bytes = 0;
    }
}

const _: () = assert!(1 << PAGE_SHIFT == GRANULE);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::view::entry::Behind;
    use core::convert::Infallible;
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

    /// Makes a change to its end, a chunk after the other.
    fn whole(
        writer: &mut Writer,
        span: Span<DeviceAddr>,
        mut chunk: impl FnMut(&mut Writer, Span<DeviceAddr>) -> Option<DeviceAddr>,
    ) {
        let mut rest = Some(span);
        while let Some(span) = rest {
            writer.work.begin();
            let next = chunk(writer, span);
            assert!(next.is_none_or(|next| next > span.start()), "every chunk comes further");
            rest = next.and_then(|next| Span::inclusive(next, span.last()));
        }
        let mut retired = writer.take_retired();
        while !retired.is_empty() {
            writer.work.begin();
            // SAFETY: tests have no other reader.
            unsafe { writer.free(&mut retired) };
        }
    }

    fn fill(table: &Table, writer: &mut Writer, span: Span<DeviceAddr>, leaf: Leaf) {
        whole(writer, span, |writer, rest| {
            let pages = (rest.start().0 - span.start().0) >> 12;
            table.fill(writer, rest, leaf.advanced(pages))
        });
    }

    fn clear(table: &Table, writer: &mut Writer, span: Span<DeviceAddr>) {
        whole(writer, span, |writer, rest| table.clear(writer, rest));
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
                        fill(&table, &mut writer, span(first, pages), leaf(value));
                        for (page, cell) in range.clone().zip(&mut model[range]) {
                            *cell = Some(value + page as u64 - first);
                        }
                    }
                    1 => {
                        clear(&table, &mut writer, span(first, pages));
                        model[range].fill(None);
                    }
                    _ => {
                        whole(&mut writer, span(first, pages), |writer, rest| {
                            table.update(writer, rest, |_, leaf| Some(leaf.advanced(value)))
                        });
                        for cell in model[range].iter_mut().flatten() {
                            *cell += value;
                        }
                    }
                }
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
            let mut next = DeviceAddr(0);
            whole(&mut writer, span(0, 1 << (BITS - 12)), |writer, rest| {
                let visited = table.visit(&mut writer.work, rest, |part, leaf| {
                    assert!(part.start() >= next, "in order, and each once");
                    next = DeviceAddr(part.last().0 + 1);
                    seen += part.len() >> 12;
                    leaves += 1;
                    assert_eq!(model[(part.start().0 >> 12) as usize], Some(leaf.page()));
                    ControlFlow::<Infallible>::Continue(())
                });
                let ControlFlow::Continue(next) = visited;
                next
            });
            prop_assert_eq!(seen, model.iter().flatten().count() as u64);
            prop_assert_eq!(leaves, writer.leaves());
        }
    }

    #[test]
    fn whole_gigabytes_take_one_word() {
        let table = Table::new(BITS);
        let mut writer = Writer::default();
        fill(&table, &mut writer, span(0, 4 << 18), leaf(7));
        assert_eq!((writer.leaves(), writer.bytes()), (4, 0));
        assert_eq!(page_at(&table, 3 << 18), Some(7 + (3 << 18)));
    }

    #[test]
    fn memory_is_returned_after_removal() {
        let table = Table::new(BITS);
        let mut writer = Writer::default();
        for page in 0..4096 {
            fill(&table, &mut writer, span(page, 1), leaf(4096 - page));
        }
        assert!(writer.bytes() > 0);
        clear(&table, &mut writer, span(0, 4096));
        assert_eq!((writer.leaves(), writer.bytes()), (0, 0));
    }

    #[test]
    fn a_grant_costs_at_most_64_bytes_however_it_is_spread() {
        for stride in [1_u64, 3, 64, 511, 512, 513, 4096, 1 << 18] {
            let table = Table::new(48);
            let mut writer = Writer::default();
            let grants = 4096_u64;
            for grant in 0..grants {
                fill(&table, &mut writer, span(grant * stride % (1 << 36), 1), leaf(grant));
            }
            let each = writer.bytes().saturating_sub(ROOMY * 4200) as u64 / grants;
            assert!(each <= 64, "{each} bytes a grant at stride {stride}");
        }
    }
}
