//! QEMU in qtest mode: its process, and the commands on its pipe.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdin;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::room::Room;
use crate::error::{Error, Result};
use crate::machine::machine;
use crate::process::Process;
use crate::testbed::Testbed;

/// The machine's memory, from address 0 on, in bytes.
pub const MEMORY: u64 = 256 << 20;

const LIMIT: Duration = Duration::from_secs(120);
/// The time limit of a single command.
const ANSWER: Duration = Duration::from_secs(30);
/// The most bytes of memory transferred by one command.
const CHUNK: usize = 64 << 10;
/// The most characters of a command or an answer in an error message.
const SHOWN: usize = 100;

/// A QEMU in qtest mode; killed on drop.
///
/// Its machine is that of [`crate::Vm`], with [`MEMORY`]. Several threads may use it; commands
/// are atomic.
pub struct QTest {
    process: Process,
    channel: Mutex<Channel>,
    pub(super) room: Mutex<Room>,
}

struct Channel {
    input: ChildStdin,
    answers: mpsc::Receiver<String>,
    interrupts: Vec<Interrupt>,
}

/// A change of an interrupt line that [`QTest::intercept_inputs`] has intercepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// The line's number at the interrupt controller.
    pub line: u32,
    /// Whether it is raised now.
    pub raised: bool,
}

