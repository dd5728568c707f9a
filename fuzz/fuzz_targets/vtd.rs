//! A VT-d as a hostile guest uses it: registers, queue, tables, and maps of its devices.
//!
//! `cargo fuzz run --sanitizer none vtd`, from the tree's root.
#![no_main]

#[path = "../../crates/gasp-vtd/tests/support/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::serve(bytes));
