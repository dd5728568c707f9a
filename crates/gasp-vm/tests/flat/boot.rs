//! A kernel of a few instructions, booted as Linux is: its console, and how it ends.

use core::time::Duration;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use gasp::{Guest, GuestPhys};
use gasp_vm::boot::Boot;
use gasp_vm::serial::SerialPort;
use gasp_vm::{End, Machine, MachineError, PowerButton, Running, acpi};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::kernel;
use crate::support::{PATIENCE, Registers, Trials, ram};

pub(crate) fn trials() -> Trials {
    vec![
        ("a_kernel_finds_what_the_boot_protocol_promises", boot_protocol),
        ("a_kernel_writes_and_reads_its_console", console),
        ("what_is_typed_ahead_arrives_in_order", typed_ahead),
        ("ctrl_a_x_ends_a_guest_that_does_not_read", keys_of_a_hung_guest),
        ("the_power_button_is_an_interrupt", power_button),
        ("a_jump_to_the_firmware_resets_the_vm", firmware),
        ("a_console_ends_with_its_vm", console_ends),
        ("registers_take_whatever_is_written", odd_accesses),
        ("the_power_registers_need_interrupt_controllers_and_their_ports", connections),
    ]
}

/// What a guest has written, as the writer of its serial port.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A booted kernel.
struct Booted {
    running: Running,
    console: Arc<SerialPort>,
    heard: Heard,
    registers: Arc<Registers>,
    button: PowerButton,
    guest: Guest,
}

fn start(kernel: &[u8]) -> Booted {
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(None, &ram(8 << 20)).unwrap();
    let machine = Machine::builder().build(&guest).unwrap();
    let heard = Heard::default();
    let console = SerialPort::connect(&machine, heard.clone()).unwrap();
    let button = PowerButton::connect(&machine).unwrap();
    let registers = Arc::new(Registers::default());
    machine.ports().add(0x500, 32, registers.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (path, initrd) = (folder.path().join("kernel"), folder.path().join("initrd"));
    std::fs::write(&path, kernel).unwrap();
    std::fs::write(&initrd, b"initial files").unwrap();
    let vcpus = machine.vcpus(1).unwrap();
    let root = acpi::Tables::new(1).write(&guest).unwrap();
    let boot = Boot::new(path).initrd(initrd).cmdline("console=ttyS0").acpi(root);
    boot.load(&guest).unwrap().apply(&guest, &vcpus[0]).unwrap();
    let running = machine.start(vcpus).unwrap();
    Booted { running, console, heard, registers, button, guest }
}

/// Writes to the ACPI sleep control register.
const POWER_OFF: &[u8] = &[
    0x66, 0xba, 0x00, 0x06, // mov dx, 0x600
    0xb0, 0x34, // mov al, 0x34
    0xee, // out dx, al
    0xf4, // hlt
];

fn boot_protocol() {
    /// Reports what it finds by the zero page, whose address is in RSI.
    const KERNEL: &[u8] = &[
        0x66, 0xba, 0x00, 0x05, // mov dx, 0x500
        0x8b, 0x86, 0x02, 0x02, 0x00, 0x00, // mov eax, [rsi + 0x202]: the header's magic
        0xef, // out dx, eax
        0x66, 0x83, 0xc2, 0x04, // add dx, 4
        0x8b, 0x86, 0x28, 0x02, 0x00, 0x00, // mov eax, [rsi + 0x228]: the command line
        0x8b, 0x00, // mov eax, [rax]
        0xef, // out dx, eax
        0x66, 0x83, 0xc2, 0x04, // add dx, 4
        0x8b, 0x86, 0x18, 0x02, 0x00, 0x00, // mov eax, [rsi + 0x218]: the initrd
        0x8b, 0x00, // mov eax, [rax]
        0xef, // out dx, eax
        0x66, 0x83, 0xc2, 0x04, // add dx, 4
        0x48, 0x8b, 0x46, 0x70, // mov rax, [rsi + 0x70]: the root of the ACPI tables
        0x8b, 0x00, // mov eax, [rax]
        0xef, // out dx, eax
        0x66, 0x83, 0xc2, 0x04, // add dx, 4
        0x8b, 0x86, 0xd8, 0x02, 0x00, 0x00, // mov eax, [rsi + 0x2d8]: the first piece of RAM
        0xef, // out dx, eax
        0x66, 0x83, 0xc2, 0x04, // add dx, 4
        0x8c, 0xc8, // mov eax, cs
        0xef, // out dx, eax
    ];
    // A kernel of its own header is entered 0x200 after its begin.
    let code = [KERNEL, POWER_OFF].concat();
    for kernel in [kernel::elf(&code), kernel::bz_image(&code)] {
        let booted = start(&kernel);
        assert_eq!(booted.running.wait_for(PATIENCE), Some(End::PowerOff));
        let bytes = *booted.registers.bytes.lock();
        assert_eq!(&bytes[..16], b"HdrSconsinitRSD ");
        assert_eq!(bytes[16..24], [0, 0xfc, 9, 0, 0x10, 0, 0, 0]);
        let mut text = [0; 14];
        booted.guest.read_firmware(GuestPhys(0x2_0000), &mut text).unwrap();
        assert_eq!(&text, b"console=ttyS0\0");
    }
}

fn console() {
    /// Says "ok", then repeats each byte that it hears, and powers off after a dot.
    const KERNEL: &[u8] = &[
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'o', // mov al, 'o'
        0xee, // out dx, al
        0xb0, b'k', // mov al, 'k'
        0xee, // out dx, al
        // wait:
        0x66, 0xba, 0xfd, 0x03, // mov dx, 0x3fd
        0xec, // in al, dx
        0xa8, 0x01, // test al, 1
        0x74, 0xf7, // jz wait
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, // in al, dx
        0xee, // out dx, al
        0x3c, b'.', // cmp al, '.'
        0x75, 0xed, // jne wait
    ];
    let booted = start(&kernel::elf(&[KERNEL, POWER_OFF].concat()));
    // More than the port can keep.
    let text = "0123456789abcdef".repeat(20);
    let (reader, writer) = std::io::pipe().unwrap();
    let input = booted.console.read_from(OwnedFd::from(reader)).unwrap();
    (&writer).write_all(text.as_bytes()).unwrap();
    (&writer).write_all(b".").unwrap();
    assert_eq!(booted.running.wait_for(PATIENCE), Some(End::PowerOff));
    assert!(booted.console.flush(PATIENCE));
    let heard = String::from_utf8(booted.heard.0.lock().clone()).unwrap();
    assert_eq!(heard, format!("ok{text}."));
    input.join().unwrap();
    assert!(!booted.console.send(b"late"), "the VM has ended");
}

/// The two ends of a raw terminal; the second is the one that programs use.
fn terminal() -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let mut raw = tcgetattr(&slave).unwrap();
    raw.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &raw).unwrap();
    (master.into(), slave)
}

