//! Flat guests of a few instructions, on this machine's own KVM.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod boot;
mod code;
mod ends;
mod interrupts;
mod iommu;
#[path = "../support/kernel.rs"]
mod kernel;
mod memory;
mod pci;
mod registers;
mod support;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let trials: Vec<Trial> = [
        registers::trials(),
        memory::trials(),
        interrupts::trials(),
        ends::trials(),
        boot::trials(),
        pci::trials(),
        iommu::trials(),
    ]
    .into_iter()
    .flatten()
    .map(|(name, body)| support::trial(name, body))
    .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
