//! An unprivileged process that reads its addresses through a broker; and audits.
//!
//! Needs root, to start a broker and to become another user; skipped visibly otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use gasp::{FrameAccess, frame_access};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use tempfile::TempDir;

const GASP: &str = env!("CARGO_BIN_EXE_gasp");
/// The user nobody.
const NOBODY: u32 = 65_534;

fn main() {
    let lack = match frame_access() {
        FrameAccess::Allowed => None,
        FrameAccess::Denied(why) => Some(why),
    };
    let tests: [(&str, fn()); 8] = [
        ("the_user_nobody_can_read_the_addresses_of_its_own_memory", disclosed),
        ("a_user_who_is_not_named_is_refused", refused),
        ("a_socket_without_a_listener_is_replaced_and_another_is_not", replaced),
        ("a_file_that_is_no_socket_is_left_alone", left_alone),
        ("a_broker_prints_its_socket_its_users_and_how_to_configure_a_client", announced),
        ("a_broker_whose_stdout_cannot_be_written_serves_all_the_same", unheard),
        ("an_audit_reports_each_round_and_ends_with_0", audited),
        ("an_audit_that_finds_a_broken_promise_ends_with_1", broken),
    ];
    let trials = tests.into_iter().map(|(name, body)| {
        let name = lack.map_or(name.into(), |why| format!("{name} [skipped: {why}]"));
        let run = move || {
            body();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(lack.is_some())
    });
    // One at a time: a program that is being copied cannot be run, and a child that another
    // thread starts meanwhile inherits the descriptor that writes it.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn left_alone() {
    let fixture = Fixture::new();
    let path = fixture.path("precious");
    fs::write(&path, "data").unwrap();
    let output = fixture.gasp(0, &["broker", "--socket", "precious"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

fn announced() {
    let fixture = Fixture::new();
    let (socket, said) = (fixture.path("frames"), fixture.path("said"));
    let mut command = Command::new(GASP);
    command.args(["broker", "--tokens", "--user", "nobody", "--redeem-user", "65533"]);
    command.arg("--socket").arg(&socket).stdout(fs::File::create(&said).unwrap());
    let broker = fixture.start(&mut command, &socket);
    // It prints this when it listens.
    let text = (0..1000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        fs::read_to_string(&said).ok().filter(|text| text.contains("SIGTERM"))
    });
    let text = text.expect("it prints nothing");
    let client = format!("frame-broker = {socket:?}");
    for part in [socket.to_str().unwrap(), "tokens", "root, nobody", "65533", &client] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert_eq!(broker.end(), Some(0));
}

fn unheard() {
    let fixture = Fixture::new();
    let socket = fixture.path("frames");
    let mut command = Command::new(GASP);
    command.args(["broker", "--user", "nobody", "--socket"]).arg(&socket);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let broker = fixture.start(command.stdout(full), &socket);
    let map = json(&fixture.map());
    assert!(map["first"]["host"].as_u64().is_some_and(|host| host != 0), "{map}");
    assert_eq!(broker.end(), Some(0));
}

/// A directory that all users can read, with a command that all users can run.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(GASP, folder.path().join("gasp")).unwrap();
        let config = "[guest]\nframe-broker = \"frames\"\n[[ram]]\nsize = \"4M\"\n\
                      backing = [\"4K\"]\n[[vdev]]\nname = \"disk\"\n";
        let fixture = Self { folder };
        fs::write(fixture.path("guest.toml"), config).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn gasp(&self, user: u32, args: &[&str]) -> Output {
        let mut command = Command::new(self.path("gasp"));
        command.current_dir(self.folder.path()).args(args).uid(user).output().unwrap()
    }

    fn map(&self) -> Output {
        let map = ["map", "--config", "guest.toml", "--vdev", "disk", "--addr", "0"];
        self.gasp(NOBODY, &[&map[..], &["--len", "4K", "--access", "rw", "--json"]].concat())
    }

    fn broker(&self, args: &[&str]) -> Broker {
        let socket = self.path("frames");
        let mut command = Command::new(GASP);
        command.arg("broker").arg("--socket").arg(&socket).args(args);
        self.start(command.stdout(Stdio::null()), &socket)
    }

    fn start(&self, command: &mut Command, socket: &Path) -> Broker {
        let broker = Broker(command.stderr(Stdio::null()).spawn().unwrap());
        broker.wait_for(socket);
        broker
    }
}

/// A broker, until it is dropped.
struct Broker(Child);

impl Broker {
    fn wait_for(&self, socket: &Path) {
        for _ in 0..1000 {
            if std::os::unix::net::UnixStream::connect(socket).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the broker does not listen");
    }

    /// Ends it by a signal, and returns its exit status.
    fn end(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{output:?}"))
}

fn disclosed() {
    let fixture = Fixture::new();
    let broker = fixture.broker(&["--user", &NOBODY.to_string()]);
    let map = fixture.map();
    assert!(map.status.success(), "{map:?}");
    let map = json(&map);
    assert!(map["first"]["host"].as_u64().is_some_and(|host| host > 0), "{map}");
    assert_eq!(broker.end(), Some(0));
    assert!(!fixture.path("frames").exists(), "it removes its socket");
    let alone = fixture.map();
    assert_eq!(alone.status.code(), Some(2), "the configuration names a broker: {alone:?}");
}

fn refused() {
    let fixture = Fixture::new();
    let _broker = fixture.broker(&["--user", "1"]);
    let map = fixture.map();
    assert_eq!(map.status.code(), Some(2));
    assert_eq!(json(&map)["error"]["errno"], "EPERM", "{map:?}");
    drop(_broker);
    let _only_root = fixture.broker(&[]);
    assert_ne!(fixture.map().status.code(), Some(0));
}

fn replaced() {
    let fixture = Fixture::new();
    drop(fixture.broker(&["--user", "nobody"]));
    assert!(fixture.path("frames").exists(), "it was killed and left its socket");
    let _again = fixture.broker(&["--user", "nobody"]);
    assert!(fixture.map().status.success());
    let second = fixture.gasp(0, &["broker", "--socket", "frames"]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(fixture.map().status.success(), "the first one is still served");
}

fn audited() {
    let fixture = Fixture::new();
    let args = ["audit", "--config", "guest.toml", "--every", "0.05", "--for", "0.3", "--json"];
    let audit = fixture.gasp(0, &args);
    assert_eq!(audit.status.code(), Some(0), "{audit:?}");
    let text = String::from_utf8(audit.stdout).unwrap();
    let rounds: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rounds.len() >= 2, "{text}");
    for (round, number) in rounds.iter().zip(1..) {
        assert_eq!((&round["round"], &round["checked"]), (&number.into(), &(4 << 20).into()));
        assert_eq!(round["broken"], 0);
    }
    let once = fixture.gasp(0, &["audit", "--config", "guest.toml"]);
    let text = String::from_utf8(once.stdout).unwrap();
    assert!(text.starts_with("round 1: 4 MiB") && text.lines().count() == 1, "{text}");
}

/// Another process punches a hole into pinned memory.
fn broken() {
    let fixture = Fixture::new();
    let args = ["audit", "--config", "guest.toml", "--every", "0.02", "--for", "3", "--json"];
    let mut command = Command::new(fixture.path("gasp"));
    command.current_dir(fixture.folder.path()).args(args).stdout(Stdio::piped());
    let mut audit = command.spawn().unwrap();
    // With the first report the addresses are known.
    let mut text = String::new();
    let mut stdout = BufReader::new(audit.stdout.take().unwrap());
    stdout.read_line(&mut text).unwrap();
    let first: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(first["broken"], 0, "{text}");
    let folder = format!("/proc/{}/fd", audit.id());
    let is_ram = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|file| file.to_string_lossy().contains("gasp-ram"))
    };
    let file = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).find(is_ram);
    let file = fs::OpenOptions::new().read(true).write(true).open(file.unwrap()).unwrap();
    let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, flags, 4096, 8192).unwrap();
    stdout.read_to_string(&mut text).unwrap();
    let status = audit.wait().unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let pinned = last["changes"][0]["class"] == "pinned";
    assert_eq!(last["changes"][0]["offset"], 4096, "{text}");
    let expected = if pinned { (Some(1), Some(8192)) } else { (Some(0), Some(0)) };
    assert_eq!((status.code(), last["broken"].as_u64()), expected);
}