fn typed_ahead() {
    let guest = Guest::builder().build().unwrap();
    let machine = Machine::builder().build(&guest).unwrap();
    let console = SerialPort::connect(&machine, std::io::sink()).unwrap();
    let (mut keys, slave) = terminal();
    let input = console.read_from(slave).unwrap();
    // More than the port can keep, in several pieces.
    let text: Vec<u8> = (b' '..=b'~').cycle().take(1000).collect();
    text.chunks(10).for_each(|piece| keys.write_all(piece).unwrap());
    let (mut heard, until) = (Vec::new(), Instant::now() + PATIENCE);
    while heard.len() < text.len() {
        assert!(Instant::now() < until, "{} bytes have arrived", heard.len());
        let (mut status, mut byte) = ([0], [0]);
        machine.ports().read(0x3fd, &mut status);
        if status[0] & 1 == 0 {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        machine.ports().read(0x3f8, &mut byte);
        heard.extend(byte);
    }
    assert_eq!(heard, text);
    machine.ending().request(End::Stopped);
    input.join().unwrap();
}

fn keys_of_a_hung_guest() {
    // One that has stopped with an empty port, and one in loopback mode, which takes no byte.
    for (mode, typed) in [(0x08, 1 << 20), (0x18, 1)] {
        let guest = Guest::builder().build().unwrap();
        let machine = Machine::builder().build(&guest).unwrap();
        let console = SerialPort::connect(&machine, std::io::sink()).unwrap();
        machine.ports().write(0x3fc, &[mode]);
        let (mut keys, slave) = terminal();
        let input = console.read_from(slave).unwrap();
        let typing = std::thread::spawn(move || {
            keys.write_all(&vec![b'y'; typed]).unwrap();
            // It may be read apart from them.
            std::thread::sleep(Duration::from_millis(200));
            keys.write_all(b"\x01x").unwrap();
            keys
        });
        let end = machine.ending().wait_for(PATIENCE);
        assert_eq!(end, Some(End::Stopped), "mode {mode:#x}, after {typed} keys");
        input.join().unwrap();
        typing.join().unwrap();
    }
}

fn power_button() {
    /// Leads line 9 to a vector, and waits until the I/O APIC has delivered it: the local APIC's
    /// request register has its bit then, as interrupts are off.
    const KERNEL: &[u8] = &[
        0xbb, 0x00, 0x00, 0xe0, 0xfe, // mov ebx, 0xfee00000
        0xb9, 0x00, 0x00, 0xc0, 0xfe, // mov ecx, 0xfec00000
        0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x00, // mov [rbx + 0xf0], 0x1ff
        0xc7, 0x01, 0x22, 0x00, 0x00, 0x00, // mov [rcx], 0x10 + 2 * 9
        0xc7, 0x41, 0x10, 0x31, 0x00, 0x00, 0x00, // mov [rcx + 0x10], 0x31
        0x66, 0xba, 0x00, 0x05, // mov dx, 0x500
        0xb0, 0x01, // mov al, 1
        0xee, // out dx, al: ready
        // wait:
        0x8b, 0x83, 0x10, 0x02, 0x00, 0x00, // mov eax, [rbx + 0x210]: vectors 0x20 to 0x3f
        0xa9, 0x00, 0x00, 0x02, 0x00, // test eax, 1 << 17
        0x74, 0xf3, // jz wait
    ];
    let booted = start(&kernel::elf(&[KERNEL, POWER_OFF].concat()));
    while booted.registers.log.lock().is_empty() {
        assert_eq!(booted.running.wait_for(Duration::from_millis(1)), None);
    }
    assert_eq!(booted.running.wait_for(Duration::from_millis(50)), None, "not pressed yet");
    booted.button.press();
    assert_eq!(booted.running.wait_for(PATIENCE), Some(End::PowerOff));
}

fn firmware() {
    let guest = Guest::builder().build().unwrap();
    guest.space().add_ram(None, &ram(2 << 20)).unwrap();
    let machine = Machine::builder().build(&guest).unwrap();
    let _button = PowerButton::connect(&machine).unwrap();
    acpi::Tables::new(1).write(&guest).unwrap();
    let vcpus = machine.vcpus(1).unwrap();
    // In real mode at ffff:0000.
    let mut special = vcpus[0].kvm().get_sregs().unwrap();
    (special.cs.base, special.cs.selector) = (0xf_fff0, 0xffff);
    vcpus[0].kvm().set_sregs(&special).unwrap();
    let mut general = vcpus[0].kvm().get_regs().unwrap();
    general.rip = 0;
    vcpus[0].kvm().set_regs(&general).unwrap();
    assert_eq!(machine.start(vcpus).unwrap().wait_for(PATIENCE), Some(End::Reset));
}

fn console_ends() {
    let guest = Guest::builder().build().unwrap();
    let machine = Machine::builder().build(&guest).unwrap();
    let heard = Heard::default();
    drop(SerialPort::connect(&machine, heard.clone()).unwrap());
    let _button = PowerButton::connect(&machine).unwrap();
    machine.ports().write(0x3f8, b"x");
    drop(machine);
    // Its thread writes what is there, and drops the writer.
    let until = Instant::now() + PATIENCE;
    while Arc::strong_count(&heard.0) > 1 {
        assert!(Instant::now() < until, "the machine is kept by a device of it");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(*heard.0.lock(), b"x");
}

/// Writes and reads of any length, place and value to the registers of a VM that does not run.
fn odd_accesses() {
    let guest = Guest::builder().build().unwrap();
    let machine = Machine::builder().build(&guest).unwrap();
    let heard = Heard::default();
    let console = SerialPort::connect(&machine, heard.clone()).unwrap();
    let _button = PowerButton::connect(&machine).unwrap();
    // xorshift64: the same numbers each time.
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200_000 {
        let base = if next() % 2 == 0 { 0x3f4 } else { 0x5fc };
        let (at, len) = (base + next() % 16, 1 + next() as usize % 8);
        let mut bytes = next().to_le_bytes();
        if next() % 2 == 0 {
            machine.ports().write(at, &bytes[..len]);
        } else {
            machine.ports().read(at, &mut bytes[..len]);
        }
    }
    assert!(console.flush(PATIENCE));
    assert!(machine.ending().is_requested(), "one of the values means it");
}

fn connections() {
    let guest = Guest::builder().build().unwrap();
    let machine = Machine::builder().build(&guest).unwrap();
    let _button = PowerButton::connect(&machine).unwrap();
    let twice = PowerButton::connect(&machine).unwrap_err();
    assert!(matches!(twice, MachineError::Bus(_)), "{twice}");
    let without = Machine::builder().interrupts(gasp_vm::Interrupts::None).build(&guest).unwrap();
    let refused = SerialPort::connect(&without, std::io::sink()).unwrap_err();
    assert!(matches!(refused, MachineError::Kvm { .. }), "{refused}");
}
