//! Second-level tables of VT-d: what each bit of an entry means.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/words.rs"]
mod words;

use gasp::{Access, DeviceAddr, GuestPhys, Translation, TranslationFault};
use gasp_page_tables::vtd::{Capabilities, Fault, Levels, Table, walk};
use words::Words;

const R: u64 = 1;
const W: u64 = 2;
const RW: u64 = 3;
const LARGE: u64 = 1 << 7;
const ALL: [Levels; 3] = [Levels::Three, Levels::Four, Levels::Five];
/// What an entry with R and W allows.
const ANY: Access = Access::RWX;

/// An address whose index is another one at each level.
fn addr(levels: Levels) -> u64 {
    let bits = (1..=levels as u64).map(|level| (0x10 + level) << shift(level));
    bits.sum::<u64>() | 0x123
}

fn shift(level: u64) -> u64 {
    12 + 9 * (level - 1)
}

/// The table of a level on the way to `addr`, and where its entry for that is.
fn table(level: u64) -> u64 {
    level * 0x1000
}

fn at(level: u64) -> u64 {
    table(level) + (0x10 + level) * 8
}

fn root(levels: Levels) -> Table {
    Table { root: GuestPhys(table(levels as u64)), levels }
}

/// Tables to a page of `leaf_level`, whose entry is `leaf`.
fn tables(levels: Levels, leaf_level: u64, leaf: u64) -> Words {
    let mut words = Words::default();
    for level in leaf_level + 1..=levels as u64 {
        words.set(at(level), table(level - 1) | RW);
    }
    words.set(at(leaf_level), leaf);
    words
}

fn unit() -> Capabilities {
    Capabilities::new(46)
}

fn read(words: &Words, unit: &Capabilities, levels: Levels) -> Result<Translation, Fault> {
    walk(words, unit, root(levels), DeviceAddr(addr(levels)), Access::READ)
}

#[test]
fn a_page_of_each_size_is_found_at_each_number_of_levels() {
    for levels in ALL {
        for (level, bits) in [(1, 0), (2, LARGE), (3, LARGE)] {
            let (size, guest) = (1 << shift(level), GuestPhys(5 << 30));
            let words = tables(levels, level, guest.0 | bits | RW);
            let found = read(&words, &unit(), levels);
            assert_eq!(found, Ok(Translation { size, guest, access: ANY }), "{levels:?} {level}");
            let way: Vec<u64> = (level..=levels as u64).rev().map(at).collect();
            assert_eq!(words.take_reads(), way, "each entry is read once");
        }
    }
}

#[test]
fn bit_7_of_a_4_kib_entry_is_ignored() {
    let words = tables(Levels::Four, 1, 0x5000 | LARGE | RW);
    let guest = GuestPhys(0x5000);
    assert_eq!(
        read(&words, &unit(), Levels::Four),
        Ok(Translation { size: 4096, guest, access: ANY })
    );
}

#[test]
fn a_large_page_that_the_unit_does_not_have_is_a_reserved_bit() {
    for (level, unit) in [
        (2, Capabilities { pages_2m: false, ..unit() }),
        (3, Capabilities { pages_1g: false, ..unit() }),
        (4, unit()),
        (5, unit()),
    ] {
        let words = tables(Levels::Five, level, 1 << 40 | LARGE | RW);
        assert_eq!(read(&words, &unit, Levels::Five), Err(Fault::Reserved), "{level}");
    }
    let other = Capabilities { pages_1g: false, ..unit() };
    assert!(read(&tables(Levels::Five, 2, LARGE | RW), &other, Levels::Five).is_ok());
    let other = Capabilities { pages_2m: false, ..unit() };
    assert!(read(&tables(Levels::Five, 3, LARGE | RW), &other, Levels::Five).is_ok());
}

