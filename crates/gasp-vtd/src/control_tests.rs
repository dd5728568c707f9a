//! What a guest can have a unit wait for.

use gasp::{DeviceAddr, Drain, Guest, GuestPhys, MapFlags, MemoryObject, Unattached};

use crate::registers::{FSTS, GCMD, IQA, IQT, fault_status, global};
use crate::{RequesterId, Unit};

const QUEUE: u64 = 0x1000;
/// An invalidation of all of the context cache, and a descriptor of a type that there is not.
const CONTEXT_ALL: u64 = 1 | 1 << 4;
const BAD: u64 = 0xf;

fn pending(unit: &Unit) -> usize {
    unit.0.with(|control| control.drain.as_mut().map_or(0, Drain::pending))
}

#[test]
fn however_often_a_guest_invalidates_a_held_mapping_it_is_waited_for_once() {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let ram = MemoryObject::ram(2 << 20).create().unwrap();
    guest.space().add_ram(None, &ram).unwrap();
    let unit = Unit::new(&guest, |_| ()).unwrap();
    let devices = [1, 2].map(|id| {
        let vdev = guest.vdev(&format!("device {id}")).unwrap();
        unit.connect(RequesterId(id), &vdev).unwrap().wait();
        vdev
    });
    let held = devices.each_ref().map(|vdev| vdev.map(DeviceAddr(0x8000), 16, MapFlags::RW));
    for (at, descriptor) in [(0, CONTEXT_ALL), (16, BAD)] {
        guest.write_firmware(GuestPhys(QUEUE + at), &descriptor.to_le_bytes()).unwrap();
    }
    let command = |value: u32| unit.write(GCMD, &value.to_le_bytes());
    let start = || {
        unit.write(IQA, &QUEUE.to_le_bytes());
        command(global::QIE);
        unit.write(IQT, &32_u64.to_le_bytes());
    };
    start();
    assert_eq!(pending(&unit), 2, "one of each device");
    for _ in 0..1_000 {
        // The queue again, from its first descriptor; its error; a reset.
        command(0);
        command(global::QIE);
        assert_eq!(pending(&unit), 2);
        unit.write(FSTS, &fault_status::IQE.to_le_bytes());
        unit.write(IQT, &16_u64.to_le_bytes());
        assert_eq!(pending(&unit), 2);
        unit.reset();
        start();
        assert_eq!(pending(&unit), 2);
    }
    drop(held);
    assert_eq!(pending(&unit), 0);
    let mut status = [0; 4];
    unit.read(FSTS, &mut status);
    let status = u32::from_le_bytes(status);
    assert_ne!(status & fault_status::IQE, 0, "the queue has gone on, up to the bad descriptor");
}
