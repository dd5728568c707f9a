//! The words of a view's table.
//!
//! ```text
//! bit 0   4      7      10  11    13         23                 55      63
//!     | tag | IOMMU | region |RAM|other| – | segment | page in object | index |   leaf
//!     | tag | IOMMU |   0    | 0 |  0  | – |      guest page          | index |   hole
//!     | tag |            address of the node                          | index |   node
//! ```
//!
//! A *leaf* is memory: the accesses that the IOMMU allows, those that the region offers,
//! whether it is system RAM, and its segment and page. A *hole* is an address that the IOMMU
//! allows but that leads to no mappable memory; it keeps the guest-physical page, so that
//! memory added there later is found. A hole that allows no access is a *refusal* by a
//! translator, and has the fault reason in place of the page. A leaf or hole that is *being evicted*
//! has a tag of its own: look-ups find nothing, and a change of the table finds what it was. The *index* is the word's page among
//! the 512 of its node, because small nodes store their words in any order.

use crate::access::Access;
use crate::map_flags::MapFlags;
use crate::space::segment::{PAGE_MAX, SEGMENTS};

/// Words with tag 0 are empty, whatever else they hold.
pub(crate) const EMPTY: u64 = 0;

pub(super) const TAG: u64 = 0xf;
const TAG_LEAF: u64 = 1;
/// A leaf or a hole that is being evicted.
const TAG_EVICTING: u64 = 0xe;
/// A node of `2 << n` words has tag `TAG_NODE + n`.
pub(crate) const TAG_NODE: u64 = 2;
/// The tag of a removed word of a small node, past which probing continues.
pub(crate) const TOMBSTONE: u64 = 0xf;

const IOMMU_SHIFT: u32 = 4;
const REGION_SHIFT: u32 = 7;
const RAM: u64 = 1 << 10;
const OTHER: u64 = 1 << 11;
const SEGMENT_SHIFT: u32 = 13;
const PAGE_SHIFT: u32 = 23;
const INDEX_SHIFT: u32 = 55;
const CONTENT: u64 = (1 << INDEX_SHIFT) - 1;

// Segment and page fit between the shifts.
const _: () = assert!(SEGMENTS == 1 << (PAGE_SHIFT - SEGMENT_SHIFT));
const _: () = assert!(PAGE_MAX == (1 << (INDEX_SHIFT - PAGE_SHIFT)) - 1);

/// The tag of a word.
#[inline]
pub(crate) fn tag(word: u64) -> u64 {
    word & TAG
}

/// The word without its index.
#[inline]
pub(crate) fn content(word: u64) -> u64 {
    word & CONTENT
}

/// The index of the word's page in its node.
#[inline]
pub(crate) fn index(word: u64) -> u64 {
    word >> INDEX_SHIFT
}

/// The word with another index.
#[inline]
pub(crate) fn with_index(word: u64, index: u64) -> u64 {
    content(word) | index << INDEX_SHIFT
}

/// A word that is a leaf or a hole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaf(u64);

/// The target of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behind {
    /// Memory of a segment's object, from this page of the object, in 4 KiB, on.
    Memory { segment: usize, page: u64, offered: Access, ram: bool },
    /// No mappable memory at this guest-physical page.
    Hole { guest_page: u64 },
}

impl Leaf {
    pub(crate) fn new(allowed: Access, behind: Behind) -> Self {
        let allowed = u64::from(allowed.bits()) << IOMMU_SHIFT | TAG_LEAF;
        Self(match behind {
            Behind::Memory { segment, page, offered, ram } => {
                debug_assert!(segment < SEGMENTS && page <= PAGE_MAX);
                allowed
                    | u64::from(offered.bits()) << REGION_SHIFT
                    | if ram { RAM } else { OTHER }
                    | (segment as u64) << SEGMENT_SHIFT
                    | page << PAGE_SHIFT
            }
            Behind::Hole { guest_page } => allowed | guest_page << SEGMENT_SHIFT,
        })
    }

    /// The leaf for a page of 4 KiB that a translator refuses, for this reason of its own.
    pub(crate) fn refusal(reason: u32) -> Self {
        Self::new(Access::empty(), Behind::Hole { guest_page: reason.into() })
    }

