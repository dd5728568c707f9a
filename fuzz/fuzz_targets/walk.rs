//! IOMMU page tables as a hostile guest writes them.
//!
//! `cargo fuzz run --sanitizer none walk`, from the tree's root.
#![no_main]

#[path = "../../crates/gasp-page-tables/tests/support/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::serve(bytes));
