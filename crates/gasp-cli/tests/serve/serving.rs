//! A server in a process of its own, and clients of it.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) fn gasp(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gasp")).arg("serve").args(args).output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server in a process of its own, with its output.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) lines: Lines<BufReader<Box<dyn Read>>>,
}

/// A reader with a timeout.
struct Patient<R>(R);

impl<R: Read + AsFd> Read for Patient<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 20, tv_nsec: 0 }))? {
            0 => Err(std::io::ErrorKind::TimedOut.into()),
            _ => self.0.read(bytes),
        }
    }
}

impl Serving {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gasp"));
        command.arg("serve").args(args).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Self::of(command)
    }

    /// Starts a command, and reads its output if that is a pipe.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let output: Box<dyn Read> = match child.stdout.take() {
            Some(output) => Box::new(Patient(output)),
            None => Box::new(std::io::empty()),
        };
        Self { child, lines: BufReader::new(output).lines() }
    }

    /// Starts a command, with room for only a few lines of unread output.
    pub(crate) fn with_little_room(mut command: Command) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
        let child = command.stdout(writer).spawn().unwrap();
        let output: Box<dyn Read> = Box::new(Patient(reader));
        Self { child, lines: BufReader::new(output).lines() }
    }

    /// The next event of this name.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        loop {
            let line = self.lines.next().unwrap_or_else(|| panic!("no {name}"));
            let line = line.unwrap_or_else(|error| panic!("no {name}: {error}"));
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == name {
                return event;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(since.elapsed() < Duration::from_secs(10), "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(what: impl Fn() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < Duration::from_secs(10), "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Connects, repeatedly: the file of a socket exists a moment before the server listens.
fn connect(path: &Path) -> UnixStream {
    let since = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                return stream;
            }
            Err(error) => assert!(since.elapsed() < Duration::from_secs(5), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Negotiates the version, the first step of a VMM.
pub(crate) fn attach(path: &Path) -> UnixStream {
    greet(path).0
}

/// Like [`attach`], and returns the server's version message.
pub(crate) fn greet(path: &Path) -> (UnixStream, Value) {
    let mut stream = connect(path);
    let hello = b"\0\0\0\0{\"capabilities\":{\"max_dma_maps\":65535}}\0";
    let size = 16 + hello.len() as u32;
    let mut message = Vec::new();
    message.extend([1_u16, 1].map(u16::to_ne_bytes).concat());
    message.extend([size, 0, 0].map(u32::to_ne_bytes).concat());
    message.extend(hello);
    stream.write_all(&message).unwrap();
    let mut header = [0; 16];
    stream.read_exact(&mut header).unwrap();
    let rest = u32::from_ne_bytes(header[4..8].try_into().unwrap()) as usize - header.len();
    let mut answer = vec![0; rest];
    stream.read_exact(&mut answer).unwrap();
    let text = answer.get(4..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap();
    (stream, serde_json::from_slice(text).unwrap_or_default())
}

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().into()
    }

    /// Waits until the file exists.
    pub(crate) fn wait_for(&self, name: &str) {
        wait_until(|| self.path(name).exists());
    }

    /// Waits until the file does not exist.
    pub(crate) fn wait_for_no(&self, name: &str) {
        wait_until(|| !self.path(name).exists());
    }

    /// The command that serves a DMA engine on this socket.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gasp"));
        command.args(["serve", "--device", "dma", "--socket", &self.text(name)]);
        command
    }

    pub(crate) fn dma(&self, name: &str) -> Serving {
        Serving::start(&["--device", "dma", "--socket", &self.text(name), "--json"])
    }
}

/// A DEVICE_GET_INFO message.
pub(crate) fn request() -> Vec<u8> {
    let mut message = [7_u16, 4].map(u16::to_ne_bytes).concat();
    message.extend([16 + 16_u32, 0, 0].map(u32::to_ne_bytes).concat());
    message.extend([16_u32, 0, 0, 0].map(u32::to_ne_bytes).concat());
    message
}

/// Sends a request and checks the reply: the client is served.
pub(crate) fn exchange(client: &mut UnixStream) {
    client.write_all(&request()).unwrap();
    let mut reply = [0; 32];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], request()[..4]);
}
