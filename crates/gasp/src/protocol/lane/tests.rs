use super::super::scan::scan;
use super::super::slot::Use;
use super::*;

/// A held slot, as a mapping has it.
struct Hold {
    slot: &'static Slot,
    stamp: u64,
}

impl Hold {
    fn of(view: u32, vdev: u32, start: u64) -> Self {
        let (slot, stamp) = Lane::with(|lane| lane.publish(span(start))).unwrap();
        slot.establish(stamp, view, vdev);
        Self { slot, stamp }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.slot.release();
    }
}

/// A section of the lane's owner.
struct Section(&'static Lane);

impl Section {
    fn enter() -> Self {
        Lane::with(|lane| {
            lane.sections.enter();
            Self(lane)
        })
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        self.0.sections.leave();
    }
}

fn span(start: u64) -> Span<DeviceAddr> {
    Span::new(DeviceAddr(start), 0x1000).unwrap()
}

#[test]
fn every_slot_of_every_block_has_one_position() {
    let mut seen = std::collections::HashSet::new();
    for index in 0..FIRST_BLOCK as u32 * 7 {
        let (block, within) = position(index);
        assert!(within < FIRST_BLOCK << block);
        assert!(seen.insert((block, within)));
    }
    assert_eq!(position(0), (0, 0));
    assert_eq!(position(64), (1, 0));
    assert_eq!(position(192), (2, 0));
}

#[test]
fn more_holds_than_a_block_has_slots_and_each_is_found() {
    const VDEV: u32 = 0xabc1;
    let holds: Vec<Hold> = (0..1000_u64).map(|index| Hold::of(7, VDEV, index * 0x1000)).collect();
    let mine = |found: Use| found.vdev == VDEV;
    let found = scan(mine);
    assert_eq!(found.len(), 1000);
    assert!(found.iter().all(Holder::is_held));
    drop(holds);
    assert!(!found.iter().any(Holder::is_held));
    assert!(scan(mine).is_empty());
}

#[test]
fn very_many_holds_take_time_in_proportion_and_their_slots_are_used_again() {
    const COUNT: usize = 200_000;
    const VDEV: u32 = 0xabc4;
    let hold = || Hold::of(1, VDEV, 0);
    let used = || Lane::with(|lane| lane.used.load(Ordering::Relaxed)) as usize;
    let body = move || {
        let fill = || -> Vec<Hold> { (0..COUNT).map(|_| hold()).collect() };
        drop(fill());
        let mut holds = fill();
        assert!(used() <= COUNT + COUNT / 32, "{} slots for {COUNT} mappings", used());
        // One in and one out, at random places.
        for step in 0..COUNT {
            holds.swap_remove(step * 7919 % COUNT);
            holds.push(hold());
        }
        assert!(used() <= COUNT + COUNT / 16, "{} slots for {COUNT} mappings", used());
    };
    std::thread::spawn(body).join().unwrap();
}

#[test]
fn a_scan_reads_what_is_held_and_not_what_was_once() {
    const COUNT: usize = 100_000;
    const VDEV: u32 = 0xabc6;
    let body = || {
        let to_read = || {
            let blocks = Lane::with(|lane| lane.blocks.iter().map_while(OnceLock::get));
            blocks.map(Block::groups_to_read).sum::<usize>()
        };
        let mine = || scan(|found| found.vdev == VDEV).len();
        let hold = || Hold::of(1, VDEV, 0);
        let mut holds: Vec<Hold> = (0..COUNT).map(|_| hold()).collect();
        assert_eq!(mine(), COUNT);
        assert!(to_read() >= COUNT / 64, "all of these are read");
        // Two stay, far apart.
        let kept = [holds.swap_remove(COUNT / 3), holds.swap_remove(COUNT / 2)];
        drop(holds);
        assert_eq!(mine(), 2, "the scan that finds them free");
        assert!(to_read() <= 2, "{} groups are read for two mappings", to_read());
        assert_eq!(mine(), 2);
        // The owner maps on, in the hinted slot and in others.
        let more: Vec<Hold> = (0..1000).map(|_| hold()).collect();
        assert_eq!(mine(), 1002);
        drop((kept, more));
        assert_eq!(mine(), 0);
        assert_eq!(to_read(), 0);
        let last = hold();
        assert_eq!(mine(), 1, "the hinted slot is always read");
        drop(last);
    };
    std::thread::spawn(body).join().unwrap();
}

#[test]
fn a_hold_outlives_its_thread_and_is_released_on_another() {
    const VDEV: u32 = 0xabc2;
    let hold = std::thread::spawn(|| Hold::of(9, VDEV, 0)).join().unwrap();
    let found = scan(|found| found.vdev == VDEV && found.view == 9);
    assert_eq!(found.len(), 1);
    drop(hold);
    assert!(!found[0].is_held());
}

#[test]
fn a_reused_slot_is_another_holder() {
    const VDEV: u32 = 0xabc3;
    let make = || Hold::of(1, VDEV, 0);
    let first = make();
    let found = scan(|found| found.vdev == VDEV);
    drop(first);
    let second = make();
    assert!(!found[0].is_held(), "the first mapping is gone, though its slot is in use");
    found[0].mark_revoked();
    assert!(!second.slot.is_revoked(second.stamp), "a late mark does not reach the next mapping");
}

/// Runs `late` in a thread-local variable's destructor, after the thread has given its lane up:
/// the variable is initialised before the thread's first map, so it is dropped after the lane.
fn in_an_ending_thread<T: 'static + Send, L: 'static>(
    before: impl FnOnce() -> L + Send + 'static,
    late: impl FnOnce(L) -> T + Send + 'static,
) -> T {
    struct Late(Option<Box<dyn FnOnce()>>);
    impl Drop for Late {
        fn drop(&mut self) {
            assert!(GIVE_UP.try_with(|_| ()).is_err(), "the lane was given up before");
            if let Some(late) = self.0.take() {
                late();
            }
        }
    }
    thread_local! {
        static LATE: core::cell::RefCell<Late> = const { core::cell::RefCell::new(Late(None)) };
    }
    let (done, result) = std::sync::mpsc::channel();
    let body = move || {
        LATE.with_borrow_mut(|_| ());
        let before = before();
        let late = move || drop(done.send(late(before)));
        LATE.with_borrow_mut(|slot| slot.0 = Some(Box::new(late)));
    };
    std::thread::spawn(body).join().unwrap();
    result.recv().unwrap()
}

/// More lanes than the threads of other tests can take meanwhile.
const MANY: usize = 400;

#[test]
fn a_section_that_outlives_its_lane_keeps_others_out_of_it_until_it_ends() {
    let before = all().count();
    for _ in 0..MANY {
        in_an_ending_thread(
            || [Section::enter(), Section::enter()].map(|section| (index_of_section(), section)),
            |sections| {
                let [(given_up, first), (_, second)] = sections;
                let taken = || std::thread::spawn(index_of_section).join().unwrap();
                assert_ne!(taken(), given_up, "its lane is not free");
                drop(first);
                assert_ne!(taken(), given_up, "its lane is not free yet");
                drop(second);
            },
        );
    }
    let more = all().count() - before;
    assert!(more < MANY / 4, "{more} lanes are lost in {MANY} threads");
}

fn index_of_section() -> u32 {
    drop(Section::enter());
    CURRENT.get().unwrap().index
}

#[test]
fn what_is_mapped_in_an_ending_thread_is_found_and_costs_no_lane() {
    const VDEV: u32 = 0xabc5;
    let hold = || Hold::of(1, VDEV, 0);
    let before = all().count();
    for _ in 0..MANY {
        let holds = in_an_ending_thread(hold, move |first| {
            drop(Section::enter());
            let second = hold();
            assert!(CURRENT.get().is_none());
            [first, second]
        });
        assert_eq!(scan(|found| found.vdev == VDEV).len(), 2);
        drop(holds);
        assert!(scan(|found| found.vdev == VDEV).is_empty());
    }
    let more = all().count() - before;
    assert!(more < MANY / 4, "{more} lanes are lost in {MANY} threads");
}
