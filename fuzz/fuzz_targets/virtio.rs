//! A virtio device as a hostile guest uses it.
//!
//! `cargo fuzz run --sanitizer none virtio`, from the tree's root.
#![no_main]

#[path = "../../crates/gasp-virtio/tests/support/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::serve(bytes));
