//! The writer of a table: changes its nodes, and retires those that it replaces.
#![allow(unsafe_code, reason = "frees retired nodes")]

use core::sync::atomic::AtomicU64;

use super::arena::Arena;
use super::entry::{self, EMPTY, Leaf};
use super::node::{FANOUT, Node};
use super::unit::{LEVEL_BITS, PAGE_SHIFT, Unit};
use super::work::Work;

/// What freeing a node counts as in words of [`Work`]: the kernel may be told.
const FREE_COST: u64 = 64;
/// A table with fewer full nodes than this, 1 MiB of them, is not worth a huge page.
const SMALL_TABLE: usize = 256;
/// The first nodes of a table are full ones whatever they hold, because they are looked
/// up sooner: 128 KiB that a table may take beside what its grants account for.
pub(super) const ROOMY: usize = 32;

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

/// What to make of pages.
pub(super) struct Change<'a> {
    /// Whether it makes something of addresses without a leaf.
    pub(super) adds: bool,
    /// From a page's first address and its leaf, if any, to the new one.
    pub(super) to: &'a mut dyn FnMut(u64, Option<Leaf>) -> Option<Leaf>,
}

/// What became of a word: the new one, and from where on its pages are as they were, if
/// the chunk was spent before the last.
pub(super) struct Edited {
    pub(super) word: u64,
    pub(super) paused: Option<u64>,
}

impl Edited {
    fn all(word: u64) -> Self {
        Self { word, paused: None }
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
    pub(super) fn edit(
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
        for position in 0..count {
            let in_use = in_use.as_ref().and_then(|words| words.get(position as usize));
            let index = in_use.map_or(first + position, |&word| entry::index(word));
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
        let node = Node::with_capacity(pages, arena);
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

    /// Frees every node of the table whose top level is `top`, and leaves it empty.
    ///
    /// # Safety
    /// This is the table's writer, and nobody reads the table, now or later.
    pub(super) unsafe fn free_all(&mut self, top: &mut [AtomicU64]) {
        for top in top {
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
