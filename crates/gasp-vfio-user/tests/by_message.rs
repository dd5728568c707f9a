//! Memory without a descriptor: the device's copies are commands to the client.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use gasp_vdev::dma::{self, DmaEngine};
use gasp_vfio_user::Options;
use rustix::io::Errno;
use support::client::*;
use support::{Served, serve, wait_for};

/// Starts a copy without waiting for it.
fn start(client: &mut Client, from: u64, to: u64, len: u64) {
    client.write(0, 0x08, &from.to_ne_bytes()).unwrap();
    client.write(0, 0x10, &to.to_ne_bytes()).unwrap();
    client.write(0, 0x18, &len.to_ne_bytes()).unwrap();
    // The server's command may arrive before the reply to this one.
    let write = bytes().u64(0x20).u32(0).u32(4).u32(dma::START).0;
    client.send(REGION_WRITE, 0x10, &write, &[]);
}

fn end(client: &mut Client) -> (u32, u32) {
    wait_for("the engine", || client.read32(0, 0x24) != dma::BUSY);
    (client.read32(0, 0x24), client.read32(0, 0x28))
}

fn served(json: &str, options: Options) -> (Served, Client) {
    let served = serve(DmaEngine::new(), options);
    let mut client = Client::connect(&served.path);
    client.hello_with(json).unwrap();
    client.make_master();
    (served, client)
}

/// Answers `count` commands of the server from and into `memory`, which begins at `base`.
fn act(client: &Client, memory: &mut [u8], base: u64, count: usize) -> Vec<(u16, u64)> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let message = client.receive().unwrap();
        let (addr, len) = (message.u64(0), message.u64(8));
        let at = (addr - base) as usize;
        seen.push((message.command, len));
        match message.command {
            DMA_READ => {
                let data = &memory[at..at + len as usize];
                client.answer(&message, 0, 0, &bytes().u64(addr).u64(len).bytes(data).0);
            }
            DMA_WRITE => {
                memory[at..at + len as usize].copy_from_slice(&message.payload[16..]);
                client.answer(&message, 0, 0, &bytes().u64(addr).u32(len as u32).0);
            }
            command => panic!("command {command}"),
        }
    }
    seen
}

#[test]
fn copies_go_by_message_within_the_clients_limit() {
    let json = r#"{"capabilities":{"max_data_xfer_size":4096}}"#;
    let (served, mut client) = served(json, Options::default());
    let ram = memfd(1 << 20);
    client.map(3, 0, 0x10_0000, 0x10_0000, &ram).unwrap();
    client.call(DMA_MAP, &map_bytes(1, 0, 0x1000, 0x2000), &[]).unwrap();
    client.call(DMA_MAP, &map_bytes(3, 0, 0x3000, 0x1000), &[]).unwrap();
    let mut memory: Vec<u8> = (0..0x3000).map(|n| (n / 3) as u8).collect();
    start(&mut client, 0x1000, 0x10_0000, 0x3000);
    let seen = act(&client, &mut memory, 0x1000, 3);
    assert_eq!(seen, [(DMA_READ, 0x1000); 3]);
    assert_eq!(end(&mut client), (dma::DONE, 0));
    assert_eq!(contents(&ram, 0, 0x3000), memory);
    fill(&ram, 0x5000, b"into it");
    start(&mut client, 0x10_5000, 0x3000, 7);
    assert_eq!(act(&client, &mut memory, 0x1000, 1), [(DMA_WRITE, 7)]);
    assert_eq!(end(&mut client), (dma::DONE, 0));
    assert_eq!(&memory[0x2000..0x2007], b"into it");
    assert_eq!(served.status().message_bytes, 0x3007);
    // From one window to another, across a window in a file: each byte by its own way.
    client.unmap(0x10_0000, 0x10_0000).unwrap();
    client.map(3, 0x7000, 0x4000, 0x1000, &ram).unwrap();
    fill(&ram, 0x7000, b"tail");
    start(&mut client, 0x3ffc, 0x4100, 8);
    act(&client, &mut memory, 0x1000, 1);
    assert_eq!(end(&mut client), (dma::DONE, 0));
    assert_eq!(contents(&ram, 0x7104, 4), b"tail");
}

