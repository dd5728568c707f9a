//! VMMs connect and disconnect, and unmap memory that is in use: nothing is left behind.
//!
//! These tests count the descriptors and mappings of the process, so they run one at a
//! time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gasp::{Deadline, DrainPolicy};
use gasp_vdev::dma::DmaEngine;
use gasp_vfio_user::{Options, ServerEvent};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use support::client::*;
use support::device::{Holder, Scribbler};
use support::{alone, descriptors, mappings, serve, wait_for};

/// Makes the device map the page at `addr`.
fn hold(client: &mut Client, addr: u64) {
    client.write(0, 0, &addr.to_ne_bytes()).unwrap();
    assert_eq!(client.read64(0, 16), 1, "the device holds a mapping");
}

#[test]
fn an_unmap_is_answered_when_the_device_has_let_go_and_others_are_answered_meanwhile() {
    let _alone = alone();
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    client.make_master();
    let ram = memfd(1 << 20);
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    client.map(3, 0x1000, 0x8000, 0x1000, &ram).unwrap();
    hold(&mut client, 0x1000);
    let unmap = client.send(DMA_UNMAP, 0, &unmap_bytes(0, 0x1000, 0x1000), &[]);
    assert!(!client.has_message(Duration::from_millis(100)), "answered too soon");
    // The device was notified, and the connection goes on.
    assert_eq!(client.read64(0, 8), 1);
    client.unmap(0x8000, 0x1000).unwrap();
    assert_eq!((served.status().drains, served.status().draining), (1, 1));
    // The window is already gone: it can be mapped anew, and the held mapping is not of the
    // new one.
    client.map(3, 0x2000, 0x1000, 0x1000, &ram).unwrap();
    client.write(0, 0, &[0; 8]).unwrap();
    let reply = client.receive().unwrap();
    assert_eq!((reply.id, reply.error, reply.u64(8)), (unmap, 0, 0x1000));
    wait_for("the drain", || served.status().draining == 0);
}

#[test]
fn a_device_that_lets_go_when_told_delays_nothing() {
    let _alone = alone();
    let served = serve(Holder { lets_go: true, ..Holder::default() }, Options::default());
    let mut client = served.client();
    client.make_master();
    let ram = memfd(1 << 20);
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    hold(&mut client, 0x1000);
    client.unmap(0x1000, 0x1000).unwrap();
    assert_eq!(client.read64(0, 16), 0);
}

#[test]
fn after_its_deadline_a_drain_detaches_where_the_policy_says_so() {
    let _alone = alone();
    let drain = DrainPolicy { deadline: Duration::from_millis(50), at_deadline: Deadline::Detach };
    let device = Holder::default();
    let held = device.held.clone();
    let served = serve(device, Options { drain, ..Options::default() });
    let mut client = served.client();
    client.make_master();
    let ram = memfd(1 << 20);
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    hold(&mut client, 0x1000);
    let since = Instant::now();
    client.unmap(0x1000, 0x1000).unwrap();
    assert!(since.elapsed() >= Duration::from_millis(50));
    assert!(held.lock().unwrap().as_ref().unwrap().is_revoked());
}

#[test]
fn once_an_unmap_is_answered_the_device_writes_no_more() {
    let _alone = alone();
    let served = serve(Scribbler::default(), Options::default());
    let mut client = served.client();
    client.make_master();
    let ram = memfd(1 << 20);
    client.write(0, 0, &0x1000_u64.to_ne_bytes()).unwrap();
    for round in 0..500_u64 {
        let page = round % 16 * 0x1000;
        let before = client.read64(0, 0);
        client.map(3, page, 0x1000, 0x1000, &ram).unwrap();
        wait_for("a write", || client.read64(0, 0) > before);
        client.unmap(0x1000, 0x1000).unwrap();
        let now = contents(&ram, page, 0x1000);
        fill(&ram, page, &[0x55; 0x1000]);
        std::thread::sleep(Duration::from_micros(100));
        assert_eq!(contents(&ram, page, 0x1000), [0x55; 0x1000], "round {round}");
        assert_ne!(now, [0x55; 0x1000]);
    }
    assert!(served.status().drains > 0, "no unmap came while the device wrote");
}

#[test]
fn a_client_that_dies_in_the_middle_leaves_nothing() {
    let _alone = alone();
    let served = serve(Holder::default(), Options::default());
    served.client();
    served.wait_detached();
    let (fds, maps) = (descriptors(), mappings());
    for how in 0..6 {
        let mut client = served.client();
        client.make_master();
        let ram = memfd(1 << 20);
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
        client.call(SET_IRQS, &irq_bytes(0x24, 2, 0, 1).0, &[event.as_fd()]).unwrap();
        hold(&mut client, 0x1000);
        match how {
            // It disconnects in a header, with a descriptor; in a payload; while an unmap
            // waits.
            0 => client.send_raw(&Client::header(1, DMA_MAP, 48, 0)[..5], &[ram.as_fd()]),
            1 => client.send_raw(&Client::header(1, DMA_MAP, 48, 0), &[ram.as_fd()]),
            2 => {
                client.send(DMA_UNMAP, 0, &unmap_bytes(0, 0x1000, 0x1000), &[]);
            }
            // It disconnects with commands unanswered, and with replies unread.
            3 => {
                for page in 2..100 {
                    let map = map_bytes(3, 0, page << 12, 0x1000);
                    client.send(DMA_MAP, 0, &map, &[ram.as_fd()]);
                }
            }
            4 => client.stream.shutdown(std::net::Shutdown::Write).unwrap(),
            _ => {}
        }
        drop((client, ram, event));
        served.wait_detached();
        assert_eq!((descriptors(), mappings()), (fds, maps), "{how}");
    }
    assert_eq!(served.client().read64(0, 16), 0, "the device is as after a reset");
}

