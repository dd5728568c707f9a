//! Descriptors of a file whose server does not answer: nothing waits for it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "mounts a file system")]

#[path = "../../gasp/tests/support/fuse.rs"]
mod fuse;
mod support;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::channel;
use std::time::Duration;

use fuse::Fuse;
use gasp_vfio_user::{Options, Unsealed};
use libtest_mimic::{Arguments, Trial};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use support::client::*;
use support::device::Holder;
use support::{Served, alone, serve, wait_for};

/// Time limit of a test.
const PATIENCE: Duration = Duration::from_secs(5);
const TRIGGER_EVENTFD: u32 = 0x24;
const UNMASK_EVENTFD: u32 = 0x14;
const MSIX: u32 = 2;

type Body = fn(&Served, &OwnedFd);

fn main() {
    let lack = Fuse::mount().err().map(|error| format!("FUSE cannot be mounted: {error}"));
    let bodies: [(&str, Body); 5] = [
        ("a_window_of_it_is_refused_or_reached_by_messages", windows),
        ("an_interrupt_of_it_is_refused", interrupts),
        ("a_command_that_takes_no_descriptor_is_refused", commands),
        ("a_first_message_with_it_is_refused", first),
        ("a_message_that_is_never_carried_out_is_dropped", dropped),
    ];
    let trials = bodies.map(|(name, body)| {
        let name = match &lack {
            Some(why) => format!("{name} [skipped: {why}]"),
            None => name.to_owned(),
        };
        Trial::test(name, move || {
            let _alone = alone();
            silently(body);
            Ok(())
        })
        .with_ignored_flag(lack.is_some())
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// Runs a test with a file that nobody serves any longer, and fails if the test waits for
/// it.
fn silently(body: Body) {
    for unsealed in [Unsealed::ByMessage, Unsealed::Refuse] {
        let options =
            Options { unsealed, patience: Duration::from_millis(200), ..Options::default() };
        let (done, finished) = channel();
        let fuse = Fuse::mount().unwrap();
        let fd = fuse.open();
        fuse.fall_silent();
        let before = fuse.requests();
        let test = std::thread::spawn(move || {
            let served = serve(Holder::default(), options);
            body(&served, &fd);
            // The server still serves, and stops.
            assert_eq!(served.client().read64(0, 0x100), 0x1122_3344_5566_7788);
            drop(served);
            done.send(()).unwrap();
            fd
        });
        let ended = finished.recv_timeout(PATIENCE);
        if ended.is_ok() {
            wait_for("an end of a descriptor", || fuse.requests() > before);
        }
        // Releases all waits, including that for the test's own descriptor, which is closed
        // last.
        drop(fuse);
        let fd = test.join();
        ended.expect("it waits for the file's server");
        drop(fd);
    }
}

fn windows(served: &Served, fd: &OwnedFd) {
    let mut client = served.client();
    let refuses = client.map(1, 0, 0x1000, 0x1000, fd);
    assert!(matches!(refuses, Ok(()) | Err(Errno::PERM)), "{refuses:?}");
    assert_eq!(client.map(1, 0x10, 0x10000, 0x1000, fd), Err(Errno::INVAL));
    assert_eq!(client.map(0x80, 0, 0x10000, 0x1000, fd), Err(Errno::INVAL));
    let two = [fd.as_fd(), fd.as_fd()];
    assert_eq!(
        client.call(DMA_MAP, &map_bytes(1, 0, 0x10000, 0x1000), &two).err(),
        Some(Errno::INVAL)
    );
}

fn interrupts(served: &Served, fd: &OwnedFd) {
    let mut client = served.client();
    let mut set = |flags, index, start, fds: &[BorrowedFd<'_>]| {
        let bytes = irq_bytes(flags, index, start, fds.len() as u32).0;
        assert!(client.call(SET_IRQS, &bytes, fds).is_err(), "{flags:#x} {index}");
    };
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    set(TRIGGER_EVENTFD, MSIX, 0, &[fd.as_fd()]);
    set(TRIGGER_EVENTFD, MSIX, 0, &[event.as_fd(), fd.as_fd()]);
    set(TRIGGER_EVENTFD, MSIX, u32::MAX, &[fd.as_fd()]);
    set(TRIGGER_EVENTFD, 99, 0, &[fd.as_fd()]);
    set(UNMASK_EVENTFD, 0, 0, &[fd.as_fd()]);
    set(UNMASK_EVENTFD, MSIX, 0, &[fd.as_fd()]);
    // With another kind of data.
    set(0x21, MSIX, 0, &[fd.as_fd()]);
}

fn commands(served: &Served, fd: &OwnedFd) {
    let mut client = served.client();
    for command in [GET_INFO, RESET, VERSION, DMA_READ, 999] {
        let refused = client.call(command, &[0; 16], &[fd.as_fd()]);
        assert_eq!(refused.err(), Some(Errno::INVAL), "{command}");
    }
    // More than are accepted.
    let many = [fd.as_fd(); 17];
    let refused = client.call(DMA_MAP, &map_bytes(1, 0, 0x10000, 0x1000), &many);
    assert_eq!(refused.err(), Some(Errno::INVAL));
    // One descriptor with each byte of the header.
    let id = 7;
    for byte in Client::header(id, GET_INFO, 16, 0) {
        client.send_raw(&[byte], &[fd.as_fd(); 2]);
    }
    assert_eq!(client.receive().unwrap().error, Errno::INVAL.raw_os_error().cast_unsigned());
    // A reply to no request.
    client.send_raw(&Client::header(id, DMA_READ, 16, 1), &[fd.as_fd()]);
    assert_eq!(client.read64(0, 0x100), 0x1122_3344_5566_7788);
}

fn first(served: &Served, fd: &OwnedFd) {
    let mut client = Client::connect(&served.path);
    let payload = bytes().u32(0).bytes(HELLO.as_bytes()).bytes(&[0]).0;
    client.send(VERSION, 0, &payload, &[fd.as_fd()]);
    assert_ne!(client.receive().map(|reply| reply.error), Some(0));
    assert!(client.receive().is_none());
}

fn dropped(served: &Served, fd: &OwnedFd) {
    // A message with an invalid size.
    let client = served.client();
    client.send_raw(&Client::header(1, DMA_MAP, 3, 0), &[fd.as_fd()]);
    assert!(client.receive().is_some_and(|reply| reply.error != 0));
    assert!(client.receive().is_none());
    // A message that is cut off.
    let client = served.client();
    client.send_raw(&Client::header(1, DMA_MAP, 48, 0), &[fd.as_fd()]);
    assert!(client.receive().is_none());
    // The client disconnects.
    let client = served.client();
    client.send_raw(&Client::header(1, DMA_MAP, 48, 0)[..5], &[fd.as_fd()]);
    drop(client);
    served.wait_detached();
}
