//! A broker of tokens that does not read, or does not answer: no drop waits for it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gasp::broker::use_broker;
use gasp::{Errno, MemoryObject};
use parking_lot::Mutex;
use support::*;

/// Far less than the timeout for a broker, and far more than a drop that does not wait takes.
const SOON: Duration = Duration::from_secs(2);

/// A socket whose file is removed at the end of the test.
struct Listening(PathBuf, UnixListener);

impl Listening {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gasp-{name}-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        Self(path, listener)
    }

    /// Accepts and greets the next client.
    fn accept(&self) -> UnixStream {
        let (mut client, _) = self.1.accept().unwrap();
        client.write_all(b"t").unwrap();
        client
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A request of the library's client, decoded here and not by the library.
#[derive(PartialEq, Debug)]
enum Request {
    Grant { addr: u64, len: u64 },
    Release { addr: u64, len: u64 },
}

fn receive(client: &mut UnixStream) -> Request {
    let mut bytes = [0; 17];
    client.read_exact(&mut bytes).unwrap();
    let number = |offset| u64::from_le_bytes(*bytes[offset..].first_chunk().unwrap());
    let (addr, len) = (number(1), number(9));
    match bytes[0] {
        1 => Request::Grant { addr, len },
        3 => Request::Release { addr, len },
        other => panic!("a request of kind {other}"),
    }
}

/// Answers one request for tokens with a single token. Returns the requests before it.
fn serve(client: &mut UnixStream) -> Vec<Request> {
    let mut before = Vec::new();
    loop {
        match receive(client) {
            Request::Grant { len, .. } => {
                // Status 0, the length of the body; the token, the length of its run.
                let answer = [&[0; 4][..], &24_u32.to_le_bytes(), &[1; 16], &len.to_le_bytes()];
                client.write_all(&answer.concat()).unwrap();
                return before;
            }
            other => before.push(other),
        }
    }
}

/// Serialises the tests: a process has one broker.
fn alone<T>(body: impl FnOnce() -> T) -> T {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    body()
}

fn connected(listening: &Listening) -> UnixStream {
    std::thread::scope(|scope| {
        let broker = scope.spawn(|| listening.accept());
        use_broker(&listening.0).unwrap();
        broker.join().unwrap()
    })
}

/// Objects with a token each.
fn with_tokens(count: usize, client: &mut UnixStream) -> Vec<MemoryObject> {
    let objects: Vec<_> = (0..count).map(|_| ram(PAGE)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..count).for_each(|_| assert_eq!(serve(client), [])));
        for object in &objects {
            assert_eq!(object.host_tokens(0, PAGE).unwrap().len(), 1);
        }
    });
    objects
}

fn does_not_wait(what: impl FnOnce()) {
    let since = Instant::now();
    what();
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

#[test]
fn objects_end_at_once_though_the_broker_does_not_read_and_it_learns_of_each() {
    alone(|| {
        let listening = Listening::new("no-reader");
        let mut client = connected(&listening);
        // Many more than the messages that fit in the socket.
        let objects = with_tokens(1500, &mut client);
        let mut objects = objects.into_iter();
        while let Some(object) = objects.next() {
            let since = Instant::now();
            drop(object);
            if since.elapsed() >= SOON {
                // Not the same wait for each of the others.
                std::mem::forget(objects);
                panic!("the drop of an object waited for the broker");
            }
        }
        let last = ram(PAGE);
        std::thread::scope(|scope| {
            let broker = scope.spawn(|| serve(&mut client));
            last.host_tokens(0, PAGE).unwrap();
            let received = broker.join().unwrap();
            let released: BTreeSet<_> = received
                .iter()
                .map(|request| match request {
                    Request::Release { addr, len } => (*addr, *len),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!((received.len(), released.len()), (1500, 1500), "each of them, once");
        });
        does_not_wait(|| drop(last));
        assert!(
            matches!(receive(&mut client), Request::Release { .. }),
            "at once, if the socket has room"
        );
    });
}

#[test]
fn an_object_ends_while_another_waits_for_an_answer() {
    alone(|| {
        let listening = Listening::new("no-answer");
        let mut client = connected(&listening);
        let ends = with_tokens(1, &mut client);
        let waits = ram(PAGE);
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| waits.host_tokens(0, PAGE).map_err(|error| error.errno()));
            let Request::Grant { .. } = receive(&mut client) else {
                panic!("no request for tokens")
            };
            does_not_wait(|| drop(ends));
            assert!(matches!(receive(&mut client), Request::Release { .. }), "meanwhile");
            drop(client);
            assert_eq!(asks.join().unwrap(), Err(Errno::PIPE));
        });
    });
}

#[test]
fn a_broker_that_is_gone_is_connected_to_again_and_sent_no_releases() {
    alone(|| {
        let listening = Listening::new("gone");
        let mut client = connected(&listening);
        let mut objects = with_tokens(2, &mut client);
        drop(client);
        does_not_wait(|| drop(objects.pop()));
        std::thread::scope(|scope| {
            let broker = scope.spawn(|| serve(&mut listening.accept()));
            objects[0].host_tokens(0, PAGE).unwrap();
            assert_eq!(broker.join().unwrap(), [], "its tokens ended with the connection");
        });
    });
}
