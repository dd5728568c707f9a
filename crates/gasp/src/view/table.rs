//! A table from device addresses to leaves, in three levels: 1 GiB, 2 MiB, 4 KiB.
//!
//! One writer changes it, under its view's lock; readers look words up at any time. Every
//! change of a page is one store, so a reader sees each page as it was before the change or
//! as it is after.
#![allow(unsafe_code, reason = "allocates a large array without touching it")]

use core::ops::{ControlFlow, RangeInclusive};
use core::sync::atomic::{AtomicU64, Ordering};

use super::entry::{self, EMPTY, Leaf};
use super::node::{FANOUT, Node};
use super::unit::{MIDDLE_SHIFT, PAGE_SHIFT, TOP_SHIFT, Unit};
use super::work::Work;
use super::writer::{Change, Edited};
pub(crate) use super::writer::{Retired, Writer};
use crate::addr::{DeviceAddr, GRANULE};
use crate::span::Span;

/// The bits of an address within a page of each size.
const TOP: u64 = (1 << TOP_SHIFT) - 1;
const MIDDLE: u64 = (1 << MIDDLE_SHIFT) - 1;
const PAGE: u64 = (1 << PAGE_SHIFT) - 1;

/// The table of a view. Its nodes are freed by [`free_all`](Self::free_all), not by a drop.
#[derive(Debug)]
pub(crate) struct Table {
    top: Box<[AtomicU64]>,
    /// The first and the last index of `top` that was ever in use; the writer's alone. So a walk
    /// over all addresses does not read, and thereby map, all of the top level.
    used: (AtomicU64, AtomicU64),
}

/// The result of a look-up: a word, and the size of the page that it stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) word: u64,
    /// The mask of the offset in the page: its size less one.
    within: u64,
}

impl Found {
    /// Size of the page in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.within + 1
    }

    /// Whether both addresses, of which one was looked up, are in the page.
    #[inline]
    pub(crate) fn covers(&self, first: u64, last: u64) -> bool {
        first ^ last <= self.within
    }

    /// Number of bytes from `addr` to the end of the page.
    #[inline]
    pub(crate) fn rest(&self, addr: u64) -> u64 {
        self.within + 1 - (addr & self.within)
    }

    /// The offset of the byte at `addr` in the memory object of `leaf`, which is the word and
    /// must be memory.
    #[inline]
    pub(crate) fn offset_of(&self, leaf: Leaf, addr: u64) -> u64 {
        (leaf.page() << PAGE_SHIFT) + (addr & self.within)
    }

    /// The leaf for the granule of `addr`, if the word is a leaf.
    #[inline]
    pub(crate) fn leaf_at(&self, addr: u64) -> Option<Leaf> {
        let within = addr & self.within;
        Leaf::from_word(self.word).map(|leaf| leaf.advanced(within >> PAGE_SHIFT))
    }
}

impl Table {
    /// A table for addresses of `bits` bits. Its top level takes memory when it is touched.
    pub(crate) fn new(bits: u32) -> Self {
        let len = 1_usize << bits.saturating_sub(TOP_SHIFT);
        let zeros: Box<[u64]> = vec![0; len].into_boxed_slice();
        // SAFETY: the pointer comes from `Box::into_raw`, and becomes a box once. AtomicU64
        // has the size, alignment and valid values of u64, so the layout is that of the
        // allocation and every element is valid. (Allocated as zeros, its pages are provided
        // by the kernel when they are touched.)
        let top = unsafe { Box::from_raw(Box::into_raw(zeros) as *mut [AtomicU64]) };
        Self { top, used: (AtomicU64::new(u64::MAX), AtomicU64::new(0)) }
    }

    /// A table for no addresses: every look-up finds [`EMPTY`].
    pub(crate) fn empty() -> Self {
        Self { top: Box::default(), used: Default::default() }
    }

    /// The word for an address; [`EMPTY`] past the end of the table.
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

