//! ACPI tables: what the guest learns of its processors, interrupts, serial port and power.
//!
//! ACPI is hardware-reduced (ACPI 6.5, section 4.1): no PM1 blocks, no SCI, no 8259, no 8042, no
//! clock of CMOS, no VGA. In place of these:
//!
//! | | |
//! |---|---|
//! | power-off | the sleep control register, port 0x600: the type of `\_S5` (5) in bits 2 to 4, and bit 5 |
//! | reset | the reset register, port 0x602: 1 |
//! | power button | line 9, an edge, to a generic event device (`ACPI0013`), which notifies the button (`PNP0C0C`) |
//! | serial port | `PNP0501`: ports 0x3f8 to 0x3ff, line 4, edges |
//!
//! Linux takes it that a machine with hardware-reduced ACPI has EFI, and asks that for a reset, or
//! else jumps to a PC's firmware in real mode. So there is some at 0xffff0: it writes the reset
//! register.
//!
//! [`PlatformDevice`] describes registers of one's own, with an interrupt.
//!
//! [`PowerButton::connect`](crate::PowerButton::connect) and
//! [`SerialPort`](crate::serial::SerialPort) are the devices. Linux finds the tables by the zero
//! page, or by a search of the last 128 KiB of the first megabyte, where they are.

mod dsdt;
mod platform;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use gasp::{Bytes, Guest, GuestPhys};
pub use platform::{HardwareId, PlatformDevice};
use thiserror::Error;

use crate::layout::{IO_APIC, LOCAL_APIC};
use crate::power::{RESET, RESET_VALUE, SLEEP_CONTROL, SLEEP_STATUS};

/// Where the tables are; the root is the first of them.
const START: u64 = 0xe_0000;
const END: u64 = RESET_VECTOR;
/// Where a PC's firmware begins.
const RESET_VECTOR: u64 = 0xf_fff0;
/// What is there: real-mode code that writes the reset register.
const FIRMWARE: [u8; 9] = [
    0xba,
    RESET.to_le_bytes()[0],
    RESET.to_le_bytes()[1], // mov dx, RESET
    0xb0,
    RESET_VALUE, // mov al, RESET_VALUE
    0xee,        // out dx, al
    0xf4,        // hlt
    0xeb,
    0xfd, // jmp to hlt
];
/// Each table begins at a multiple.
const ALIGNMENT: u64 = 64;

pub(crate) const OEM: [u8; 6] = *b"GASP  ";
pub(crate) const OEM_TABLE: [u8; 8] = *b"GASPVM  ";
pub(crate) const OEM_REVISION: u32 = 1;

/// The most vCPUs that the tables can name: the numbers of local APICs are bytes, and 255 is all of
/// them.
const MOST_VCPUS: u32 = 255;

/// IA-PC boot architecture flags: there is no VGA, no clock of CMOS.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// Tables that cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AcpiError {
    /// There are more vCPUs than the tables can name.
    #[error("{count} vCPUs: the ACPI tables can name 1 to {MOST_VCPUS}; use fewer")]
    Vcpus {
        /// How many there are.
        count: u32,
    },
    /// The tables are larger than their place.
    #[error("ACPI tables of {:#}: there is room for 128 KiB less 16 bytes; describe fewer devices", Bytes(*.len))]
    TooLarge {
        /// How many bytes they have.
        len: u64,
    },
    /// There is no RAM below 1 MiB.
    #[error("the ACPI tables are below 1 MiB, and {0}; give the guest RAM there")]
    Memory(#[from] gasp::Error),
}

/// The tables of a VM.
#[derive(Clone, Debug)]
#[must_use = "call `write`"]
pub struct Tables {
    vcpus: u32,
    devices: Vec<u8>,
    others: Vec<Vec<u8>>,
}

impl Tables {
    /// The tables of a VM with this many vCPUs, a serial port and a power button.
    pub fn new(vcpus: u32) -> Self {
        Self { vcpus, devices: Vec::new(), others: Vec::new() }
    }

    /// Adds AML to the scope of the system bus (`\_SB`), such as a device.
    pub fn device(mut self, aml: &dyn Aml) -> Self {
        aml.to_aml_bytes(&mut self.devices);
        self
    }

    /// Adds a table, such as MCFG.
    pub fn table(mut self, table: &dyn Aml) -> Self {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        self.others.push(bytes);
        self
    }

    /// Writes the tables to the guest's memory, and returns where their root is.
    ///
    /// # Errors
    /// An [`AcpiError`].
    pub fn write(&self, guest: &Guest) -> Result<GuestPhys, AcpiError> {
        let bytes = self.bytes()?;
        guest.write_firmware(GuestPhys(START), &bytes)?;
        guest.write_firmware(GuestPhys(RESET_VECTOR), &FIRMWARE)?;
        Ok(GuestPhys(START))
    }

