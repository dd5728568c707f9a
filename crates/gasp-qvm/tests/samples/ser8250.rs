//! `vdev-ser8250.c`, by the sequences of Linux's driver 8250.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gasp_qvm::Answer;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::Test;
use crate::device::{Device, Numbers, library, patience, until};

/// `RBR` if it is read, `THR` if it is written, `DLL` with `DLAB`.
const DATA: u64 = 0;
const IER: u64 = 1;
/// `FCR` if it is written.
const IIR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;
const SCR: u64 = 7;

const DLAB: u8 = 0x80;
const LOOP: u8 = 0x10;
const DR: u8 = 0x01;
const OE: u8 = 0x02;
const THRE: u8 = 0x20;
const TEMT: u8 = 0x40;

pub(crate) const TESTS: &[Test] = &[
    ("ser8250: the driver finds a 16550A", probe),
    ("ser8250: output goes to a file, with an interrupt for each FIFO", output),
    ("ser8250: a terminal is the other end", terminal),
    ("ser8250: the trigger tells a full FIFO from a rest", triggers),
    ("ser8250: it hears itself in loopback mode, and overruns", loopback),
    ("ser8250: a host that takes nothing stops the transmitter, and nobody else", stalled),
    ("ser8250: a line that is cut loses bytes, and nothing else", cut),
    ("ser8250: without a host device it sends into the void", unconnected),
    ("ser8250: what is no register, and accesses at random, do no harm", misused),
    ("ser8250: a host device that cannot be opened is refused", options),
];

fn start(edition: u32, options: &str) -> Device {
    let line = format!("vdev ser8250 {options} intr ioapic:3 loc io:0x2f8");
    Device::start(&library("ser8250", edition), &line)
}

/// A terminal: its master, and the path for the vdev.
fn pty() -> (File, PathBuf) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    (File::from(master), PathBuf::from(name.to_str().unwrap()))
}

/// As `autoconfig()` and `serial8250_do_startup()` do.
fn probe(edition: u32) {
    let device = start(edition, "");
    assert_eq!((device.read8(IER), device.read8(IIR), device.read8(LSR)), (0, 1, THRE | TEMT));
    device.write8(IER, 0x0f);
    assert_eq!(device.read8(IER), 0x0f);
    device.write8(IER, 0);
    device.write8(MCR, LOOP | 0x0a);
    assert_eq!(device.read8(MSR) & 0xf0, 0x90, "RTS and OUT2 are CTS and DCD");
    device.write8(MCR, 0);
    device.write8(LCR, DLAB);
    device.write8(DATA, 0x34);
    device.write8(IER, 0x12);
    assert_eq!((device.read8(DATA), device.read8(IER)), (0x34, 0x12));
    device.write8(LCR, 0x03);
    assert_eq!((device.read8(IER), device.read8(LCR)), (0, 3), "not the divisor");
    device.write8(IIR, 0x01);
    assert_eq!(device.read8(IIR) >> 6, 3, "a 16550A");
    device.write8(IIR, 0x00);
    assert_eq!(device.read8(IIR) >> 6, 0);
    for byte in [0xa5, 0x5a] {
        device.write8(SCR, byte);
        assert_eq!(device.read8(SCR), byte);
    }
    // Enabling the interrupt of an empty transmitter raises it, each time.
    for _ in 0..2 {
        device.write8(IER, 0x02);
        assert!(device.is_raised());
        assert_eq!((device.read8(IIR), device.is_raised()), (0x02, false));
        device.write8(IER, 0);
    }
    device.finish();
}

fn output(edition: u32) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    std::fs::write(&path, "before\n").unwrap();
    let device = start(edition, &format!("hostdev >{}", path.display()));
    device.write8(IIR, 0x01);
    device.write8(IER, 0x02);
    let text: String = (0..40).map(|number| format!("line {number}\n")).collect();
    let mut fifos = 0;
    for part in text.as_bytes().chunks(16) {
        until("the transmitter is empty", || device.is_raised());
        assert_eq!(device.read8(IIR), 0xc2);
        assert_ne!(device.read8(LSR) & THRE, 0);
        part.iter().for_each(|byte| device.write8(DATA, *byte));
        fifos += 1;
    }
    until("all is sent", || device.read8(LSR) & TEMT != 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("before\n{text}"));
    assert!(device.rises() >= fifos, "{} of {fifos}", device.rises());
    device.finish();
}