    /// Calls `each` with every leaf that overlaps `span`, in order, and with the whole range
    /// that the leaf stands for. Ends early if the chunk is spent, and returns the address
    /// to continue at; `None` at the end.
    ///
    /// The caller must have locked the table's writer, so that nothing changes meanwhile.
    pub(crate) fn visit<B>(
        &self,
        work: &mut Work,
        span: Span<DeviceAddr>,
        mut each: impl FnMut(Span<DeviceAddr>, Leaf) -> ControlFlow<B>,
    ) -> ControlFlow<B, Option<DeviceAddr>> {
        self.visit_words(work, span, |word, leaf| {
            each(word, leaf)?;
            ControlFlow::Continue(None)
        })
    }

    /// As [`visit`](Self::visit); a leaf for which `picks` returns `true` is being evicted from then
    /// on. Looked up, it is not there, but to whoever changes the table it is.
    pub(crate) fn begin_eviction<B>(
        &self,
        writer: &mut Writer,
        span: Span<DeviceAddr>,
        mut picks: impl FnMut(Span<DeviceAddr>) -> ControlFlow<B, bool>,
    ) -> ControlFlow<B, Option<DeviceAddr>> {
        self.visit_words(&mut writer.work, span, |word, leaf| {
            let evicting = picks(word)?.then(|| leaf.evicting());
            ControlFlow::Continue(evicting)
        })
    }

    /// Calls `each` with every leaf that overlaps `span`, in order, and stores the leaf that it
    /// returns in its place.
    fn visit_words<B>(
        &self,
        work: &mut Work,
        span: Span<DeviceAddr>,
        mut each: impl FnMut(Span<DeviceAddr>, Leaf) -> ControlFlow<B, Option<Leaf>>,
    ) -> ControlFlow<B, Option<DeviceAddr>> {
        let range = (span.start().0, span.last().0);
        for index in self.used(range) {
            let Some(top) = self.top.get(index as usize) else { break };
            let unit = Unit { start: index << TOP_SHIFT, shift: TOP_SHIFT };
            if work.is_spent() {
                return ControlFlow::Continue(Some(DeviceAddr(unit.start.max(range.0))));
            }
            work.spend(1);
            let word = top.load(Ordering::Relaxed);
            let store = |leaf: Leaf| top.store(leaf.word(), Ordering::Release);
            if let Some(next) = visit_word(word, unit, range, work, &mut each, store)? {
                return ControlFlow::Continue(Some(next));
            }
        }
        ControlFlow::Continue(None)
    }

    /// Sets all of `span`, which must be granular: `leaf` for its first granule, and the
    /// leaves for consecutive pages after it. Ends early if the chunk is spent, and returns
    /// the address from which on the span is unchanged; `None` at the end.
    pub(crate) fn fill(
        &self,
        writer: &mut Writer,
        span: Span<DeviceAddr>,
        leaf: Leaf,
    ) -> Option<DeviceAddr> {
        let start = span.start().0;
        if span.len() == GRANULE && self.put(writer, start, leaf) {
            return None;
        }
        let change = &mut |addr, _| Some(leaf.advanced((addr - start) >> PAGE_SHIFT));
        self.edit(writer, span, Change { adds: true, to: change })
    }

    /// Sets the leaf of one granule, if the node that it belongs in is there and has room. The
    /// short path of [`fill`](Self::fill).
    fn put(&self, writer: &mut Writer, addr: u64, leaf: Leaf) -> bool {
        let index = |shift: u32| addr >> shift & (FANOUT - 1);
        let top = self.top.get((addr >> TOP_SHIFT) as usize);
        let middle = top.and_then(|top| Node::from_word(top.load(Ordering::Relaxed)));
        let node = middle.and_then(|middle| Node::from_word(middle.get(index(MIDDLE_SHIFT))));
        let Some(node) = node else { return false };
        let is_new = entry::content(node.get(index(PAGE_SHIFT))) == EMPTY;
        let put = node.put(index(PAGE_SHIFT), leaf.word());
        writer.count_new(u64::from(put && is_new));
        put
    }

