//! Host tables of AMD-Vi: what each bit of an entry means.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/words.rs"]
mod words;

use gasp::{Access, DeviceAddr, GuestPhys, Translation, TranslationFault};
use gasp_page_tables::amd::{Fault, Levels, Table, walk};
use words::Words;

const PRESENT: u64 = 1;
const R: u64 = 1 << 61;
const W: u64 = 1 << 62;
const RW: u64 = R | W;

fn shift(level: u64) -> u64 {
    12 + 9 * (level - 1)
}

fn table(level: u64) -> u64 {
    level * 0x1000
}

/// An address whose index is 1 at each level up to this one.
fn addr(level: u64) -> u64 {
    (1..=level).map(|level| 1 << shift(level)).sum::<u64>() | 0x123
}

fn root(levels: u64) -> Table {
    let levels_ = Levels::from_mode(levels as u8).unwrap();
    Table { root: GuestPhys(table(levels)), levels: levels_, access: Access::RW }
}

/// An entry that leads to the table of a level, or to a page if that is 0 or 7.
fn entry(address: u64, next_level: u64) -> u64 {
    address | next_level << 9 | PRESENT | RW
}

/// Tables to an entry of `leaf_level`.
fn tables(levels: u64, leaf_level: u64, leaf: u64) -> Words {
    let mut words = Words::default();
    for level in leaf_level + 1..=levels {
        words.set(table(level) + 8, entry(table(level - 1), level - 1));
    }
    words.set(table(leaf_level) + 8, leaf);
    words
}

fn read(words: &Words, levels: u64) -> Result<Translation, Fault> {
    walk(words, root(levels), DeviceAddr(addr(levels)), Access::READ)
}

#[test]
fn a_page_of_each_level_is_found_at_each_number_of_levels() {
    for levels in 1..=6 {
        for level in 1..=levels.min(5) {
            let guest = GuestPhys(3 << 48);
            let words = tables(levels, level, entry(guest.0, 0));
            let (size, access) = (1 << shift(level), Access::RWX);
            assert_eq!(read(&words, levels), Ok(Translation { size, guest, access }));
            let way: Vec<u64> = (level..=levels).rev().map(|level| table(level) + 8).collect();
            assert_eq!(words.take_reads(), way, "each entry is read once");
        }
    }
    // 2^57 bytes do not fit into addresses of 52 bits.
    assert_eq!(read(&tables(6, 6, entry(0, 0)), 6), Err(Fault::Reserved));
}

#[test]
fn a_page_of_another_size_has_it_in_its_address() {
    for level in 1..=6 {
        for bits in 13..=53 {
            // The lowest bit that is clear is half the size.
            let encoded = (1_u64 << (bits - 1)) - (1 << 12);
            let guest = if bits < 50 { 1 << 50 } else { 0 };
            let found = read(&tables(6, level, entry(guest | encoded, 7)), 6);
            if shift(level) < bits && bits < shift(level + 1) && bits <= 52 {
                let (size, guest, access) = (1 << bits, GuestPhys(guest), Access::RWX);
                assert_eq!(found, Ok(Translation { size, guest, access }), "{level} {bits}");
            } else {
                assert_eq!(found, Err(Fault::Reserved), "{level} {bits}");
            }
        }
    }
}

#[test]
fn an_entry_may_skip_levels_whose_address_bits_are_zero() {
    let mut words = Words::default();
    words.set(table(5), entry(table(2), 2));
    words.set(table(2) + 8, entry(0x40_0000, 0));
    let at = |addr| walk(&words, root(5), DeviceAddr(addr), Access::READ);
    assert_eq!(at(1 << 21).unwrap().guest, GuestPhys(0x40_0000));
    for level in 3..=4 {
        let skipped = 1 << 21 | 1 << shift(level);
        assert_eq!(at(skipped), Err(Fault::Untranslated), "{level}");
    }
}