fn terminal(edition: u32) {
    let (mut master, path) = pty();
    let device = start(edition, &format!("hostdev {}", path.display()));
    device.write8(IIR, 0x01);
    device.write8(IER, 0x01);
    assert_eq!(device.read8(MSR), 0xb0, "it is connected");
    master.write_all(b"hello\r").unwrap();
    let mut heard = Vec::new();
    while heard.len() < 6 {
        until("a byte comes", || device.is_raised());
        assert_eq!(device.read8(LSR) & DR, DR);
        heard.push(device.read8(DATA));
    }
    assert_eq!(heard, b"hello\r", "raw");
    assert!(!device.is_raised());
    assert_eq!(device.read8(LSR) & DR, 0);
    for byte in b"\r\nworld\n" {
        until("there is room", || device.read8(LSR) & THRE != 0);
        device.write8(DATA, *byte);
    }
    let mut said = [0; 8];
    master.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"\r\nworld\n", "raw, and no echo of what came");
    // What does not fit waits on the host's side until the guest makes room, or wants no more of it.
    master.write_all(&[b'z'; 20]).unwrap();
    until("the FIFO is full", || device.vdev.status().contains("16 received"));
    device.write8(IIR, 0x03);
    until("the rest comes", || device.vdev.status().contains("4 received"));
    let report = device.vdev.status();
    assert!(report.starts_with(&format!("hostdev {};", path.display())), "{report}");
    device.finish();
}

fn triggers(edition: u32) {
    for (trigger, bits) in [(1, 0x00), (4, 0x40), (8, 0x80), (14, 0xc0)] {
        let (mut master, path) = pty();
        let device = start(edition, &format!("hostdev {}", path.display()));
        device.write8(IIR, 0x01 | bits);
        device.write8(IER, 0x01);
        master.write_all(&[b'x'; 41]).unwrap();
        until("the FIFO is full", || device.vdev.status().contains("16 received"));
        let (mut full, mut rest, mut bytes) = (0, 0, 0);
        while bytes < 41 {
            until("bytes come", || device.is_raised());
            match device.read8(IIR) {
                0xc4 => {
                    full += 1;
                    // As many as there are for sure, without looking at LSR.
                    for _ in 0..trigger {
                        assert_eq!(device.read8(DATA), b'x');
                    }
                    bytes += trigger;
                }
                0xcc => {
                    rest += 1;
                    while device.read8(LSR) & DR != 0 {
                        assert_eq!(device.read8(DATA), b'x');
                        bytes += 1;
                    }
                }
                // The level fell between the two looks.
                0xc1 => {}
                iir => panic!("{iir:#x}"),
            }
        }
        assert_eq!(bytes, 41, "trigger {trigger}");
        assert!(full > 0, "trigger {trigger}: {full}, {rest}");
        assert!(rest > 0 || trigger == 1, "trigger {trigger}: {full}, {rest}");
        assert_eq!(device.read8(LSR) & (DR | OE), 0);
        device.finish();
    }
}

