//! Requests: taken, walked, put back; interrupts for them.

use std::ffi::c_void;

use gasp_qvm::vio::exports::{vio_reset, vio_setup_queues};

use crate::driver::{ACK, DATA, Driver, EVENT_IDX, Event, INDIRECT, INTERRUPT, NEXT, STATUS};
use crate::driver::{WRITE, rings};
use crate::vdev::{Found, INVALID, InC, PLAIN, take};

/// A started device.
fn started(features: u64) -> (Driver, InC) {
    let driver = Driver::mmio(&PLAIN);
    driver.start(features);
    let vdev = driver.in_c();
    // SAFETY: the device lives.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    (driver, vdev)
}

#[test]
fn a_request_is_taken_walked_and_put_back() {
    let (mut driver, vdev) = started(0);
    assert_eq!(vdev.take(0), (INVALID, 0x1234_5678), "`first` stays as it is");
    driver.chain(0, 3, &[(DATA, 16, 0), (DATA + 64, 0, WRITE), (DATA + 128, 5, WRITE)]);
    let (id, first) = vdev.take(0);
    assert_ne!(id, INVALID);
    let found = vdev.descriptor(0, first);
    assert_eq!((found.addr, found.len, found.flags), (DATA, 16, 1));
    let found = vdev.descriptor(0, found.next);
    assert_eq!((found.addr, found.len, found.flags), (DATA + 64, 0, 3));
    let found = vdev.descriptor(0, found.next);
    assert_eq!(found, Found { next: INVALID, addr: DATA + 128, len: 5, flags: 2 });
    assert_eq!(vdev.take(0).0, INVALID);
    vdev.put(0, id, 5, true);
    assert_eq!(driver.used(0, 0), (1, 3, 5));
    assert_eq!(driver.events(), [Event::Line(true)]);
    assert_eq!(driver.get(INTERRUPT), 1);
    driver.set(ACK, 1);
    assert_eq!(driver.events(), [Event::Line(false)]);
    // It is no request any more, and its descriptors are none.
    let none = Found { next: INVALID, addr: 0, len: 0, flags: 0 };
    assert_eq!(vdev.descriptor(0, first), none);
    vdev.put(0, id, 5, true);
    vdev.put(0, 0x1_0003, 5, true);
    assert_eq!((driver.used(0, 0).0, driver.events()), (1, vec![]));
}

#[test]
fn what_the_driver_writes_to_a_request_that_was_taken_changes_nothing() {
    let (mut driver, vdev) = started(0);
    driver.chain(0, 0, &[(DATA, 16, 0), (DATA + 64, 8, WRITE)]);
    let (_, first) = vdev.take(0);
    let [table, ..] = rings(0);
    driver.descriptor(table, 0, (0xdead_0000, 1 << 30, NEXT, 0));
    driver.descriptor(table, 1, (0xdead_0000, 1 << 30, NEXT, 0));
    let found = vdev.descriptor(0, first);
    assert_eq!((found.addr, found.len), (DATA, 16));
    let found = vdev.descriptor(0, found.next);
    assert_eq!(found, Found { next: INVALID, addr: DATA + 64, len: 8, flags: 2 });
}

#[test]
fn descriptors_of_an_indirect_table_are_walked_as_others() {
    let (mut driver, vdev) = started(1 << 28);
    let table = DATA + 0x1000;
    driver.descriptor(table, 0, (DATA, 1, NEXT, 2));
    driver.descriptor(table, 2, (DATA + 16, 2, NEXT | WRITE, 1));
    driver.descriptor(table, 1, (DATA + 32, 3, WRITE, 0));
    // One of the queue's own, then the table.
    driver.chain(0, 4, &[(DATA + 48, 4, 0), (table, 48, INDIRECT)]);
    // And a table alone.
    driver.descriptor(rings(0)[0], 0, (table, 48, INDIRECT, 0));
    driver.offer(0, 0);
    let walk = |mut number| {
        let mut all = Vec::new();
        while number != INVALID {
            let found = vdev.descriptor(0, number);
            all.push((found.addr.wrapping_sub(DATA), found.len, found.flags));
            number = found.next;
        }
        all
    };
    let (id, first) = vdev.take(0);
    assert_eq!(walk(first), [(48, 4, 1), (0, 1, 1), (16, 2, 3), (32, 3, 2)]);
    let (other, first) = vdev.take(0);
    assert_eq!(walk(first), [(0, 1, 1), (16, 2, 3), (32, 3, 2)]);
    let second = vdev.descriptor(0, first).next;
    vdev.put(0, other, 5, false);
    assert_eq!(walk(second), [(0_u64.wrapping_sub(DATA), 0, 0)], "it is put back");
    vdev.put(0, id, 5, true);
    assert_eq!((driver.used(0, 0), driver.used(0, 1)), ((2, 0, 5), (2, 4, 5)));
}

