//! A guest on KVM: the example, if this machine has KVM.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "../examples/kvm.rs"]
mod kvm;
#[path = "support/trials.rs"]
mod trials;

use libtest_mimic::Arguments;
use trials::{trial, writable};

fn main() {
    let run = || kvm::main().unwrap();
    let name = "a_device_reads_through_its_iommu_what_a_vcpu_wrote";
    let trials = vec![trial(name, &[writable("/dev/kvm")], run)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