#[test]
fn an_access_is_allowed_if_every_entry_allows_it() {
    let requests = (0..8).map(Access::from_bits_truncate);
    for request in requests {
        for bits in 0..64 {
            let way = [bits & 3, bits >> 2 & 3, bits >> 4];
            let mut words = Words::default();
            words.set(at(3), table(2) | way[0]);
            words.set(at(2), table(1) | way[1]);
            words.set(at(1), 0x9000 | way[2]);
            let allowed = way[0] & way[1] & way[2];
            let (may_read, may_write) = (allowed & R != 0, allowed & W != 0);
            let reads = request.intersects(Access::READ | Access::EXEC);
            let writes = request.contains(Access::WRITE);

            let found = walk(
                &words,
                &unit(),
                root(Levels::Three),
                DeviceAddr(addr(Levels::Three)),
                request,
            );
            if (may_read || !reads) && (may_write || !writes) && allowed != 0 {
                let mut access = Access::empty();
                access.set(Access::READ | Access::EXEC, may_read);
                access.set(Access::WRITE, may_write);
                assert_eq!(found.unwrap().access, access, "{request} {way:?}");
                continue;
            }
            // The first entry that lacks something decides, and what is written before what is read.
            let upto = |depth: usize| way[..=depth].iter().fold(RW, |all, one| all & one);
            let lacks = |all: u64| writes && all & W == 0 || reads && all & R == 0 || all & RW == 0;
            let first = (0..3).map(upto).find(|&all| lacks(all)).unwrap();
            let fault = match writes && first & W == 0 {
                true => Fault::WriteDenied,
                false => Fault::ReadDenied,
            };
            assert_eq!(found, Err(fault), "{request} {way:?}");
        }
    }
}

#[test]
fn exactly_the_reserved_bits_are_refused() {
    let plain = unit();
    let snoop = Capabilities { snoop_control: true, ..unit() };
    let tlb = Capabilities { device_tlb: true, ..unit() };
    let wide = Capabilities::new(52);
    let beyond: Vec<u64> = (46..52).collect();
    // The unit, the entry's level, whether it is a leaf, and its reserved bits.
    let cases: [(_, u64, bool, Vec<u64>); 11] = [
        (plain, 5, false, [&[7, 11, 62], &beyond[..]].concat()),
        (plain, 4, false, [&[7, 11, 62], &beyond[..]].concat()),
        (plain, 3, false, [&[11, 62], &beyond[..]].concat()),
        (plain, 2, false, [&[11, 62], &beyond[..]].concat()),
        (plain, 3, true, [(12..30).collect(), vec![11, 62], beyond.clone()].concat()),
        (plain, 2, true, [(12..21).collect(), vec![11, 62], beyond.clone()].concat()),
        (plain, 1, true, [&[11, 62], &beyond[..]].concat()),
        (snoop, 1, true, [&[62], &beyond[..]].concat()),
        (snoop, 2, false, [&[11, 62], &beyond[..]].concat()),
        (tlb, 2, true, [(12..21).collect(), vec![11], beyond.clone()].concat()),
        (wide, 1, true, vec![11, 62]),
    ];
    for (unit, level, leaf, reserved) in cases {
        let lowest = if leaf { level } else { 1 };
        for bit in 2..64 {
            // Those are the page size where it is one, and addresses where they are.
            if bit == 7 && (leaf || level < 4) {
                continue;
            }
            let entry = match (leaf, level) {
                (true, 1) => RW,
                (true, _) => LARGE | RW,
                (false, _) => table(level - 1) | RW,
            };
            if entry & 1 << bit != 0 {
                continue;
            }
            let mut words = tables(Levels::Five, lowest, RW | if leaf { LARGE } else { 0 });
            words.set(at(level), entry | 1 << bit);
            let found = read(&words, &unit, Levels::Five);
            let is_reserved = found == Err(Fault::Reserved);
            assert_eq!(is_reserved, reserved.contains(&bit), "{unit:?} {level} {leaf} {bit}");
            if !is_reserved && leaf {
                let address = if (12..52).contains(&bit) { 1 << bit } else { 0 };
                assert_eq!(found.unwrap().guest, GuestPhys(address));
            }
        }
    }
}