    /// Replaces every leaf of `span`, which must be granular, by the result of `change`;
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

    /// Removes every leaf of `span`, which must be granular. Ends early as
    /// [`fill`](Self::fill) does.
    pub(crate) fn clear(&self, writer: &mut Writer, span: Span<DeviceAddr>) -> Option<DeviceAddr> {
        self.update(writer, span, |_, _| None)
    }

    /// Frees every node, and leaves the table empty.
    ///
    /// # Safety
    /// `writer` is the table's only writer, and nobody reads the table, now or later.
    pub(super) unsafe fn free_all(&mut self, writer: &mut Writer) {
        // SAFETY: the caller promises both that the writer is the table's only one, and that
        // nobody reads the table, now or later.
        unsafe { writer.free_all(&mut self.top) };
    }

    fn edit(
        &self,
        writer: &mut Writer,
        span: Span<DeviceAddr>,
        mut change: Change<'_>,
    ) -> Option<DeviceAddr> {
        debug_assert!(span.is_granular());
        let range = (span.start().0, span.last().0);
        let indices = match change.adds {
            true => range.0 >> TOP_SHIFT..=range.1 >> TOP_SHIFT,
            false => self.used(range),
        };
        for index in indices {
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
                self.used.0.fetch_min(index, Ordering::Relaxed);
                self.used.1.fetch_max(index, Ordering::Relaxed);
            }
            if paused.is_some() {
                return paused.map(DeviceAddr);
            }
        }
        None
    }

    /// The part of the top level's indices of `range` that was ever in use.
    fn used(&self, range: (u64, u64)) -> RangeInclusive<u64> {
        let (first, last) = (&self.used.0, &self.used.1);
        let first = first.load(Ordering::Relaxed).max(range.0 >> TOP_SHIFT);
        first..=last.load(Ordering::Relaxed).min(range.1 >> TOP_SHIFT)
    }
}

/// [`Table::visit_words`] of the unit of one word, in whose place `store` puts a leaf.
fn visit_word<B>(
    word: u64,
    unit: Unit,
    range: (u64, u64),
    work: &mut Work,
    each: &mut impl FnMut(Span<DeviceAddr>, Leaf) -> ControlFlow<B, Option<Leaf>>,
    store: impl FnOnce(Leaf),
) -> ControlFlow<B, Option<DeviceAddr>> {
    let Some(node) = Node::from_word(word) else {
        if let (Some(leaf), Some(span)) = (Leaf::stored(word), unit.span())
            && let Some(new) = each(span, leaf)?
        {
            store(new);
        }
        return ControlFlow::Continue(None);
    };
    let (first, last) = unit.children(range);
    if first == last {
        work.spend(1);
        let word = entry::content(node.get(first));
        return visit_word(word, unit.child(first), range, work, each, storing(node, first));
    }
    // All of that part of the node is read, however little of it is in use.
    work.spend(node.words().min(last - first + 1));
    for word in node.in_order(first, last) {
        let index = entry::index(word);
        let child = unit.child(index);
        if work.is_spent() {
            return ControlFlow::Continue(Some(DeviceAddr(child.start.max(range.0))));
        }
        let store = storing(node, index);
        if let Some(next) = visit_word(entry::content(word), child, range, work, each, store)? {
            return ControlFlow::Continue(Some(next));
        }
    }
    ControlFlow::Continue(None)
}

