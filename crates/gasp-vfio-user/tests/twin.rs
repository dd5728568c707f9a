//! The server's commands over a twin socket.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::time::{Duration, Instant};

use gasp_vdev::dma::{self, DmaEngine};
use gasp_vfio_user::Options;
use rustix::io::Errno;
use support::client::*;
use support::{Served, alone, descriptors, serve, wait_for};

const TWIN: &str =
    r#"{"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":true,"fd_index":9}}}"#;
const SOON: Duration = Duration::from_millis(50);

/// A server of a DMA engine; a client with two sockets, one for its own commands and one
/// for the server's, and two pages at 0x1000 that are reached by messages.
fn scene(options: Options) -> (Served, Client, Client) {
    let served = serve(DmaEngine::new(), options);
    let mut client = Client::connect(&served.path);
    let mut reply = client.hello_with(TWIN).unwrap();
    assert_eq!(reply.fds.len(), 1);
    let text = String::from_utf8_lossy(&reply.payload[4..]).into_owned();
    assert!(text.contains(r#""twin_socket":{"fd_index":0,"supported":true}"#), "{text}");
    let twin = Client::over(reply.fds.pop().unwrap());
    client.make_master();
    client.call(DMA_MAP, &map_bytes(3, 0, 0x1000, 0x1000), &[]).unwrap();
    client.call(DMA_MAP, &map_bytes(3, 0, 0x2000, 0x1000), &[]).unwrap();
    (served, client, twin)
}

/// Starts a copy of 64 bytes from 0x1000 to 0x2000.
fn start(client: &mut Client) {
    for (register, value) in [(0x08, 0x1000_u64), (0x10, 0x2000), (0x18, 64)] {
        client.write(0, register, &value.to_ne_bytes()).unwrap();
    }
    client.write(0, 0x20, &dma::START.to_ne_bytes()).unwrap();
}

fn end(client: &mut Client) -> (u32, u32) {
    wait_for("the engine", || client.read32(0, 0x24) != dma::BUSY);
    (client.read32(0, 0x24), client.read32(0, 0x28))
}

/// Answers a read with sevens.
fn answer_read(twin: &Client, read: &Message) {
    assert_eq!((read.command, read.u64(0), read.u64(8)), (DMA_READ, 0x1000, 64));
    twin.answer(read, 0, 0, &bytes().u64(0x1000).u64(64).bytes(&[7; 64]).0);
}

fn answer_write(twin: &Client, write: &Message) {
    assert_eq!(
        (write.command, write.u64(0), &write.payload[16..]),
        (DMA_WRITE, 0x2000, &[7; 64][..])
    );
    twin.answer(write, 0, 0, &bytes().u64(0x2000).u32(64).0);
}

#[test]
fn commands_go_over_it_and_the_connection_goes_on_meanwhile() {
    let _alone = alone();
    let before = descriptors();
    let (served, mut client, twin) = scene(Options::default());
    start(&mut client);
    let read = twin.receive().unwrap();
    // The client's own commands are answered by the next message on their socket.
    for _ in 0..10 {
        assert_eq!(client.read32(0, 0x24), dma::BUSY);
    }
    answer_read(&twin, &read);
    answer_write(&twin, &twin.receive().unwrap());
    assert_eq!(end(&mut client), (dma::DONE, 0));
    assert!(!client.has_message(SOON) && !twin.has_message(SOON));
    drop(client);
    served.wait_detached();
    assert!(twin.receive().is_none(), "it ends with the connection");
    drop((served, twin));
    assert_eq!(descriptors(), before);
}

#[test]
fn it_is_there_only_for_a_client_that_takes_one() {
    let _alone = alone();
    let served = serve(DmaEngine::new(), Options::default());
    for capabilities in [
        r#"{}"#,
        r#"{"twin_socket":{}}"#,
        r#"{"twin_socket":{"supported":false}}"#,
        r#"{"twin_socket":{"supported":true},"max_msg_fds":0}"#,
    ] {
        let mut client = Client::connect(&served.path);
        let json = format!(r#"{{"capabilities":{capabilities}}}"#);
        let reply = client.hello_with(&json).unwrap();
        assert!(reply.fds.is_empty(), "{capabilities}");
        assert!(!String::from_utf8_lossy(&reply.payload[4..]).contains("twin"), "{capabilities}");
        drop(client);
        served.wait_detached();
    }
    for wrong in ["true", r#"{"supported":"yes"}"#] {
        let mut client = Client::connect(&served.path);
        let json = format!(r#"{{"capabilities":{{"twin_socket":{wrong}}}}}"#);
        assert_eq!(client.hello_with(&json).unwrap_err(), Errno::INVAL);
    }
}

/// There is no order between two sockets: the client may read the reply to the unmap before
/// the write that was sent earlier. So that reply waits for the reply to the write.
#[test]
fn an_unmap_waits_for_what_the_client_may_still_carry_out() {
    let _alone = alone();
    let (served, mut client, twin) = scene(Options::default());
    start(&mut client);
    answer_read(&twin, &twin.receive().unwrap());
    let write = twin.receive().unwrap();
    let unmap = client.send(DMA_UNMAP, 0, &unmap_bytes(0, 0x2000, 0x1000), &[]);
    assert!(!client.has_message(SOON), "answered too soon");
    assert_eq!(served.status().draining, 1);
    // Another window is not affected.
    client.unmap(0x1000, 0x1000).unwrap();
    answer_write(&twin, &write);
    assert_eq!(client.receive().unwrap().id, unmap);
    assert_eq!(end(&mut client), (dma::DONE, 0));
    // A request that begins later is not sent.
    start(&mut client);
    assert_eq!(end(&mut client), (dma::FAILED, Errno::FAULT.raw_os_error() as u32));
    assert!(!twin.has_message(SOON));
}

#[test]
fn a_reset_waits_for_it_too() {
    let _alone = alone();
    let (_served, mut client, twin) = scene(Options::default());
    start(&mut client);
    answer_read(&twin, &twin.receive().unwrap());
    let write = twin.receive().unwrap();
    let reset = client.send(RESET, 0, &[], &[]);
    assert!(!client.has_message(SOON), "answered too soon");
    answer_write(&twin, &write);
    let reply = client.receive().unwrap();
    assert_eq!((reply.id, reply.error), (reset, 0));
    assert!(!twin.has_message(SOON));
}

#[test]
fn a_stop_waits_for_no_reply_on_it() {
    let _alone = alone();
    let patience = Duration::from_secs(30);
    for (half, reset) in [(false, false), (true, false), (false, true)] {
        let options = Options { patience, reply_deadline: patience, ..Options::default() };
        let (served, mut client, twin) = scene(options);
        start(&mut client);
        let read = twin.receive().unwrap();
        if half {
            twin.send_raw(&Client::header(read.id, DMA_READ, 96, 1), &[]);
        }
        if reset {
            client.send(RESET, 0, &[], &[]);
        }
        std::thread::sleep(SOON);
        let since = Instant::now();
        drop(served);
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }
}

#[test]
fn a_client_that_goes_is_not_waited_for_though_it_keeps_the_twin() {
    let _alone = alone();
    let options = Options { reply_deadline: Duration::from_secs(30), ..Options::default() };
    let (served, mut client, twin) = scene(options);
    start(&mut client);
    twin.receive().unwrap();
    let since = Instant::now();
    drop(client);
    served.wait_detached();
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    assert!(twin.receive().is_none());
}

#[test]
fn a_client_that_misuses_it_harms_its_own_transfers_alone() {
    let _alone = alone();
    let broken = Errno::NOTCONN.raw_os_error() as u32;
    // The client closes the twin socket, and it sends a command of its own over it.
    for closes in [true, false] {
        let (_served, mut client, mut twin) = scene(Options::default());
        start(&mut client);
        twin.receive().unwrap();
        if closes {
            drop(twin);
        } else {
            twin.send(GET_INFO, 0, &bytes().u32(16).u32(0).u64(0).0, &[]);
        }
        assert_eq!(end(&mut client), (dma::FAILED, broken));
        start(&mut client);
        assert_eq!(end(&mut client), (dma::FAILED, broken));
    }
}
