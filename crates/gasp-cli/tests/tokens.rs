//! A broker of tokens, with processes that may not know addresses, and one that may.
//!
//! Needs root, to start a broker and to become another user; skipped visibly otherwise. The
//! clients are instances of this program, as other users, and take commands on their stdin.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "maps memory and replaces it")]

#[path = "tokens/client.rs"]
mod client;
#[path = "tokens/messages.rs"]
mod messages;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use gasp::broker::{HostToken, redeem_token};
use gasp::{FrameAccess, frame_access};
use gasp::{HostRun, errno_name};
use libtest_mimic::{Arguments, Trial};
use tempfile::TempDir;

use client::{PAGE, PAGES, Private, Raw, parse};
use messages::{REQUEST, TOKENS_MAX};

/// The user nobody.
const NOBODY: u32 = 65_534;
/// Another user.
const DAEMON: u32 = 1;
const CLIENT: &str = "GASP_TEST_CLIENT";

fn main() {
    if let Ok(socket) = std::env::var(CLIENT) {
        client::run(socket.as_ref());
        return;
    }
    let lack = match frame_access() {
        FrameAccess::Allowed => None,
        FrameAccess::Denied(why) => Some(why),
    };
    let tests: [(&str, fn()); 10] = [
        ("tokens_disclose_nothing_and_are_redeemed_for_the_true_addresses", redeemed),
        ("only_users_who_may_redeem_can", not_redeemed),
        ("tokens_end_with_their_object_and_with_their_connection", ended),
        ("a_client_asks_a_restarted_broker_again", started_again),
        ("memory_that_was_replaced_is_estale_and_absent_memory_eagain", replaced),
        ("a_process_that_has_ended_is_esrch", gone),
        ("memory_that_a_client_cannot_write_has_no_tokens", not_writable),
        ("garbage_ends_its_connection_only", garbage),
        ("impossible_ranges_are_refused", ranges),
        ("connections_and_tokens_are_bounded", bounded),
    ];
    let trials = tests.into_iter().map(|(name, body)| {
        let name = lack.map_or(name.into(), |why| format!("{name} [skipped: {why}]"));
        let run = move || {
            body();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(lack.is_some())
    });
    // One at a time: a program that is being copied cannot be run.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// A broker of tokens, until it is dropped.
struct Broker {
    folder: TempDir,
    child: Child,
}

impl Broker {
    fn new(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Self::start(&folder, args);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(std::env::current_exe().unwrap(), folder.path().join("client")).unwrap();
        Self { folder, child }
    }

    fn start(folder: &TempDir, args: &[&str]) -> Child {
        let socket = folder.path().join("tokens");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gasp"));
        command.args(["broker", "--tokens", "--socket"]).arg(&socket);
        let child = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let listens = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            UnixStream::connect(&socket).is_ok()
        });
        assert!(listens);
        child
    }

    /// Kills it and starts another in its place.
    fn start_again(&mut self, args: &[&str]) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::start(&self.folder, args);
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tokens")
    }

    fn client(&self, user: u32) -> Client {
        let mut command = Command::new(self.folder.path().join("client"));
        command.env(CLIENT, self.socket()).uid(user).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (says, hears) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Client { child, says, hears: BufReader::new(hears) }
    }

    /// Redeems a token: the run, or the name of the errno.
    fn redeem(&self, token: HostToken) -> Result<HostRun, &'static str> {
        redeem_token(&self.socket(), token).map_err(|error| error.errno_name())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Another process, of another user.
struct Client {
    child: Child,
    says: ChildStdin,
    hears: BufReader<ChildStdout>,
}