/// Stores a leaf in the place of a word of `node` that is there.
fn storing(node: Node, index: u64) -> impl FnOnce(Leaf) {
    move |leaf| {
        let stored = node.put(index, leaf.word());
        debug_assert!(stored, "a word that is there needs no room");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::view::entry::Behind;
    use crate::view::writer::ROOMY;
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

    /// Carries a change out to its end, chunk by chunk.
    fn whole(
        writer: &mut Writer,
        span: Span<DeviceAddr>,
        mut chunk: impl FnMut(&mut Writer, Span<DeviceAddr>) -> Option<DeviceAddr>,
    ) {
        let mut rest = Some(span);
        while let Some(span) = rest {
            writer.work.begin();
            let next = chunk(writer, span);
            assert!(next.is_none_or(|next| next > span.start()), "every chunk advances");
            rest = next.and_then(|next| Span::inclusive(next, span.last()));
        }
        let mut retired = writer.take_retired();
        while !retired.is_empty() {
            writer.work.begin();
            // SAFETY: the nodes come from `take_retired` of this writer, and the only reader of
            // the table is this thread, which is in none of them.
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

    /// Ranges that often begin and end at multiples of the page sizes.
    fn ranges() -> impl Strategy<Value = (u64, u64)> {
        let unit = prop_oneof![Just(1_u64), Just(512), Just(512 * 512)];
        (unit, 0_u64..8, 0_u64..3, 1_u64..1200).prop_map(|(unit, count, off, len)| {
            let first = (unit * count + off).min((1 << (BITS - 12)) - 1);
            (first, len.min((1 << (BITS - 12)) - first))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_being_evicted_is_in_the_table_for_its_writer_alone(
            pages in prop::collection::btree_set(0u64..3000, 1..600),
            first in 0u64..3000,
            most in 0usize..300,
        ) {
            let table = Table::new(BITS);
            let mut writer = Writer::default();
            let large = span(4 * 512, 512);
            fill(&table, &mut writer, large, leaf(5));
            let small = || pages.iter().copied().filter(|page| page / 512 != 4);
            small().for_each(|page| fill(&table, &mut writer, span(page, 1), leaf(page)));
            let rest = Span::inclusive(DeviceAddr(first << 12), DeviceAddr((1 << BITS) - 1)).unwrap();
            let mut picked = Vec::new();
            writer.work.begin();
            let next = table.begin_eviction(&mut writer, rest, |word| {
                if picked.len() == most {
                    return ControlFlow::Break(word.start());
                }
                let picks = word.start().0 >> 12 & 1 == 0;
                picked.extend(picks.then_some(word));
                ControlFlow::Continue(picks)
            });
            // Words begin before `rest` if they end in it.
            let mut all: Vec<_> = small().map(|page| span(page, 1)).chain([large]).collect();
            all.sort_unstable_by_key(Span::start);
            let mut wanted: Vec<_> = all.iter().copied()
                .filter(|word| word.last() >= rest.start() && word.start().0 >> 12 & 1 == 0).collect();
            if let ControlFlow::Break(next) = next {
                prop_assert_eq!(picked.len(), most);
                prop_assert!(picked.iter().all(|word| word.last() < next));
            }
            wanted.truncate(most);
            prop_assert_eq!(&picked, &wanted);
            prop_assert_eq!(writer.leaves(), all.len() as u64);
            let mut seen = Vec::new();
            let visited: ControlFlow<Infallible, _> =
                table.visit(&mut writer.work, span(0, 1 << (BITS - 12)), |word, leaf| {
                    seen.push((word, leaf.is_evicting()));
                    ControlFlow::Continue(())
                });
            prop_assert_eq!(visited, ControlFlow::Continue(None));
            let expected: Vec<_> =
                all.iter().map(|&word| (word, wanted.contains(&word))).collect();
            prop_assert_eq!(seen, expected);
            for word in &all {
                let found = page_at(&table, word.start().0 >> 12).is_some();
                prop_assert_eq!(found, !wanted.contains(word));
            }
            whole(&mut writer, span(0, 1 << (BITS - 12)), |writer, rest| {
                table.update(writer, rest, |_, leaf| (!leaf.is_evicting()).then_some(leaf))
            });
            prop_assert_eq!(writer.leaves(), (all.len() - wanted.len()) as u64);
            clear(&table, &mut writer, span(0, 1 << (BITS - 12)));
        }

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
