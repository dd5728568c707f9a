//! Each resource that a client can occupy has a limit; past it, other clients are served as
//! before. The limits on connections are tested in `connecting.rs`, those on sizes of messages in
//! `malformed.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use gasp_vfio_user::Options;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use support::client::*;
use support::device::Holder;
use support::{Served, alone, serve, wait_for};

/// A client of a server with these options, and another server of the same process.
fn two(options: Options) -> (Served, Client, Served) {
    let (served, other) =
        (serve(Holder::default(), options.clone()), serve(Holder::default(), options));
    let mut client = served.client();
    client.make_master();
    // Both servers have opened by then what they open once.
    is_served(&other);
    (served, client, other)
}

/// The other server's client is served completely, and soon.
fn is_served(other: &Served) {
    let since = Instant::now();
    let mut client = other.client();
    client.make_master();
    client.map(3, 0, 0x1000, 0x1000, &memfd(0x2000)).unwrap();
    client.call(SET_IRQS, &irq_bytes(0x24, 2, 0, 1).0, &[event().as_fd()]).unwrap();
    client.write(0, 0, &0x1000_u64.to_ne_bytes()).unwrap();
    assert_eq!(client.read64(0, 16), 1, "the device maps");
    client.write(0, 0, &[0; 8]).unwrap();
    client.unmap(0x1000, 0x1000).unwrap();
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    drop(client);
    other.wait_detached();
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

#[test]
fn held_descriptors() {
    let _alone = alone();
    let (_served, mut client, other) = two(Options { max_descriptors: 5, ..Options::default() });
    let before = support::descriptors();
    let assign = |client: &mut Client, index, start, count: u32| {
        let events: Vec<_> = (0..count).map(|_| event()).collect();
        let events: Vec<_> = events.iter().map(AsFd::as_fd).collect();
        client.call(SET_IRQS, &irq_bytes(0x24, index, start, count).0, &events).map(drop)
    };
    let map = |client: &mut Client, at: u64| client.map(3, 0, at << 12, 0x1000, &memfd(0x1000));
    map(&mut client, 1).unwrap();
    map(&mut client, 2).unwrap();
    assert_eq!(assign(&mut client, 2, 0, 4), Err(Errno::MFILE), "all or none");
    assign(&mut client, 2, 0, 2).unwrap();
    client.call(SET_IRQS, &irq_bytes(0x14, 0, 0, 1).0, &[event().as_fd()]).unwrap();
    support::settles(support::descriptors, before + 5);
    assert_eq!(map(&mut client, 3), Err(Errno::MFILE));
    assert_eq!(assign(&mut client, 2, 2, 1), Err(Errno::MFILE));
    assert_eq!(assign(&mut client, 3, 0, 1), Err(Errno::MFILE));
    is_served(&other);
    // A replacement needs no room, and a released one makes room.
    assign(&mut client, 2, 0, 2).unwrap();
    client.call(SET_IRQS, &irq_bytes(0x14, 0, 0, 1).0, &[event().as_fd()]).unwrap();
    client.call(SET_IRQS, &irq_bytes(0x21, 0, 0, 0).0, &[]).unwrap();
    map(&mut client, 3).unwrap();
    client.unmap(0x1000, 0x1000).unwrap();
    assign(&mut client, 2, 1, 2).unwrap();
    assert_eq!(support::descriptors(), before + 5);
}

#[test]
fn bytes_of_memory_files() {
    let _alone = alone();
    let (_served, mut client, other) = two(Options { max_memory: 1 << 20, ..Options::default() });
    client.map(3, 0, 0x1000, 0x1000, &memfd(0xff000)).unwrap();
    assert_eq!(client.map(3, 0, 0x2000, 0x1000, &memfd(0x2000)), Err(Errno::NOSPC));
    is_served(&other);
    client.map(3, 0, 0x2000, 0x1000, &memfd(0x1000)).unwrap();
    client.unmap(0x1000, 0x1000).unwrap();
    client.map(3, 0, 0x3000, 0x1000, &memfd(0x2000)).unwrap();
}

#[test]
fn windows() {
    let _alone = alone();
    let (_served, mut client, other) = two(Options { max_dma_maps: 3, ..Options::default() });
    let ram = memfd(1 << 20);
    for page in 0..3 {
        client.map(3, 0, page << 12, 0x1000, &ram).unwrap();
    }
    assert_eq!(client.map(3, 0, 0x8000, 0x1000, &ram), Err(Errno::NOSPC));
    let by_message = map_bytes(3, 0, 0x8000, 0x1000);
    assert_eq!(client.call(DMA_MAP, &by_message, &[]).unwrap_err(), Errno::NOSPC);
    is_served(&other);
    client.unmap(0, 0x1000).unwrap();
    client.call(DMA_MAP, &by_message, &[]).unwrap();
}

#[test]
fn unmaps_that_wait() {
    let _alone = alone();
    // Limited by their number, and by the number of their windows.
    for (max_drains, max_dma_maps) in [(1, 100), (100, 4)] {
        let options = Options { max_drains, max_dma_maps, ..Options::default() };
        let (served, mut client, other) = two(options);
        let ram = memfd(1 << 20);
        let fill = |client: &mut Client| {
            for page in [1, 3, 5, 7] {
                client.map(3, 0, page << 12, 0x1000, &ram).unwrap();
            }
        };
        fill(&mut client);
        client.write(0, 0, &0x1000_u64.to_ne_bytes()).unwrap();
        let first = client.send(DMA_UNMAP, 0, &unmap_bytes(2, 0, 0), &[]);
        wait_for("the drain", || served.status().draining == 1);
        fill(&mut client);
        assert_eq!(client.unmap(0x3000, 0x1000).unwrap_err(), Errno::BUSY);
        assert_eq!((served.status().windows, served.status().draining), (4, 1));
        is_served(&other);
        client.write(0, 0, &[0; 8]).unwrap();
        assert_eq!(client.receive().unwrap().id, first);
        client.unmap(0x3000, 0x1000).unwrap();
    }
}

#[test]
fn table_entries() {
    let _alone = alone();
    let (_served, mut client, other) = two(Options::default());
    // A window that is a page short of 2 MiB takes an entry for each page.
    const SHORT: u64 = (2 << 20) - 0x1000;
    let mut map =
        |number: u64| client.call(DMA_MAP, &map_bytes(3, 0, number << 21, SHORT), &[]).map(drop);
    let most = (1 << 20) / 511;
    for number in 0..most {
        map(number).unwrap();
    }
    assert_eq!(map(most), Err(Errno::NOSPC));
    is_served(&other);
    client.call(DMA_UNMAP, &unmap_bytes(2, 0, 0), &[]).unwrap();
    client.call(DMA_MAP, &map_bytes(3, 0, 0, SHORT), &[]).unwrap();
}
