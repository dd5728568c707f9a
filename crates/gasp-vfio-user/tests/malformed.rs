//! Messages that no client should send: each is answered with an errno or the end of the
//! connection, and has no other effect.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use gasp_vfio_user::{Options, Unsealed};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use support::client::*;
use support::device::Holder;
use support::{Served, alone, descriptors, serve};

fn quick() -> Served {
    serve(Holder::default(), Options { patience: Duration::from_millis(200), ..Options::default() })
}

/// Checks that the server still serves this client.
fn still_serves(client: &mut Client) {
    assert_eq!(client.read64(0, 0x100), 0x1122_3344_5566_7788);
}

/// Checks that the server has closed the connection, and serves the next client.
fn is_closed(served: &Served, client: &Client) {
    assert!(client.receive().is_none());
    still_serves(&mut served.client());
}

#[test]
fn a_header_with_an_impossible_size_is_answered_and_ends_the_connection() {
    let _alone = alone();
    let served = quick();
    for size in [0, 1, 15, 2 << 20, u32::MAX as usize] {
        let client = served.client();
        client.send_raw(&Client::header(77, GET_INFO, size, 0), &[]);
        let reply = client.receive().unwrap();
        assert_eq!((reply.id, reply.error), (77, 22), "{size}");
        is_closed(&served, &client);
    }
}

#[test]
fn a_message_that_is_not_finished_ends_the_connection() {
    let _alone = alone();
    let served = quick();
    for part in [&Client::header(1, GET_INFO, 32, 0)[..7], &Client::header(1, GET_INFO, 32, 0)] {
        let client = served.client();
        client.send_raw(part, &[]);
        is_closed(&served, &client);
    }
    let silent = Client::connect(&served.path);
    is_closed(&served, &silent);
}

#[test]
fn a_message_that_comes_byte_by_byte_is_whole_in_the_end() {
    let _alone = alone();
    let served = serve(Holder::default(), Options::default());
    let client = served.client();
    let mut message = Client::header(5, GET_INFO, 32, 0);
    message.extend(bytes().u32(16).u32(0).u64(0).0);
    for byte in message {
        client.send_raw(&[byte], &[]);
    }
    assert_eq!(client.receive().unwrap().payload.len(), 16);
}

#[test]
fn a_client_that_takes_no_replies_is_sent_away() {
    let _alone = alone();
    let served = quick();
    let mut client = served.client();
    client.stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let read = bytes().u64(0).u32(0).u32(0x4000).0;
    // More replies than the socket holds: at some point the server no longer reads, either.
    for _ in 0..64 {
        client.send(REGION_READ, 0, &read, &[]);
    }
    served.wait_detached();
    still_serves(&mut served.client());
}

