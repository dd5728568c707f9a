//! A virtio queue as a hostile driver lays it out.
//!
//! `cargo fuzz run --sanitizer none queue`, from the tree's root.
#![no_main]

#[path = "../../crates/gasp-vm-memory/tests/support/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::serve(bytes));
