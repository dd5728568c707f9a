//! Configurations in the qvm language, of any bytes.
//!
//! `cargo fuzz run --sanitizer none qvmconf`, from the tree's root.
#![no_main]

#[path = "../../crates/gasp/tests/support/any_config.rs"]
mod any_config;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| any_config::read(bytes));
