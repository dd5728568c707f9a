//! A stop is prompt whatever the peer does, and leaves no socket file.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gasp_vdev::Shell;
use gasp_vdev::dma::{self, DmaEngine};
use gasp_vfio_user::{Options, Server, ServerEvent};
use support::client::*;
use support::device::{Holder, Stubborn};
use support::{Served, serve, wait_for};

/// Longer than a test may take, so that a wait for the peer fails the test.
const PATIENCE: Duration = Duration::from_secs(30);

fn patient() -> Options {
    Options { patience: PATIENCE, reply_deadline: PATIENCE, ..Options::default() }
}

/// Stops the server, and checks that it ends soon, reports why, and leaves no file.
fn stops_soon(served: Served) {
    let path = served.path.clone();
    let since = Instant::now();
    drop(served);
    assert!(since.elapsed() < Duration::from_secs(1), "it took {:?}", since.elapsed());
    assert!(!path.exists());
}

#[test]
fn in_the_middle_of_a_message() {
    for part in [1, 16, 20] {
        let served = serve(Holder::default(), patient());
        let client = served.client();
        let mut message = Client::header(1, GET_INFO, 32, 0);
        message.extend([0; 4]);
        client.send_raw(&message[..part], &[]);
        std::thread::sleep(Duration::from_millis(50));
        stops_soon(served);
        assert!(client.receive().is_none());
    }
}

#[test]
fn before_and_in_the_middle_of_the_first_message() {
    for part in [0, 7, 18] {
        let served = serve(Holder::default(), patient());
        let client = Client::connect(&served.path);
        let mut message = Client::header(1, VERSION, 40, 0);
        message.extend([0; 4]);
        if part > 0 {
            client.send_raw(&message[..part], &[]);
        }
        std::thread::sleep(Duration::from_millis(50));
        stops_soon(served);
    }
}

#[test]
fn while_the_peer_takes_no_replies() {
    let served = serve(Holder::default(), patient());
    let events: &'static Mutex<Vec<ServerEvent>> = Box::leak(Box::default());
    served.server.observe(|event| events.lock().unwrap().push(event.clone()));
    let mut client = served.client();
    let read = bytes().u64(0).u32(0).u32(0x4000).0;
    for _ in 0..64 {
        client.send(REGION_READ, 0, &read, &[]);
    }
    let mut before = 0;
    wait_for("the server to wait for its peer", || {
        std::thread::sleep(Duration::from_millis(50));
        let now = served.status().commands;
        core::mem::replace(&mut before, now) == now && now > 1
    });
    stops_soon(served);
    let last = events.lock().unwrap().last().cloned();
    assert_eq!(last, Some(ServerEvent::Detached { why: "the server stops" }));
}

#[test]
fn while_the_device_waits_for_the_peers_memory() {
    let served = serve(DmaEngine::new(), patient());
    let mut client = served.client();
    client.make_master();
    client.call(DMA_MAP, &map_bytes(3, 0, 0x1000, 0x2000), &[]).unwrap();
    for (register, value) in [(0x08, 0x1000_u64), (0x10, 0x2000), (0x18, 64)] {
        client.write(0, register, &value.to_ne_bytes()).unwrap();
    }
    let start = bytes().u64(0x20).u32(0).u32(4).u32(dma::START).0;
    client.send(REGION_WRITE, 0x10, &start, &[]);
    assert_eq!(client.receive().unwrap().command, DMA_READ);
    // Half of the reply, so that the device's thread is in the middle of it.
    client.send_raw(&Client::header(0, DMA_READ, 96, 1), &[]);
    std::thread::sleep(Duration::from_millis(50));
    stops_soon(served);
}

#[test]
fn while_an_unmap_waits_for_the_device() {
    let served = serve(Holder::default(), patient());
    let mut client = served.client();
    client.make_master();
    let ram = memfd(1 << 20);
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    client.write(0, 0, &0x1000_u64.to_ne_bytes()).unwrap();
    assert_eq!(client.read64(0, 16), 1);
    client.send(DMA_UNMAP, 0, &unmap_bytes(0, 0x1000, 0x1000), &[]);
    wait_for("the drain", || served.status().draining == 1);
    stops_soon(served);
}

#[test]
fn the_file_goes_though_the_device_does_not_end() {
    let device = Stubborn::default();
    let may_end = Arc::clone(&device.may_end);
    let served = serve(device, patient());
    let mut client = served.client();
    client.write(0, 0, &[1]).unwrap();
    wait_for("its work", || client.read64(0, 0) == 1);
    served.server.stopper().stop();
    let there = served.path.exists();
    may_end.store(true, Ordering::Relaxed);
    assert!(!there, "a process that exits now leaves a file");
    // Another server may listen on this path by now, and keeps its file.
    let other = std::os::unix::net::UnixListener::bind(&served.path).unwrap();
    served.server.stopper().stop();
    assert!(served.path.exists());
    drop(other);
}

#[test]
fn a_panic_of_what_it_calls_ends_the_server_and_does_not_hang_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.sock");
    let shell = Shell::new("device", Holder::default()).unwrap();
    let server = Server::bind(&path, shell, patient()).unwrap();
    server.observe(|_| panic!("an observer panics: this is a test"));
    let running = std::thread::spawn(move || server.run());
    let mut client = Client::connect(&path);
    client.send(VERSION, 0, &[0; 4], &[]);
    let since = Instant::now();
    wait_for("the server's end", || running.is_finished());
    assert!(since.elapsed() < Duration::from_secs(1));
    assert!(running.join().is_err());
    assert!(!path.exists());
}
