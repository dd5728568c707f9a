//! The network device.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gasp::Access;
use gasp_virtio::net::{Net, Port};

use crate::counted::Counted;
use crate::driver::{DATA, Driver, EVENT_IDX, Noise, until};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const RECEIVE: usize = 0;
const SEND: usize = 1;
const HEADER: u32 = 12;

fn net() -> (Driver, UnixDatagram) {
    let (near, far) = UnixDatagram::pair().unwrap();
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    far.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut driver = Driver::attach(Net::new(Port::datagrams(near), MAC));
    driver.start(EVENT_IDX | 1 << 5, 64);
    (driver, far)
}

#[test]
fn the_configuration_has_the_address() {
    let (driver, _far) = net();
    let device = driver.device.unwrap();
    let mac: Vec<u8> = (0..6).map(|at| driver.read::<1>(device + at) as u8).collect();
    assert_eq!(mac, MAC);
    assert_eq!(driver.offered() & 0xff_ffff, 1 << 5, "no offloads");
}

#[test]
fn frames_are_sent_as_they_are_whatever_buffers_they_are_in() {
    let (mut driver, far) = net();
    let mut noise = Noise(4);
    let mut received = vec![0; 1 << 17];
    for _ in 0..100 {
        let len = 14 + noise.below(4000);
        let frame = noise.bytes(len as usize);
        driver.bus.store(DATA, &[0xff; 12]).unwrap();
        driver.bus.store(DATA + 12, &frame).unwrap();
        let cut = noise.below(len + 12) as u32;
        let all = len as u32 + HEADER;
        let buffers = [(DATA, cut, false), (DATA + u64::from(cut), all - cut, false)];
        assert_eq!(driver.run(SEND, &buffers), 0);
        let count = far.recv(&mut received).unwrap();
        assert!(received[..count] == frame);
    }
    // 64 KiB are a frame, and more are not; nothing is no frame either.
    let frame = noise.bytes(64 << 10);
    driver.bus.store(DATA + 12, &frame).unwrap();
    driver.run(SEND, &[(DATA, (64 << 10) + HEADER + 1, false)]);
    driver.run(SEND, &[(DATA, 12, false)]);
    driver.run(SEND, &[(DATA, (64 << 10) + HEADER, false)]);
    assert_eq!(far.recv(&mut received).unwrap(), 64 << 10);
    assert!(received[..64 << 10] == frame);
}

#[test]
fn frames_arrive_with_a_header_of_one_buffer_and_in_order() {
    let (mut driver, far) = net();
    let mut noise = Noise(9);
    let frames: Vec<Vec<u8>> = (0..200)
        .map(|_| {
            let len = 14 + noise.below(1500) as usize;
            noise.bytes(len)
        })
        .collect();
    let sent = frames.clone();
    let sender = std::thread::spawn(move || {
        sent.iter().for_each(|frame| assert_eq!(far.send(frame).unwrap(), frame.len()));
        far
    });
    let place = |at: usize| DATA + 4096 * (at as u64 % 16);
    for at in 0..8 {
        driver.put(RECEIVE, &[(place(at), 5, true), (place(at) + 5, 2000, true)]);
    }
    driver.notify(RECEIVE);
    for (at, frame) in frames.iter().enumerate() {
        let (_, written) = driver.wait(RECEIVE);
        assert_eq!(written, frame.len() as u32 + HEADER);
        let bytes = driver.bytes(place(at), written as usize);
        assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert!(bytes[12..] == *frame, "{at}");
        driver.put(RECEIVE, &[(place(at + 8), 5, true), (place(at + 8) + 5, 2000, true)]);
        driver.notify(RECEIVE);
    }
    drop(sender.join().unwrap());
}

#[test]
fn a_frame_that_is_too_long_for_its_chain_is_lost_and_the_chain_takes_the_next() {
    let (mut driver, far) = net();
    driver.put(RECEIVE, &[(DATA, 100, true)]);
    driver.notify(RECEIVE);
    for len in [89, 70_000, 1000, 88, 20] {
        far.send(&vec![len as u8; len]).unwrap();
    }
    let (_, written) = driver.wait(RECEIVE);
    assert_eq!(written, 100);
    assert_eq!(driver.bytes(DATA + 12, 88), [88; 88]);
    // The next one has waited for a chain; one that cannot be written loses its frame.
    assert_eq!(driver.run(RECEIVE, &[(DATA, 100, true)]), 32);
    driver.revoke(DATA);
    driver.grant(DATA, Access::READ);
    driver.put(RECEIVE, &[(DATA, 100, true)]);
    driver.put(RECEIVE, &[(DATA + 4096, 100, true)]);
    driver.notify(RECEIVE);
    far.send(&[1; 20]).unwrap();
    far.send(&[2; 20]).unwrap();
    assert_eq!([driver.wait(RECEIVE).1, driver.wait(RECEIVE).1], [0, 32]);
    assert_eq!(driver.bytes(DATA + 4096 + 12, 20), [2; 20]);
}

