//! Random texts in the qvm language, and random memory compared with a model.

use std::path::Path;

use gasp::config::Config;
use gasp::{Errno, GuestPhys, RegionKind};
use proptest::prelude::*;

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

fn check(text: &str) -> Result<(), TestCaseError> {
    match Config::parse(text, Path::new("test.qvmconf")) {
        Ok(config) => {
            prop_assert!(!config.name().is_empty());
            for device in &config.machine().devices {
                let _ = device.options(&["a", "0on"]);
            }
        }
        Err(error) => {
            let lines = text.split('\n').count();
            prop_assert!(error.line().is_some_and(|line| (1..=lines).contains(&line)), "{error}");
            prop_assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }
    Ok(())
}

/// ROM or RAM, the first page if it is given, the number of pages.
fn memory() -> impl Strategy<Value = Vec<(bool, Option<u64>, u64)>> {
    prop::collection::vec((any::<bool>(), prop::option::of(0..24_u64), 1..6_u64), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_text_makes_the_parser_panic(text: String) {
        check(&text)?;
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
        check(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn no_sequence_of_words_makes_the_parser_panic(words in words()) {
        check(&words.join(" "))?;
        if let Err(error) = Config::from_arguments(words.clone()) {
            let line = error.line();
            prop_assert!(line.is_some_and(|line| (1..=words.len()).contains(&line)), "{error}");
        }
    }
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
