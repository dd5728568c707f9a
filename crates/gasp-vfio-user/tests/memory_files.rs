//! The files of guest memory: which are accepted, how they are used, and that none is kept.
//!
//! These tests count the descriptors and mappings of the process, so they run one at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gasp::{Deadline, DrainPolicy};
use gasp_vfio_user::{Options, ServerEvent, Unsealed};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags, SealFlags};
use rustix::io::Errno;
use support::client::*;
use support::device::Holder;
use support::{Served, alone, descriptors, mappings, serve, wait_for};

type Events = Arc<Mutex<Vec<ServerEvent>>>;

/// A server, and all its events.
fn observed(device: Holder, options: Options) -> (Served, Events) {
    let served = serve(device, options);
    let events = Events::default();
    let told = Arc::clone(&events);
    assert!(served.server.observe(move |event| told.lock().unwrap().push(event.clone())));
    (served, events)
}

/// Number of descriptors of the process, and of its mappings of memory files.
fn held() -> (usize, usize) {
    (descriptors(), mappings())
}

/// The same file, opened again.
fn reopened(file: &OwnedFd, flags: OFlags) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

#[test]
fn nothing_of_a_file_is_left_when_the_unmap_of_its_last_window_is_answered() {
    let _alone = alone();
    let (served, events) = observed(Holder::default(), Options::default());
    let mut client = served.client();
    client.make_master();
    let before = held();
    for round in 0..6 {
        let ram = memfd(16 << 20);
        client.map(3, 0, 1 << 32, 16 << 20, &ram).unwrap();
        // The device has used it as well.
        client.write(0, 0, &(1_u64 << 32).to_ne_bytes()).unwrap();
        assert_eq!(client.read64(0, 16), 1, "the device holds a mapping");
        client.write(0, 0, &[0; 8]).unwrap();
        assert_eq!(served.status().files, 1);
        match round % 2 {
            0 => client.unmap(1 << 32, 16 << 20).unwrap(),
            _ => client.call(DMA_UNMAP, &unmap_bytes(2, 0, 0), &[]).unwrap(),
        };
        drop(ram);
        assert_eq!((held(), served.status().files), (before, 0), "round {round}");
    }
    let told = events.lock().unwrap();
    let released = told.iter().filter(|told| **told == ServerEvent::Released { len: 16 << 20 });
    assert_eq!(released.count(), 6);
}

#[test]
fn a_file_stays_while_one_window_shows_it() {
    let _alone = alone();
    let (served, events) = observed(Holder::default(), Options::default());
    let mut client = served.client();
    let ram = memfd(1 << 20);
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    let with = held();
    for _ in 0..10 {
        client.map(3, 0x4000, 0x8000, 0x2000, &ram).unwrap();
        client.unmap(0x8000, 0x2000).unwrap();
        assert_eq!(held(), with);
    }
    let adopted = ServerEvent::Adopted { len: 1 << 20 };
    assert_eq!(events.lock().unwrap().iter().filter(|told| **told == adopted).count(), 1);
    // A file that was adopted again because it grew is released separately.
    let ram = unsealed(0x2000);
    client.map(3, 0, 0x10000, 0x1000, &ram).unwrap();
    rustix::fs::ftruncate(&ram, 0x4000).unwrap();
    client.map(3, 0x3000, 0x20000, 0x1000, &ram).unwrap();
    assert_eq!(served.status().files, 3);
    client.unmap(0x10000, 0x1000).unwrap();
    assert_eq!(served.status().files, 2);
    client.map(3, 0, 0x10000, 0x1000, &ram).unwrap();
    assert_eq!(served.status().files, 2, "the newer one is known");
    client.unmap(0x10000, 0x1000).unwrap();
    client.unmap(0x20000, 0x1000).unwrap();
    assert_eq!(served.status().files, 1);
    // A window that is refused leaves nothing.
    let before = held();
    let other = memfd(0x1000);
    assert_eq!(client.map(3, 0, 1 << 48, 0x1000, &other), Err(Errno::NXIO));
    drop(other);
    assert_eq!(held(), before);
}