#[test]
fn the_driver_is_interrupted_if_it_wants_that() {
    let (mut driver, vdev) = started(0);
    let [_, available, _] = rings(0);
    let one = |driver: &mut Driver, notify| {
        driver.chain(0, 0, &[(DATA, 1, WRITE)]);
        let (id, _) = vdev.take(0);
        vdev.put(0, id, 1, notify);
        let events = driver.events();
        driver.set(ACK, 3);
        driver.events();
        !events.is_empty()
    };
    assert!(one(&mut driver, true) && !one(&mut driver, false));
    driver.poke(available, &1_u16.to_le_bytes());
    assert!(!one(&mut driver, true), "VRING_AVAIL_F_NO_INTERRUPT");

    let (mut driver, vdev) = started(EVENT_IDX);
    // It wants to hear of the third.
    driver.poke(available + 4 + 16, &2_u16.to_le_bytes());
    let one = |driver: &mut Driver, notify| {
        driver.chain(0, 0, &[(DATA, 1, WRITE)]);
        let (id, _) = vdev.take(0);
        vdev.put(0, id, 1, notify);
        !driver.events().is_empty()
    };
    // The first is always told, as nothing is known before it.
    one(&mut driver, true);
    driver.set(ACK, 3);
    driver.events();
    assert!(!one(&mut driver, true));
    assert!(!one(&mut driver, false), "this is the third, and the next says so");
    assert!(one(&mut driver, true));
}

#[test]
fn the_driver_notifies_of_the_next_request_once_there_is_none() {
    let (mut driver, vdev) = started(EVENT_IDX);
    let [.., used] = rings(0);
    let event = |driver: &Driver| u16::from_le_bytes(driver.peek(used + 4 + 8 * 8));
    driver.chain(0, 0, &[(DATA, 1, WRITE)]);
    driver.chain(0, 1, &[(DATA, 1, WRITE)]);
    assert_ne!(vdev.take(0).0, INVALID);
    assert_eq!(event(&driver), 0);
    assert_ne!(vdev.take(0).0, INVALID);
    assert_eq!(vdev.take(0).0, INVALID);
    assert_eq!(event(&driver), 2);
}

