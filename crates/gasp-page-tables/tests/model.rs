//! Walks, compared with the tables expanded into a list of all their pages.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/words.rs"]
mod words;

use gasp::{Access, DeviceAddr, GuestPhys, Translation};
use gasp_page_tables::vtd::{Capabilities, Fault, Levels, Table, walk};
use proptest::collection::vec;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest,
};
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use words::Words;

/// The tables are in these pages. Entry 0 to 3, and the last, are used.
const PAGES: u64 = 5;
const INDEXES: [u64; 5] = [0, 1, 2, 3, 511];

/// What is at a range of device addresses: the entries on the way, highest level first, and what
/// the last one leads to if nothing is wrong with them.
struct Place {
    start: u64,
    size: u64,
    way: Vec<(u64, u64)>,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Page(u64),
    Unreadable,
    /// The last entry has a flaw.
    None,
}

/// Bits of an entry of this level that must be 0, one by one.
fn flawed(unit: &Capabilities, level: u64, entry: u64) -> bool {
    let is_set = |bit: u32| entry & 1 << bit != 0;
    let leaf = is_leaf(unit, level, entry);
    let in_page = match (leaf, level) {
        (true, 2) => 12..21,
        (true, 3) => 12..30,
        _ => 12..12,
    };
    (unit.host_address_width..52).any(is_set)
        || in_page.into_iter().any(is_set)
        || is_set(11) && !(leaf && unit.snoop_control)
        || is_set(62) && !(leaf && unit.device_tlb)
        || is_set(7) && !leaf
}

fn is_leaf(unit: &Capabilities, level: u64, entry: u64) -> bool {
    let large = entry & 0x80 != 0;
    level == 1 || large && (level == 2 && unit.pages_2m || level == 3 && unit.pages_1g)
}

/// All places of a table, whose first address is `start`.
fn expand(
    words: &Words,
    unit: &Capabilities,
    (table, level, start): (u64, u64, u64),
    way: &[(u64, u64)],
    places: &mut Vec<Place>,
) {
    let size = 1 << (12 + 9 * (level - 1));
    if table >= Words::END {
        places.push(Place { start, size: size * 512, way: way.to_vec(), end: End::Unreadable });
        return;
    }
    for index in INDEXES {
        let entry = words.get(table + index * 8);
        let way = [way, &[(level, entry)]].concat();
        let start = start + index * size;
        let address = entry & 0x000f_ffff_ffff_f000;
        if flawed(unit, level, entry) || entry & 3 == 0 {
            places.push(Place { start, size, way, end: End::None });
        } else if is_leaf(unit, level, entry) {
            places.push(Place { start, size, way, end: End::Page(address) });
        } else {
            expand(words, unit, (address, level - 1, start), &way, places);
        }
    }
}

impl Place {
    /// What a walk to this place must return.
    fn expected(&self, unit: &Capabilities, access: Access) -> Result<Translation, Fault> {
        let reads = access.intersects(Access::READ | Access::EXEC);
        let writes = access.contains(Access::WRITE);
        let (mut readable, mut writable) = (true, true);
        for &(level, entry) in &self.way {
            readable &= entry & 1 != 0;
            writable &= entry & 2 != 0;
            if writes && !writable {
                return Err(Fault::WriteDenied);
            }
            let nothing = !readable && !writable;
            if nothing || reads && !readable {
                return Err(Fault::ReadDenied);
            }
            if flawed(unit, level, entry) {
                return Err(Fault::Reserved);
            }
        }
        let End::Page(guest) = self.end else { return Err(Fault::TableInaccessible) };
        let mut access = Access::empty();
        access.set(Access::READ | Access::EXEC, readable);
        access.set(Access::WRITE, writable);
        Ok(Translation { size: self.size, guest: GuestPhys(guest), access })
    }
}

/// Entries that mostly lead on to tables or pages, with a flaw now and then.
fn entries() -> impl Strategy<Value = u64> {
    let address = prop_oneof![
        8 => (0..PAGES).prop_map(|page| page << 12),
        1 => Just(Words::END),
        2 => (0_u64..64).prop_map(|page| page << 30),
        1 => (0_u64..64).prop_map(|page| page << 21),
    ];
    let access = select(vec![3_u64, 3, 3, 3, 1, 2, 0]);
    let large = select(vec![0_u64, 0, 0, 0x80]);
    let other = prop_oneof![
        12 => Just(0_u64),
        3 => select(vec![4_u64, 0x78, 0x300, 0x400, 1 << 52, 1 << 63]),
        1 => (0_u64..64).prop_map(|bit| 1 << bit),
    ];
    (address, access, large, other)
        .prop_map(|(address, access, large, other)| address | access | large | other)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn a_walk_finds_what_the_expanded_tables_have(
        tables in vec(entries(), (PAGES * 5) as usize),
        levels in select(vec![Levels::Three, Levels::Four, Levels::Five]),
        (width, sizes, other) in (select(vec![36_u32, 46, 52]), 0_u8..4, 0_u8..4),
        samples in vec((any::<usize>(), any::<u64>(), 0_u8..8), 64),
    ) {
        let unit = Capabilities {
            pages_2m: sizes & 1 != 0,
            pages_1g: sizes & 2 != 0,
            snoop_control: other & 1 != 0,
            device_tlb: other & 2 != 0,
            ..Capabilities::new(width)
        };
        let mut words = Words::default();
        for (place, entry) in tables.into_iter().enumerate() {
            words.set(((place as u64 / 5) << 12) + INDEXES[place % 5] * 8, entry);
        }
        let mut places = Vec::new();
        expand(&words, &unit, (0, levels as u64, 0), &[], &mut places);
        let table = Table { root: GuestPhys(0), levels };
        for (which, inside, access) in samples {
            let place = &places[which % places.len()];
            let addr = DeviceAddr(place.start + inside % place.size);
            let access = Access::from_bits_truncate(access);
            let found = walk(&words, &unit, table, addr, access);
            prop_assert_eq!(found, place.expected(&unit, access), "{} {}", addr, access);
            prop_assert_eq!(words.take_reads().len() <= levels as usize, true);
        }
    }
}
