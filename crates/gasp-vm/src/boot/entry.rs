//! The first vCPU's state at a kernel's first instruction: 64-bit mode, flat segments, the first
//! 4 GiB mapped identically.

use gasp::{Guest, GuestPhys};
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_segment};

use super::BootError;
use crate::error::MachineError;
use crate::vcpu::Vcpu;

const DESCRIPTORS: u64 = 0x500;
const PAGE_TABLES: u64 = 0x9000;
const PAGE: u64 = 4096;
/// The stack until the kernel has its own: it ends below the zero page.
const STACK: u64 = 0x6ff0;

/// The boot protocol's selectors.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
/// Present, accessed, 4 KiB granules, limit 4 GiB: readable 64-bit code, writable data.
const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;

/// Page table entries: present and writable; a large page.
const TABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 is always set; interrupts are off.
const RFLAGS: u64 = 2;

/// The default memory type: write-back, and in force. A PC's firmware sets it.
const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// Where a loaded kernel starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub(super) rip: u64,
    pub(super) zero_page: u64,
}

impl Entry {
    /// The address of the kernel's first instruction.
    pub fn addr(&self) -> GuestPhys {
        GuestPhys(self.rip)
    }

    /// Makes it what the first vCPU starts with, and writes the tables for that to the guest's
    /// memory.
    ///
    /// # Errors
    /// [`BootError::Memory`]; [`BootError::Vcpu`].
    pub fn apply(&self, guest: &Guest, vcpu: &Vcpu) -> Result<(), BootError> {
        write_tables(guest)?;
        let kvm = vcpu.kvm();
        let call = MachineError::call;
        let mut special = kvm.get_sregs().map_err(call("KVM_GET_SREGS"))?;
        special.cs = segment(CODE, 0xb);
        for data in [&mut special.ds, &mut special.es, &mut special.ss] {
            *data = segment(DATA, 3);
        }
        (special.fs, special.gs) = (special.ds, special.ds);
        (special.gdt.base, special.gdt.limit) = (DESCRIPTORS, 4 * 8 - 1);
        (special.idt.base, special.idt.limit) = (0, 0);
        special.cr0 = CR0_PE | CR0_ET | CR0_PG;
        special.cr3 = PAGE_TABLES;
        special.cr4 = CR4_PAE;
        special.efer = EFER_LME | EFER_LMA;
        kvm.set_sregs(&special).map_err(call("KVM_SET_SREGS"))?;

        let mut general = kvm.get_regs().map_err(call("KVM_GET_REGS"))?;
        (general.rip, general.rsi, general.rsp) = (self.rip, self.zero_page, STACK);
        general.rflags = RFLAGS;
        kvm.set_regs(&general).map_err(call("KVM_SET_REGS"))?;

        let memory_type =
            kvm_msr_entry { index: MTRR_DEFAULT_TYPE, data: MTRR_WRITE_BACK, ..Default::default() };
        // One entry fits.
        if let Ok(msrs) = Msrs::from_entries(&[memory_type]) {
            kvm.set_msrs(&msrs).map_err(call("KVM_SET_MSRS"))?;
        }
        Ok(())
    }
}

fn segment(selector: u16, kind: u8) -> kvm_segment {
    let code = u8::from(selector == CODE);
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: 1 - code,
        s: 1,
        l: code,
        g: 1,
        ..Default::default()
    }
}

/// Writes the segment descriptors, and page tables of three levels with pages of 2 MiB.
fn write_tables(guest: &Guest) -> Result<(), BootError> {
    let write = |addr: u64, entries: &[u64]| -> Result<(), BootError> {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        Ok(guest.write_firmware(GuestPhys(addr), &bytes)?)
    };
    write(DESCRIPTORS, &[0, 0, CODE_DESCRIPTOR, DATA_DESCRIPTOR])?;
    let table = |number: u64| PAGE_TABLES + number * PAGE;
    write(table(0), &[table(1) | TABLE])?;
    write(table(1), &[2, 3, 4, 5].map(|number| table(number) | TABLE))?;
    let pages: Vec<u64> = (0..4 * 512).map(|page| page << 21 | LARGE | TABLE).collect();
    write(table(2), &pages)
}
