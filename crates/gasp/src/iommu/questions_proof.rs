//! Every interleaving of devices that miss and a guest that invalidates, by loom, with the
//! production code of the questions.
//!
//! The guest's page tables are one number, its version, which is read and written without any
//! order of its own. The domain's table is one word for each of two pages: 0 while it is empty, or
//! the version that was answered.

use super::*;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

struct World {
    questions: Questions<u64>,
    /// The lock of the domain's table.
    table: Mutex<()>,
    tables: AtomicU64,
    words: [AtomicU64; 2],
    asked: AtomicU64,
}

fn world() -> Arc<World> {
    Arc::new(World {
        questions: Questions::new(),
        table: Mutex::new(()),
        tables: AtomicU64::new(1),
        words: [AtomicU64::new(0), AtomicU64::new(0)],
        asked: AtomicU64::new(0),
    })
}

fn page(index: u64) -> Span<DeviceAddr> {
    Span::new(DeviceAddr(index << 12), 4096).unwrap()
}

impl World {
    fn word(&self, index: u64) -> &AtomicU64 {
        &self.words[index as usize]
    }

    /// A map of page 0, as a domain makes it, up to the word that it finds. If the answer is
    /// `large`, it is about both pages.
    fn map(&self, large: bool) -> u64 {
        loop {
            let word = self.word(0).load(Ordering::Acquire);
            if word != 0 {
                return word;
            }
            let ask = || {
                self.asked.fetch_add(1, Ordering::Relaxed);
                self.tables.load(Ordering::Relaxed)
            };
            let enter = |&version: &u64, valid: &dyn Fn() -> Option<Invalidated>| {
                let _table = lock(&self.table);
                if valid().is_none() {
                    return Ok(false);
                }
                self.word(0).store(version, Ordering::Release);
                if large {
                    self.word(1).store(version, Ordering::Release);
                }
                Ok(true)
            };
            let is_known = || self.word(0).load(Ordering::Acquire) != 0;
            let about = |_: &u64| if large { page(0).hull(&page(1)) } else { page(0) };
            let settled = self.questions.answer(page(0), Access::READ, is_known, ask, about, enter);
            drop(settled.unwrap());
        }
    }

    /// Changes the page tables, and invalidates a page. What is in the table afterwards is not
    /// older.
    fn invalidate(&self, index: u64, version: u64) {
        self.tables.store(version, Ordering::Relaxed);
        let invalidating = self.questions.invalidate(&[page(index)]);
        let table = lock(&self.table);
        self.word(index).store(0, Ordering::Release);
        drop(table);
        // Here is the scan.
        assert_eq!(self.word(index).load(Ordering::Acquire), 0, "nothing newer is there");
        drop(invalidating);
        self.check(index, version);
    }

    fn check(&self, index: u64, version: u64) {
        let word = self.word(index).load(Ordering::Acquire);
        assert!(word == 0 || word >= version, "version {word} after {version} was invalidated");
    }
}

fn spawn(world: &Arc<World>, body: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || body(&world))
}

#[test]
fn no_answer_is_older_than_the_last_invalidation() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(|| {
        let world = world();
        let device = spawn(&world, |world| {
            world.map(false);
        });
        world.invalidate(0, 2);
        assert_eq!(world.map(false), 2, "nor is what is mapped after it");
        device.join().unwrap();
        world.check(0, 2);
    });
}

#[test]
fn nor_is_one_of_which_a_part_was_invalidated() {
    loom::model(|| {
        let world = world();
        let device = spawn(&world, |world| {
            world.map(true);
        });
        world.invalidate(1, 2);
        device.join().unwrap();
        world.check(1, 2);
    });
}

#[test]
fn nor_if_it_is_invalidated_twice() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = world();
        let device = spawn(&world, |world| {
            world.map(false);
        });
        world.invalidate(0, 2);
        world.invalidate(0, 3);
        device.join().unwrap();
        world.check(0, 3);
    });
}

#[test]
fn devices_that_miss_together_ask_once() {
    loom::model(|| {
        let world = world();
        let device = spawn(&world, |world| assert_eq!(world.map(false), 1));
        assert_eq!(world.map(false), 1);
        device.join().unwrap();
        assert_eq!(world.asked.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn an_answer_for_two_devices_is_not_stale_for_either() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let world = world();
        let devices = [(); 2].map(|()| {
            spawn(&world, |world| {
                world.map(false);
            })
        });
        world.invalidate(0, 2);
        assert_eq!(world.map(false), 2);
        devices.into_iter().for_each(|device| device.join().unwrap());
        world.check(0, 2);
    });
}