#[test]
fn an_address_that_the_levels_do_not_reach_is_refused_before_anything_is_read() {
    for levels in 1..6 {
        let words = tables(levels, 1, entry(0, 0));
        let at = |addr| walk(&words, root(levels), DeviceAddr(addr), Access::READ);
        for addr in [1 << shift(levels + 1), 1 << 63, u64::MAX] {
            assert_eq!(at(addr), Err(Fault::Untranslated), "{levels}");
        }
        assert_eq!(words.take_reads(), []);
        assert_eq!(at((1 << shift(levels + 1)) - 1), Err(Fault::NotPresent));
    }
}

#[test]
fn an_access_is_allowed_if_the_device_table_and_every_entry_allow_it() {
    for request in (0..8).map(Access::from_bits_truncate) {
        for bits in 0..64 {
            let [device, upper, lower] = [bits & 3, bits >> 2 & 3, bits >> 4];
            let mut words = Words::default();
            words.set(table(2) + 8, table(1) | 1 << 9 | PRESENT | upper << 61);
            words.set(table(1) + 8, 0x9000 | PRESENT | lower << 61);
            let table = Table { access: Access::from_bits_truncate(device as u8), ..root(2) };
            let found = walk(&words, table, DeviceAddr(addr(2)), request);

            let allowed = device & upper & lower;
            let reads = request.intersects(Access::READ | Access::EXEC);
            let writes = request.contains(Access::WRITE);
            let mut access = Access::empty();
            access.set(Access::READ | Access::EXEC, allowed & 1 != 0);
            access.set(Access::WRITE, allowed & 2 != 0);
            if access.contains(request) && allowed != 0 {
                assert_eq!(found.unwrap().access, access);
            } else {
                assert!(reads || writes || allowed == 0);
                assert_eq!(found, Err(Fault::Denied), "{request} {bits:#b}");
            }
        }
    }
}

#[test]
fn exactly_the_reserved_bits_are_refused() {
    // The level of the entry, what it leads to, and its reserved bits.
    let cases: [(u64, u64, Vec<u64>); 4] = [
        (2, 1, (52..61).collect()),
        (1, 0, (52..59).collect()),
        (2, 0, (12..21).chain(52..59).collect()),
        (3, 0, (12..30).chain(52..59).collect()),
    ];
    for (level, next, reserved) in cases {
        for bit in (1..9).chain(12..64) {
            let address = if next == 0 { 0 } else { table(next) };
            let mut words = tables(3, 1, entry(0, 0));
            let whole = entry(address, next);
            let leads_elsewhere = next != 0 && (12..52).contains(&bit);
            if whole & 1 << bit != 0 || leads_elsewhere {
                continue;
            }
            words.set(table(level) + 8, whole | 1 << bit);
            let found = read(&words, 3);
            let is_reserved = found == Err(Fault::Reserved);
            assert_eq!(is_reserved, reserved.contains(&bit), "{level} {next} {bit}");
        }
    }
}

#[test]
fn a_level_that_does_not_go_down_is_refused() {
    for level in 1..=6_u64 {
        for next in level..=6 {
            let words = tables(6, level, entry(table(level), next));
            assert_eq!(read(&words, 6), Err(Fault::Reserved), "{level} {next}");
            assert!(words.take_reads().len() <= 6);
        }
    }
}

#[test]
fn a_table_that_cannot_be_read_is_a_fault() {
    for level in 2..=6 {
        let words = tables(6, level, entry(Words::END, level - 1));
        assert_eq!(read(&words, 6), Err(Fault::TableInaccessible));
    }
}

#[test]
fn an_entry_that_is_not_present_means_nothing_else() {
    let words = tables(4, 2, !PRESENT);
    assert_eq!(read(&words, 4), Err(Fault::NotPresent));
}

#[test]
fn reasons_are_those_of_the_events_and_modes_those_of_the_device_table() {
    let reasons = [
        (Fault::NotPresent, 0x2000_0000),
        (Fault::Denied, 0x2050_0000),
        (Fault::Untranslated, 0x2010_0000),
        (Fault::Reserved, 0x2090_0000),
        (Fault::TableInaccessible, 0x4200_0000),
    ];
    for (fault, reason) in reasons {
        assert_eq!(TranslationFault::from(fault), TranslationFault { reason, keep: false });
    }
    let valid = (0..=255).filter(|&mode| Levels::from_mode(mode).is_some());
    assert!(valid.eq(1..=6));
}
