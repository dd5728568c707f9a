//! Clients that connect while another is served, or when none can be.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gasp_vfio_user::{Options, ServerEvent};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::client::*;
use support::device::{Holder, Stubborn};
use support::{Served, alone, descriptors, serve, wait_for};

type Events = Arc<Mutex<Vec<ServerEvent>>>;

/// Longer than a test may take.
fn patient() -> Options {
    Options { patience: Duration::from_secs(30), ..Options::default() }
}

fn observed(options: Options) -> (Served, Events) {
    let served = serve(Holder::default(), options);
    let events = Events::default();
    let told = Arc::clone(&events);
    served.server.observe(move |event| told.lock().unwrap().push(event.clone()));
    (served, events)
}

/// The reply to the next client, which arrives at once.
fn answered(served: &Served) -> Result<(), Errno> {
    let since = Instant::now();
    let mut client = Client::connect(&served.path);
    let reply = client.hello_with(HELLO).map(drop);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    if reply.is_err() {
        assert!(client.receive().is_none(), "the connection goes on");
    }
    reply
}

fn works(client: &mut Client) {
    assert_eq!(client.read64(0, 0x100), 0x1122_3344_5566_7788);
}

#[test]
fn a_client_that_comes_while_another_is_served_is_told_at_once() {
    let _alone = alone();
    let (served, events) = observed(patient());
    let mut first = served.client();
    assert_eq!(answered(&served), Err(Errno::BUSY));
    works(&mut first);
    let events = events.lock().unwrap();
    let in_use = events.iter().find_map(|told| match told {
        ServerEvent::InUse { pid, by, since } => Some((*pid, *by, *since)),
        _ => None,
    });
    let us = Some(std::process::id() as i32);
    let (pid, by, since) = in_use.expect("it is reported");
    assert_eq!((pid, by), (us, us));
    assert!(since < Duration::from_secs(5));
}

#[test]
fn a_client_behind_one_that_stalls_is_told_at_once() {
    let _alone = alone();
    let (served, _) = observed(patient());
    // The first client stalls in its first message, in a later one, or without reading.
    let first = Client::connect(&served.path);
    first.send_raw(&Client::header(1, VERSION, 20, 0), &[]);
    wait_for("it to be let in", || answered(&served) == Err(Errno::BUSY));
    first.send_raw(&[0; 4], &[]);
    assert_eq!(first.receive().unwrap().error, 0);
    let mut message = Client::header(2, GET_INFO, 32, 0);
    message.extend(bytes().u32(16).u32(0).u64(0).0);
    first.send_raw(&message[..20], &[]);
    assert_eq!(answered(&served), Err(Errno::BUSY));
    first.send_raw(&message[20..], &[]);
    assert_eq!(first.receive().unwrap().payload.len(), 16, "it goes on");
    let read = bytes().u64(0).u32(0).u32(0x4000).0;
    for id in 0..64 {
        let mut message = Client::header(id, REGION_READ, 32, 0);
        message.extend(&read);
        first.send_raw(&message, &[]);
    }
    assert_eq!(answered(&served), Err(Errno::BUSY));
    drop(first);
    assert_eq!(answered(&served), Ok(()), "the successor of one that is gone is served");
}

#[test]
fn a_successor_waits_for_the_device_and_is_told_if_that_takes_too_long() {
    let _alone = alone();
    let device = Stubborn::default();
    let may_end = Arc::clone(&device.may_end);
    let served = serve(device, Options { patience: Duration::from_millis(300), ..patient() });
    let mut first = served.client();
    first.write(0, 0, &[1]).unwrap();
    wait_for("its work", || first.read64(0, 0) == 1);
    drop(first);
    let at_last = Arc::clone(&may_end);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(3));
        at_last.store(true, Ordering::Relaxed);
    });
    let since = Instant::now();
    let told = Client::connect(&served.path).hello_with(HELLO).map(drop);
    let waited = since.elapsed();
    may_end.store(true, Ordering::Relaxed);
    assert_eq!(told, Err(Errno::BUSY));
    assert!(waited >= Duration::from_millis(290) && waited < Duration::from_secs(2), "{waited:?}");
    served.wait_detached();
    assert_eq!(answered(&served), Ok(()));
}

