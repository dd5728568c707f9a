//! The headers compared with Rust: every size, offset, constant and prototype.
//!
//! A C program of static assertions is generated from the Rust side, and compiled. It is complete:
//! the functions that it names are those that the shared library exports and those that the headers
//! declare.
#![allow(unsafe_code, reason = "names unsafe functions, and calls one")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod headers;
mod in_c;
mod prototypes;
mod structures;
mod symbols;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use gasp_capi::host::report::gasp_version;
use gasp_capi::types::CONSTANTS;
use headers::{check, compile, include};

#[test]
fn constants_have_the_values_of_the_headers() {
    let mut text = String::new();
    for (name, value) in CONSTANTS {
        writeln!(text, "_Static_assert((uint64_t)({name}) == UINT64_C({value}), \"{name}\");")
            .unwrap();
    }
    check(800, &text);
    check(710, &text);
}

#[test]
fn every_constant_of_ours_in_the_headers_is_compared() {
    let compared: BTreeSet<&str> = CONSTANTS.iter().map(|(name, _)| *name).collect();
    // Not constants, or compared elsewhere.
    let names = ["GASP_GUEST_OPTIONS_INIT", "GASP_GUEST_H", "GASP_VERSION_STRING"];
    for header in ["qvm/types.h", "qvm/gasp.h", "gasp/guest.h"] {
        let text = std::fs::read_to_string(include().join(header)).unwrap();
        let defined = text.lines().filter_map(|line| line.strip_prefix("#define "));
        for define in defined {
            let name = define.split(' ').next().unwrap_or_default();
            if name.contains('(') {
                continue; // With arguments: tests/vdev has those.
            }
            let ours = ["GASP_", "GMF_", "GRF_", "GWF_", "GWS_", "GRAM_", "QSL_"];
            if ours.iter().any(|prefix| name.starts_with(prefix)) && !names.contains(&name) {
                assert!(compared.contains(name), "{header}: {name} is not compared");
            }
        }
    }
}

#[test]
fn the_headers_have_the_version_of_the_library() {
    let version = env!("CARGO_PKG_VERSION");
    check(
        800,
        &format!("_Static_assert(sizeof(GASP_VERSION_STRING) == {}, \"\");", version.len() + 1),
    );
    let text = std::fs::read_to_string(include().join("gasp/guest.h")).unwrap();
    assert!(text.contains(&format!("#define GASP_VERSION_STRING \"{version}\"")));
    // SAFETY: `gasp_version` returns a static string that ends in a NUL.
    let library = unsafe { std::ffi::CStr::from_ptr(gasp_version()) };
    assert_eq!(library.to_str(), Ok(version));
}

#[test]
fn an_edition_that_is_chosen_too_late_is_an_error() {
    for (first, then) in [(800, 710), (710, 800)] {
        for header in ["qvm/types.h", "qvm/gasp.h", "gasp/guest.h"] {
            let late =
                format!("#undef QVM_EDITION\n#define QVM_EDITION {then}\n#include <{header}>\n");
            let errors = compile(first, &late).unwrap_err();
            assert!(errors.contains("before the first header"), "{errors}");
            check(first, &format!("#include <{header}>\nint nothing;\n"));
        }
    }
}

#[test]
fn a_wrong_assertion_is_noticed() {
    let wrong = "_Static_assert(sizeof(gasp_map_handle_t) == 16, \"\");";
    assert!(compile(800, wrong).is_err());
    let wrong = "_Static_assert(_Generic(&gasp_lock, void (*)(int): 1, default: 0), \"\");";
    assert!(compile(800, wrong).is_err());
}