    /// The translator's reason, if the leaf is a [`refusal`](Self::refusal).
    pub(crate) fn refused(self) -> Option<u32> {
        match self.behind() {
            Behind::Hole { guest_page } if self.allowed().is_empty() => Some(guest_page as u32),
            _ => None,
        }
    }

    /// The leaf in a word, if it is one and is not being evicted.
    #[inline]
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        (tag(word) == TAG_LEAF).then_some(Self(content(word)))
    }

    /// The leaf in a word, if it is one, whether it is being evicted or not: for those who change
    /// the table.
    #[inline]
    pub(crate) fn stored(word: u64) -> Option<Self> {
        (tag(word) == TAG_LEAF || tag(word) == TAG_EVICTING).then_some(Self(content(word)))
    }

    /// The same leaf, being evicted: no look-up finds it.
    pub(crate) fn evicting(self) -> Self {
        Self(self.0 & !TAG | TAG_EVICTING)
    }

    /// Whether it is being evicted.
    pub(crate) fn is_evicting(self) -> bool {
        tag(self.0) == TAG_EVICTING
    }

    /// The same leaf, not being evicted.
    pub(crate) fn kept(self) -> Self {
        Self(self.0 & !TAG | TAG_LEAF)
    }

    #[inline]
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// The accesses that the IOMMU allows.
    pub(crate) fn allowed(self) -> Access {
        Access::from_bits_truncate((self.0 >> IOMMU_SHIFT) as u8)
    }

    /// The same leaf with `allowed` as the accesses that the IOMMU allows.
    pub(crate) fn with_allowed(self, allowed: Access) -> Self {
        Self::new(allowed, self.behind())
    }

    pub(crate) fn behind(self) -> Behind {
        if self.0 & (RAM | OTHER) == 0 {
            return Behind::Hole { guest_page: self.0 >> SEGMENT_SHIFT };
        }
        Behind::Memory {
            segment: self.segment(),
            page: self.page(),
            offered: Access::from_bits_truncate((self.0 >> REGION_SHIFT) as u8),
            ram: self.0 & RAM != 0,
        }
    }

    /// The segment's number. The leaf must be memory.
    #[inline]
    pub(crate) fn segment(self) -> usize {
        (self.0 >> SEGMENT_SHIFT) as usize & (SEGMENTS - 1)
    }

    /// The page in the segment's object, in 4 KiB. The leaf must be memory.
    #[inline]
    pub(crate) fn page(self) -> u64 {
        self.0 >> PAGE_SHIFT
    }

    /// The leaf for the address that is `pages` pages of 4 KiB higher.
    #[inline]
    pub(crate) fn advanced(self, pages: u64) -> Self {
        let shift = if self.0 & (RAM | OTHER) == 0 { SEGMENT_SHIFT } else { PAGE_SHIFT };
        Self(content(self.0.wrapping_add(pages << shift)))
    }
}

impl core::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Leaf({}, {:?})", self.allowed(), self.behind())
    }
}

/// The requirements of a map on every leaf, tested with one mask and compare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    bits: u64,
    kinds: u64,
}

impl Want {
    #[inline]
    pub(crate) fn new(flags: MapFlags) -> Self {
        let access = u64::from(flags.access().bits());
        Self {
            bits: access << IOMMU_SHIFT | access << REGION_SHIFT,
            kinds: if flags.accepts_any() { RAM | OTHER } else { RAM },
        }
    }