fn loopback(edition: u32) {
    let device = start(edition, "");
    device.write8(MCR, LOOP);
    device.write8(IIR, 0x01);
    device.write8(IER, 0x05);
    for byte in 0..16 {
        device.write8(DATA, byte);
    }
    assert_eq!((device.read8(IIR), device.read8(LSR)), (0xc4, DR | THRE | TEMT));
    device.write8(DATA, 99);
    assert_eq!(device.read8(IIR), 0xc6, "an overrun comes first");
    assert_eq!(device.read8(LSR) & OE, OE);
    assert_eq!(device.read8(LSR) & OE, 0, "it was read");
    let heard: Vec<u8> = (0..16).map(|_| device.read8(DATA)).collect();
    assert_eq!(heard, (0..16).collect::<Vec<u8>>());
    assert_eq!((device.read8(DATA), device.read8(LSR) & DR), (0, 0), "there are no more");
    // Cleared by the guest, and by switching the FIFOs off.
    for fcr in [0x03, 0x00] {
        device.write8(DATA, 7);
        assert_eq!(device.read8(LSR) & DR, DR);
        device.write8(IIR, fcr);
        assert_eq!(device.read8(LSR) & DR, 0);
    }
    // Without FIFOs there is room for one byte.
    device.write8(DATA, 1);
    assert_eq!((device.read8(IIR), device.read8(LSR) & OE), (0x04, 0));
    device.write8(DATA, 2);
    assert_eq!((device.read8(LSR) & OE, device.read8(DATA)), (OE, 1));
    // The modem's lines, and that they have changed.
    device.read8(MSR);
    device.write8(IER, 0x08);
    for (mcr, msr) in
        [(0x01, 0x22), (0x00, 0x02), (0x02, 0x11), (0x00, 0x01), (0x08, 0x88), (0, 0x08)]
    {
        device.write8(MCR, LOOP | mcr);
        assert!(device.is_raised(), "{mcr:#x}");
        assert_eq!((device.read8(IIR), device.read8(MSR)), (0x00, msr), "{mcr:#x}");
        assert!(!device.is_raised(), "{mcr:#x}");
    }
    // The ring counts when it ends.
    device.write8(MCR, LOOP | 0x04);
    assert_eq!((device.is_raised(), device.read8(MSR)), (false, 0x40));
    device.write8(MCR, LOOP);
    assert_eq!((device.is_raised(), device.read8(MSR)), (true, 0x04));
    device.finish();
}

fn stalled(edition: u32) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let pipe = File::options().read(true).write(true).open(&path).unwrap();
    // Two pages: a pipe of one is not writable as soon as there is a byte in it.
    rustix::pipe::fcntl_setpipe_size(&pipe, 8192).unwrap();
    stalls(edition, pipe, &path);
    // A terminal takes a part of what is written.
    let (terminal, path) = pty();
    stalls(edition, terminal, &path);
}

/// Sends until nothing more is taken for a while; how many bytes that were.
fn fill(device: &Device) -> usize {
    let (mut sent, mut last) = (0_usize, Instant::now());
    while last.elapsed() < patience() / 50 {
        if device.read8(LSR) & THRE != 0 {
            (sent..sent + 16).for_each(|number| device.write8(DATA, (number % 251) as u8));
            (sent, last) = (sent + 16, Instant::now());
        }
        assert!(sent < 1 << 20, "{sent}");
        std::thread::yield_now();
    }
    sent
}

fn stalls(edition: u32, mut end: File, path: &std::path::Path) {
    let device = start(edition, &format!("hostdev >{}", path.display()));
    device.write8(IIR, 0x01);
    let sent = fill(&device);
    assert!(sent >= 4000, "{sent}");
    assert_eq!(device.read8(LSR) & TEMT, 0);
    assert!(device.vdev.status().contains(" to send"));
    // It goes on once the host does, and nothing is lost, or out of order.
    let mut bytes = vec![0; sent];
    end.read_exact(&mut bytes).unwrap();
    assert!(bytes.iter().enumerate().all(|(number, byte)| usize::from(*byte) == number % 251));
    until("all is sent", || device.read8(LSR) & TEMT != 0);
    // Cleared, instead.
    fill(&device);
    device.write8(IER, 0x02);
    assert!(!device.is_raised());
    device.write8(IIR, 0x05);
    assert!(device.is_raised());
    assert_eq!(device.read8(LSR) & (THRE | TEMT), THRE, "the shift register still waits");
    device.finish();
}

fn cut(edition: u32) {
    let (master, path) = pty();
    let device = start(edition, &format!("hostdev {}", path.display()));
    device.write8(IER, 0x01);
    drop(master);
    for _ in 0..50 {
        until("the transmitter goes on", || device.read8(LSR) & (THRE | TEMT) == THRE | TEMT);
        device.write8(DATA, b'x');
    }
    until("all is lost", || device.read8(LSR) & TEMT != 0);
    assert!(!device.is_raised());
    device.finish();
}

fn unconnected(edition: u32) {
    let device = start(edition, "");
    assert_eq!(device.read8(MSR), 0);
    device.write8(IER, 0x02);
    for _ in 0..50 {
        until("the transmitter goes on", || device.is_raised());
        assert_eq!(device.read8(IIR), 0x02);
        device.write8(DATA, b'x');
    }
    assert!(device.vdev.status().starts_with("hostdev none; IER 0x2, "));
    device.finish();
}