#[test]
fn the_first_message_must_be_a_version_that_is_spoken() {
    let _alone = alone();
    let served = quick();
    let refused = |command: u16, flags: u32, payload: &[u8]| {
        let mut client = Client::connect(&served.path);
        client.send(command, flags, payload, &[]);
        let reply = client.receive().unwrap();
        assert_eq!((reply.flags & 0x20, reply.error), (0x20, 22));
        is_closed(&served, &client);
    };
    refused(GET_INFO, 0, &bytes().u32(16).u32(0).u64(0).0);
    refused(VERSION, 0, &[]);
    refused(VERSION, 0, &[1, 0, 0, 0]);
    refused(VERSION, 0, b"\0\0\0\0not json\0");
    refused(VERSION, 0, br#"    {"capabilities":{"pgsizes":65536}}"#);
    refused(VERSION, 0, b"\0\0\0\0{}");
    refused(VERSION, 0, b"\0\0\0\0{}\0{}\0");
    refused(VERSION, 0, b"\0\0\0\0{\"capabilities\":{\"pgsizes\":65536}}\0");
    refused(VERSION, 0, b"\0\0\0\0{\"capabilities\":{\"max_data_xfer_size\":0}}\0");
    refused(VERSION, 0, b"\0\0\0\0{\"capabilities\":{\"max_data_xfer_size\":4095}}\0");
    refused(VERSION, 0, b"\0\0\0\0{\"capabilities\":{\"max_dma_maps\":[]}}\0");
}

#[test]
fn commands_of_no_kind_known_and_of_the_wrong_length_are_refused() {
    let _alone = alone();
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    for command in [0, 14, 19, 1000, u16::MAX] {
        assert_eq!(client.call(command, &[0; 40], &[]).unwrap_err(), Errno::NOSYS, "{command}");
    }
    assert_eq!(client.call(VERSION, &[0; 4], &[]).unwrap_err(), Errno::INVAL);
    assert_eq!(client.call(DMA_READ, &[0; 16], &[]).unwrap_err(), Errno::INVAL);
    for (argsz, flags, more, errno) in [
        (8, 0x1_0001, 0, Errno::NOTTY),
        (64, 0x7_0001, 8, Errno::NOTTY),
        (7, 0x1_0001, 0, Errno::INVAL),
        (8, 0x1_0001, 8, Errno::INVAL),
        (8, 0x3_0001, 0, Errno::INVAL),
        (8, 0x9_0001, 0, Errno::INVAL),
    ] {
        let feature = bytes().u32(argsz).u32(flags).bytes(&vec![0; more]).0;
        assert_eq!(client.call(16, &feature, &[]).unwrap_err(), errno, "{argsz} {flags:#x}");
    }
    assert_eq!(client.call(16, &[8, 0, 0, 0], &[]).unwrap_err(), Errno::INVAL);
    assert_eq!(client.call(17, &[0; 8], &[]).unwrap_err(), Errno::OPNOTSUPP);
    for command in [2, 3, 4, 5, 6, 7, 8, 9, 10, 15] {
        for len in [0, 1, 4, 15] {
            let refused = client.call(command, &vec![0; len], &[]).unwrap_err();
            assert_eq!(refused, Errno::INVAL, "command {command} of {len} bytes");
        }
    }
    assert_eq!(client.call(RESET, &[0], &[]).unwrap_err(), Errno::INVAL);
    assert_eq!(client.call(DMA_MAP, &[0; 33], &[]).unwrap_err(), Errno::INVAL);
    // Neither a command nor a reply to a request.
    client.send(GET_INFO, 1, &[0; 16], &[]);
    client.send(GET_INFO, 2, &[0; 16], &[]);
    assert_eq!(check(client.receive().unwrap()).unwrap_err(), Errno::INVAL);
    still_serves(&mut client);
}

#[test]
fn accesses_to_regions_that_are_not_there_or_too_small_are_refused() {
    let _alone = alone();
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    for (region, offset, count) in [
        (0, 0, 0),
        (0, 0x4000, 1),
        (0, 0x3fff, 2),
        (0, u64::MAX, 1),
        (0, u64::MAX - 3, 8),
        (0, 0, 2 << 20),
        (0, 0, u32::MAX),
        (1, 0, 4),
        (6, 0, 4),
        (7, 4096, 1),
        (7, 4095, 2),
        (8, 0, 1),
        (9, 0, 1),
        (u32::MAX, 0, 1),
    ] {
        let read = bytes().u64(offset).u32(region).u32(count).0;
        assert_eq!(client.call(REGION_READ, &read, &[]).unwrap_err(), Errno::INVAL);
        let data = vec![0; count.min(8) as usize];
        let write = bytes().u64(offset).u32(region).u32(count).bytes(&data).0;
        assert_eq!(client.call(REGION_WRITE, &write, &[]).unwrap_err(), Errno::INVAL);
    }
    let lies = bytes().u64(0).u32(0).u32(8).bytes(&[0; 4]).0;
    assert_eq!(client.call(REGION_WRITE, &lies, &[]).unwrap_err(), Errno::INVAL);
    let one = bytes().u64(0).u32(0).u32(4).u64(0).0;
    for count in [0, 2, u64::MAX, u64::MAX / 24 + 1] {
        let multi = bytes().u64(count).bytes(&one).0;
        assert_eq!(client.call(WRITE_MULTI, &multi, &[]).unwrap_err(), Errno::INVAL);
    }
    // At most as long as argsz.
    for (command, size) in [(GET_INFO, 16), (GET_REGION_INFO, 32), (GET_IRQ_INFO, 16)] {
        let question = |argsz: u32| {
            let mut question = bytes().u32(argsz).0;
            question.resize(size + 4, 0);
            question
        };
        assert_eq!(client.call(command, &question(size as u32), &[]).unwrap_err(), Errno::INVAL);
        client.call(command, &question(size as u32 + 4), &[]).unwrap();
    }
    for (flags, count, more) in [(1, 0, 0), (0, 1, 0), (0, 0, 4)] {
        let question = bytes().u32(16).u32(flags).u32(0).u32(count).bytes(&vec![0; more]).0;
        assert_eq!(client.call(GET_REGION_IO_FDS, &question, &[]).unwrap_err(), Errno::INVAL);
    }
    let long = bytes().u64(1).u64(0).u32(0).u32(9).u64(0).0;
    assert_eq!(client.call(WRITE_MULTI, &long, &[]).unwrap_err(), Errno::INVAL);
    for command in [GET_REGION_INFO, GET_IRQ_INFO, GET_REGION_IO_FDS] {
        let question = bytes().u32(32).u32(0).u32(9).u32(0).u64(0).u64(0).0;
        assert_eq!(client.call(command, &question, &[]).unwrap_err(), Errno::INVAL);
        let small = bytes().u32(15).u32(0).u32(0).u32(0).u64(0).u64(0).0;
        assert_eq!(client.call(command, &small, &[]).unwrap_err(), Errno::INVAL);
    }
    still_serves(&mut client);
}

#[test]
fn windows_that_cannot_be_are_refused_and_nothing_changes() {
    let _alone = alone();
    let served =
        serve(Holder::default(), Options { unsealed: Unsealed::Trust, ..Options::default() });
    let mut client = served.client();
    let ram = memfd(1 << 20);
    client.map(3, 0, 0x10000, 0x4000, &ram).unwrap();
    let fds = descriptors();
    for (what, flags, offset, addr, size, errno) in [
        ("no length", 3, 0, 0, 0, Errno::INVAL),
        ("no access", 0, 0, 0, 0x1000, Errno::INVAL),
        ("unknown flags", 0x83, 0, 0, 0x1000, Errno::INVAL),
        ("an odd address", 3, 0, 0x800, 0x1000, Errno::INVAL),
        ("an odd length", 3, 0, 0, 0x1001, Errno::INVAL),
        ("an odd offset", 3, 0x10, 0, 0x1000, Errno::INVAL),
        ("an address that wraps", 3, 0, u64::MAX - 0xfff, 0x2000, Errno::INVAL),
        ("an offset that wraps", 3, u64::MAX - 0xfff, 0, 0x2000, Errno::INVAL),
        ("an address past the width", 3, 0, 1 << 48, 0x1000, Errno::NXIO),
        ("more than the file", 3, 0, 0x100000, 0x200000, Errno::INVAL),
        ("behind the file", 3, 0x100000, 0, 0x1000, Errno::INVAL),
        ("the same again", 3, 0, 0x10000, 0x4000, Errno::EXIST),
        ("an overlap before", 3, 0, 0xf000, 0x2000, Errno::EXIST),
        ("an overlap behind", 3, 0, 0x13000, 0x2000, Errno::EXIST),
        ("an overlap inside", 3, 0, 0x11000, 0x1000, Errno::EXIST),
        ("an overlap around", 3, 0, 0, 0x100000, Errno::EXIST),
    ] {
        assert_eq!(client.map(flags, offset, addr, size, &ram), Err(errno), "{what}");
    }
    let map = map_bytes(3, 0, 0, 0x1000);
    let two = [ram.as_fd(), ram.as_fd()];
    assert_eq!(client.call(DMA_MAP, &map, &two).unwrap_err(), Errno::INVAL);
    let many: Vec<BorrowedFd<'_>> = (0..60).map(|_| ram.as_fd()).collect();
    assert_eq!(client.call(DMA_MAP, &map, &many).unwrap_err(), Errno::INVAL);
    let opened = descriptors();
    // Unexpected descriptors are closed.
    let question = bytes().u32(16).u32(0).u64(0).0;
    assert_eq!(client.call(GET_INFO, &question, &[ram.as_fd()]).unwrap_err(), Errno::INVAL);
    assert_eq!(descriptors(), opened);
    assert!(descriptors() <= fds + 1);

    for (what, flags, addr, size, errno) in [
        ("a part", 0, 0x10000, 0x1000, Errno::INVAL),
        ("a part and more", 0, 0x12000, 0x10000, Errno::INVAL),
        ("no length", 0, 0x10000, 0, Errno::INVAL),
        ("an address that wraps", 0, u64::MAX, 2, Errno::INVAL),
        ("unknown flags", 8, 0x10000, 0x4000, Errno::INVAL),
        ("all, and an address", 2, 0x10000, 0x4000, Errno::INVAL),
        ("a bitmap that is not there", 1, 0x10000, 0x4000, Errno::INVAL),
    ] {
        let unmap = unmap_bytes(flags, addr, size);
        assert_eq!(client.call(DMA_UNMAP, &unmap, &[]).unwrap_err(), errno, "{what}");
    }
    for (argsz, page, size) in [
        (0x1000, 0, 8),
        (0x1000, 4095, 8),
        (0x1000, 512, 64),
        (47, 4096, 8),
        (u32::MAX, 4096, 0),
        (u32::MAX, 4096, u64::MAX),
        (u32::MAX, 1 << 63, 1 << 40),
    ] {
        let unmap = bytes().u32(argsz).u32(1).u64(0x10000).u64(0x4000).u64(page).u64(size).0;
        assert_eq!(client.call(DMA_UNMAP, &unmap, &[]).unwrap_err(), Errno::INVAL, "{page} {size}");
    }
    assert_eq!(served.status().windows, 1);
    client.unmap(0x10000, 0x4000).unwrap();
    still_serves(&mut client);
}

#[test]
fn files_that_can_be_cut_off_are_refused_where_the_server_is_told_to() {
    let _alone = alone();
    let served =
        serve(Holder::default(), Options { unsealed: Unsealed::Refuse, ..Options::default() });
    let mut client = served.client();
    assert_eq!(client.map(3, 0, 0, 0x1000, &unsealable(0x1000)), Err(Errno::PERM));
    client.map(3, 0, 0, 0x1000, &memfd(0x1000)).unwrap();
}

#[test]
fn interrupts_that_are_not_there_are_refused() {
    let _alone = alone();
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let fds = descriptors();
    let none: &[BorrowedFd<'_>] = &[];
    let (one, wrong) = (&[event.as_fd()][..], &[file.as_fd()][..]);
    for (what, flags, index, start, count, data, with, errno) in [
        ("no index of this number", 0x24, 5, 0, 1, 0, one, Errno::INVAL),
        ("too many", 0x24, 2, 7, 2, 0, one, Errno::INVAL),
        ("a start that wraps", 0x24, 2, u32::MAX, 1, 0, one, Errno::INVAL),
        ("a count that wraps", 0x24, 2, 1, u32::MAX, 0, one, Errno::INVAL),
        ("missing descriptors", 0x24, 2, 0, 2, 0, one, Errno::INVAL),
        ("surplus descriptors", 0x21, 2, 0, 1, 0, one, Errno::INVAL),
        ("not an eventfd", 0x24, 2, 0, 1, 0, wrong, Errno::INVAL),
        ("no data flag", 0x20, 2, 0, 1, 0, none, Errno::INVAL),
        ("two data flags", 0x23, 2, 0, 1, 1, none, Errno::INVAL),
        ("no action", 0x01, 2, 0, 1, 0, none, Errno::INVAL),
        ("two actions", 0x31, 2, 0, 1, 0, none, Errno::INVAL),
        ("unknown flags", 0x121, 2, 0, 1, 0, none, Errno::INVAL),
        ("data beside descriptors", 0x24, 2, 0, 1, 4, one, Errno::INVAL),
        ("data where there is none", 0x21, 2, 0, 1, 1, none, Errno::INVAL),
        ("data with a disable", 0x21, 2, 0, 0, 4, none, Errno::INVAL),
        ("too few booleans", 0x22, 2, 0, 4, 3, none, Errno::INVAL),
        ("too many booleans", 0x22, 2, 0, 4, 5, none, Errno::INVAL),
        ("masks of none", 0x09, 2, 0, 0, 0, none, Errno::INVAL),
        ("mask by descriptor", 0x0c, 2, 0, 1, 0, one, Errno::OPNOTSUPP),
        ("mask of an error", 0x09, 3, 0, 1, 0, none, Errno::OPNOTSUPP),
    ] {
        let set = irq_bytes(flags, index, start, count).bytes(&vec![1; data]).0;
        assert_eq!(client.call(SET_IRQS, &set, with).unwrap_err(), errno, "{what}");
    }
    let mut small = irq_bytes(0x21, 2, 0, 1).0;
    small[0] = 19;
    assert_eq!(client.call(SET_IRQS, &small, &[]).unwrap_err(), Errno::INVAL);
    assert_eq!(descriptors(), fds, "no descriptor is kept");
    still_serves(&mut client);
}

#[test]
fn a_million_windows_are_not_more_than_were_agreed_upon() {
    let _alone = alone();
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    let quiet = 0x10;
    for thousand in 0..1000_u64 {
        let mut messages = Vec::new();
        for n in 0..1000 {
            messages.extend(Client::header(0, DMA_MAP, 48, quiet));
            messages.extend(map_bytes(3, 0, (thousand * 1000 + n) << 12, 0x1000));
        }
        client.send_raw(&messages, &[]);
    }
    let last = map_bytes(3, 0, 1 << 40, 0x1000);
    assert_eq!(client.call(DMA_MAP, &last, &[]).unwrap_err(), Errno::NOSPC);
    let status = served.status();
    assert_eq!((status.windows, status.refused), (65535, 1_000_000 - 65535 + 1));
    client.call(DMA_UNMAP, &unmap_bytes(2, 0, 0), &[]).unwrap();
    client.call(DMA_MAP, &last, &[]).unwrap();
    assert_eq!(served.status().windows, 1);
}

#[test]
fn random_bytes_do_no_harm() {
    let _alone = alone();
    let served = quick();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..30 {
        let mut client = served.client();
        for _ in 0..200 {
            let len = (random() % 64) as usize;
            let payload: Vec<u8> = (0..len).map(|_| (random() >> 32) as u8 & 0x13).collect();
            let command = (random() % 20) as u16;
            if command == VERSION {
                continue;
            }
            let _ = client.call(command, &payload, &[]);
        }
    }
    still_serves(&mut served.client());
}

#[test]
fn files_take_no_more_address_space_than_the_options_allow() {
    let _alone = alone();
    let options = Options { max_memory: 3 << 30, ..Options::default() };
    let served = serve(Holder::default(), options);
    let mut client = served.client();
    assert_eq!(client.map(3, 0, 0, 0x1000, &memfd(4 << 30)), Err(Errno::NOSPC));
    client.map(3, 0, 0x1000, 0x1000, &memfd(2 << 30)).unwrap();
    assert_eq!(client.map(3, 0, 0x2000, 0x1000, &memfd(2 << 30)), Err(Errno::NOSPC));
    client.map(3, 0, 0x2000, 0x1000, &memfd(1 << 30)).unwrap();
    // Files without a window make room.
    client.unmap(0x1000, 0x1000).unwrap();
    client.map(3, 0, 0x1000, 0x1000, &memfd(2 << 30)).unwrap();
    assert_eq!((served.status().windows, served.status().files), (2, 2));
    still_serves(&mut client);
}

#[test]
fn a_process_without_descriptors_says_so() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let _alone = alone();
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    let ram = memfd(1 << 20);
    let before = getrlimit(Resource::Nofile);
    // Fewer than are open; the server's poll(2) on few descriptors still works.
    setrlimit(Resource::Nofile, Rlimit { current: Some(5), ..before }).unwrap();
    let refused = client.map(3, 0, 0x1000, 0x1000, &ram);
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(refused, Err(Errno::MFILE));
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    let many: Vec<BorrowedFd<'_>> = (0..60).map(|_| ram.as_fd()).collect();
    let map = map_bytes(3, 0, 0, 0x1000);
    assert_eq!(client.call(DMA_MAP, &map, &many).unwrap_err(), Errno::INVAL);
}
