//! A guest on KVM: the example and its slots, if this machine has KVM.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "../examples/kvm.rs"]
mod kvm;
#[path = "support/trials.rs"]
mod trials;

use gasp::{Errno, GuestPhys, MemoryObject, Reason, Region};
use kvm_ioctls::Kvm;
use libtest_mimic::Arguments;
use trials::{trial, writable};

/// KVM refuses a slot that overlaps another one.
fn a_refused_change_leaves_the_slots_as_they_were() {
    let slots = kvm::Slots::new(Kvm::new().unwrap().create_vm().unwrap());
    let ram = MemoryObject::ram(1 << 20).create().unwrap();
    let at = |mib: u64| Region::ram(GuestPhys(mib << 20), &ram).unwrap();
    let spans = || {
        let regions = slots.regions.lock().unwrap();
        regions.iter().flatten().map(Region::span).collect::<Vec<_>>()
    };
    slots.exchange(&[], &[at(0), at(1), at(2)]).unwrap();
    let before = spans();
    // The first two go, one comes, and the last is refused: twice, as nothing is left of it.
    for _ in 0..2 {
        let refused = slots.exchange(&[at(0), at(1)], &[at(5), at(2)]).unwrap_err();
        assert!(matches!(refused, Reason::Os { errno: Errno::EXIST, .. }), "{refused}");
        assert_eq!(spans(), before);
    }
    // KVM has them as well: it refuses others there, and removes them.
    for mib in 0..3 {
        slots.exchange(&[], &[at(mib)]).unwrap_err();
    }
    slots.exchange(&[at(0), at(1), at(2)], &[at(5)]).unwrap();
    assert_eq!(spans(), [at(5).span()]);
}

fn main() {
    let run = || kvm::main().unwrap();
    let name = "a_device_reads_through_its_iommu_what_a_vcpu_wrote";
    let slots = "a_refused_change_leaves_the_slots_as_they_were";
    let trials = vec![
        trial(name, &[writable("/dev/kvm")], run),
        trial(slots, &[writable("/dev/kvm")], a_refused_change_leaves_the_slots_as_they_were),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