#[test]
fn permission_is_checked_before_reserved_bits() {
    let reserved = 1 << 62;
    let fault = |leaf, access| {
        let words = tables(Levels::Three, 1, leaf);
        walk(&words, &unit(), root(Levels::Three), DeviceAddr(addr(Levels::Three)), access)
    };
    assert_eq!(fault(reserved | R, Access::WRITE), Err(Fault::WriteDenied));
    assert_eq!(fault(reserved | W, Access::READ), Err(Fault::ReadDenied));
    assert_eq!(fault(reserved, Access::READ), Err(Fault::ReadDenied));
    assert_eq!(fault(reserved | R, Access::READ), Err(Fault::Reserved));
}

#[test]
fn an_address_beyond_the_width_is_refused_before_anything_is_read() {
    for levels in ALL {
        let width = levels.address_width();
        let words = tables(levels, 1, RW);
        let narrow = Capabilities { guest_address_width: 38, ..unit() };
        let at = |unit, addr| walk(&words, &unit, root(levels), DeviceAddr(addr), Access::READ);
        for addr in [1 << width, u64::MAX, 1 << 63] {
            assert_eq!(at(unit(), addr), Err(Fault::BeyondWidth), "{levels:?}");
        }
        assert_eq!(at(narrow, 1 << 38), Err(Fault::BeyondWidth));
        assert_eq!(words.take_reads(), []);
        assert_eq!(at(unit(), (1 << width) - 1), Err(Fault::ReadDenied));
        assert_eq!(at(narrow, (1 << 38) - 1), Err(Fault::ReadDenied));
    }
}

#[test]
fn a_table_that_leads_to_itself_ends_the_walk_after_its_levels() {
    for levels in ALL {
        let mut words = Words::default();
        words.set(0x7000, 0x7000 | RW);
        let table = Table { root: GuestPhys(0x7000), levels };
        let found = walk(&words, &unit(), table, DeviceAddr(8), Access::READ);
        let guest = GuestPhys(0x7000);
        assert_eq!(found, Ok(Translation { size: 4096, guest, access: ANY }));
        assert_eq!(words.take_reads(), vec![0x7000; levels as usize]);
    }
}

#[test]
fn a_table_that_cannot_be_read_is_a_fault() {
    let words = Words::default();
    let outside = Table { root: GuestPhys(Words::END), levels: Levels::Four };
    let found = walk(&words, &unit(), outside, DeviceAddr(0), Access::READ);
    assert_eq!(found, Err(Fault::TableInaccessible));
    for level in 2..=4 {
        let words = tables(Levels::Four, level, Words::END | RW);
        assert_eq!(read(&words, &unit(), Levels::Four), Err(Fault::TableInaccessible));
    }
}

#[test]
fn the_low_bits_of_the_root_are_ignored() {
    let words = tables(Levels::Three, 1, 0x5000 | RW);
    let table = Table { root: GuestPhys(table(3) | 0xfff), levels: Levels::Three };
    let found = walk(&words, &unit(), table, DeviceAddr(addr(Levels::Three)), Access::READ);
    assert_eq!(found.unwrap().guest, GuestPhys(0x5000));
}

#[test]
fn nonsense_capabilities_do_no_harm() {
    for width in [0, 11, 53, 64, u32::MAX] {
        let unit = Capabilities { guest_address_width: width, ..Capabilities::new(width) };
        let words = tables(Levels::Five, 1, 0x5000 | RW);
        let found = read(&words, &unit, Levels::Five);
        assert_eq!(found.is_ok(), width > 52, "{width}");
    }
}

#[test]
fn reasons_and_levels_have_the_numbers_of_the_specification() {
    let reasons = [
        (Fault::BeyondWidth, 0x4),
        (Fault::WriteDenied, 0x5),
        (Fault::ReadDenied, 0x6),
        (Fault::TableInaccessible, 0x7),
        (Fault::Reserved, 0xc),
    ];
    for (fault, reason) in reasons {
        assert_eq!(TranslationFault::from(fault), TranslationFault { reason, keep: false });
    }
    let widths = [0, 1, 2, 3, 4, 255].map(|aw| Levels::from_aw(aw).map(Levels::address_width));
    assert_eq!(widths, [None, Some(39), Some(48), Some(57), None, None]);
}