#[test]
fn a_driver_that_sends_faster_than_the_port_takes_waits_and_loses_nothing() {
    let (mut driver, far) = net();
    // More than a socket keeps.
    let (frame, step) = (9000, 0x4000);
    let put_all = |driver: &mut Driver, byte: u8| {
        for at in 0..50 {
            let place = DATA + step * u64::from(at);
            driver.bus.store(place + 12, &vec![byte + at; frame]).unwrap();
            driver.put(SEND, &[(place, frame as u32 + HEADER, false)]);
        }
        driver.notify(SEND);
    };
    let mut received = vec![0; 10_000];
    for round in 0..3 {
        put_all(&mut driver, round);
        // It receives meanwhile.
        far.send(&[1; 60]).unwrap();
        assert_eq!(driver.run(RECEIVE, &[(DATA + 0x20_0000, 100, true)]), 72);
        for at in 0..50 {
            assert_eq!(far.recv(&mut received).unwrap(), frame);
            assert!(received[..frame].iter().all(|&byte| byte == at + round));
        }
        for _ in 0..50 {
            driver.wait(SEND);
        }
    }
    // A reset while it waits: what was not sent never is.
    put_all(&mut driver, 100);
    until(|| driver.take(SEND));
    driver.start(0, 64);
    far.set_nonblocking(true).unwrap();
    let sent = core::iter::from_fn(|| far.recv(&mut received).ok()).count();
    assert!((1..50).contains(&sent), "{sent}");
    far.set_nonblocking(false).unwrap();
    driver.bus.store(DATA + 12, &[9; 60]).unwrap();
    driver.run(SEND, &[(DATA, 72, false)]);
    assert_eq!(far.recv(&mut received).unwrap(), 60);
    // The other side has gone: frames are lost, and the driver goes on.
    drop(far);
    for _ in 0..20 {
        assert_eq!(driver.run(SEND, &[(DATA, 100, false)]), 0);
    }
}

#[test]
fn buffers_and_frames_that_a_reset_overtakes_are_void() {
    let (mut driver, far) = net();
    driver.bus.store(DATA, &[0; 4096]).unwrap();
    driver.put(RECEIVE, &[(DATA, 100, true)]);
    driver.notify(RECEIVE);
    // It is too long for this chain, which is kept for the next.
    far.send(&[1; 200]).unwrap();
    // So that it has been taken.
    driver.run(SEND, &[(DATA + 8192, 12, false)]);
    driver.start(0, 64);
    far.send(&[2; 50]).unwrap();
    assert_eq!(driver.run(RECEIVE, &[(DATA + 4096, 100, true)]), 62);
    assert_eq!(driver.bytes(DATA + 4096 + 12, 50), [2; 50]);
    assert_eq!(driver.bytes(DATA, 100), [0; 100], "that buffer is the driver's again");
    // A frame without a buffer.
    far.send(&[3; 50]).unwrap();
    driver.run(SEND, &[(DATA + 8192, 12, false)]);
    driver.notify(RECEIVE);
    driver.run(SEND, &[(DATA + 8192, 12, false)]);
    driver.start(0, 64);
    far.send(&[4; 50]).unwrap();
    driver.run(RECEIVE, &[(DATA, 100, true)]);
    assert_eq!(driver.bytes(DATA + 12, 50), [4; 50]);
}

#[test]
fn a_driver_need_not_notify_of_buffers_while_there_are_some() {
    let (mut driver, far) = net();
    driver.start(1 << 5, 64);
    driver.put(RECEIVE, &[(DATA, 100, true)]);
    driver.notify(RECEIVE);
    until(|| (driver.asks(RECEIVE).0 == 1).then_some(()));
    far.send(&[1; 20]).unwrap();
    assert_eq!(driver.wait(RECEIVE).1, 32);
    far.send(&[1; 20]).unwrap();
    // There is a frame, and no buffer.
    until(|| (driver.asks(RECEIVE).0 == 0).then_some(()));
    assert_eq!(driver.run(RECEIVE, &[(DATA, 100, true)]), 32);
}

#[test]
fn a_frame_without_a_header_breaks_the_device() {
    let (mut driver, far) = net();
    driver.put(SEND, &[(DATA, 11, false), (DATA, 100, true)]);
    driver.notify(SEND);
    driver.wait_broken();
    driver.start(0, 64);
    driver.run(SEND, &[(DATA, 72, false)]);
    assert_eq!(far.recv(&mut [0; 100]).unwrap(), 60);
}

#[test]
fn names_that_no_interface_can_have_are_refused() {
    for name in ["", "a-name-of-16-byt", "nul\0", "a name that is much too long for one"] {
        let error = Port::tap(name).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{name:?}");
    }
}

#[test]
fn a_port_that_has_failed_is_left_alone_and_frames_to_it_are_lost() {
    // Each call fails at once, as those of a tap interface that was deleted do.
    let nothing = std::fs::File::open("/dev/null").unwrap();
    let port = Port::datagrams(UnixDatagram::from(OwnedFd::from(nothing)));
    let (net, turns) = Counted::new(Net::new(port, MAC));
    let mut driver = Driver::attach(net);
    for _ in 0..2 {
        driver.start(EVENT_IDX | 1 << 5, 64);
        driver.put(RECEIVE, &[(DATA, 100, true)]);
        driver.notify(RECEIVE);
        // More than the errors that it takes.
        for _ in 0..40 {
            assert_eq!(driver.run(SEND, &[(DATA, 100, false)]), 0);
        }
        // The turns after the last frame end; a busy thread has thousands.
        let before = turns[RECEIVE].load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(100));
        let turns = turns[RECEIVE].load(Ordering::Relaxed) - before;
        assert!(turns < 10, "{turns} turns");
        assert_eq!(driver.take(RECEIVE), None);
    }
}
