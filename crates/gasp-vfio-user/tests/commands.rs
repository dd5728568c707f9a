//! Every command, as a well-behaved client sends it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use gasp::{Backing, MemoryObject};
use gasp_vdev::Shared;
use gasp_vdev::dma::{self, DmaEngine};
use gasp_vfio_user::{Options, Unsealed};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use support::client::*;
use support::device::Holder;
use support::{serve, wait_for};

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

fn count(event: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::read(event, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
}

/// Starts the engine and waits until it is done; returns its status and error.
fn copy(client: &mut Client, from: u64, to: u64, len: u64, control: u32) -> (u32, u32) {
    client.write(0, 0x08, &from.to_ne_bytes()).unwrap();
    client.write(0, 0x10, &to.to_ne_bytes()).unwrap();
    client.write(0, 0x18, &len.to_ne_bytes()).unwrap();
    client.write(0, 0x20, &control.to_ne_bytes()).unwrap();
    wait_for("the engine", || client.read32(0, 0x24) != dma::BUSY);
    (client.read32(0, 0x24), client.read32(0, 0x28))
}

#[test]
fn the_limits_of_both_sides_are_told() {
    let options = Options { max_dma_maps: 1000, ..Options::default() };
    let served = serve(Holder::default(), options);
    let mut client = Client::connect(&served.path);
    let reply = client.hello_with(HELLO).unwrap();
    assert_eq!(reply.payload[..4], [0; 4]);
    assert_eq!(reply.payload.last(), Some(&0));
    let text = std::str::from_utf8(&reply.payload[4..reply.payload.len() - 1]).unwrap();
    for limit in ["\"max_msg_fds\":16", "\"max_dma_maps\":1000", "\"pgsizes\":4096", "true"] {
        assert!(text.contains(limit), "{limit} is missing in {text}");
    }
}

#[test]
fn only_capabilities_that_were_proposed_are_answered() {
    let served = serve(Holder::default(), Options::default());
    for (proposed, answer) in [
        ("{}", "{}"),
        (r#"{"max_dma_maps":10}"#, r#"{"max_dma_maps":10}"#),
        (r#"{"write_multiple":false,"x":1}"#, r#"{"write_multiple":false}"#),
        (
            r#"{"write_multiple":true,"max_msg_fds":2}"#,
            r#"{"max_msg_fds":16,"write_multiple":true}"#,
        ),
    ] {
        let mut client = Client::connect(&served.path);
        let reply = client.hello_with(&format!(r#"{{"capabilities":{proposed}}}"#)).unwrap();
        let text = String::from_utf8(reply.payload[4..].to_vec()).unwrap();
        assert_eq!(text, format!("{{\"capabilities\":{answer}}}\0"));
        drop(client);
        served.wait_detached();
    }
    // The same without any version data.
    let reply = Client::connect(&served.path).call(VERSION, &[0; 4], &[]).unwrap();
    assert_eq!(&reply.payload[4..], b"{\"capabilities\":{}}\0");
}

#[test]
fn of_several_writes_the_answer_tells_how_many_were_carried_out() {
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    let multi = |writes: &[(u64, u32, u32, u64)]| {
        let all = bytes().u64(writes.len() as u64);
        writes.iter().fold(all, |all, (at, region, count, value)| {
            all.u64(*at).u32(*region).u32(*count).u64(*value)
        })
    };
    let bar = |value: u32| (0x10, CONFIG, 4, u64::from(value));
    let done = client.call(WRITE_MULTI, &multi(&[bar(0xfeb0_0000), bar(0xfec0_0000)]).0, &[]);
    assert_eq!(done.unwrap().u64(0), 2);
    // The third is invalid; the fourth is not attempted.
    let writes = [bar(0xfed0_0000), bar(0xfee0_0000), (0, 8, 4, 0), bar(0xfef0_0000)];
    assert_eq!(client.call(WRITE_MULTI, &multi(&writes).0, &[]).unwrap().u64(0), 2);
    assert_eq!(client.read32(CONFIG, 0x10) & !0xf, 0xfee0_0000);
    assert_eq!(served.status().refused, 1);
    // An error means that none was executed: the first was refused, or one was malformed.
    let first = [(0, 8, 4, 0), bar(0xfeb0_0000)];
    assert_eq!(client.call(WRITE_MULTI, &multi(&first).0, &[]).unwrap_err(), Errno::INVAL);
    for count in [0, 9] {
        let last = [bar(0xfeb0_0000), (0x10, CONFIG, count, 0)];
        assert_eq!(client.call(WRITE_MULTI, &multi(&last).0, &[]).unwrap_err(), Errno::INVAL);
    }
    assert_eq!(client.read32(CONFIG, 0x10) & !0xf, 0xfee0_0000);
}

#[test]
fn a_device_tells_what_it_is() {
    let memory = MemoryObject::ram(0x4000).prefer(&[Backing::Base]).create().unwrap();
    let shared = Shared { memory: memory.clone(), areas: vec![(0x1000, 0x1000), (0x3000, 0x1000)] };
    let served = serve(Holder { shared: Some(shared), ..Holder::default() }, Options::default());
    let mut client = served.client();
    let info = client.call(GET_INFO, &bytes().u32(16).u32(0).u64(0).0, &[]).unwrap();
    assert_eq!([info.u32(0), info.u32(4), info.u32(8), info.u32(12)], [16, 3, 9, 5]);

    let region =
        |argsz: u32, index: u32| bytes().u32(argsz).u32(0).u64(u64::from(index)).u64(0).u64(0).0;
    for (index, size) in [(1, 0), (2, 0x1000), (3, 0), (6, 0), (7, 4096), (8, 0)] {
        let info = client.call(GET_REGION_INFO, &region(32, index), &[]).unwrap();
        assert_eq!((info.u32(0), info.u32(8), info.u64(16)), (32, index, size));
        assert_eq!(info.u32(4), if size == 0 { 0 } else { 3 });
    }
    // Without room for the capability, the reply has the size needed.
    let info = client.call(GET_REGION_INFO, &region(32, 0), &[]).unwrap();
    assert_eq!((info.u32(0), info.payload.len(), info.fds.len()), (80, 32, 0));
    let info = client.call(GET_REGION_INFO, &region(80, 0), &[]).unwrap();
    assert_eq!((info.u32(0), info.u32(4), info.u32(12)), (80, 0xf, 32));
    assert_eq!(info.payload[32..36], [1, 0, 1, 0]);
    assert_eq!(info.u32(40), 2);
    let areas: Vec<u64> = (0..4).map(|n| info.u64(48 + 8 * n)).collect();
    assert_eq!(areas, [0x1000, 0x1000, 0x3000, 0x1000]);
    // The client, the messages and the device see the same memory.
    fill(&info.fds[0], 0x1010, b"shared");
    assert_eq!(client.read(0, 0x1010, 6).unwrap(), b"shared");
    client.write(0, 0x3000, b"back").unwrap();
    assert_eq!(contents(&info.fds[0], 0x3000, 4), b"back");

    for (index, flags, vectors) in [(0, 7, 1), (1, 3, 2), (2, 3, 8), (3, 1, 1), (4, 1, 1)] {
        let question = bytes().u32(16).u32(0).u32(index).u32(0).0;
        let info = client.call(GET_IRQ_INFO, &question, &[]).unwrap();
        assert_eq!(
            [info.u32(0), info.u32(4), info.u32(8), info.u32(12)],
            [16, flags, index, vectors]
        );
    }
    let question = bytes().u32(16).u32(0).u32(0).u32(0).0;
    assert_eq!(client.call(GET_REGION_IO_FDS, &question, &[]).unwrap_err(), Errno::OPNOTSUPP);
}

#[test]
fn configuration_space_is_read_whole_and_bars_are_sized() {
    let served = serve(DmaEngine::new(), Options::default());
    let mut client = served.client();
    let space = client.read(CONFIG, 0, 4096).unwrap();
    assert_eq!(space[..4], [0x34, 0x12, 0x61, 0x6d]);
    client.write(CONFIG, 0x10, &[0xff; 4]).unwrap();
    assert_eq!(client.read32(CONFIG, 0x10), 0xffff_f000);
    // Several writes in one message.
    let multi = bytes().u64(2).u64(0x10).u32(CONFIG).u32(4).u64(0xfeb0_0000);
    let multi = multi.u64(4).u32(CONFIG).u32(2).u64(6).0;
    assert_eq!(client.call(WRITE_MULTI, &multi, &[]).unwrap().u64(0), 2);
    assert_eq!(client.read32(CONFIG, 0x10), 0xfeb0_0000);
    assert_eq!(client.read(CONFIG, 4, 1).unwrap(), [6]);
    client.call(RESET, &[], &[]).unwrap();
    assert_eq!(client.read32(CONFIG, 0x10), 0);
}

#[test]
fn registers_are_read_whole_by_parts_and_in_bulk() {
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    assert_eq!(client.read64(0, 0x100), 0x1122_3344_5566_7788);
    assert_eq!(client.read(0, 0x100, 1).unwrap(), [0x88]);
    // Unaligned, so several accesses.
    assert_eq!(client.read(0, 0x101, 3).unwrap(), [0x88, 0x88, 0x77]);
    assert_eq!(client.read(0, 0, 0x4000).unwrap().len(), 0x4000);
}

#[test]
fn a_copy_goes_from_file_to_file_with_an_interrupt_at_the_end() {
    let served = serve(DmaEngine::new(), Options::default());
    let mut client = served.client();
    client.make_master();
    let (low, high) = (memfd(8 << 20), memfd(8 << 20));
    client.map(1, 0x1000, 0x10_0000, 0x30_0000, &low).unwrap();
    client.map(3, 0, 0x8000_0000, 0x20_0000, &high).unwrap();
    client.map(3, 0x40_0000, 0x8020_0000, 0x20_0000, &high).unwrap();
    let data: Vec<u8> = (0..0x30_0000_u32).map(|n| (n * 7 / 5) as u8).collect();
    fill(&low, 0x1000, &data);
    let done = event();
    client.call(SET_IRQS, &irq_bytes(0x24, 2, 0, 1).0, &[done.as_fd()]).unwrap();
    let len = data.len() as u64;
    let control = dma::START | dma::INTERRUPT;
    assert_eq!(copy(&mut client, 0x10_0000, 0x8000_0000, len, control), (dma::DONE, 0));
    assert_eq!(client.read64(0, 0x30), len);
    wait_for("the interrupt", || count(&done) == 1);
    assert_eq!(contents(&high, 0, 0x20_0000), data[..0x20_0000]);
    assert_eq!(contents(&high, 0x40_0000, 0x10_0000), data[0x20_0000..]);
    // The source is read-only, and there is nothing after it.
    let fault = Errno::FAULT.raw_os_error() as u32;
    assert_eq!(copy(&mut client, 0x8000_0000, 0x10_0000, 16, 1), (dma::FAILED, fault));
    assert_eq!(copy(&mut client, 0x40_0000, 0x8000_0000, 16, 1), (dma::FAILED, fault));
    let wraps = u64::MAX - 7;
    assert_eq!(copy(&mut client, wraps, 0x8000_0000, 16, 1).0, dma::FAILED);
    assert!(!served.server.guest().unwrap().take_faults().records.is_empty());
    let status = served.status();
    assert_eq!((status.windows, status.files, status.maps), (3, 2, 3));
    assert_eq!(status.window_bytes, 0x70_0000);
}

#[test]
fn host_physical_runs_are_known_where_the_server_pins_memory_and_may() {
    let refused = Errno::PERM.raw_os_error() as u32;
    let control = dma::START | dma::RUNS;
    let start = |unsealed| {
        let residency = gasp::Residency::Pinned;
        let served = serve(DmaEngine::new(), Options { residency, unsealed, ..Options::default() });
        let mut client = served.client();
        client.make_master();
        client.map(3, 0x1000, 0x8000, 0x8000, &memfd(1 << 20)).unwrap();
        let done = copy(&mut client, 0x8800, 0, 0x4000, control);
        (served, client, done)
    };
    // Pinned, but the client could put other pages there (decision 20).
    let again = Errno::AGAIN.raw_os_error() as u32;
    let (_served, _client, done) = start(Unsealed::default());
    assert!([again, refused].map(|error| (dma::FAILED, error)).contains(&done), "{done:?}");
    let (_served, mut client, done) = start(Unsealed::Trust);
    match done {
        (dma::DONE, 0) => {
            assert_eq!(client.read64(0, 0x30), 0x4000, "all of it lies in runs");
            assert!((1..=5).contains(&client.read32(0, 0x2c)));
            assert_eq!(client.read64(0, 0x40) & 0xfff, 0x800, "the offset in the page stays");
        }
        other => assert_eq!(other, (dma::FAILED, refused), "without the privilege"),
    }
}

#[test]
fn without_bus_mastering_nothing_is_transferred() {
    let served = serve(DmaEngine::new(), Options::default());
    let mut client = served.client();
    let ram = memfd(1 << 20);
    client.map(3, 0, 0, 1 << 20, &ram).unwrap();
    let refused = Errno::PERM.raw_os_error() as u32;
    assert_eq!(copy(&mut client, 0, 0x1000, 16, 1), (dma::FAILED, refused));
}

#[test]
fn permissions_are_those_of_each_window_not_of_its_file() {
    let served = serve(DmaEngine::new(), Options::default());
    let mut client = served.client();
    client.make_master();
    let ram = memfd(1 << 20);
    client.map(1, 0, 0x1000, 0x1000, &ram).unwrap();
    client.map(2, 0, 0x2000, 0x1000, &ram).unwrap();
    fill(&ram, 0, b"abcd");
    let fault = Errno::FAULT.raw_os_error() as u32;
    assert_eq!(copy(&mut client, 0x1000, 0x2100, 4, 1), (dma::DONE, 0));
    assert_eq!(contents(&ram, 0x100, 4), b"abcd");
    assert_eq!(copy(&mut client, 0x2000, 0x2100, 4, 1), (dma::FAILED, fault), "write only");
    assert_eq!(copy(&mut client, 0x1000, 0x1100, 4, 1), (dma::FAILED, fault), "read only");
    client.unmap(0x1000, 0x1000).unwrap();
    assert_eq!(copy(&mut client, 0x1000, 0x2100, 4, 1), (dma::FAILED, fault), "unmapped");
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    assert_eq!(copy(&mut client, 0x1000, 0x1100, 4, 1), (dma::DONE, 0));
    assert_eq!(served.status().files, 1, "one file, however often it comes");
}

#[test]
fn a_file_that_grows_or_becomes_writable_is_adopted_again_and_the_old_windows_stay() {
    let served = serve(DmaEngine::new(), Options::default());
    let mut client = served.client();
    client.make_master();
    let ram = unsealed(0x2000);
    rustix::fs::fcntl_add_seals(&ram, rustix::fs::SealFlags::SHRINK).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&ram));
    let read_only = OwnedFd::from(std::fs::File::open(path).unwrap());
    client.map(1, 0, 0x1000, 0x1000, &read_only).unwrap();
    assert_eq!(client.map(3, 0, 0x9000, 0x1000, &read_only).unwrap_err(), Errno::ACCESS);
    client.map(3, 0x1000, 0x2000, 0x1000, &ram).unwrap();
    rustix::fs::ftruncate(&ram, 0x4000).unwrap();
    client.map(3, 0x3000, 0x3000, 0x1000, &ram).unwrap();
    assert_eq!(client.map(3, 0x4000, 0x4000, 0x1000, &ram).unwrap_err(), Errno::INVAL);
    assert_eq!(served.status().files, 3);
    fill(&ram, 0, b"from the first");
    assert_eq!(copy(&mut client, 0x1000, 0x3000, 14, 1), (dma::DONE, 0));
    assert_eq!(contents(&ram, 0x3000, 14), b"from the first");
    client.call(DMA_UNMAP, &unmap_bytes(2, 0, 0), &[]).unwrap();
    assert_eq!(served.status().windows, 0);
}

#[test]
fn an_unmap_takes_one_window_or_several_whole_ones_or_all() {
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    let ram = memfd(1 << 20);
    for page in 0..8 {
        client.map(3, page << 12, page << 12, 0x1000, &ram).unwrap();
    }
    let reply = client.unmap(0x1000, 0x1000).unwrap();
    assert_eq!((reply.u32(0), reply.u64(8), reply.u64(16)), (24, 0x1000, 0x1000));
    // An unmap of a range without windows succeeds: QEMU unmaps all addresses, in powers of
    // two, when a guest moves the root of its IOMMU's tables.
    client.unmap(0x1000, 0x1000).unwrap();
    client.unmap(1 << 47, 1 << 47).unwrap();
    client.unmap(0xfef0_0000, (0xfef0_0000_u64).wrapping_neg()).unwrap();
    assert_eq!(served.status().windows, 7);
    client.unmap(0x2000, 0x3000).unwrap();
    assert_eq!(client.unmap(0x5000, 0x800).unwrap_err(), Errno::INVAL);
    assert_eq!(served.status().windows, 4);
    // With a bitmap: dirty wherever the device could have written.
    client.map(1, 0, 0x1000, 0x1000, &ram).unwrap();
    let question = bytes().u32(48).u32(1).u64(0).u64(0x8000).u64(4096).u64(8).0;
    let reply = client.call(DMA_UNMAP, &question, &[]).unwrap();
    assert_eq!((reply.u32(0), reply.u64(24), reply.u64(32)), (48, 4096, 8));
    assert_eq!(reply.payload[40..], [0b1110_0001, 0, 0, 0, 0, 0, 0, 0]);
    client.map(3, 0, 0, 0x10_0000, &ram).unwrap();
    client.call(DMA_UNMAP, &unmap_bytes(2, 0, 0), &[]).unwrap();
    assert_eq!(served.status().windows, 0);
    // An unmap of everything succeeds even without windows.
    client.call(DMA_UNMAP, &unmap_bytes(2, 0, 0), &[]).unwrap();
}

#[test]
fn interrupts_of_all_kinds_go_where_the_client_says() {
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    client.make_master();
    let signal = |client: &mut Client, vector: u64| {
        client.write(0, 24, &vector.to_ne_bytes()).unwrap();
    };
    let (pin, msi, msix) = (event(), event(), event());
    client.call(SET_IRQS, &irq_bytes(0x24, 0, 0, 1).0, &[pin.as_fd()]).unwrap();
    signal(&mut client, 0);
    signal(&mut client, 0);
    assert_eq!(count(&pin), 1, "the pin masks itself");
    client.call(SET_IRQS, &irq_bytes(0x11, 0, 0, 1).0, &[]).unwrap();
    assert_eq!(count(&pin), 1, "it is still up");
    client.write(0, 32, &[1]).unwrap();
    client.call(SET_IRQS, &irq_bytes(0x11, 0, 0, 1).0, &[]).unwrap();
    assert_eq!(count(&pin), 0);
    // Unmasked by an eventfd.
    let unmask = event();
    client.call(SET_IRQS, &irq_bytes(0x14, 0, 0, 1).0, &[unmask.as_fd()]).unwrap();
    signal(&mut client, 0);
    assert_eq!(count(&pin), 1);
    rustix::io::write(&unmask, &1_u64.to_ne_bytes()).unwrap();
    wait_for("the pin to come again", || count(&pin) == 1);

    client.call(SET_IRQS, &irq_bytes(0x24, 1, 0, 1).0, &[msi.as_fd()]).unwrap();
    signal(&mut client, 1);
    assert_eq!(count(&msi), 1);
    client.call(SET_IRQS, &irq_bytes(0x21, 1, 0, 0).0, &[]).unwrap();

    let two = [msix.as_fd(), msi.as_fd()];
    client.call(SET_IRQS, &irq_bytes(0x24, 2, 3, 2).0, &two).unwrap();
    signal(&mut client, 3);
    assert_eq!(count(&msix), 1);
    // Masked by a message, then by the table.
    client.call(SET_IRQS, &irq_bytes(0x0a, 2, 2, 2).bytes(&[0, 1]).0, &[]).unwrap();
    signal(&mut client, 3);
    assert_eq!(count(&msix), 0);
    assert_eq!(client.read64(2, 0x800), 1 << 3, "pending");
    client.call(SET_IRQS, &irq_bytes(0x11, 2, 3, 1).0, &[]).unwrap();
    assert_eq!(count(&msix), 1);
    client.write(2, 3 * 16 + 12, &1_u32.to_ne_bytes()).unwrap();
    signal(&mut client, 3);
    assert_eq!(count(&msix), 0);
    client.write(2, 3 * 16 + 12, &0_u32.to_ne_bytes()).unwrap();
    assert_eq!(count(&msix), 1);
    // Triggered by the client, then removed.
    client.call(SET_IRQS, &irq_bytes(0x22, 2, 3, 2).bytes(&[1, 0]).0, &[]).unwrap();
    assert_eq!((count(&msix), count(&msi)), (1, 0));
    client.call(SET_IRQS, &irq_bytes(0x24, 2, 3, 1).0, &[]).unwrap();
    signal(&mut client, 3);
    assert_eq!(count(&msix), 0);

    let (error, request) = (event(), event());
    client.call(SET_IRQS, &irq_bytes(0x24, 3, 0, 1).0, &[error.as_fd()]).unwrap();
    client.call(SET_IRQS, &irq_bytes(0x24, 4, 0, 1).0, &[request.as_fd()]).unwrap();
    served.server.shell().interrupts().signal_error();
    served.server.shell().interrupts().request_release();
    assert_eq!((count(&error), count(&request)), (1, 1));
}

#[test]
fn commands_that_want_no_reply_get_none_and_take_effect_before_the_next() {
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    let ram = memfd(1 << 20);
    client.send(DMA_MAP, 0x10, &map_bytes(3, 0, 0x1000, 0x1000), &[ram.as_fd()]);
    client.send(DMA_MAP, 0x10, &map_bytes(3, 0, 0x1000, 0x1000), &[ram.as_fd()]);
    client.send(99, 0x10, &[], &[]);
    client.unmap(0x1000, 0x1000).unwrap();
    assert!(!client.has_message(Duration::from_millis(20)));
}
