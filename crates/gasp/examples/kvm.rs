//! A guest on KVM whose memory a device reads through its IOMMU, all in one process.
//!
//! `cargo run -p gasp --example kvm`
//!
//! The vCPU runs five instructions in real mode, which write a number. A listener keeps the slots
//! of KVM as the guest's regions are, so memory is described once; what KVM uses holds up no
//! revoke.
#![allow(unsafe_code, reason = "tells KVM where guest memory is")]

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use gasp::{
    Access, DeviceAddr, DomainKind, DomainOptions, Errno, Guest, GuestPhys, MapFlags, MemoryObject,
    Reason, Region, RegionKind, SpaceChange, SpaceListener, Unattached,
};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VmFd};

/// Stores 0x5678_1234 at 0x2000, and halts.
const CODE: [u8; 13] = [
    0xb8, 0x34, 0x12, // mov ax, 0x1234
    0xa3, 0x00, 0x20, // mov [0x2000], ax
    0xb8, 0x78, 0x56, // mov ax, 0x5678
    0xa3, 0x02, 0x20, // mov [0x2002], ax
    0xf4, // hlt
];
const ENTRY: u64 = 0x1000;
const RESULT: u64 = 0x2000;

/// The memory slots of a VM, which follow the regions of a guest.
pub(crate) struct Slots {
    vm: VmFd,
    /// What each slot of KVM is, at any time. A region keeps its memory mapped.
    pub(crate) regions: Mutex<Vec<Option<Region>>>,
}

impl Slots {
    pub(crate) fn new(vm: VmFd) -> Self {
        Self { vm, regions: Mutex::default() }
    }

    /// Removes the slots of some regions, and creates slots for others: all of that, or nothing.
    pub(crate) fn exchange(&self, outgoing: &[Region], incoming: &[Region]) -> Result<(), Reason> {
        let mut regions = self.regions.lock().map_err(|_| Reason::Invalid("a panic before"))?;
        let before = regions.clone();
        let mut after = regions.clone();
        for place in &mut after {
            let goes = |gone: &Region| place.as_ref().is_some_and(|it| it.span() == gone.span());
            if outgoing.iter().any(goes) {
                *place = None;
            }
        }
        for region in incoming.iter().filter(|region| region.as_ptr().is_some()) {
            match after.iter_mut().find(|place| place.is_none()) {
                Some(free) => *free = Some(region.clone()),
                None => after.push(Some(region.clone())),
            }
        }
        self.change(&mut regions, &after).inspect_err(|_| {
            // What there was has fitted once.
            let _ = self.change(&mut regions, &before);
        })
    }

    /// Changes the slots from what they are to what is wanted, up to the first error.
    fn change(&self, is: &mut Vec<Option<Region>>, to: &[Option<Region>]) -> Result<(), Reason> {
        is.resize(is.len().max(to.len()), None);
        let wanted = |slot: usize| to.get(slot).and_then(Option::as_ref);
        for (slot, place) in is.iter_mut().enumerate() {
            if let Some(region) =
                place.as_ref().filter(|it| !wanted(slot).is_some_and(|to| same(it, to)))
            {
                // A slot of size 0 is none.
                self.set(slot, region, 0)?;
                *place = None;
            }
        }
        for (slot, place) in is.iter_mut().enumerate().filter(|(_, place)| place.is_none()) {
            if let Some(region) = wanted(slot) {
                self.set(slot, region, region.span().len())?;
                *place = Some(region.clone());
            }
        }
        Ok(())
    }

    fn set(&self, slot: usize, region: &Region, len: u64) -> Result<(), Reason> {
        let read_only =
            region.kind() == RegionKind::Rom || !region.access().contains(Access::WRITE);
        let memory = kvm_userspace_memory_region {
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            flags: if read_only { KVM_MEM_READONLY } else { 0 },
            guest_phys_addr: region.span().start().0,
            memory_size: len,
            userspace_addr: region.as_ptr().map_or(0, |pointer| pointer.addr() as u64),
        };
        // SAFETY: KVM may use `len` bytes from that address on until the slot is removed:
        // `regions` keeps a clone of the region for as long, and a region its memory. A VM lives
        // as long as one of its vCPUs, which can be longer than `self`: `drop` removes the slots,
        // or keeps the memory of those that stay for ever.
        let done = unsafe { self.vm.set_user_memory_region(memory) };
        done.map_err(|error| Reason::Os {
            what: "KVM_SET_USER_MEMORY_REGION",
            errno: Errno::from_raw_os_error(error.errno()),
        })
    }
}

/// Whether KVM's slot is the same for both.
fn same(one: &Region, other: &Region) -> bool {
    let slot = |it: &Region| (it.span(), it.as_ptr(), it.kind() == RegionKind::Rom, it.access());
    slot(one) == slot(other)
}

impl Drop for Slots {
    fn drop(&mut self) {
        let regions = self.regions.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut regions = core::mem::take(regions);
        if self.change(&mut regions, &[]).is_err() {
            core::mem::forget(regions);
        }
    }
}

impl SpaceListener for Slots {
    fn before(&self, change: &SpaceChange) -> Result<(), Reason> {
        self.exchange(&change.outgoing, &change.incoming)
    }

    fn undone(&self, change: &SpaceChange) {
        // What there was has fitted once.
        let _ = self.exchange(&change.incoming, &change.outgoing);
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let vm = Kvm::new()?.create_vm()?;
    let slots = Arc::new(Slots::new(vm));
    let guest = Guest::builder().iommu(Unattached::Deny).build()?;
    guest.space().add_listener(slots.clone())?;
    let ram = MemoryObject::ram(2 << 20).create()?;
    guest.space().add_ram(None, &ram)?;
    guest.write_firmware(GuestPhys(ENTRY), &CODE)?;

    // The guest's IOMMU: the device sees the page of the result at 1 MiB, to read.
    let domain = guest.domain("reader", DomainOptions::new(DomainKind::Translate))?;
    let reader = guest.vdev("reader")?;
    reader.attach(&domain)?.wait();
    let (device, page) = (DeviceAddr(0x10_0000), GuestPhys(RESULT));
    domain.grant(device, page, 0x1000, Access::READ)?;

    let mut vcpu = slots.vm.create_vcpu(0)?;
    let mut special = vcpu.get_sregs()?;
    (special.cs.base, special.cs.selector) = (0, 0);
    vcpu.set_sregs(&special)?;
    let mut general = vcpu.get_regs()?;
    (general.rip, general.rflags) = (ENTRY, 2);
    vcpu.set_regs(&general)?;
    let mapping = reader.map(device, 4, MapFlags::READ)?;
    assert_eq!(mapping.read_obj::<u32>(0)?, 0);
    match vcpu.run()? {
        VcpuExit::Hlt => {}
        other => return Err(format!("the vCPU stopped: {other:?}").into()),
    }
    println!("the guest wrote {:#x}, and its device reads it", mapping.read_obj::<u32>(0)?);
    assert_eq!(mapping.read_obj::<u32>(0)?, 0x5678_1234);

    // The guest's memory goes, and with it KVM's slot: only the device's mapping holds it.
    let mut drain = guest.space().remove(Region::ram(GuestPhys(0), &ram)?.span())?;
    assert!(drain.poll().is_none() && slots.regions.lock().is_ok_and(|slots| slots[0].is_none()));
    drop(mapping);
    assert!(drain.wait().completed());
    Ok(())
}