#[test]
fn clients_that_say_nothing_hold_nobody_up() {
    let _alone = alone();
    let (served, events) = observed(patient());
    let silent: Vec<_> = (0..40).map(|_| Client::connect(&served.path)).collect();
    works(&mut served.client());
    let too_many = ServerEvent::TurnedAway { why: "too many clients are waiting" };
    assert!(events.lock().unwrap().contains(&too_many), "the first of 40 has to go");
    assert!(silent[0].receive().is_none());
    served.wait_detached();
    drop(silent);
    // A client that has sent part of a header, while another is served, has its time.
    let (served, events) = observed(Options { patience: Duration::from_millis(200), ..patient() });
    let mut first = served.client();
    let slow = Client::connect(&served.path);
    slow.send_raw(&[0; 7], &[]);
    assert!(slow.receive().is_none());
    assert!(
        events
            .lock()
            .unwrap()
            .contains(&ServerEvent::TurnedAway { why: "its first message did not arrive in time" })
    );
    works(&mut first);
}

/// A limit on the descriptors of this process, until it is dropped.
struct Limited(Rlimit);

impl Limited {
    fn to(number: usize) -> Self {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(number as u64), ..before }).unwrap();
        Self(before)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}

#[test]
fn without_a_descriptor_left_a_client_is_told_and_later_ones_are_served() {
    let _alone = alone();
    let (served, events) = observed(patient());
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(&served.path)).collect();
    works(&mut served.client());
    served.wait_detached();
    let socket = || {
        let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
        rustix::net::socket(family, kind, None)
    };
    let limit = Limited::to(descriptors() + 8);
    // One descriptor is left, for the client's own end.
    let mut fill: Vec<OwnedFd> = std::iter::from_fn(|| socket().ok()).collect();
    for _ in 0..3 {
        fill.pop();
        let mut client = Client::connect(&served.path);
        client.send(VERSION, 0, &[0; 4], &[]);
        let reply = client.receive().expect("an answer");
        assert_eq!(reply.error, Errno::MFILE.raw_os_error() as u32);
        clients.push(client);
    }
    // The thread waits instead of trying again and again.
    let told = events.lock().unwrap().len();
    std::thread::sleep(Duration::from_millis(300));
    assert!(events.lock().unwrap().len() <= told + 1, "{:?}", events.lock().unwrap());
    drop((fill, limit));
    works(&mut served.client());
}

#[test]
fn a_flood_of_errors_is_reported_a_hundred_times_and_then_seldom() {
    let _alone = alone();
    let (served, events) = observed(patient());
    let mut client = served.client();
    let refused = || {
        let events = events.lock().unwrap();
        events.iter().filter(|told| matches!(told, ServerEvent::Refused { .. })).count()
    };
    for _ in 0..1000 {
        client.call(99, &[], &[]).unwrap_err();
    }
    assert!((100..110).contains(&refused()), "{}", refused());
    assert_eq!(served.status().refused, 1000, "all are counted");
    std::thread::sleep(Duration::from_millis(1100));
    client.call(99, &[], &[]).unwrap_err();
    let events = events.lock().unwrap();
    let [.., ServerEvent::Omitted { reports }, ServerEvent::Refused { .. }] = &events[..] else {
        panic!("{:?}", events.last());
    };
    assert!((880..=900).contains(reports), "{reports}");
}

#[test]
fn files_that_come_and_go_and_resets_are_reported_seldom_too() {
    let _alone = alone();
    let (served, events) = observed(patient());
    let mut client = served.client();
    let ram = memfd(0x1000);
    for _ in 0..100 {
        client.map(3, 0, 0x1000, 0x1000, &ram).unwrap();
        client.unmap(0x1000, 0x1000).unwrap();
        client.call(RESET, &[], &[]).unwrap();
    }
    let routine = |told: &&ServerEvent| {
        matches!(
            told,
            ServerEvent::Adopted { .. } | ServerEvent::Released { .. } | ServerEvent::Reset
        )
    };
    let told = events.lock().unwrap().iter().filter(routine).count();
    assert!((100..110).contains(&told), "{told}");
    // The limit on these does not affect reports of other sorts.
    client.call(99, &[], &[]).unwrap_err();
    assert!(matches!(events.lock().unwrap().last(), Some(ServerEvent::Refused { .. })));
}