#[test]
fn a_file_whose_unmaps_wait_for_the_device_goes_with_the_last_answer() {
    let _alone = alone();
    let device = Holder::default();
    let (served, _) = observed(device.clone(), Options::default());
    let mut client = served.client();
    client.make_master();
    let before = held();
    let ram = memfd(1 << 20);
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    client.map(3, 0x1000, 0x2000, 0x1000, &ram).unwrap();
    client.write(0, 0, &0x1000_u64.to_ne_bytes()).unwrap();
    let waits = client.send(DMA_UNMAP, 0, &unmap_bytes(0, 0x1000, 0x1000), &[]);
    wait_for("the drain", || served.status().draining == 1);
    // The other window of the file is unmapped first. That does not mark the held mapping
    // as revoked.
    client.unmap(0x2000, 0x1000).unwrap();
    assert_eq!(served.status().files, 1);
    assert!(!device.held.lock().unwrap().as_ref().unwrap().is_revoked());
    client.write(0, 0, &[0; 8]).unwrap();
    assert_eq!(client.receive().unwrap().id, waits);
    drop(ram);
    assert_eq!((held(), served.status().files), (before, 0));
}

#[test]
fn what_a_device_keeps_past_the_deadline_keeps_its_memory_alone() {
    let _alone = alone();
    let drain = DrainPolicy { deadline: Duration::from_millis(20), at_deadline: Deadline::Detach };
    let device = Holder::default();
    let (served, _) = observed(device.clone(), Options { drain, ..Options::default() });
    let mut client = served.client();
    client.make_master();
    let before = held();
    let ram = memfd(1 << 20);
    fill(&ram, 0, b"kept");
    client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    client.write(0, 0, &0x1000_u64.to_ne_bytes()).unwrap();
    client.unmap(0x1000, 0x1000).unwrap();
    assert_eq!(served.status().files, 0);
    let mut bytes = [0; 4];
    device.held.lock().unwrap().as_ref().unwrap().read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
    client.write(0, 0, &[0; 8]).unwrap();
    assert_eq!(client.read64(0, 16), 0);
    drop(ram);
    assert_eq!(held(), before);
}

#[test]
fn what_cannot_be_memory_is_refused_with_its_kind() {
    let _alone = alone();
    let (one, _other) = UnixStream::pair().unwrap();
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let ram = memfd(1 << 20);
    let open =
        |path: &str, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let files: [(&str, OwnedFd, Errno); 9] = [
        ("a directory", open("/tmp", OFlags::RDONLY), Errno::NODEV),
        ("a socket", one.into(), Errno::NODEV),
        ("[eventfd]", eventfd(0, EventfdFlags::CLOEXEC).unwrap(), Errno::NODEV),
        ("a pipe", reader, Errno::NODEV),
        ("/dev/null", open("/dev/null", OFlags::RDWR), Errno::NODEV),
        ("/dev/zero", open("/dev/zero", OFlags::RDWR), Errno::NODEV),
        ("O_PATH", open("/tmp", OFlags::PATH), Errno::BADF),
        ("O_PATH", reopened(&ram, OFlags::PATH), Errno::BADF),
        ("for writing only", reopened(&ram, OFlags::WRONLY), Errno::ACCESS),
    ];
    for unsealed in [Unsealed::ByMessage, Unsealed::Trust, Unsealed::Refuse] {
        let (served, events) =
            observed(Holder::default(), Options { unsealed, ..Options::default() });
        let mut client = served.client();
        let before = held();
        for (kind, file, errno) in &files {
            for flags in 1..=3 {
                assert_eq!(client.map(flags, 0, 0, 0x1000, file), Err(*errno), "{kind}");
            }
            let last = events.lock().unwrap().last().cloned();
            let Some(ServerEvent::Refused { why, .. }) = last else { panic!("{last:?}") };
            assert!(why.contains(kind), "{why}");
        }
        let itself = client.stream.try_clone().unwrap().into();
        assert_eq!(client.map(3, 0, 0, 0x1000, &itself), Err(Errno::NODEV), "the connection");
        drop(itself);
        support::settles(|| (held(), served.status().windows), (before, 0));
    }
}

