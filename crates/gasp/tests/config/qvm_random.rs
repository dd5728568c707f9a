//! Random texts in the qvm language, and random memory compared with a model.

use std::path::Path;

use gasp::config::Config;
use gasp::{Errno, GuestPhys, RegionKind};
use proptest::prelude::*;

use crate::any_config;

const WORDS: &[&str] = &[
    "system",
    "ram",
    "rom",
    "load",
    "cmdline",
    "cpu",
    "pass",
    "reserve",
    "vdev",
    "loc",
    "intr",
    "name",
    "log",
    "logger",
    "set",
    "unsupported",
    "dryrun",
    "sched",
    "runmask",
    "guest",
    "initrd",
    "data",
    "acpi",
    "exit-on-halt",
    "on",
    "instruction",
    "fail",
    "error,warn",
    "stderr",
    "1M",
    "0,4K",
    "0x1000,0x1000,rw",
    "0x1000,0x1000,m=0x2000",
    "mem:0",
    "io:0x3f8",
    "pci:0:1.0",
    "a",
    "a:1",
    "@",
    "@.",
    "@none",
    "\"",
    "\"a b\"",
    "\\",
    "\\\n",
    "#",
    "\n",
    ",",
    "=",
    "$asinfo_start{a}",
    "0xffffffffffffffff",
    "16777215T",
    "-",
    "é",
];

/// Words of the language and others, in any order.
fn words() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(WORDS), 0..24)
}

/// ROM or RAM, the first page if it is given, the number of pages.
fn memory() -> impl Strategy<Value = Vec<(bool, Option<u64>, u64)>> {
    prop::collection::vec((any::<bool>(), prop::option::of(0..24_u64), 1..6_u64), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_text_makes_the_parser_panic(text: String) {
        any_config::read(text.as_bytes());
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
        any_config::read(&bytes);
    }

    #[test]
    fn no_sequence_of_words_makes_the_parser_panic(words in words()) {
        any_config::read(words.join(" ").as_bytes());
        any_config::read(words.join("\n").as_bytes());
    }

    #[test]
    fn no_change_to_a_machine_makes_the_parser_panic(
        patches in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..20_usize, prop::sample::select(WORDS)), 1..4
        )
    ) {
        let mut bytes = include_bytes!("../../../../examples/guest/machine.qvmconf").to_vec();
        for (position, remove, patch) in patches {
            let start = position.index(bytes.len() + 1);
            let end = (start + remove).min(bytes.len());
            bytes.splice(start..end, patch.bytes());
        }
        any_config::read(&bytes);
    }
}

#[test]
fn the_kept_inputs_of_the_fuzzer_are_read() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/qvmconf");
    let mut read = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        any_config::read(&std::fs::read(entry.unwrap().path()).unwrap());
        read += 1;
    }
    assert!(read > 0, "there are inputs in {corpus}");
}

proptest! {
    #[test]
    fn memory_is_where_the_rule_of_the_highest_so_far_places_it(regions in memory()) {
        let mut text = String::new();
        let mut model = [None; 64];
        let (mut next, mut overlap) = (0, false);
        for (is_ram, start, pages) in regions {
            let option = if is_ram { "ram" } else { "rom" };
            text += &match start {
                Some(page) => format!("{option} {:#x},{}k\n", page << 12, pages * 4),
                None => format!("{option} {}K ", pages * 4),
            };
            let start = start.unwrap_or(next);
            next = next.max(start + pages);
            for slot in &mut model[start as usize..(start + pages) as usize] {
                overlap |= slot.replace(is_ram).is_some();
            }
        }
        match Config::parse(&text, Path::new("test.qvmconf")) {
            Ok(config) => {
                prop_assert!(!overlap, "{text}");
                let guest = config.build(None).unwrap();
                for (page, slot) in (0_u64..).zip(model) {
                    let there = guest.space().region_at(GuestPhys(page << 12));
                    let is_ram = there.map(|region| region.kind() == RegionKind::Ram);
                    prop_assert_eq!(is_ram, slot);
                }
            }
            Err(error) => {
                prop_assert!(overlap, "{error}\n{text}");
                prop_assert_eq!(error.errno(), Errno::EXIST);
            }
        }
    }
}