#[test]
fn a_thousand_connections_leave_nothing() {
    let _alone = alone();
    // A narrow address space, whose tables are created and dropped a thousand times.
    let options = Options { address_width: 36, ..Options::default() };
    let served = serve(DmaEngine::new(), options);
    let ram = memfd(4 << 20);
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let mut before = None;
    for round in 0..1000 {
        let mut client = served.client();
        client.make_master();
        for page in 0..4 {
            client.map(3, page << 12, page << 20, 0x1000, &ram).unwrap();
        }
        client.call(DMA_MAP, &map_bytes(1, 0, 0x7000_0000, 0x1000), &[]).unwrap();
        client.call(SET_IRQS, &irq_bytes(0x24, 2, 0, 1).0, &[event.as_fd()]).unwrap();
        client.unmap(0, 0x1000).unwrap();
        drop(client);
        if round == 10 || round == 999 {
            served.wait_detached();
            let now = (descriptors(), mappings(), threads(), mapped_kib());
            let before = *before.get_or_insert(now);
            assert_eq!((now.0, now.1, now.2), (before.0, before.1, before.2));
            assert!(now.3 < before.3 + 64 * 1024, "{} KiB, and {} KiB before", now.3, before.3);
        }
    }
    assert_eq!(served.status().connections, 1000);
}

fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap()
}

fn threads() -> u64 {
    status("Threads:")
}

fn mapped_kib() -> u64 {
    status("VmSize:")
}

#[test]
fn devices_in_one_process_do_not_see_each_other() {
    let _alone = alone();
    let (one, two) = (
        serve(Holder::default(), Options::default()),
        serve(Holder::default(), Options::default()),
    );
    let (mut first, mut second) = (one.client(), two.client());
    let ram = memfd(1 << 20);
    first.make_master();
    second.make_master();
    first.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    second.map(3, 0, 0x2000, 0x1000, &ram).unwrap();
    first.send_raw(&Client::header(1, 4, 3, 0), &[]);
    assert_eq!(check(first.receive().unwrap()).unwrap_err(), Errno::INVAL);
    hold(&mut second, 0x2000);
    second.write(0, 0, &0x1000_u64.to_ne_bytes()).unwrap();
    assert_eq!(second.read64(0, 16), 0, "the other device's window");
    one.wait_detached();
    hold(&mut second, 0x2000);
}

#[test]
fn a_stop_ends_the_connection_and_removes_the_socket() {
    let _alone = alone();
    let served = serve(Holder::default(), Options::default());
    let seen: &'static Mutex<Vec<ServerEvent>> = Box::leak(Box::default());
    assert!(served.server.observe(|event| seen.lock().unwrap().push(event.clone())));
    let mut client = served.client();
    client.make_master();
    let ram = memfd(1 << 20);
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    client.unmap(0x1000, 0x1000).unwrap();
    client.map(1, 0, 0x3000, 0x1000, &ram).unwrap();
    hold_fails(&mut client);
    let path = served.path.clone();
    drop(served);
    assert!(client.receive().is_none());
    assert!(!path.exists());
    let seen = seen.lock().unwrap();
    let pid = Some(std::process::id() as i32);
    assert_eq!(seen.first(), Some(&ServerEvent::Attached { pid }));
    assert!(seen.contains(&ServerEvent::Adopted { len: 1 << 20 }));
    let mapped = ServerEvent::Mapped { addr: 0x1000, len: 0x1000, writable: true, mapped: true };
    assert!(seen.contains(&mapped));
    assert_eq!(seen.last(), Some(&ServerEvent::Detached { why: "the server stops" }));
}

fn hold_fails(client: &mut Client) {
    client.write(0, 0, &0x3000_u64.to_ne_bytes()).unwrap();
    assert_eq!(client.read64(0, 16), 0);
}

#[test]
fn no_more_unmaps_wait_than_there_can_be_windows() {
    let _alone = alone();
    let served = serve(Holder::default(), Options { max_dma_maps: 1, ..Options::default() });
    let mut client = served.client();
    client.make_master();
    let ram = memfd(1 << 20);
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    hold(&mut client, 0x1000);
    let unmap = client.send(DMA_UNMAP, 0, &unmap_bytes(0, 0x1000, 0x1000), &[]);
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    assert_eq!(client.unmap(0x1000, 0x1000).unwrap_err(), Errno::BUSY);
    assert_eq!((served.status().windows, served.status().draining), (1, 1));
    client.write(0, 0, &[0; 8]).unwrap();
    let reply = client.receive().unwrap();
    assert_eq!((reply.id, reply.error), (unmap, 0));
    client.unmap(0x1000, 0x1000).unwrap();
}