#[test]
fn a_window_is_not_written_through_a_descriptor_for_reading() {
    let _alone = alone();
    for unsealed in [Unsealed::ByMessage, Unsealed::Trust, Unsealed::Refuse] {
        let (served, _) = observed(Holder::default(), Options { unsealed, ..Options::default() });
        let mut client = served.client();
        let ram = memfd(1 << 20);
        let read_only = reopened(&ram, OFlags::RDONLY);
        assert_eq!(client.map(3, 0, 0, 0x1000, &read_only), Err(Errno::ACCESS));
        // First used for reading, then for writing.
        client.map(1, 0, 0x1000, 0x1000, &read_only).unwrap();
        client.map(3, 0, 0x2000, 0x1000, &ram).unwrap();
        // First used for writing, then for reading.
        for flags in [2, 3] {
            assert_eq!(client.map(flags, 0, 0x3000, 0x1000, &read_only), Err(Errno::ACCESS));
        }
        client.map(1, 0, 0x3000, 0x1000, &read_only).unwrap();
        // Nor through any descriptor, once the file is sealed against new writable maps.
        rustix::fs::fcntl_add_seals(&ram, SealFlags::FUTURE_WRITE).unwrap();
        assert_eq!(client.map(3, 0, 0x4000, 0x1000, &ram), Err(Errno::ACCESS));
        client.map(1, 0, 0x4000, 0x1000, &ram).unwrap();
        assert_eq!(served.status().windows, 4);
        // The same for memory that would be reached by messages.
        let cut = reopened(&unsealable(0x1000), OFlags::RDONLY);
        assert_eq!(client.map(2, 0, 0x8000, 0x1000, &cut), Err(Errno::ACCESS));
    }
}

#[test]
fn a_file_that_can_be_sealed_is_sealed_here() {
    let _alone = alone();
    for unsealed_files in [Unsealed::ByMessage, Unsealed::Refuse] {
        let options = Options { unsealed: unsealed_files, ..Options::default() };
        let (served, events) = observed(Holder::default(), options);
        let mut client = served.client();
        let ram = unsealed(1 << 20);
        client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
        assert_eq!(served.status().files, 1);
        assert!(rustix::fs::fcntl_get_seals(&ram).unwrap().contains(SealFlags::SHRINK));
        assert_eq!(rustix::fs::ftruncate(&ram, 0), Err(Errno::PERM));
        assert!(!events.lock().unwrap().contains(&ServerEvent::ByMessage));
    }
    // A read-only descriptor cannot seal.
    let (served, events) = observed(Holder::default(), Options::default());
    let mut client = served.client();
    client.map(1, 0, 0x1000, 0x1000, &reopened(&unsealed(1 << 20), OFlags::RDONLY)).unwrap();
    client.map(3, 0, 0x2000, 0x1000, &unsealable(1 << 20)).unwrap();
    assert_eq!(served.status().files, 0);
    let told = events.lock().unwrap();
    assert_eq!(told.iter().filter(|told| **told == ServerEvent::ByMessage).count(), 1, "once");
    drop(told);
    // The file of a trusted owner is left unchanged.
    let options = Options { unsealed: Unsealed::Trust, ..Options::default() };
    let (served, _) = observed(Holder::default(), options);
    let ram = unsealed(1 << 20);
    served.client().map(3, 0, 0x1000, 0x1000, &ram).unwrap();
    assert_eq!(rustix::fs::fcntl_get_seals(&ram), Ok(SealFlags::empty()));
}

#[test]
fn what_is_done_with_unsealed_files_has_names() {
    for (name, unsealed) in
        [("message", Unsealed::ByMessage), ("trust", Unsealed::Trust), ("refuse", Unsealed::Refuse)]
    {
        assert_eq!(name.parse(), Ok(unsealed));
        assert_eq!(unsealed.to_string(), name);
    }
    let error = "Message".parse::<Unsealed>().unwrap_err();
    assert!(error.to_string().contains("\"message\", \"trust\" or \"refuse\""), "{error}");
}