fn misused(edition: u32) {
    let (mut master, path) = pty();
    let line = format!("vdev ser8250 hostdev {} intr ioapic:3 loc mem:0xfa002000", path.display());
    let device = Device::start(&library("ser8250", edition), &line);
    assert_eq!(device.load::<2>(DATA), (Answer::Unsupported, [0xff; 2]));
    assert_eq!(device.store(DATA, &[0; 4]), Answer::Unsupported);
    for offset in [8, 0x1000, u64::MAX] {
        assert_eq!(device.load::<1>(offset), (Answer::Failed, [0xff]), "{offset:#x}");
        assert_eq!(device.store(offset, &[0]), Answer::Failed, "{offset:#x}");
    }
    device.write8(LSR, 0xff);
    device.write8(MSR, 0xff);
    assert_eq!(device.read8(LSR), THRE | TEMT);
    // The other end takes everything, and sends now and then.
    let mut other = master.try_clone().unwrap();
    let taker = std::thread::spawn(move || {
        let mut bytes = [0; 256];
        while other.read(&mut bytes).is_ok_and(|count| count > 0) {}
    });
    let mut numbers = Numbers(8250);
    for round in 0..20_000 {
        let (offset, byte) = (numbers.next() % 8, numbers.next() as u8);
        if numbers.next().is_multiple_of(2) {
            device.write8(offset, byte);
        } else {
            device.read8(offset);
        }
        if round % 1000 == 0 {
            master.write_all(b"abcdefghijklmnopqrstuvwxyz").unwrap();
        }
    }
    // It still works.
    device.write8(MCR, LOOP);
    device.write8(LCR, 3);
    device.write8(IIR, 0x00);
    device.write8(IIR, 0x07);
    device.write8(DATA, 0x77);
    assert_eq!(device.read8(DATA), 0x77);
    device.finish();
    drop(master);
    // The terminal has no other end any more, which ends the reads.
    taker.join().unwrap();
}

fn options(edition: u32) {
    let library = library("ser8250", edition);
    let folder = tempfile::tempdir().unwrap();
    let (folder, missing) = (folder.path().display(), folder.path().join("missing"));
    for (hostdev, part) in [
        (missing.display().to_string(), "No such file"),
        (format!("<{}", missing.display()), "No such file"),
        (format!("{folder}"), "Is a directory"),
        (format!(">{folder}"), "Is a directory"),
        (format!(">{folder}/a/b"), "No such file"),
        (">".to_owned(), "Invalid argument"),
        ("<".to_owned(), "Invalid argument"),
    ] {
        let text = Device::refusal(&library, &format!("vdev ser8250 hostdev {hostdev}"));
        assert!(text.contains("hostdev") && text.contains(part), "{hostdev}: {text}");
    }
    let text = Device::refusal(&library, "vdev ser8250 baud 9600");
    assert!(text.contains("baud"), "{text}");
    let text = Device::refusal(&library, "vdev ser8250 loc pci:0:4");
    assert!(text.contains("at ports"), "{text}");
    // The last one counts, and each file is read from its start.
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&path, "abc").unwrap();
    let line = format!(
        "vdev ser8250 hostdev {} hostdev <{} intr ioapic:3 loc 0xfa002000",
        missing.display(),
        path.path().display()
    );
    let device = Device::start(&library, &line);
    // Enabling the FIFO clears it: a byte that had come before is lost.
    device.write8(IIR, 0x01);
    let mut bytes = Vec::new();
    until("the file is read", || {
        if device.read8(LSR) & DR != 0 {
            bytes.push(device.read8(DATA));
        }
        bytes.last() == Some(&b'c')
    });
    assert!(b"abc".ends_with(&bytes), "{bytes:?}");
    device.write8(DATA, b'x');
    until("it is lost", || device.read8(LSR) & TEMT != 0);
    assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    // The end of the file was the end of the line.
    std::thread::sleep(Duration::from_millis(20));
    path.as_file().write_all(b"abcdef").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(device.read8(LSR) & DR, 0);
    device.finish();
}