#[test]
fn permissions_hold_for_messages_as_for_maps() {
    let (_served, mut client) = served(HELLO, Options::default());
    client.call(DMA_MAP, &map_bytes(1, 0, 0x1000, 0x1000), &[]).unwrap();
    let fault = Errno::FAULT.raw_os_error() as u32;
    // A write to a read-only window, and a read past the end of the window: both are
    // refused before the client is asked for anything.
    start(&mut client, 0x1000, 0x1800, 16);
    assert_eq!(end(&mut client), (dma::FAILED, fault));
    start(&mut client, 0x1ff8, 0x1000, 16);
    assert_eq!(end(&mut client), (dma::FAILED, fault));
}

#[test]
fn memory_that_can_be_cut_off_goes_by_message_unless_it_is_trusted() {
    let (served, mut client) = served(HELLO, Options::default());
    let (cut, ram) = (unsealable(0x1000), memfd(0x1000));
    client.call(DMA_MAP, &map_bytes(3, 0, 0x1000, 0x1000), &[cut.as_fd()]).unwrap();
    client.map(3, 0, 0x2000, 0x1000, &ram).unwrap();
    assert_eq!(served.status().files, 1);
    let mut memory = vec![7; 0x1000];
    start(&mut client, 0x1000, 0x2000, 16);
    act(&client, &mut memory, 0x1000, 1);
    assert_eq!(end(&mut client), (dma::DONE, 0));
    assert_eq!(contents(&ram, 0, 16), [7; 16]);
}

#[test]
fn a_client_that_answers_wrongly_or_not_at_all_is_an_error_of_the_transfer() {
    let options = Options { reply_deadline: Duration::from_millis(200), ..Options::default() };
    let (_served, mut client) = served(HELLO, options);
    let ram = memfd(0x1000);
    client.map(3, 0, 0x2000, 0x1000, &ram).unwrap();
    client.call(DMA_MAP, &map_bytes(1, 0, 0x1000, 0x1000), &[]).unwrap();
    let errno = |errno: Errno| (dma::FAILED, errno.raw_os_error() as u32);
    let good = bytes().u64(0x1000).u64(16).bytes(&[1; 16]);
    let bad = Errno::BADMSG;
    for (what, flags, error, payload, expect) in [
        ("no payload", 0, 0, bytes(), bad),
        ("half of it", 0, 0, bytes().u64(0x1000).u64(16).bytes(&[1; 8]), bad),
        ("too much", 0, 0, good.clone().u32(0), bad),
        ("another address", 0, 0, bytes().u64(0x1010).u64(16).bytes(&[1; 16]), bad),
        ("another count", 0, 0, bytes().u64(0x1000).u64(u64::MAX).bytes(&[1; 16]), bad),
        ("an error", 0x20, 13, bytes(), Errno::ACCESS),
        ("an error without a number", 0x20, 0, bytes(), Errno::IO),
        ("an error that is none", 0x20, u32::MAX, bytes(), Errno::IO),
    ] {
        start(&mut client, 0x1000, 0x2000, 16);
        let message = client.receive().unwrap();
        client.answer(&message, flags, error, &payload.0);
        assert_eq!(end(&mut client), errno(expect), "{what}");
    }
    start(&mut client, 0x1000, 0x2000, 16);
    let unanswered = client.receive().unwrap();
    // Other commands are executed meanwhile; then the deadline passes.
    assert_eq!(client.read32(0, 0), dma::MAGIC);
    assert_eq!(end(&mut client), errno(Errno::TIMEDOUT));
    // This reply is too late, and dropped.
    client.answer(&unanswered, 0, 0, &good.0);
    start(&mut client, 0x1000, 0x2000, 16);
    let mut message = client.receive().unwrap();
    message.id = message.id.wrapping_add(1);
    client.answer(&message, 0, 0, &good.0);
    message.id = message.id.wrapping_sub(1);
    client.answer(&message, 0, 0, &good.0);
    assert_eq!(end(&mut client), (dma::DONE, 0));
}

