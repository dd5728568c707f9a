//! The steps of a sequence, and their random distribution.

use gasp::{Access, MapFlags, RegionKind};
use proptest::prelude::*;

use crate::support::PAGE;

/// Number of pages in the model of the guest: 16 MiB, eight entries of 2 MiB.
pub(crate) const PAGES: usize = 4096;
/// Number of memory objects: two of RAM, one of ROM, two windows.
pub(crate) const OBJECTS: usize = 5;
/// Number of pages of each object.
pub(crate) const LENS: [usize; OBJECTS] = [1024, 576, 64, 1024, 513];
/// Number of domains; see [`crate::naive::KINDS`].
pub(crate) const DOMAINS: usize = 5;
pub(crate) const VDEVS: usize = 2;

/// A range of pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// A way to map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    Map,
    HostContig,
    Truncated,
    Scatter,
    Stitched,
    Firmware,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Adds a region; `object` and `offset` are ignored for the kinds without memory.
    Add {
        kind: RegionKind,
        pages: Pages,
        object: usize,
        offset: usize,
    },
    Remove(Pages),
    SetAccess(Pages, Access),
    /// Grants device pages `pages`, which lead to guest pages from `to` on; in an identity domain
    /// `to` is replaced by the same pages.
    Grant {
        domain: usize,
        pages: Pages,
        to: usize,
        access: Access,
    },
    Revoke {
        domain: usize,
        pages: Pages,
    },
    Attach {
        vdev: usize,
        domain: usize,
    },
    Detach {
        vdev: usize,
    },
    /// Maps; if `hold`, the mapping is kept until something revokes it.
    Map {
        vdev: usize,
        how: How,
        addr: u64,
        len: u64,
        flags: MapFlags,
        hold: bool,
    },
}

/// Page numbers, often at the ends of 2 MiB entries.
fn page() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..PAGES,
        (0..PAGES / 512).prop_map(|unit| unit * 512),
        (1..PAGES / 512).prop_map(|unit| unit * 512 - 1),
        0..12_usize,
    ]
}

fn pages() -> impl Strategy<Value = Pages> {
    let count = prop_oneof![1..8_usize, Just(512), Just(1024), 500..530_usize, 1..PAGES];
    (page(), count).prop_map(|(first, count)| Pages { first, count: count.min(PAGES - first) })
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![
        4 => Just(Access::RW),
        2 => Just(Access::RWX),
        2 => Just(Access::READ),
        1 => (1..8_u8).prop_map(Access::from_bits_truncate),
    ]
}

fn map() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        3 => Just(How::Map),
        3 => Just(How::HostContig),
        1 => Just(How::Truncated),
        2 => Just(How::Scatter),
        1 => Just(How::Stitched),
        1 => Just(How::Firmware),
    ];
    let within = prop_oneof![3 => Just(0), 1 => Just(PAGE - 1), 1 => 0..PAGE];
    let len = prop_oneof![
        2 => 1..2 * PAGE,
        3 => (1..6_u64).prop_map(|pages| pages * PAGE),
        2 => (1..1600_u64).prop_map(|pages| pages * PAGE - 3),
        1 => Just(1024 * PAGE),
    ];
    let wanted = prop_oneof![
        3 => Just(Access::READ),
        2 => Just(Access::RW),
        1 => (1..8_u8).prop_map(Access::from_bits_truncate),
    ];
    let who = (0..VDEVS, how, any::<bool>(), 0..2_u8);
    (who, page(), within, len, wanted).prop_map(|(who, page, within, len, wanted)| {
        let (vdev, how, any, hold) = who;
        let flags = MapFlags::new(wanted).unwrap();
        let flags = if any { flags.any() } else { flags };
        Step::Map { vdev, how, addr: page as u64 * PAGE + within, len, flags, hold: hold == 0 }
    })
}

fn add() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        6 => Just(RegionKind::Ram),
        2 => Just(RegionKind::Rom),
        4 => Just(RegionKind::PassThrough),
        1 => Just(RegionKind::Reserved),
        1 => Just(RegionKind::Device),
    ];
    let offset = prop_oneof![3 => Just(0), 1 => 0..600_usize];
    (kind, pages(), 0..OBJECTS, offset, 0..4_u8).prop_map(|(kind, pages, object, offset, fit)| {
        // Most fit the object; the others are refused.
        let room = LENS[object].saturating_sub(offset).max(1);
        let count = if fit == 0 { pages.count } else { pages.count.min(room) };
        Step::Add { kind, pages: Pages { count, ..pages }, object, offset }
    })
}

/// The beginning of most sequences: some of everything, with seams and a hole, so that not
/// all maps are refused.
pub(crate) fn furniture() -> Vec<Step> {
    let add = |kind, first, count, object, offset| {
        let pages = Pages { first, count };
        Step::Add { kind, pages, object, offset }
    };
    let grant = |domain, first, count, to, access| {
        let pages = Pages { first, count };
        Step::Grant { domain, pages, to, access }
    };
    let (ram, window) = (RegionKind::Ram, RegionKind::PassThrough);
    vec![
        add(ram, 0, 700, 0, 0),
        add(ram, 700, 324, 0, 690),
        add(ram, 1024, 512, 1, 64),
        add(window, 1536, 1024, 3, 0),
        add(window, 2560, 513, 4, 0),
        add(RegionKind::Rom, 3100, 64, 2, 0),
        add(ram, 3584, 512, 0, 512),
        grant(0, 0, PAGES, 0, Access::RWX),
        grant(1, 0, 2048, 1024, Access::RW),
        grant(1, 2048, 600, 0, Access::RW),
        grant(1, 2648, 200, 100, Access::RW),
        grant(1, 2848, 312, 1100, Access::RW),
        grant(4, 512, 1024, 1536, Access::RWX),
        Step::Attach { vdev: 0, domain: 0 },
        Step::Attach { vdev: 1, domain: 1 },
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let grant = (0..DOMAINS, pages(), page(), access())
        .prop_map(|(domain, pages, to, access)| Step::Grant { domain, pages, to, access });
    // Everything at once, so that not all maps are refused.
    let all = Pages { first: 0, count: PAGES };
    let grant_all = (0..DOMAINS, access()).prop_map(move |(domain, access)| Step::Grant {
        domain,
        pages: all,
        to: 0,
        access,
    });
    let vdev = 0..VDEVS;
    prop_oneof![
        6 => add(),
        2 => pages().prop_map(Step::Remove),
        1 => (pages(), access()).prop_map(|(pages, access)| Step::SetAccess(pages, access)),
        4 => grant,
        1 => grant_all,
        2 => (0..DOMAINS, pages()).prop_map(|(domain, pages)| Step::Revoke { domain, pages }),
        3 => (vdev.clone(), 0..DOMAINS).prop_map(|(vdev, domain)| Step::Attach { vdev, domain }),
        1 => vdev.prop_map(|vdev| Step::Detach { vdev }),
        16 => map(),
    ]
}
