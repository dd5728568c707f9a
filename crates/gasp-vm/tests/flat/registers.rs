//! Ports and registers at memory addresses, of every width and alignment.

use std::sync::Arc;

use gasp::GuestPhys;
use gasp_vm::Interrupts;

use crate::support::{Flat, POWER_OFF, Registers, Trials};

pub(crate) fn trials() -> Trials {
    vec![
        ("ports_are_read_and_written_in_each_width", ports),
        ("string_instructions_are_as_many_accesses_as_they_say", strings),
        ("registers_in_memory_are_reached_in_each_width_and_alignment", mmio),
        ("what_nobody_claims_is_read_as_ones", unclaimed),
    ]
}

fn ports() {
    const GUEST: &[u8] = &[
        0x66, 0xba, 0x00, 0x05, // mov dx, 0x500
        0xec, // in al, dx
        0x40, // inc eax
        0xee, // out dx, al
        0x42, // inc edx
        0x66, 0xed, // in ax, dx
        0x40, // inc eax
        0x66, 0xef, // out dx, ax
        0x66, 0x83, 0xc2, 0x02, // add dx, 2
        0xed, // in eax, dx
        0x40, // inc eax
        0xef, // out dx, eax
        0xe4, 0x80, // in al, 0x80
    ];
    let flat = Flat::new(Interrupts::None, &[GUEST, POWER_OFF]);
    let device = Arc::new(Registers::default());
    *device.bytes.lock() = core::array::from_fn(|index| (index as u8).wrapping_mul(0x11));
    flat.machine.ports().add(0x500, 7, device.clone()).unwrap();
    let running = flat.run();
    let expected = [('r', 0, 1), ('w', 0, 1), ('r', 1, 2), ('w', 1, 2), ('r', 3, 4), ('w', 3, 4)];
    assert_eq!(*device.log.lock(), expected);
    assert_eq!(device.bytes.lock()[..8], [1, 0x12, 0x22, 0x34, 0x44, 0x55, 0x66, 0x77]);
    let exits = running.exits();
    assert_eq!((exits.port, exits.mmio), (8, 0), "and the reads of 0x80 and the end: {exits:?}");
}

fn strings() {
    const GUEST: &[u8] = &[
        0x66, 0xba, 0x02, 0x05, // mov dx, 0x502
        0xbe, 0x00, 0x20, 0x00, 0x00, // mov esi, 0x2000
        0xb9, 0x03, 0x00, 0x00, 0x00, // mov ecx, 3
        0xf3, 0x66, 0x6f, // rep outsw
        0xbf, 0x00, 0x30, 0x00, 0x00, // mov edi, 0x3000
        0xb9, 0x05, 0x00, 0x00, 0x00, // mov ecx, 5
        0xf3, 0x6c, // rep insb
        0xb9, 0x02, 0x00, 0x00, 0x00, // mov ecx, 2
        0xf3, 0x6d, // rep insd
    ];
    let flat = Flat::new(Interrupts::None, &[GUEST, POWER_OFF]);
    let device = Arc::new(Registers::default());
    flat.machine.ports().add(0x500, 16, device.clone()).unwrap();
    flat.guest.write_firmware(GuestPhys(0x2000), &[1, 2, 3, 4, 5, 6]).unwrap();
    let _running = flat.run();
    let expected = [[('w', 2, 2); 5], [('r', 2, 1); 5], [('r', 2, 4); 5]];
    let expected = [&expected[0][..3], &expected[1], &expected[2][..2]].concat();
    assert_eq!(*device.log.lock(), expected);
    let mut read = [0; 13];
    flat.guest.read_firmware(GuestPhys(0x3000), &mut read).unwrap();
    assert_eq!(read, [5, 5, 5, 5, 5, 5, 6, 0, 0, 5, 6, 0, 0], "the last word that was written");
}

fn mmio() {
    const GUEST: &[u8] = &[
        0xbe, 0x00, 0x00, 0x00, 0xd0, // mov esi, 0xd0000000
        // each:
        0x8a, 0x06, // mov al, [esi]
        0x40, // inc eax
        0x88, 0x06, // mov [esi], al
        0x66, 0x8b, 0x06, // mov ax, [esi]
        0x40, // inc eax
        0x66, 0x89, 0x06, // mov [esi], ax
        0x8b, 0x06, // mov eax, [esi]
        0x40, // inc eax
        0x89, 0x06, // mov [esi], eax
        0x46, // inc esi
        0x81, 0xfe, 0x08, 0x00, 0x00, 0xd0, // cmp esi, 0xd0000008
        0x75, 0xe6, // jne each
    ];
    let flat = Flat::new(Interrupts::None, &[GUEST, POWER_OFF]);
    let device = Arc::new(Registers::default());
    // The widest accesses extend past its end.
    flat.machine.mmio().add(0xd000_0000, 9, device.clone()).unwrap();
    let running = flat.run();
    let mut expected = Vec::new();
    let mut bytes = [0_u8; 16];
    bytes[9..].fill(0xff);
    for at in 0..8_usize {
        for width in [1, 2, 4] {
            let inside = width.min(9 - at);
            expected.extend([('r', at as u64, inside), ('w', at as u64, inside)]);
            let mut value = [0; 4];
            value[..width].copy_from_slice(&bytes[at..at + width]);
            let value = (u32::from_le_bytes(value) + 1).to_le_bytes();
            bytes[at..at + inside].copy_from_slice(&value[..inside]);
        }
    }
    assert_eq!(*device.log.lock(), expected);
    assert_eq!(device.bytes.lock()[..9], bytes[..9]);
    assert_eq!(running.exits().mmio, 48);
}

fn unclaimed() {
    const GUEST: &[u8] = &[
        0xe5, 0x90, // in eax, 0x90
        0xa3, 0x00, 0x30, 0x00, 0x00, // mov [0x3000], eax
        0xa1, 0x02, 0x00, 0x00, 0xd0, // mov eax, [0xd0000002]
        0xa3, 0x04, 0x30, 0x00, 0x00, // mov [0x3004], eax
        0xa3, 0x02, 0x00, 0x00, 0xd0, // mov [0xd0000002], eax
        0x66, 0xba, 0xff, 0xff, // mov dx, 0xffff
        0xef, // out dx, eax
        0xed, // in eax, dx
    ];
    let flat = Flat::new(Interrupts::None, &[GUEST, POWER_OFF]);
    let _running = flat.run();
    let mut read = [0; 8];
    flat.guest.read_firmware(GuestPhys(0x3000), &mut read).unwrap();
    assert_eq!(read, [0xff; 8]);
}