impl Client {
    fn ask(&mut self, what: &str) -> String {
        writeln!(self.says, "{what}").unwrap();
        let mut line = String::new();
        self.hears.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// The client's answer: an address, and tokens of the memory from there on.
    fn tokens(&mut self, what: &str) -> (u64, Vec<HostToken>) {
        let line = self.ask(what);
        let mut words = line.split(' ');
        let addr = words.next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"));
        (addr, words.map(parse).collect())
    }

    /// The host-physical address of a byte of the client, according to the kernel.
    fn host(&self, addr: u64) -> u64 {
        let map = File::open(format!("/proc/{}/pagemap", self.child.id())).unwrap();
        let mut entry = [0; 8];
        map.read_exact_at(&mut entry, addr / PAGE * 8).unwrap();
        let entry = u64::from_ne_bytes(entry);
        assert!(entry >> 63 == 1, "{addr:#x} is not in memory");
        (entry & ((1 << 55) - 1)) * PAGE + addr % PAGE
    }

    /// The address of the client's memory object.
    fn object(&self) -> u64 {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap();
        let line = maps.lines().find(|line| line.contains("gasp-ram")).unwrap();
        u64::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nobody() -> Broker {
    Broker::new(&["--user", &NOBODY.to_string()])
}

/// Checks that every token is redeemed for the addresses that the kernel reports.
fn check(broker: &Broker, client: &Client, mut addr: u64, tokens: &[HostToken]) {
    for &token in tokens {
        let run = broker.redeem(token).unwrap();
        assert_eq!(run.len, token.len);
        for at in (0..run.len).step_by(PAGE as usize) {
            assert_eq!(client.host(addr + at), run.addr.0 + at);
        }
        let told = run.addr.0.to_le_bytes();
        let (frame, back) = (&(run.addr.0 >> 12).to_le_bytes()[..4], run.addr.0.to_be_bytes());
        for secret in [&told[..6], &back[2..], frame] {
            assert!(!token.token.windows(secret.len()).any(|bytes| bytes == secret));
        }
        addr += run.len;
    }
}

fn redeemed() {
    let broker = nobody();
    let mut client = broker.client(NOBODY);
    // The client itself has checked that it can read no address.
    let (offset, tokens) = client.tokens("object");
    assert_eq!(tokens.iter().map(|token| token.len).sum::<u64>(), client::OBJECT - offset);
    check(&broker, &client, client.object() + offset, &tokens);
    assert_eq!(client.tokens("object").1, tokens, "another request returns the same");
    let (addr, private) = client.tokens("private");
    assert_eq!(private.iter().map(|token| token.len).sum::<u64>(), PAGES * PAGE);
    check(&broker, &client, addr, &private);
    let (_, others) = client.tokens("raw");
    assert!(others.iter().all(|other| !private.contains(other)), "another connection has others");
    let longer = HostToken { len: tokens[0].len + 1, ..tokens[0] };
    assert_eq!(broker.redeem(longer), Err("EINVAL"));
    assert_eq!(broker.redeem(HostToken { token: [0; 16], len: 1 }), Err("ENOENT"));
}

fn not_redeemed() {
    let broker = nobody();
    let (mut client, mut other) = (broker.client(NOBODY), broker.client(DAEMON));
    let (_, tokens) = client.tokens("private");
    let redeem = format!("redeem {}", client::show(&tokens[0]));
    assert_eq!(client.ask(&redeem), "EPERM", "a user who may ask may not redeem");
    assert_eq!(other.ask(&redeem), "EPERM");
    drop(broker);
    let broker = Broker::new(&["--user", "nobody", "--redeem-user", &DAEMON.to_string()]);
    let (mut client, mut other) = (broker.client(NOBODY), broker.client(DAEMON));
    let (_, tokens) = client.tokens("private");
    let run = broker.redeem(tokens[0]).unwrap();
    let redeem = format!("redeem {}", client::show(&tokens[0]));
    assert_eq!(other.ask(&redeem), run.addr.0.to_string());
    assert_eq!(other.ask("private"), "EPERM", "a user who may redeem may not ask");
}

fn ended() {
    let broker = nobody();
    let mut client = broker.client(NOBODY);
    let (_, object) = client.tokens("object");
    let (_, private) = client.tokens("private");
    assert_eq!(client.ask("drop"), "done");
    let forgotten = |token| {
        let until = || broker.redeem(token) == Err("ENOENT");
        (0..500).any(|_| {
            until() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }
        })
    };
    assert!(object.into_iter().all(forgotten));
    assert!(broker.redeem(private[0]).is_ok());
    assert_eq!(client.ask("close"), "done");
    assert!(private.into_iter().all(forgotten));
}

fn started_again() {
    let args = ["--user", "nobody"];
    let mut broker = Broker::new(&args);
    let mut client = broker.client(NOBODY);
    let (_, before) = client.tokens("object");
    broker.start_again(&args);
    assert_eq!(broker.redeem(before[0]), Err("ENOENT"));
    // The connection has ended, which is reported once.
    let told = client.ask("object");
    assert!(["EPIPE", "ECONNRESET"].contains(&&*told), "{told}");
    let (offset, after) = client.tokens("object");
    check(&broker, &client, client.object() + offset, &after);
    broker.start_again(&args);
    assert_eq!(client.ask("drop"), "done", "there is nothing to release");
}

fn replaced() {
    let broker = nobody();
    let mut client = broker.client(NOBODY);
    let (addr, tokens) = client.tokens("private");
    let before = client.host(addr);
    assert_eq!(client.ask("discard"), "done");
    assert_eq!(broker.redeem(tokens[0]), Err("EAGAIN"));
    assert_eq!(client.ask("touch"), "done");
    assert_ne!(client.host(addr), before, "the frames have been used for other memory");
    assert_eq!(broker.redeem(tokens[0]), Err("ESTALE"));
    let (_, again) = client.tokens("again");
    check(&broker, &client, addr, &again);
    // A new token for the same range replaces the old one.
    let (mut raw, memory) = (Raw::connect(&broker.socket()), Private::new());
    let old = raw.grant(memory.addr(), 1).unwrap()[0];
    assert_eq!(raw.grant(memory.addr(), 1), Ok(vec![old]), "nothing has changed");
    memory.replace();
    assert_eq!(broker.redeem(old), Err("ESTALE"));
    let new = raw.grant(memory.addr(), 1).unwrap()[0];
    assert_eq!(broker.redeem(old), Err("ENOENT"));
    assert!(broker.redeem(new).is_ok());
}

fn gone() {
    let broker = nobody();
    let mut client = broker.client(NOBODY);
    let (_, tokens) = client.tokens("private");
    // Its connection stays open in another process.
    assert_eq!(client.ask("linger"), "done");
    client.child.wait().unwrap();
    assert_eq!(broker.redeem(tokens[0]), Err("ESRCH"));
}

fn not_writable() {
    let broker = nobody();
    let mut client = broker.client(NOBODY);
    assert_eq!(client.ask("program"), "EACCES", "other processes run it");
    assert_eq!(client.ask("data"), "EACCES", "the same page, although a write would copy it");
    assert_eq!(client.ask("zeros"), "EACCES", "the shared page of zeros");
}

fn garbage() {
    let broker = nobody();
    let mut client = broker.client(NOBODY);
    let (_, tokens) = client.tokens("private");
    for garbage in [&[0; REQUEST][..], &[0xff; 4096], &[9; 17]] {
        let mut stream = UnixStream::connect(broker.socket()).unwrap();
        stream.write_all(garbage).unwrap();
        let mut heard = Vec::new();
        // The broker may close it with unread data.
        let _ = stream.read_to_end(&mut heard);
        assert_eq!(heard, b"t");
    }
    // A part of a request, then the end.
    UnixStream::connect(broker.socket()).unwrap().write_all(&[1, 2, 3]).unwrap();
    // Many requests without reading an answer, then the end.
    let mut stream = UnixStream::connect(broker.socket()).unwrap();
    stream.write_all(&messages::redeem([0; 16]).repeat(100)).unwrap();
    drop(stream);
    assert!(broker.redeem(tokens[0]).is_ok());
}

fn ranges() {
    let broker = nobody();
    let mut raw = Raw::connect(&broker.socket());
    let memory = Private::new();
    let mut refused = |addr, len| raw.grant(addr, len).map_err(errno_name).unwrap_err();
    assert_eq!(refused(memory.addr(), 0), "EINVAL");
    assert_eq!(refused(u64::MAX - 4095, 4096), "EINVAL");
    assert_eq!(refused(u64::MAX, u64::MAX), "EINVAL");
    assert_eq!(refused(memory.addr(), (16 << 30) + 1), "EINVAL");
    assert_eq!(refused(0, 4096), "ENXIO");
    assert_eq!(refused(1 << 62, 4096), "ENXIO");
    // Not at page boundaries.
    let part = raw.grant(memory.addr() + 5, 2 * PAGE).unwrap();
    assert_eq!(part.iter().map(|token| token.len).sum::<u64>(), 2 * PAGE);
    assert_eq!(broker.redeem(part[0]).unwrap().addr.0 % PAGE, 5);
}

fn bounded() {
    let broker = nobody();
    let mut client = broker.client(NOBODY);
    assert_eq!(client.ask("crowd"), "64");
    let mut raw = Raw::connect(&broker.socket());
    let memory = Private::new();
    // Of one byte each.
    let requests = |from: usize, to: usize| {
        (from..to).map(|offset| messages::grant(memory.addr() + offset as u64, 1))
    };
    let step = 1 << 10;
    let fill = |raw: &mut Raw| {
        for from in (0..TOKENS_MAX).step_by(step) {
            for answer in raw.ask_all(requests(from, from + step)) {
                assert_eq!(answer.unwrap().len(), 24);
            }
        }
    };
    fill(&mut raw);
    let (first, last) = (memory.addr(), memory.addr() + TOKENS_MAX as u64);
    assert_eq!(raw.grant(last, 1).map_err(errno_name), Err("ENOSPC"));
    assert!(raw.grant(first, 1).is_ok(), "it has this token already");
    raw.release(first, 2);
    assert!(raw.grant(last, 1).is_ok());
    assert!(raw.grant(first, 1).is_ok());
    // The tokens of a user are limited over all connections, until one of them ends.
    let mut others = [(); 3].map(|()| Raw::connect(&broker.socket()));
    others.iter_mut().for_each(fill);
    let mut late = Raw::connect(&broker.socket());
    assert_eq!(late.grant(first, 1).map_err(errno_name), Err("ENOSPC"));
    assert!(!client.tokens("raw").1.is_empty(), "another user has a limit of its own");
    drop(others);
    let freed = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        late.grant(first, 1).is_ok()
    });
    assert!(freed);
}