#[test]
fn queues_are_those_of_a_started_driver() {
    let driver = Driver::mmio(&PLAIN);
    let vdev = driver.in_c();
    // SAFETY: the device lives.
    let set_up = || unsafe { vio_setup_queues(vdev.vsp) };
    assert_eq!((set_up(), vdev.queue(0).is_null()), (libc::EPERM, true));
    assert!(driver.negotiate(1 << 32));
    driver.queue(1);
    assert_eq!(set_up(), libc::EPERM);
    driver.set(STATUS, 15);
    assert_eq!(driver.class(), 0x40000 | 4);
    assert_eq!((set_up(), set_up()), (0, 0));
    // One that it has not enabled is none.
    assert!(vdev.queue(0).is_null() && !vdev.queue(1).is_null());
    // SAFETY: the device lives, and has two queues.
    let info = unsafe { &*(*vdev.vsp).qinfo.add(1) };
    let places = [0, 1, 2].map(|at| info.places[at].load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(places, rings(1));
    assert_eq!(info.size.load(std::sync::atomic::Ordering::Relaxed), 8);
    // It can be disabled without a reset.
    let queue = vdev.queue(1);
    driver.set(0x30, 1);
    driver.set(0x44, 0);
    assert!(vdev.queue(1).is_null());
    assert_eq!(take(queue).0, INVALID);
}

#[test]
fn a_reset_makes_requests_and_queues_void() {
    let (mut driver, vdev) = started(0);
    driver.chain(0, 2, &[(DATA, 1, WRITE)]);
    let (before, id) = (vdev.queue(0), vdev.take(0).0);
    driver.set(STATUS, 0);
    // SAFETY: the device lives.
    unsafe { vio_reset(vdev.vsp) };
    assert!(vdev.queue(0).is_null());
    driver.restart();
    driver.start(0);
    // SAFETY: as above.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    driver.chain(0, 2, &[(DATA, 1, WRITE)]);
    assert_eq!(take(before).0, INVALID, "it is no queue any more");
    // SAFETY: a queue may have any value.
    unsafe { gasp_qvm::vio::requests::vq_put_to_driver(before, id, 1, true) };
    vdev.put(0, id, 1, true);
    assert_eq!((driver.used(0, 0).0, driver.events()), (0, vec![]), "it was not taken again");
    assert_eq!(vdev.take(0), (2, 2));
}

#[test]
fn made_up_queues_have_no_requests() {
    let (_driver, vdev) = started(0);
    let real = vdev.queue(0).addr();
    for made_up in [0, 1, real + 100, real ^ 1 << 63, usize::MAX, vdev.vsp.addr(), vdev.vdp.addr()]
    {
        assert_eq!(take(made_up as *mut c_void).0, INVALID, "{made_up:#x}");
    }
}

/// A thread of the vdev that works on, whatever the driver does.
#[test]
fn after_a_reset_nothing_of_the_rings_is_written() {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    struct Shared(InC);
    // SAFETY: the functions of the headers may be called by any thread.
    unsafe impl Sync for Shared {}
    impl Shared {
        fn queue(&self) -> *mut c_void {
            self.0.queue(0)
        }
    }
    let (mut driver, vdev) = started(0);
    let (ending, served, shared) = (AtomicBool::new(false), AtomicU32::new(0), Shared(vdev));
    let work = || {
        while !ending.load(Ordering::Relaxed) {
            let queue = shared.queue();
            let (id, _) = take(queue);
            if id != INVALID {
                // SAFETY: a queue may have any value.
                unsafe { gasp_qvm::vio::requests::vq_put_to_driver(queue, id, 1, true) };
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    /// Ends the thread, also if an assertion fails.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let _end = End(&ending);
        scope.spawn(work);
        // The used ring of a round is another one than that of the next: a late write to it is seen
        // a whole round later, when the thread has had time for it.
        let places = [rings(0), [rings(0)[0], rings(0)[1], rings(0)[2] + 0x4000]];
        for round in 0..3000 {
            for head in 0..8 {
                driver.chain(0, head, &[(DATA, 1, WRITE)]);
            }
            let (begun, since) = (served.load(Ordering::Relaxed), std::time::Instant::now());
            while round % 8 == 0 && served.load(Ordering::Relaxed) == begun {
                assert!(since.elapsed().as_secs() < 10, "round {round}: it does not work");
                std::thread::yield_now();
            }
            (0..round % 400).for_each(|_| std::hint::spin_loop());
            driver.set(STATUS, 0);
            // SAFETY: the device lives.
            unsafe { vio_reset(vdev.vsp) };
            assert_eq!((driver.status(), driver.get(INTERRUPT)), (0, 0), "round {round}");
            let [used, next] = [round % 2, (round + 1) % 2].map(|at| places[at][2]);
            driver.poke(used, &[0xaa; 80]);
            if round > 0 {
                assert_eq!(driver.peek::<80>(next), [0xaa; 80], "round {round}");
            }
            driver.restart();
            driver.poke(used, &[0xaa; 80]);
            driver.poke(next, &[0; 80]);
            assert!(driver.negotiate(1 << 32));
            driver.queue_at(0, 8, places[(round + 1) % 2]);
            driver.set(STATUS, 15);
            // SAFETY: as above.
            assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
        }
    });
    assert!(served.into_inner() >= 50);
}