#[test]
fn an_unmap_gives_up_copies_that_wait_for_the_client() {
    let (_served, mut client) = served(HELLO, Options::default());
    let ram = memfd(0x1000);
    client.map(3, 0, 0x2000, 0x1000, &ram).unwrap();
    client.call(DMA_MAP, &map_bytes(1, 0, 0x1000, 0x1000), &[]).unwrap();
    start(&mut client, 0x1000, 0x2000, 16);
    let _unanswered = client.receive().unwrap();
    let since = Instant::now();
    client.unmap(0x1000, 0x1000).unwrap();
    let cancelled = Errno::CANCELED.raw_os_error() as u32;
    assert_eq!(end(&mut client), (dma::FAILED, cancelled));
    assert!(since.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_reset_and_an_end_do_not_wait_for_a_client_that_does_not_answer() {
    let options = Options { reply_deadline: Duration::from_secs(60), ..Options::default() };
    let (served, mut client) = served(HELLO, options);
    let since = Instant::now();
    client.call(DMA_MAP, &map_bytes(3, 0, 0x1000, 0x1000), &[]).unwrap();
    start(&mut client, 0x1000, 0x1800, 16);
    let _unanswered = client.receive().unwrap();
    client.call(RESET, &[], &[]).unwrap();
    assert_eq!(client.read32(0, 0x24), dma::IDLE);
    // A reply that crosses the reset is dropped.
    client.make_master();
    start(&mut client, 0x1000, 0x1800, 16);
    let message = client.receive().unwrap();
    let reset = client.send(RESET, 0, &[], &[]);
    client.answer(&message, 0, 0, &bytes().u64(0x1000).u64(16).bytes(&[0; 16]).0);
    // The device may receive the reply before the stop request, and send another request.
    let answer = loop {
        let message = client.receive().unwrap();
        if message.flags & 0xf == 1 {
            break message;
        }
    };
    assert_eq!((answer.id, answer.error), (reset, 0));
    client.make_master();
    start(&mut client, 0x1000, 0x1800, 16);
    let _unanswered = client.receive().unwrap();
    // Copies work again, and the server stops although the client stays.
    served.server.stopper().stop();
    served.wait_detached();
    assert!(since.elapsed() < Duration::from_secs(10));
    drop(client);
}

/// Huge pages can be removed, whatever the seals of the file: see `Unsealed`.
#[test]
fn a_hole_in_huge_pages_is_an_error_of_the_transfer() {
    use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, memfd_create};
    const HUGE: u64 = 2 << 20;
    let make = |len| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
        let fd = memfd_create("guest", flags | MemfdFlags::HUGE_2MB)?;
        rustix::fs::ftruncate(&fd, len)?;
        Ok::<_, Errno>(fd)
    };
    let pages = make(HUGE).and_then(|fd| {
        fallocate(&fd, FallocateFlags::empty(), 0, HUGE)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK)?;
        Ok(fd)
    });
    let pages = match pages {
        Ok(pages) => pages,
        Err(errno) => return eprintln!("SKIPPED: no page of 2 MiB is free: {errno}"),
    };
    let (_served, mut client) = served(HELLO, Options::default());
    let ram = memfd(0x1000);
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    client.map(3, 0, HUGE, HUGE, &pages).unwrap();
    start(&mut client, HUGE, 0x1000, 16);
    assert_eq!(end(&mut client), (dma::DONE, 0));
    // Removes the page from the file; nothing is left in the pool to replace it.
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&pages, punch, 0, HUGE).unwrap();
    let rest = make(HUGE << 16).unwrap();
    let taken = (0..1 << 16)
        .take_while(|n| fallocate(&rest, FallocateFlags::empty(), n * HUGE, HUGE).is_ok());
    assert!(taken.count() > 0);
    start(&mut client, HUGE, 0x1000, 16);
    assert_eq!(end(&mut client).0, dma::FAILED);
    start(&mut client, 0x1000, HUGE, 16);
    assert_eq!(end(&mut client).0, dma::FAILED);
}