impl QTest {
    /// Starts QEMU with further arguments in its syntax: `-device` and others.
    ///
    /// # Errors
    /// QEMU cannot be started or refuses an argument.
    pub fn start(testbed: &Testbed, args: &[&str]) -> Result<Self> {
        let mut command = machine(testbed, "qtest", MEMORY);
        command.args(["-qtest", "stdio", "-qtest-log", "none"]).args(args);
        let (process, input, output) = Process::start(command, LIMIT)?;
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(std::io::Result::ok);
            // Sending fails when the test has ended.
            let _ = lines.map(|line| sender.send(line)).find(std::result::Result::is_err);
        });
        let channel = Channel { input, answers, interrupts: Vec::new() };
        let qtest = Self { process, channel: Mutex::new(channel), room: Mutex::default() };
        qtest.read_u32(0)?; // Until it has answered, it may still refuse an argument.
        Ok(qtest)
    }

    /// The process ID of QEMU.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// QEMU's own standard error so far.
    pub fn qemu_messages(&self) -> String {
        self.process.messages()
    }

    /// Kills QEMU, as a crash would end it, and waits for its end.
    pub fn kill(self) {
        self.process.kill();
        self.process.wait_end(self.process.until(Duration::MAX));
    }

    /// Sends a command of QEMU's qtest protocol; returns the answer after `OK`.
    ///
    /// # Errors
    /// [`Error::Answer`] for any other answer; [`Error::Ended`]; [`Error::Timeout`].
    pub fn command(&self, command: &str) -> Result<String> {
        let mut channel = self.channel();
        let started = Instant::now();
        let until = self.process.until(ANSWER);
        let sent = channel.input.write_all(format!("{command}\n").as_bytes());
        if sent.and_then(|()| channel.input.flush()).is_err() {
            return Err(self.ended(command));
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = match channel.answers.recv_timeout(left) {
                Ok(answer) => answer,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.ended(command)),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(Error::Timeout {
                        expected: expected(command),
                        after: started.elapsed(),
                        context: self.context(),
                    });
                }
            };
            if let Some(interrupt) = interrupt(&answer) {
                channel.interrupts.push(interrupt);
            } else if let Some(rest) = answer.strip_prefix("OK") {
                return Ok(rest.trim().to_string());
            } else {
                let (command, answer) = (shown(command), shown(&answer));
                return Err(Error::Answer { command, answer });
            }
        }
    }

    /// Reads 32 bits of memory or of a device's registers.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn read_u32(&self, addr: u64) -> Result<u32> {
        self.number(&format!("readl {addr:#x}"))
    }

    /// Reads 64 bits of memory or of a device's registers.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn read_u64(&self, addr: u64) -> Result<u64> {
        self.number(&format!("readq {addr:#x}"))
    }

    /// Writes 32 bits.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn write_u32(&self, addr: u64, value: u32) -> Result<()> {
        self.command(&format!("writel {addr:#x} {value:#x}")).map(drop)
    }

    /// Writes 64 bits.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn write_u64(&self, addr: u64, value: u64) -> Result<()> {
        self.command(&format!("writeq {addr:#x} {value:#x}")).map(drop)
    }

    /// Reads 32 bits of an I/O port.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn in_u32(&self, port: u16) -> Result<u32> {
        self.number(&format!("inl {port:#x}"))
    }

    /// Writes 32 bits to an I/O port.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn out_u32(&self, port: u16, value: u32) -> Result<()> {
        self.command(&format!("outl {port:#x} {value:#x}")).map(drop)
    }

    /// Reads memory.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn read(&self, addr: u64, bytes: &mut [u8]) -> Result<()> {
        for (addr, chunk) in (addr..).step_by(CHUNK).zip(bytes.chunks_mut(CHUNK)) {
            let command = format!("read {addr:#x} {:#x}", chunk.len());
            let answer = self.command(&command)?;
            let digits = answer.strip_prefix("0x").unwrap_or_default();
            let wrong = || Error::Answer { command: shown(&command), answer: shown(&answer) };
            if digits.len() != 2 * chunk.len() {
                return Err(wrong());
            }
            for (index, byte) in chunk.iter_mut().enumerate() {
                let digits = digits.get(2 * index..2 * index + 2);
                let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                *byte = value.ok_or_else(wrong)?;
            }
        }
        Ok(())
    }

    /// Writes memory.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<()> {
        for (addr, chunk) in (addr..).step_by(CHUNK).zip(bytes.chunks(CHUNK)) {
            let mut command = format!("write {addr:#x} {:#x} 0x", chunk.len());
            for byte in chunk {
                let _ = write!(command, "{byte:02x}");
            }
            self.command(&command)?;
        }
        Ok(())
    }

    /// Sets `len` bytes of memory to `value`.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn fill(&self, addr: u64, len: u64, value: u8) -> Result<()> {
        self.command(&format!("memset {addr:#x} {len:#x} {value:#x}")).map(drop)
    }

    /// Advances the virtual clock, and runs the timers that are due.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn step_clock(&self, by: Duration) -> Result<()> {
        self.command(&format!("clock_step {}", by.as_nanos())).map(drop)
    }

    /// Intercepts the input lines of a device, such as `ioapic`: from now on, their changes are
    /// recorded and do not reach the device. Possible once, for one device.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn intercept_inputs(&self, device: &str) -> Result<()> {
        self.command(&format!("irq_intercept_in {device}")).map(drop)
    }

    /// Takes the recorded changes of the intercepted lines.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn take_interrupts(&self) -> Result<Vec<Interrupt>> {
        // Pending changes arrive before the answer to a command.
        self.read_u32(0)?;
        Ok(std::mem::take(&mut self.channel().interrupts))
    }

    fn number<T: TryFrom<u64>>(&self, command: &str) -> Result<T> {
        let answer = self.command(command)?;
        let digits = answer.strip_prefix("0x").unwrap_or(&answer);
        let value = u64::from_str_radix(digits, 16).ok().and_then(|value| value.try_into().ok());
        value.ok_or_else(|| Error::Answer { command: shown(command), answer: shown(&answer) })
    }

    fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock()
    }

    fn ended(&self, command: &str) -> Error {
        let status = self.process.wait_end(self.process.until(Duration::from_secs(2)));
        Error::Ended { expected: expected(command), status, context: self.context() }
    }

    pub(super) fn context(&self) -> String {
        format!("\nQEMU said:\n{}", self.process.messages().trim_end())
    }
}

fn expected(command: &str) -> String {
    format!("answer to `{}`", shown(command))
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() { short + "..." } else { short }
}

fn interrupt(answer: &str) -> Option<Interrupt> {
    let mut words = answer.strip_prefix("IRQ ")?.split_whitespace();
    let raised = words.next()? == "raise";
    Some(Interrupt { raised, line: words.next()?.parse().ok()? })
}
