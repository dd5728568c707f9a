//! The symbols and sections of the libraries that cargo has built.

use std::collections::BTreeSet;
use std::process::Command;

use crate::headers::declared;

#[test]
fn empty_lists_take_no_space_in_the_shared_library_s_file() {
    let test = std::env::current_exe().unwrap();
    let library = test.parent().unwrap().join("libgasp_capi.so");
    let output = Command::new("readelf").arg("-SW").arg(library).output().expect("readelf");
    let text = String::from_utf8(output.stdout).unwrap();
    let size = |section: &str| {
        let line = text.lines().find(|line| line.contains(&format!(" {section} "))).unwrap();
        let words: Vec<&str> = line.split(section).nth(1).unwrap().split_whitespace().collect();
        u64::from_str_radix(words[3], 16).unwrap()
    };
    assert!(size(".data") < 64 << 10, "{text}");
    // Populated as it is used: the registries of objects, and the engine's list of slots.
    assert!((16 << 20..17 << 20).contains(&size(".bss")), "{text}");
}

#[test]
fn the_shared_library_exports_what_the_headers_declare_and_nothing_else() {
    let output = nm(&["-D", "--defined-only"], "libgasp_capi.so");
    let exported: BTreeSet<String> = output
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(exported, declared());
}

#[test]
fn the_archive_has_no_other_names_that_could_conflict_with_a_program_s() {
    let output = nm(&["--defined-only", "--extern-only"], "libgasp_capi.a");
    let declared = declared();
    let strange: BTreeSet<&str> = output
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let kind = words.next()?;
            // Weak symbols do not conflict with a program's.
            (kind.len() == 1 && !"VWvw".contains(kind)).then(|| words.next()).flatten()
        })
        .filter(|name| !declared.contains(*name))
        // Rust's own symbols are mangled, unlike those of a C program.
        .filter(|name| !name.starts_with("_ZN") && !name.starts_with("_R"))
        .filter(|name| !name.starts_with("__r") && *name != "rust_eh_personality")
        // Of compiler-builtins, and hidden: they do not conflict with a program's.
        .filter(|name| !name.starts_with("__"))
        // Of the engine's code that recovers from faults, hidden as well.
        .filter(|name| !name.starts_with("gasp_guarded_"))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// The symbols of a library that cargo has built next to this test.
fn nm(options: &[&str], library: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let library = test.parent().unwrap().join(library);
    assert!(library.exists(), "{} is built with the package's tests", library.display());
    let output = Command::new("nm").args(options).arg(&library).output().expect("nm, of binutils");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