    /// Whether the word is a leaf that allows and offers all of the access, of an accepted
    /// kind of memory.
    #[inline]
    pub(crate) fn met_by(self, word: u64) -> bool {
        word & self.bits == self.bits && word & self.kinds != 0 && tag(word) == TAG_LEAF
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_mask_and_compare_is_right_for_every_combination() {
        let all = || (0..8).map(Access::from_bits_truncate);
        for (allowed, offered, requested) in
            all().flat_map(|a| all().flat_map(move |b| all().skip(1).map(move |c| (a, b, c))))
        {
            let flags = MapFlags::new(requested).unwrap();
            for ram in [false, true] {
                let behind = Behind::Memory { segment: SEGMENTS - 1, page: PAGE_MAX, offered, ram };
                let word = with_index(Leaf::new(allowed, behind).word(), 511);
                let both = allowed.contains(requested) && offered.contains(requested);
                assert_eq!(Want::new(flags).met_by(word), both && ram);
                assert_eq!(Want::new(flags.any()).met_by(word), both);
            }
            let hole = Leaf::new(allowed, Behind::Hole { guest_page: (1 << 40) - 1 });
            assert!(!Want::new(flags.any()).met_by(hole.word()));
            for not_a_leaf in [EMPTY, TOMBSTONE, TAG_NODE, u64::MAX] {
                assert!(!Want::new(flags.any()).met_by(not_a_leaf), "{not_a_leaf:#x}");
            }
        }
    }

    #[test]
    fn a_leaf_that_is_being_evicted_is_no_leaf_for_a_look_up_and_keeps_all_it_was() {
        let memory = Behind::Memory { segment: 3, page: 7, offered: Access::RWX, ram: true };
        let (some, hole) = (Leaf::new(Access::RW, memory), Behind::Hole { guest_page: 9 });
        for leaf in [some, Leaf::new(Access::READ, hole), Leaf::refusal(5)] {
            let evicting = with_index(leaf.evicting().word(), 511);
            assert_eq!(Leaf::from_word(evicting), None);
            assert!(!Want::new(MapFlags::READ.any()).met_by(evicting));
            let stored = Leaf::stored(evicting).unwrap();
            assert!(stored.is_evicting() && !leaf.is_evicting());
            assert_eq!((stored.behind(), stored.allowed()), (leaf.behind(), leaf.allowed()));
            assert_eq!(stored.refused(), leaf.refused());
            assert_eq!((stored.kept(), Leaf::stored(leaf.word())), (leaf, Some(leaf)));
            assert!(stored.advanced(1).is_evicting());
        }
        for not_a_leaf in [EMPTY, TOMBSTONE, TAG_NODE] {
            assert_eq!(Leaf::stored(not_a_leaf), None);
        }
    }

    #[test]
    fn a_leaf_keeps_its_number_and_page_at_every_power_of_two() {
        let critical = |bits: u32| (0..bits).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1]);
        for page in critical(32).chain([PAGE_MAX]) {
            for segment in critical(10).chain([SEGMENTS as u64 - 1]) {
                for index_ in [0, 1, 255, 256, 511] {
                    let segment = segment as usize;
                    let behind = Behind::Memory { segment, page, offered: Access::RWX, ram: true };
                    let word = with_index(Leaf::new(Access::RWX, behind).word(), index_);
                    let leaf = Leaf::from_word(word).unwrap();
                    assert_eq!((leaf.segment(), leaf.page(), index(word)), (segment, page, index_));
                    assert_eq!(leaf.behind(), behind);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_leaf_holds_what_was_put_in(
            allowed in 0u8..8, offered in 0u8..8, ram: bool, segment in 0..SEGMENTS,
            page in 0..PAGE_MAX / 2, on in 0..PAGE_MAX / 2, index_ in 0u64..512,
        ) {
            let allowed = Access::from_bits_truncate(allowed);
            let offered = Access::from_bits_truncate(offered);
            let behind = Behind::Memory { segment, page, offered, ram };
            let word = with_index(Leaf::new(allowed, behind).word(), index_);
            let leaf = Leaf::from_word(word).unwrap();
            prop_assert_eq!(index(word), index_);
            prop_assert_eq!(leaf.allowed(), allowed);
            prop_assert_eq!(leaf.behind(), behind);
            let further = Behind::Memory { segment, page: page + on, offered, ram };
            prop_assert_eq!(leaf.advanced(on).behind(), further);
            for bits in 1..8 {
                let access = Access::from_bits_truncate(bits);
                let flags = MapFlags::new(access).unwrap();
                let both = allowed & offered;
                prop_assert_eq!(Want::new(flags).met_by(word), both.contains(access) && ram);
                prop_assert_eq!(Want::new(flags.any()).met_by(word), both.contains(access));
            }
        }

        #[test]
        fn a_hole_remembers_its_guest_page(page in 0u64..1 << 40, on in 0u64..1 << 30) {
            let leaf = Leaf::new(Access::RW, Behind::Hole { guest_page: page });
            let further = Behind::Hole { guest_page: page + on };
            prop_assert_eq!(leaf.advanced(on).behind(), further);
            prop_assert!(!Want::new(MapFlags::READ.any()).met_by(leaf.word()));
        }
    }
}
