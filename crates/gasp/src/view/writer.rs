//! The writer of a table, which changes its nodes and retires those that it replaces.
#![allow(unsafe_code, reason = "frees retired nodes")]

use core::sync::atomic::AtomicU64;

use super::arena::Arena;
use super::entry::{self, EMPTY, Leaf};
use super::node::{FANOUT, Node};
use super::unit::{LEVEL_BITS, PAGE_SHIFT, Unit};
use super::work::Work;

/// Cost of freeing a node, in words of [`Work`]: it can take a system call.
const FREE_COST: u64 = 64;
/// Number of full nodes, 1 MiB of them, from which on further ones come from the arena: a
/// smaller table is not worth a huge page.
const SMALL_TABLE: usize = 256;
/// Number of nodes of a table that are full ones whatever they hold, because look-ups in
/// them are faster: 128 KiB that a table may take besides the memory for its grants.
pub(super) const ROOMY: usize = 32;

/// The writer's side of a table: counts, the arena, and the nodes removed from the table.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    /// The work done in the current chunk.
    pub(crate) work: Work,
    leaves: u64,
    /// Number of leaves, within the domain's limit, that a change in progress may still add.
    pub(crate) promised: u64,
    bytes: usize,
    retired: Vec<Node>,
    /// Bytes of all retired nodes, including those in a [`Retired`] that waits for a scan.
    retired_bytes: usize,
    /// The allocator of full nodes, from [`SMALL_TABLE`] of them on.
    arena: Arena,
    full_nodes: usize,
}

/// Nodes that were removed from a table and can still have readers.
#[derive(Debug, Default)]
#[must_use = "its nodes are freed by `Writer::free`"]
pub(crate) struct Retired {
    nodes: Vec<Node>,
}

/// A change of pages.
pub(super) struct Change<'a> {
    /// Whether it adds leaves where there are none.
    pub(super) adds: bool,
    /// Returns the new leaf, from a page's first address and its present leaf, if any.
    pub(super) to: &'a mut dyn FnMut(u64, Option<Leaf>) -> Option<Leaf>,
}

/// The result of editing a word: the new word, and the address from which on its pages are
/// unchanged, if the chunk was spent before the last.
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
    /// Moves the nodes of another here.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.nodes.append(&mut other.nodes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl Writer {
    /// Number of leaves of the table.
    pub(crate) fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Counts leaves that were added to a node by way of the table.
    pub(super) fn count_new(&mut self, leaves: u64) {
        self.leaves += leaves;
        self.work.spend(1);
    }

    /// The memory of all nodes, including retired ones, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.retired_bytes + self.arena.bytes()
    }

    /// Whether enough memory is retired to be worth a grace period.
    pub(crate) fn wants_grace(&self) -> bool {
        const ENOUGH: usize = 64 << 10;
        self.retired_bytes >= ENOUGH
    }

    /// The retired nodes, to be freed after a scan.
    pub(crate) fn take_retired(&mut self) -> Retired {
        Retired { nodes: core::mem::take(&mut self.retired) }
    }

    /// Frees retired nodes, as many as a chunk allows.
    ///
    /// # Safety
    /// The nodes came from [`take_retired`](Self::take_retired) of this writer, and every
    /// reader that was in the table at that time has left it.
    pub(crate) unsafe fn free(&mut self, retired: &mut Retired) {
        while let Some(node) = retired.nodes.pop() {
            let bytes = node.bytes();
            self.work.spend(FREE_COST);
            // SAFETY: no word points to a retired node, so no reader can reach it any more; the
            // caller promises that those that were in it have left. `pop` removes it from the
            // list, so it is freed once and not used afterwards. It was allocated with the
            // arena of the writer that retired it, and the caller promises that it is this one.
            unsafe { node.free(&mut self.arena) };
            self.retired_bytes = self.retired_bytes.saturating_sub(bytes);
            if self.work.is_spent() {
                break;
            }
        }
    }

    /// Applies `change` to all of `range` in `unit`, and returns the new word for `unit`;
    /// words of nodes below it change in place.
    pub(super) fn edit(
        &mut self,
        word: u64,
        unit: Unit,
        range: (u64, u64),
        change: &mut Change<'_>,
    ) -> Edited {
        let leaf = Leaf::stored(word);
        let node = match Node::from_word(word) {
            Some(node) if change.adds && unit.within(range) => {
                // All of the node's pages become one leaf, if the change yields one.
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
        // A change that adds nothing only visits the words in use.
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
                debug_assert!(put, "the new node is large enough");
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

    /// A node with the pages of one larger page.
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

    /// Retires `node`, and returns a node with room for `pages` that has its words.
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
    /// This is the table's only writer, and nobody reads the table, now or later.
    pub(super) unsafe fn free_all(&mut self, top: &mut [AtomicU64]) {
        for top in top {
            if let Some(node) = Node::from_word(core::mem::replace(top.get_mut(), EMPTY)) {
                self.retire_all(node);
                // No chunk ends here: nobody waits for a lock.
                self.work.begin();
            }
        }
        for node in self.retired.drain(..) {
            // SAFETY: no word points to a retired node, and the caller promises that nobody
            // reads the table, so no reader is in one. `drain` removes it from the list, so it
            // is freed once and not used afterwards. It was allocated with this writer's arena,
            // as the caller promises that the table has no other writer.
            unsafe { node.free(&mut self.arena) };
        }
        self.retired_bytes = 0;
    }
}
