//! A running Linux guest.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ChildStdin;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::console::{Console, Line, Waited};
use crate::error::{Error, Result};
use crate::initramfs::{END_MARKER, Initramfs};
use crate::machine::machine;
use crate::process::Process;
use crate::testbed::Testbed;

/// Kernel arguments for a short and steady boot under software emulation.
const KERNEL_ARGS: &[&str] = &[
    "console=ttyS0",
    "panic=-1",
    "mitigations=off",
    "tsc=reliable",
    "no_timer_check",
    "nokaslr",
    "cryptomgr.notests",
    "8250.nr_uarts=1",
    "quiet",
];
const MEMORY: u64 = 256 << 20;
const LIMIT: Duration = Duration::from_secs(120);
/// Lines of the console in an error message.
const LINES_SHOWN: usize = 25;

/// A guest to be started.
#[derive(Debug)]
#[must_use]
pub struct VmBuilder {
    testbed: Testbed,
    initramfs: Initramfs,
    memory: u64,
    cpus: u32,
    limit: Duration,
    args: Vec<OsString>,
    kernel_args: Vec<String>,
    reboots: bool,
    echo: bool,
}

/// A running Linux guest; killed on drop.
pub struct Vm {
    process: Process,
    console: Console,
    input: Mutex<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    /// QEMU opens it by name while it starts.
    _initramfs: OwnedFd,
}

impl Vm {
    /// A guest with Debian's Linux, one CPU and 256 MiB, which powers off when its script has
    /// ended, and is killed after 120 s.
    pub fn linux(testbed: &Testbed, initramfs: Initramfs) -> VmBuilder {
        VmBuilder {
            testbed: testbed.clone(),
            initramfs,
            memory: MEMORY,
            cpus: 1,
            limit: LIMIT,
            args: Vec::new(),
            kernel_args: Vec::new(),
            reboots: false,
            echo: false,
        }
    }

    /// The process ID of QEMU.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for a line of the console that contains `marker`, after the last line that this
    /// function has returned.
    ///
    /// # Errors
    /// [`Error::Ended`] if the guest ended without such a line; [`Error::Timeout`].
    pub fn wait_for(&self, marker: &str, timeout: Duration) -> Result<Line> {
        let started = Instant::now();
        match self.console.wait_for(marker, self.process.until(timeout)) {
            Waited::Found(line) => Ok(line),
            Waited::Closed => Err(self.ended(format!("`{marker}` on the console"))),
            Waited::TimedOut => Err(Error::Timeout {
                expected: format!("`{marker}` on the console"),
                after: started.elapsed(),
                context: self.context(),
            }),
        }
    }

    /// Writes a line to the console, for a script that reads it.
    ///
    /// # Errors
    /// [`Error::Ended`] if the guest has ended.
    pub fn send_line(&self, text: &str) -> Result<()> {
        let mut input = self.input.lock();
        let written = input.write_all(format!("{text}\n").as_bytes()).and_then(|()| input.flush());
        written.map_err(|_| self.ended(format!("`{text}` could be sent to it")))
    }

    /// All lines of the console so far.
    pub fn lines(&self) -> Vec<Line> {
        self.console.lines()
    }

    /// QEMU's own standard error so far.
    pub fn qemu_messages(&self) -> String {
        self.process.messages()
    }

    /// Kills QEMU, as a crash would end it, and waits for its end. Returns all lines of the
    /// console.
    pub fn kill(mut self) -> Vec<Line> {
        self.process.kill();
        self.process.wait_end(self.process.until(Duration::MAX));
        self.join();
        self.console.lines()
    }

