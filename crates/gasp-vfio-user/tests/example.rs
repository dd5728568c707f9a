//! The example device stops as a service should.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The built example: cargo builds it by itself only if all tests are to be run.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap();
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", "dma", "--profile", profile]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(build.status().unwrap().success());
    folder.join("examples/dma")
}

/// Waits for the process to exit, with a deadline.
fn ended(child: &mut Child) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if since.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(socket: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(example());
    let mut child = command.arg(socket).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.starts_with("listens on"), "{line}");
    (child, out)
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn the_example_ends_on_a_signal_and_removes_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("dma.sock");
    for wanted in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (mut child, out) = start(&socket);
        assert!(socket.exists());
        signal(&child, wanted);
        assert!(ended(&mut child).success(), "{wanted:?}");
        assert!(!socket.exists(), "{wanted:?}");
        assert_eq!(out.lines().last().unwrap().unwrap(), "stopped");
    }
}

#[test]
fn the_example_goes_on_when_nobody_reads_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("dma.sock");
    let (mut child, out) = start(&socket);
    drop(out);
    // The example prints a line for each of them.
    for _ in 0..3 {
        let client = UnixStream::connect(&socket).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        drop(client);
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(child.try_wait().unwrap(), None, "it has ended");
    signal(&child, Signal::TERM);
    assert!(ended(&mut child).success());
    assert!(!socket.exists());
}
