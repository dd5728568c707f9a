//! The register page: what is read, what can be written, and with which widths.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use acpi_tables::Aml;
use gasp::GuestPhys;
use support::*;

#[test]
fn capabilities_are_what_the_unit_has() {
    let machine = Machine::new();
    let (cap, ecap) = (machine.get64(CAP), machine.get64(ECAP));
    let field = |word: u64, first: u32, last: u32| word >> first & ((1 << (last - first + 1)) - 1);
    let cap_fields = [
        (0, 2, 6),      // 65,536 domain ids
        (3, 7, 0),      // no fault log in memory, write buffers, protected memory, caching mode
        (8, 12, 0b110), // 39 and 48 bits
        (13, 15, 0),
        (16, 21, 47), // 48 bits
        (22, 22, 1),  // zero-length reads
        (23, 23, 0),
        (24, 33, 0x60), // fault recording registers at 0x600
        (34, 37, 3),    // 2 MiB and 1 GiB
        (38, 38, 0),
        (39, 39, 1),  // invalidation by page
        (40, 47, 7),  // 8 fault recording registers
        (48, 53, 36), // masks for 48 bits
        (54, 55, 3),  // draining
        (56, 62, 0),
        (63, 63, 1), // setting the root table pointer invalidates
    ];
    for (first, last, value) in cap_fields {
        assert_eq!(field(cap, first, last), value, "CAP, bits {first} to {last}");
    }
    // Coherency, queue, pass-through, snoop control; IOTLB registers at 0x500.
    assert_eq!(ecap, 1 | 1 << 1 | 1 << 6 | 1 << 7 | 0x50 << 8);
    assert_eq!(machine.get64(VER), 0x10);
    let wide = Machine::with(Default::default(), 52);
    assert_eq!(wide.get64(CAP) ^ cap, 1 << 11 | (51 ^ 47) << 16 | (40 ^ 36) << 48);
    let narrow = Machine::with(Default::default(), 39);
    assert_eq!(narrow.get64(CAP) ^ cap, (38 ^ 47) << 16 | (27 ^ 36) << 48);
}

/// What is left of ones that are written to a register of 8 bytes after a reset.
fn ones(machine: &Machine, register: u64) -> u64 {
    machine.unit.reset();
    machine.set64(register, !0);
    let quad = machine.get64(register);
    // In halves it is the same.
    machine.unit.reset();
    machine.set32(register, !0);
    machine.set32(register + 4, !0);
    assert_eq!(machine.get64(register), quad, "{register:#x}");
    assert_eq!(machine.get32(register), quad as u32, "{register:#x}");
    assert_eq!(machine.get32(register + 4), (quad >> 32) as u32, "{register:#x}");
    quad
}

#[test]
fn reserved_and_read_only_bits_stay_as_they_are() {
    let machine = Machine::new();
    for register in (0..0x1000).step_by(8) {
        machine.unit.reset();
        let before = machine.get64(register);
        let expected = match register {
            // All commands at once: there is neither root table nor queue.
            0x18 => u64::from(TE | SRTP | QIE) << 32,
            RTADDR => !0xfff,
            CCMD => 3 << 61 | 3 << 59 | 0xffff,
            FECTL | IECTL => 1 << 31 | 0xffff_ffff << 32,
            FEADDR | IEADDR => !3,
            IQT => 0x7_fff0,
            IQA => !0xfff | 7,
            0x508 => 3 << 60 | 3 << 57 | 3 << 48 | 0xffff << 32,
            _ => before,
        };
        assert_eq!(ones(&machine, register), expected, "{register:#x}");
    }
}

#[test]
fn other_widths_and_alignments_are_harmless() {
    let machine = Machine::new();
    machine.set64(RTADDR, ROOT);
    machine.set64(FEADDR, 0x1_0000_0004);
    let all = || (0..0x1000).step_by(8).map(|at| machine.get64(at)).collect::<Vec<_>>();
    let before = all();
    for offset in (0..0x1010).chain([u64::MAX - 3, u64::MAX]) {
        for len in 0..=16 {
            let is_valid = offset < 0x1000 && matches!(len, 4 | 8) && offset % len == 0;
            if is_valid {
                continue;
            }
            let mut data = vec![0xff; len as usize];
            machine.unit.write(offset, &data);
            machine.unit.read(offset, &mut data);
            assert_eq!(data, vec![0; len as usize], "{len} bytes at {offset:#x}");
        }
    }
    assert_eq!(all(), before);
}

#[test]
fn commands_that_the_unit_does_not_have_change_no_status() {
    let machine = Machine::new();
    machine.set32(GCMD, !(TE | SRTP | QIE));
    assert_eq!(machine.get32(GSTS), 0);
    machine.set32(GCMD, SRTP);
    assert_eq!(machine.get32(GSTS), SRTP);
    machine.set32(GCMD, TE);
    assert_eq!(machine.get32(GSTS), SRTP | TE, "the root table stays set");
    machine.set32(GCMD, 0);
    assert_eq!(machine.get32(GSTS), SRTP);
    machine.set32(GSTS, !0);
    assert_eq!((machine.get32(GSTS), machine.get32(GCMD)), (SRTP, 0));
}

#[test]
fn the_acpi_table_describes_one_unit_for_all_pci_devices() {
    let machine = Machine::with(Default::default(), 46);
    let mut table = Vec::new();
    machine.unit.dmar(GuestPhys(0x1_fed9_0000)).to_aml_bytes(&mut table);
    assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0, "checksum");
    assert_eq!((&table[..4], table.len(), table[8]), (&b"DMAR"[..], 64, 1));
    assert_eq!(table[4..8], 64_u32.to_le_bytes());
    // 46 bits, no flags.
    assert_eq!(table[36..48], [45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Type 0 and length 16; all devices of segment 0; no scopes.
    assert_eq!(table[48..56], [0, 0, 16, 0, 1, 0, 0, 0]);
    assert_eq!(table[56..], 0x1_fed9_0000_u64.to_le_bytes());
}
