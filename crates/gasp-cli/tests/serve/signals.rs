//! Signals end the server at once and leave no socket, whatever its clients do.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::serving::{Folder, Serving, attach, exchange, request};

/// Sends requests without reading replies, until no more can be sent.
fn stall(client: &mut UnixStream) {
    client.set_nonblocking(true).unwrap();
    loop {
        match client.write(&request()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_stop_waits_for_no_client_and_removes_every_socket() {
    for round in 0..10 {
        let folder = Folder::new();
        let mut config = String::new();
        for name in ["half", "deaf", "idle"] {
            config += &format!("[[device]]\nkind = \"dma\"\nsocket = \"{name}.sock\"\n");
        }
        std::fs::write(folder.path("a.toml"), config).unwrap();
        let mut serving = Serving::start(&["--json", "--config", &folder.text("a.toml")]);
        for _ in 0..3 {
            serving.event("listening");
        }
        let [mut half, mut deaf] =
            ["half.sock", "deaf.sock"].map(|name| attach(&folder.path(name)));
        // The first half of a message.
        half.write_all(&request()[..20]).unwrap();
        if round % 2 == 0 {
            stall(&mut deaf);
        }
        std::thread::sleep(Duration::from_millis(10));
        let since = Instant::now();
        serving.signal(if round % 3 == 0 { Signal::INT } else { Signal::TERM });
        assert_eq!(serving.wait(), Some(0));
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        for name in ["half", "deaf", "idle"] {
            let name = format!("{name}.sock");
            assert!(!folder.path(&name).exists(), "{name} is left");
            assert!(!folder.path(&format!("{name}.lock")).exists());
        }
    }
}

#[test]
fn a_second_signal_ends_a_server_that_is_stuck_and_no_socket_is_left() {
    let folder = Folder::new();
    let config = "[[device]]\nkind = \"dma\"\nsocket = \"a.sock\"\n\
                  [[device]]\nkind = \"dma\"\nsocket = \"b.sock\"\n";
    std::fs::write(folder.path("a.toml"), config).unwrap();
    // The server waits for this lock for two seconds, and handles no order meanwhile.
    let lock = std::fs::File::create(folder.path("b.sock.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut serving = Serving::start(&["--json", "--config", &folder.text("a.toml")]);
    folder.wait_for("a.sock");
    serving.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    assert!(folder.path("a.sock").exists(), "it is stuck");
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait(), Some(130));
    assert!(!folder.path("a.sock").exists());
}

#[test]
fn a_hang_up_does_not_end_the_process() {
    let folder = Folder::new();
    let mut serving = folder.dma("a.sock");
    serving.event("listening");
    let mut client = attach(&folder.path("a.sock"));
    for _ in 0..3 {
        serving.signal(Signal::HUP);
        let reported = serving.event("reload-failed");
        assert!(reported["device"].is_null());
        assert_eq!(
            reported["why"],
            "the device was given by --device: there is no file to read again"
        );
        exchange(&mut client);
    }
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait(), Some(0));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}