    /// Waits until the guest has powered off, which it does after its script. Returns all lines of
    /// the console.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Ended`] if QEMU failed or the guest did not reach the end of
    /// its script; [`Error::Script`] if the script failed.
    pub fn finish(mut self, timeout: Duration) -> Result<Vec<Line>> {
        let started = Instant::now();
        let Some(status) = self.process.wait_end(self.process.until(timeout)) else {
            let (expected, after) = ("end of the guest".into(), started.elapsed());
            return Err(Error::Timeout { expected, after, context: self.context() });
        };
        self.join();
        let lines = self.console.lines();
        let code = lines.iter().rev().find_map(|line| {
            line.text.split_once(END_MARKER).and_then(|(_, code)| code.trim().parse().ok())
        });
        match code {
            Some(0) if status.success() => Ok(lines),
            Some(code) if status.success() => Err(Error::Script { code, context: self.context() }),
            _ => Err(self.ended("the end of the guest's script".into())),
        }
    }

    fn ended(&self, expected: String) -> Error {
        // The console is closed shortly before the status is known.
        let status = self.process.wait_end(self.process.until(Duration::from_secs(2)));
        Error::Ended { expected, status, context: self.context() }
    }

    /// The last output of QEMU and the guest, for error messages.
    fn context(&self) -> String {
        let mut text = String::new();
        let messages = self.process.messages();
        if !messages.trim().is_empty() {
            text.push_str("\nQEMU said:\n");
            text.push_str(messages.trim_end());
        }
        let lines = self.console.lines();
        if !lines.is_empty() {
            text.push_str("\nlast lines of the console:");
        }
        for line in lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)) {
            text.push_str(&format!("\n{:8.3} {}", line.at.as_secs_f64(), line.text));
        }
        text
    }

    /// Waits until the console has been read to its end. QEMU has ended.
    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl VmBuilder {
    /// Sets the guest's memory in bytes, a multiple of 1 MiB.
    pub fn memory(self, bytes: u64) -> Self {
        Self { memory: bytes, ..self }
    }

    /// Sets the number of the guest's CPUs.
    pub fn cpus(self, cpus: u32) -> Self {
        Self { cpus, ..self }
    }

    /// Sets the whole-run timeout, after which QEMU is killed.
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Adds a `-device`, in QEMU's syntax. An IOMMU has to be added before the devices behind it.
    pub fn device(self, device: impl Into<OsString>) -> Self {
        self.arg("-device").arg(device)
    }

    /// Adds any argument for QEMU.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds an argument to the kernel's command line.
    pub fn kernel_arg(mut self, arg: impl Into<String>) -> Self {
        self.kernel_args.push(arg.into());
        self
    }

    /// Allows the guest to reboot. Without this, a reboot ends it.
    pub fn reboots(self) -> Self {
        Self { reboots: true, ..self }
    }

    /// Also prints the console to standard error as it arrives.
    pub fn echo(self) -> Self {
        Self { echo: true, ..self }
    }

    /// Starts the guest.
    ///
    /// # Errors
    /// A file for the initramfs is missing; QEMU cannot be started. An argument that QEMU refuses
    /// is reported by the first wait.
    pub fn start(self) -> Result<Vm> {
        let initramfs = memory_file(&self.initramfs.build()?).map_err(Error::Start)?;
        let name = format!("/proc/{}/fd/{}", std::process::id(), initramfs.as_raw_fd());
        let mut command = machine(&self.testbed, "tcg,thread=multi", self.memory);
        command.args(["-cpu", "max", "-smp", &self.cpus.to_string()]);
        command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        if !self.reboots {
            command.arg("-no-reboot");
        }
        let mut kernel_args: Vec<&str> = KERNEL_ARGS.to_vec();
        kernel_args.extend(self.kernel_args.iter().map(String::as_str));
        command.arg("-kernel").arg(self.testbed.vmlinux()).arg("-initrd").arg(name);
        command.arg("-append").arg(kernel_args.join(" ")).args(&self.args);
        let (process, input, output) = Process::start(command, self.limit)?;
        let console = Console::default();
        let reader = {
            let (console, started, echo) = (console.clone(), process.started(), self.echo);
            std::thread::spawn(move || console.read(output, started, echo))
        };
        let input = Mutex::new(input);
        Ok(Vm { process, console, input, reader: Some(reader), _initramfs: initramfs })
    }
}

/// A file in memory with these contents: no folder has it, so it cannot be left behind.
fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("initramfs", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}
