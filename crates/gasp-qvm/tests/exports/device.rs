//! A UART whose host device is a terminal: the sample of the headers, over a pseudoterminal.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::time::Duration;

use gasp_qvm::{Answer, Instance, Space};

use crate::board::{Board, at, start, until};
use crate::support::{Event, Guests, Library};

const PORT: u64 = 0x3f8;
const DATA: u64 = 0;
const INTERRUPTS: u64 = 1;
const STATUS: u64 = 5;
const READY: u8 = 0x01;
const HAS_ROOM: u8 = 0x20;
const IS_EMPTY: u8 = 0x40;

/// Both ends of a pseudoterminal, and the path of the one for the vdev.
struct Terminal {
    ours: File,
    theirs: File,
    path: String,
}

impl Terminal {
    fn new() -> Self {
        let (mut ours, mut theirs) = (0, 0);
        let mut name = [0; 64];
        let null = std::ptr::null_mut();
        // SAFETY: the numbers and the name are valid for writes, and the name is longer than any.
        let done = unsafe {
            libc::openpty(&raw mut ours, &raw mut theirs, name.as_mut_ptr(), null, null.cast())
        };
        assert_eq!(done, 0);
        // SAFETY: openpty(3) has ended the name with a NUL.
        let path = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) };
        let path = path.to_str().unwrap().to_owned();
        // SAFETY: openpty(3) has opened it, and nobody else has it.
        let ours = unsafe { File::from_raw_fd(ours) };
        // SAFETY: as above.
        let theirs = unsafe { File::from_raw_fd(theirs) };
        // SAFETY: the file is open, and the flags are valid.
        unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        Self { ours, theirs, path }
    }

    /// The flags of input and output.
    fn settings(&self) -> (u32, u32, u32) {
        // SAFETY: `termios` is plain data, for which zeros are valid.
        let mut found: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: it is valid for writes.
        assert_eq!(unsafe { libc::tcgetattr(self.theirs.as_raw_fd(), &raw mut found) }, 0);
        (found.c_iflag, found.c_oflag, found.c_lflag)
    }

    /// What has arrived, up to `len` bytes.
    fn received(&mut self, len: usize) -> Vec<u8> {
        let (mut all, mut part) = (Vec::new(), [0; 4096]);
        while all.len() < len {
            let end = part.len().min(len - all.len());
            match self.ours.read(&mut part[..end]) {
                Ok(count) => all.extend(&part[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        all
    }
}

struct Uart {
    vdev: Instance,
    board: Arc<Board>,
    _guest: Guests,
}

impl Uart {
    fn new(edition: u32, options: &str) -> Self {
        let suffix = if edition == 710 { "_710" } else { "" };
        let source = format!(
            "{}/../gasp-capi/tests/vdev/samples/uart{suffix}.c",
            env!("CARGO_MANIFEST_DIR")
        );
        let library = Library::of_file(&source, edition, "uart");
        let (guest, board) = (Guests::new(), Arc::<Board>::default());
        let text = format!("vdev uart loc io:{PORT:#x} intr ioapic:4 {options}");
        let vdev = board.create(&guest, &library, &text).and_then(start);
        let vdev = vdev.unwrap_or_else(|error| panic!("{error}"));
        let uart = Self { vdev, board, _guest: guest };
        // The sample's status is that of the access before.
        uart.read(STATUS);
        uart
    }

    fn read(&self, register: u64) -> u8 {
        let mut data = [0];
        assert_eq!(self.vdev.read(at(Space::Ports, PORT + register), &mut data), Answer::Done);
        data[0]
    }

    fn write(&self, register: u64, data: u8) {
        assert_eq!(self.vdev.write(at(Space::Ports, PORT + register), &[data]), Answer::Done);
    }
}

#[test]
fn bytes_pass_a_terminal_unchanged_in_both_directions() {
    for edition in [800, 710] {
        let mut terminal = Terminal::new();
        let before = terminal.settings();
        let uart = Uart::new(edition, &format!("hostdev {}", terminal.path));
        assert_ne!(terminal.settings(), before, "a terminal is set to pass bytes as they are");
        // A terminal in its usual mode would change most of these.
        let text = b"line\n\r\x03\x04\x11\x13\x7f\xff\0end";
        text.iter().for_each(|&byte| uart.write(DATA, byte));
        let mut arrived = Vec::new();
        until("output", || {
            arrived.extend(terminal.received(99));
            arrived.len() >= text.len()
        });
        assert_eq!(arrived, text);
        uart.write(INTERRUPTS, 1);
        assert_eq!((uart.read(STATUS) & READY, uart.board.events()), (0, vec![]));
        terminal.ours.write_all(text).unwrap();
        until("input", || uart.read(STATUS) & READY != 0);
        assert_eq!(uart.board.events(), [Event::Interrupt(true)]);
        let mut got = Vec::new();
        until("all of the input", || {
            while uart.read(STATUS) & READY != 0 {
                got.push(uart.read(DATA));
            }
            got.len() >= text.len()
        });
        assert_eq!(got, text);
        assert_eq!(uart.board.events().last(), Some(&Event::Interrupt(false)));
        let status = uart.vdev.status();
        assert!(status.contains("115200 baud") && status.contains(&terminal.path), "{status}");
        assert!(uart.vdev.terminate().is_empty());
        assert_eq!(terminal.settings(), before, "its settings are restored");
    }
}

#[test]
fn output_that_does_not_fit_waits_and_arrives_in_order() {
    for edition in [800, 710] {
        let mut terminal = Terminal::new();
        let uart = Uart::new(edition, &format!("hostdev {}", terminal.path));
        let mut sent = 0_usize;
        // Nobody reads: first the terminal is full, then the buffer.
        while uart.read(STATUS) & HAS_ROOM != 0 {
            uart.write(DATA, (sent % 251) as u8);
            sent += 1;
            assert!(sent < 1 << 20, "there is no end");
        }
        assert!(sent > 4096, "{sent}");
        assert_eq!(uart.read(STATUS) & IS_EMPTY, 0);
        uart.write(INTERRUPTS, 2);
        assert_eq!(uart.board.events(), []);
        let mut arrived = Vec::new();
        until("output", || {
            arrived.extend(terminal.received(1 << 20));
            arrived.len() >= sent
        });
        let expected: Vec<u8> = (0..sent).map(|number| (number % 251) as u8).collect();
        assert!(arrived == expected, "{} bytes of {sent}", arrived.len());
        // The vdev was told, and wrote what was pending.
        until("an empty buffer", || uart.read(STATUS) & IS_EMPTY != 0);
        assert_eq!(uart.board.events(), [Event::Interrupt(true)]);
    }
}

#[test]
fn input_waits_in_the_terminal_while_the_buffer_is_full() {
    let mut terminal = Terminal::new();
    let uart = Uart::new(800, &format!("hostdev {}", terminal.path));
    let input: Vec<u8> = (0..20_000_u32).map(|number| (number % 249) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    until("all of the input", || {
        match terminal.ours.write(&input[sent..]) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        for _ in 0..100 {
            if uart.read(STATUS) & READY == 0 {
                break;
            }
            got.push(uart.read(DATA));
        }
        got.len() >= input.len()
    });
    assert!(got == input);
}

#[test]
fn a_terminal_that_hangs_up_costs_nothing() {
    let terminal = Terminal::new();
    // Its threads have its name, which no other test's has.
    let uart = Uart::new(800, &format!("name hung hostdev {}", terminal.path));
    drop(terminal);
    let runs = || -> u64 {
        let mut all = 0;
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let folder = task.unwrap().path();
            let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
            if name.starts_with("hung") {
                let stat = std::fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
                all += stat.split_whitespace().nth(2).map_or(0, |n| n.parse::<u64>().unwrap());
            }
        }
        all
    };
    // Soon they sleep: none of them runs for a while.
    let mut before = 0;
    until("the threads sleep", || {
        let runs = core::mem::replace(&mut before, runs());
        std::thread::sleep(Duration::from_millis(300));
        before > 0 && runs == before
    });
    for byte in 0..100 {
        uart.write(DATA, byte);
    }
    assert!(uart.vdev.terminate().is_empty());
}
