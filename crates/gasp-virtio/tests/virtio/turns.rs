//! Turns of a queue, as a device sees them: how many chains one has, and chains that arrive at the
//! worst moment, after the device has looked for the last time and before it asks to be notified.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use gasp::MemoryObject;
use gasp_vdev::{Bell, Class};
use gasp_virtio::{ActiveQueue, Broken, Kind, VirtioDevice, VirtioPci, Waits};

use crate::driver::{DATA, Driver, EVENT_IDX, RINGS};

/// The available index.
const INDEX: u64 = RINGS + 0x1002;

/// Makes the next chain available itself, as a driver on another processor would, when it has taken
/// all there were.
#[derive(Default)]
struct Late {
    ram: OnceLock<MemoryObject>,
    served: AtomicU16,
    /// How many VMMs it has.
    attached: AtomicU16,
}

impl VirtioDevice for Late {
    fn kind(&self) -> Kind {
        Kind { id: 63, class: Class { base: 0xff, sub: 0, interface: 0 } }
    }

    fn queues(&self) -> Vec<u16> {
        vec![8]
    }

    fn serve(&self, _: u16, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        while let Some(chain) = queue.next()? {
            queue.complete(&chain, 0)?;
            self.served.fetch_add(1, Ordering::Relaxed);
        }
        let served = self.served.load(Ordering::Relaxed);
        if (1..5).contains(&served) {
            let next = (served + 1).to_le_bytes();
            self.ram.get().unwrap().write_at(INDEX, &next).unwrap();
        }
        Ok(Waits::ForDriver)
    }

    fn attached(&self, bell: Option<Bell>) {
        assert!(bell.is_some());
        self.attached.fetch_add(1, Ordering::Relaxed);
    }

    fn detached(&self) {
        self.attached.fetch_sub(1, Ordering::Relaxed);
    }

    fn reset(&self) {
        self.served.store(0, Ordering::Relaxed);
    }
}

#[test]
fn a_chain_of_which_the_driver_does_not_notify_any_more_is_found() {
    let device = Arc::new(Late::default());
    let mut driver = Driver::attach_to(VirtioPci::new(Arc::clone(&device)), Default::default());
    device.ram.set(driver.bus.ram().clone()).unwrap();
    for features in [0, EVENT_IDX] {
        driver.start(features, 8);
        // The ring has all five of them; the driver makes the first available.
        for at in 0..5 {
            driver.put(0, &[(DATA + at, 1, false)]);
        }
        driver.bus.store(INDEX, &1_u16.to_le_bytes()).unwrap();
        driver.notify(0);
        for head in 0..5 {
            assert_eq!(driver.wait(0), (head, 0));
        }
    }
    assert_eq!(device.attached.load(Ordering::Relaxed), 1);
    driver.bus.detach();
    assert_eq!(device.attached.load(Ordering::Relaxed), 0);
}

/// Counts the chains of each turn, of two queues.
#[derive(Default)]
struct Counting(Mutex<Vec<(u16, usize)>>);

impl VirtioDevice for Counting {
    fn kind(&self) -> Kind {
        Kind { id: 63, class: Class { base: 0xff, sub: 0, interface: 0 } }
    }

    fn queues(&self) -> Vec<u16> {
        vec![128, 128]
    }

    fn serve(&self, index: u16, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        let mut count = 0;
        while let Some(chain) = queue.next()? {
            queue.complete(&chain, 0)?;
            count += 1;
        }
        if count > 0 {
            self.0.lock().unwrap().push((index, count));
        }
        Ok(Waits::ForDriver)
    }
}

#[test]
fn a_turn_has_a_few_chains_and_none_is_lost() {
    let device = Arc::new(Counting::default());
    let mut driver = Driver::attach_to(VirtioPci::new(Arc::clone(&device)), Default::default());
    driver.start(0, 128);
    for _ in 0..100 {
        driver.put(0, &[(DATA, 1, false)]);
    }
    for _ in 0..40 {
        driver.put(1, &[(DATA, 1, false)]);
    }
    driver.notify(0);
    for index in [1; 40].into_iter().chain([0; 100]) {
        driver.wait(index);
    }
    let turns = device.0.lock().unwrap().clone();
    assert!(turns.iter().all(|&(_, count)| count <= 32), "{turns:?}");
    let of = |wanted| {
        let turns = turns.iter().filter(move |(index, _)| *index == wanted);
        turns.map(|(_, count)| count).sum::<usize>()
    };
    assert_eq!((of(0), of(1)), (100, 40));
}

#[test]
fn a_turn_has_at_most_512_kib_of_buffers_and_the_chain_that_reaches_them() {
    let device = Arc::new(Counting::default());
    let mut driver = Driver::attach_to(VirtioPci::new(Arc::clone(&device)), Default::default());
    driver.start(0, 128);
    for _ in 0..10 {
        driver.put(0, &[(DATA, 100_000, false), (DATA, 100_000, true)]);
    }
    driver.put(0, &[(DATA, 1 << 20, true)]);
    driver.put(0, &[(DATA, 1, true)]);
    driver.notify(0);
    for _ in 0..12 {
        driver.wait(0);
    }
    let turns = device.0.lock().unwrap().clone();
    assert!(turns.len() >= 5 && turns.iter().all(|&(_, count)| count <= 3), "{turns:?}");
}

/// Works until it is to stop.
struct Endless;

impl VirtioDevice for Endless {
    fn kind(&self) -> Kind {
        Kind { id: 63, class: Class { base: 0xff, sub: 0, interface: 0 } }
    }

    fn queues(&self) -> Vec<u16> {
        vec![8]
    }

    fn serve(&self, _: u16, queue: &mut ActiveQueue<'_>) -> Result<Waits, Broken> {
        while !queue.should_stop() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Waits::NotAtAll)
    }
}

#[test]
fn a_device_is_asked_to_stop_by_resets_of_either_kind_and_by_the_end() {
    let mut driver = Driver::attach(Endless);
    for _ in 0..3 {
        driver.start(0, 8);
        driver.notify(0);
        std::thread::sleep(Duration::from_millis(5));
        driver.reset();
        driver.start(0, 8);
        driver.notify(0);
        driver.bus.shell().reset();
        driver.bus.shell().config_write(4, &[6, 0]).unwrap();
    }
    driver.start(0, 8);
    driver.bus.detach();
}