    /// All tables as they are from `START` on.
    fn bytes(&self) -> Result<Vec<u8>, AcpiError> {
        if !(1..=MOST_VCPUS).contains(&self.vcpus) {
            return Err(AcpiError::Vcpus { count: self.vcpus });
        }
        // The root comes first, and is known last.
        let mut all = vec![0; Rsdp::len()];
        let dsdt = append(&mut all, &dsdt::dsdt(&self.devices));
        let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
        xsdt.add_entry(append(&mut all, &bytes_of(&fadt(dsdt))));
        xsdt.add_entry(append(&mut all, &bytes_of(&self.madt())));
        for table in &self.others {
            xsdt.add_entry(append(&mut all, table));
        }
        let xsdt = append(&mut all, &bytes_of(&xsdt));
        let root = bytes_of(&Rsdp::new(OEM, xsdt));
        all.splice(..root.len(), root);
        match all.len() as u64 {
            len if len > END - START => Err(AcpiError::TooLarge { len }),
            _ => Ok(all),
        }
    }

    /// The processors, and the one I/O APIC. There are no 8259s.
    fn madt(&self) -> MADT {
        let local = LocalInterruptController::Address(LOCAL_APIC.0 as u32);
        let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
        // `bytes` has checked that there are at most 255.
        for id in 0..self.vcpus as u8 {
            madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
        }
        madt.add_structure(IoApic::new(0, IO_APIC.0 as u32, 0));
        madt
    }
}

fn fadt(dsdt: u64) -> impl Aml {
    let flags = [
        Flags::Wbinvd,
        // There are no fixed buttons.
        Flags::PwrButton,
        Flags::SlpButton,
        Flags::ResetRegSup,
        Flags::Headless,
        Flags::HwReducedAcpi,
    ];
    let port =
        |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(port));
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer);
    fadt = flags.into_iter().fold(fadt, FADTBuilder::flag);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = port(RESET);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port(SLEEP_CONTROL);
    fadt.sleep_status_reg = port(SLEEP_STATUS);
    fadt.finalize()
}

/// Appends a table at an aligned place, and returns its address.
fn append(all: &mut Vec<u8>, table: &[u8]) -> u64 {
    let start = (all.len() as u64).next_multiple_of(ALIGNMENT);
    all.resize(start as usize, 0);
    all.extend_from_slice(table);
    START + start
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn qword(bytes: &[u8], at: usize) -> usize {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    }

    /// The table at an address, by the length in its header.
    fn table(all: &[u8], addr: usize) -> &[u8] {
        let table = &all[addr - START as usize..];
        let len = u32::from_le_bytes(table[4..8].try_into().unwrap());
        &table[..len as usize]
    }

    #[test]
    fn every_table_is_found_from_the_root_and_sums_to_zero() {
        let mut other = b"OEMX".to_vec();
        other.extend_from_slice(&36_u32.to_le_bytes());
        other.resize(36, 0);
        other[9] = 0_u8.wrapping_sub(sum(&other));
        struct Raw(Vec<u8>);
        impl Aml for Raw {
            fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
                sink.vec(&self.0);
            }
        }
        let all = Tables::new(3).table(&Raw(other)).bytes().unwrap();
        assert_eq!((&all[..8], sum(&all[..20]), sum(&all[..36])), (&b"RSD PTR "[..], 0, 0));
        let xsdt = table(&all, qword(&all, 24));
        assert_eq!((&xsdt[..4], sum(xsdt)), (&b"XSDT"[..], 0));
        let tables: Vec<_> =
            (36..xsdt.len()).step_by(8).map(|at| table(&all, qword(xsdt, at))).collect();
        for (found, name) in tables.iter().zip([b"FACP", b"APIC", b"OEMX"]) {
            assert_eq!((&found[..4], sum(found)), (&name[..], 0));
        }
        let dsdt = table(&all, qword(tables[0], 140));
        assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
        assert_eq!(tables[1].len(), 44 + 3 * 8 + 12, "three processors and an I/O APIC");
    }

    #[test]
    fn the_fadt_has_the_registers_where_the_specification_says() {
        let fadt = bytes_of(&fadt(0x1234));
        assert_eq!(fadt.len(), 276);
        let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
        assert_eq!(flags & (1 << 20 | 1 << 10 | 1 << 4), 1 << 20 | 1 << 10 | 1 << 4);
        let register = |at: usize| (fadt[at], fadt[at + 1], qword(&fadt, at + 4));
        assert_eq!((register(116), fadt[128]), ((1, 8, 0x602), 1), "reset");
        assert_eq!(register(244), (1, 8, 0x600), "sleep control");
        assert_eq!(register(256), (1, 8, 0x601), "sleep status");
        assert_eq!(qword(&fadt, 140), 0x1234);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for count in [0, 256] {
            let refused = Tables::new(count).bytes().unwrap_err();
            assert!(matches!(refused, AcpiError::Vcpus { .. }), "{refused}");
        }
        Tables::new(255).bytes().unwrap();
        struct Large;
        impl Aml for Large {
            fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
                sink.vec(&[0; 128 << 10]);
            }
        }
        let refused = Tables::new(1).device(&Large).bytes().unwrap_err();
        assert!(matches!(refused, AcpiError::TooLarge { .. }), "{refused}");
    }
}
