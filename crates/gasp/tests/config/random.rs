//! Random texts, and random guests compared with a model.

use std::fs;
use std::path::Path;

use gasp::config::Config;
use gasp::{Access, DeviceAddr, Errno, GuestPhys, RegionKind};
use proptest::prelude::*;

use crate::{EXAMPLES, parse};

fn mutated() -> impl Strategy<Value = String> {
    let texts: Vec<String> = fs::read_dir(EXAMPLES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let patch = prop_oneof![
        any::<String>(),
        any::<u64>().prop_map(|number| number.to_string()),
        prop::sample::select(vec!["", "[", "]", "{", "}}", "'", "\"", "\n", "=", "0x", "-", "T"])
            .prop_map(str::to_owned),
    ];
    let patches = prop::collection::vec((any::<prop::sample::Index>(), 0..20_usize, patch), 1..4);
    (prop::sample::select(texts), patches).prop_map(|(text, patches)| {
        let mut bytes = text.into_bytes();
        for (position, remove, patch) in patches {
            let start = position.index(bytes.len() + 1);
            let end = (start + remove).min(bytes.len());
            bytes.splice(start..end, patch.bytes());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// RAM or reserved, the first page, number of pages.
type GridRegion = (bool, u64, u64);
/// The first page, number of pages.
type GridGrant = (u64, u64);

/// Regions and grants on a small grid of pages, some of them invalid.
fn grid() -> impl Strategy<Value = (Vec<GridRegion>, Vec<GridGrant>)> {
    let region = (any::<bool>(), 0..24_u64, 1..6_u64);
    let grant = (0..24_u64, 1..6_u64);
    (prop::collection::vec(region, 1..6), prop::collection::vec(grant, 0..3))
}

/// A grant's first page, number of pages, shift of its guest pages, access.
fn grant() -> impl Strategy<Value = (u64, u64, u64, u8)> {
    (0..12_u64, 1..6_u64, prop::sample::select(vec![0, 0, 0, 1]), 1..8_u8)
}

proptest! {
    // Each case creates two domains of thousands of entries.
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn grants_of_a_file_are_those_that_the_engine_makes_of_them_one_by_one(
        grants in prop::collection::vec(grant(), 0..8), unit in prop::sample::select(vec![12, 19])
    ) {
        let head = "[iommu]\n[[domain]]\nname = 'a'\nkind = 'translate'\n";
        let direct = parse(head).unwrap().build(None).unwrap().find_domain("a").unwrap();
        let mut text = format!("{head}grant = [\n");
        let mut added = Ok(());
        for (page, pages, shift, access) in grants {
            let access = Access::from_bits_truncate(access);
            // Not whole pages: both sides round outward.
            let (device, guest) = ((page << unit) + 8, ((page + shift) << unit) + 8);
            let len = (pages << unit) - 16;
            text += &format!(
                "{{ device = {device}, guest = {guest}, size = {len}, \
                 access = '{access}', hole = true }},\n"
            );
            added = added.and(direct.grant(DeviceAddr(device), GuestPhys(guest), len, access));
        }
        text += "]";
        match parse(&text) {
            Ok(config) => {
                prop_assert!(added.is_ok(), "{text}");
                let domain = config.build(None).unwrap().find_domain("a").unwrap();
                prop_assert_eq!(domain.grants(), direct.grants());
                prop_assert!(domain.entries() <= direct.entries());
            }
            Err(error) => {
                prop_assert_eq!(added.unwrap_err().errno(), error.errno(), "{}", error);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_parse_panic(text: String) {
        let _ = parse(&text);
    }

    #[test]
    fn no_change_to_an_example_makes_parse_panic(text in mutated()) {
        match Config::parse(&text, &Path::new(EXAMPLES).join("changed.toml")) {
            Ok(config) => prop_assert!(!config.name().is_empty()),
            Err(error) => {
                let lines = text.lines().count().max(1);
                let line = error.line();
                prop_assert!(line.is_some_and(|line| (1..=lines + 1).contains(&line)), "{error}");
                prop_assert!(!error.to_string().contains(char::is_control), "{error}");
            }
        }
    }

    #[test]
    fn a_file_is_accepted_if_nothing_overlaps_and_all_grants_lead_to_memory(
        (regions, grants) in grid()
    ) {
        let mut text = String::from("[iommu]\n");
        let mut model = [None; 32];
        let mut overlap = false;
        for &(is_ram, page, pages) in &regions {
            let kind = if is_ram { "ram" } else { "reserve" };
            text += &format!("[[{kind}]]\nstart = {}\nsize = '{}K'\n", page << 12, pages * 4);
            for slot in &mut model[page as usize..(page + pages) as usize] {
                overlap |= slot.replace(is_ram).is_some();
            }
        }
        text += "[[domain]]\nname = 'a'\nkind = 'identity'\ngrant-identity = [\n";
        let mut astray = false;
        for &(page, pages) in &grants {
            text += &format!("{{ start = {}, size = '{}K', access = 'r' }},\n", page << 12, pages * 4);
            let range = page as usize..(page + pages) as usize;
            astray |= model[range].iter().any(|slot| *slot != Some(true));
        }
        text += "]";
        match parse(&text) {
            Ok(config) => {
                prop_assert!(!overlap && !astray, "{text}");
                let guest = config.build(None).unwrap();
                for (page, slot) in (0_u64..).zip(model) {
                    let there = guest.space().region_at(GuestPhys(page << 12));
                    let is_ram = there.map(|region| region.kind() == RegionKind::Ram);
                    prop_assert_eq!(is_ram, slot);
                }
            }
            Err(error) => {
                let want = if overlap { Errno::EXIST } else { Errno::NXIO };
                prop_assert!(overlap || astray, "{error}\n{text}");
                prop_assert_eq!(error.errno(), want, "{}", error);
            }
        }
    }
}
