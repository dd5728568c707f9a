//! Listeners to changes of a guest's regions.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::{Arc, Mutex};

use gasp::{
    Access, Adopt, Errno, Guest, GuestPhys, MapFlags, MemoryObject, Reason, Region, Residency,
    SpaceChange, SpaceListener, SpaceLock,
};
use support::*;

/// Writes down what it hears, and refuses a change of the region at an address.
#[derive(Default)]
struct Recorder {
    heard: Mutex<Vec<String>>,
    refuses: Mutex<Option<u64>>,
    /// The guest, to try what a listener can do.
    guest: Mutex<Option<Guest>>,
}

fn pages(regions: &[Region]) -> String {
    let one = |region: &Region| {
        let span = region.span();
        format!("{}+{}{}", span.start().0 / PAGE, span.len() / PAGE, region.access())
    };
    regions.iter().map(one).collect::<Vec<_>>().join(" ")
}

impl Recorder {
    fn note(&self, what: &str, change: &SpaceChange) {
        let SpaceChange { outgoing, incoming, .. } = change;
        let text = format!("{what} [{}] -> [{}]", pages(outgoing), pages(incoming));
        self.heard.lock().unwrap().push(text);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

impl SpaceListener for Recorder {
    fn before(&self, change: &SpaceChange) -> Result<(), Reason> {
        self.note("before", change);
        let refused = *self.refuses.lock().unwrap();
        let concerns = |region: &Region| Some(region.span().start().0) == refused;
        match change.incoming.iter().chain(&change.outgoing).any(concerns) {
            true => Err(Reason::Os { what: "a slot", errno: Errno::NOSPC }),
            false => Ok(()),
        }
    }

    fn after(&self, change: &SpaceChange) {
        self.note("after", change);
        if let Some(guest) = &*self.guest.lock().unwrap() {
            for region in &change.incoming {
                let mapped = guest.map_firmware(region.span().start(), 8, MapFlags::READ);
                assert_eq!(mapped.unwrap().as_ptr(), region.as_ptr().unwrap().cast_const());
            }
            for region in &change.outgoing {
                assert!(
                    change.incoming.iter().any(|there| there.span().overlaps(&region.span()))
                        || guest.space().region_at(region.span().start()).is_none()
                );
            }
            let again = guest.space().add(Region::reserved(span(1 << 40, PAGE)));
            assert_eq!(errno(again), "EBUSY");
        }
    }

    fn undone(&self, change: &SpaceChange) {
        self.note("undone", change);
    }
}

fn listened(guest: &Guest) -> Arc<Recorder> {
    let recorder = Arc::new(Recorder::default());
    guest.space().add_listener(recorder.clone()).unwrap();
    recorder
}

#[test]
fn a_listener_hears_of_each_change_before_and_after_with_whole_regions() {
    let (guest, _ram) = plain_guest(8 * PAGE);
    let recorder = listened(&guest);
    *recorder.guest.lock().unwrap() = Some(guest.clone());
    assert_eq!(recorder.take(), ["before [] -> [0+8rwx]", "after [] -> [0+8rwx]"]);

    let more = ram(4 * PAGE);
    guest.space().add_ram(Some(GuestPhys(16 * PAGE)), &more).unwrap();
    assert_eq!(recorder.take(), ["before [] -> [16+4rwx]", "after [] -> [16+4rwx]"]);

    guest.space().set_access(span(2 * PAGE, PAGE), Access::READ).unwrap().wait();
    let change = "[0+8rwx] -> [0+2rwx 2+1r-- 3+5rwx]";
    assert_eq!(recorder.take(), [format!("before {change}"), format!("after {change}")]);

    guest.space().remove(span(7 * PAGE, 10 * PAGE)).unwrap().wait();
    let change = "[3+5rwx 16+4rwx] -> [3+4rwx 17+3rwx]";
    assert_eq!(recorder.take(), [format!("before {change}"), format!("after {change}")]);

    guest.space().set_tag(span(0, 2 * PAGE), 7, None).unwrap();
    assert_eq!(recorder.take(), [""; 0], "a tag is no change of memory");
    guest.space().set_tag(span(0, PAGE), 0, None).unwrap();
    let change = "[0+2rwx] -> [0+1rwx 1+1rwx]";
    assert_eq!(recorder.take(), [format!("before {change}"), format!("after {change}")]);
    guest.space().set_access(span(17 * PAGE, 3 * PAGE), Access::READ).unwrap().wait();
    let change = "[17+3rwx] -> [17+3r--]";
    assert_eq!(recorder.take(), [format!("before {change}"), format!("after {change}")]);

    *recorder.guest.lock().unwrap() = None;
    *recorder.refuses.lock().unwrap() = Some(0);
    let listener: Arc<dyn SpaceListener> = recorder.clone();
    assert!(guest.space().remove_listener(&listener).unwrap(), "even if it refuses");
    let change = "[0+1rwx 1+1rwx 2+1r-- 3+4rwx 17+3r--] -> []";
    assert_eq!(recorder.take(), [format!("before {change}"), format!("after {change}")]);
    assert!(!guest.space().remove_listener(&listener).unwrap());
    guest.space().remove(span(0, PAGE)).unwrap().wait();
    assert_eq!(recorder.take(), [""; 0]);
}

#[test]
fn a_neighbour_that_is_merged_goes_and_comes_with_the_change() {
    let (guest, ram) = plain_guest(8 * PAGE);
    guest.space().set_access(span(2 * PAGE, PAGE), Access::READ).unwrap().wait();
    guest.space().set_access(span(6 * PAGE, PAGE), Access::READ).unwrap().wait();
    let recorder = listened(&guest);
    let after = |change: &str| assert_eq!(recorder.take()[1], format!("after {change}"));
    recorder.take();
    guest.space().set_access(span(2 * PAGE, PAGE), Access::RWX).unwrap().wait();
    after("[0+2rwx 2+1r-- 3+3rwx] -> [0+6rwx]");
    guest.space().set_access(span(5 * PAGE, 2 * PAGE), Access::READ).unwrap().wait();
    after("[0+6rwx 6+1r--] -> [0+5rwx 5+2r--]");
    guest.space().remove(span(0, PAGE)).unwrap().wait();
    after("[0+5rwx] -> [1+4rwx]");
    let first = Region::memory(gasp::RegionKind::Ram, span(0, PAGE), &ram, 0).unwrap();
    guest.space().add(first).unwrap();
    after("[1+4rwx] -> [0+5rwx]");
    guest.space().set_access(span(0, PAGE), Access::RWX).unwrap().wait();
    assert_eq!(recorder.take(), [""; 0], "access that was offered already");
}

#[test]
fn a_refused_change_is_not_made_and_is_undone_for_those_who_allowed_it() {
    let (guest, _ram) = plain_guest(8 * PAGE);
    let (first, second, third) = (listened(&guest), listened(&guest), listened(&guest));
    for recorder in [&first, &second, &third] {
        recorder.take();
    }
    *second.refuses.lock().unwrap() = Some(0);
    let regions = pages(&guest.space().regions());
    let refused = error(guest.space().remove(span(PAGE, PAGE)));
    assert_eq!((refused.errno(), pages(&guest.space().regions())), (Errno::NOSPC, regions));
    let change = "[0+8rwx] -> [0+1rwx 2+6rwx]";
    assert_eq!(first.take(), [format!("before {change}"), format!("undone {change}")]);
    assert_eq!(second.take(), [format!("before {change}")]);
    assert_eq!(third.take(), [""; 0]);
    assert_eq!(errno(guest.space().set_access(span(0, PAGE), Access::READ)), "ENOSPC");
    *second.refuses.lock().unwrap() = None;
    first.take();
    second.take();
    guest.space().remove(span(PAGE, PAGE)).unwrap().wait();
    for recorder in [&first, &second, &third] {
        assert_eq!(recorder.take(), [format!("before {change}"), format!("after {change}")]);
    }

    let fourth = Arc::new(Recorder::default());
    *fourth.refuses.lock().unwrap() = Some(0);
    assert_eq!(errno(guest.space().add_listener(fourth.clone())), "ENOSPC");
    guest.space().add_ram(Some(GuestPhys(1 << 20)), &ram(PAGE)).unwrap();
    assert_eq!(fourth.take().len(), 1, "one that refused what is there is no listener");
}

#[test]
fn a_change_that_cannot_be_made_is_announced_to_nobody_or_undone() {
    let (guest, _ram) = plain_guest(8 * PAGE);
    let recorder = listened(&guest);
    recorder.take();
    let overlaps = guest.space().add(Region::reserved(span(4 * PAGE, 8 * PAGE)));
    assert_eq!(errno(overlaps), "EEXIST");
    assert_eq!(errno(guest.space().remove(span(1 << 30, PAGE))), "ENOENT");
    assert_eq!(errno(guest.space().remove(span(100, PAGE))), "EINVAL");
    assert_eq!(errno(guest.space().set_access(span(7 * PAGE, 2 * PAGE), Access::READ)), "ENXIO");
    assert_eq!(recorder.take(), [""; 0]);
    // Found only when it is made: past the address width.
    let far = guest.space().add_ram(Some(GuestPhys(1 << 50)), &ram(PAGE));
    assert_eq!(errno(far), "ENXIO");
    let heard = recorder.take();
    assert_eq!(heard.len(), 2);
    assert!(heard[0].starts_with("before") && heard[1].starts_with("undone"), "{heard:?}");
}

#[test]
fn a_pointer_of_a_region_is_where_its_part_of_the_object_is() {
    let fd = memfd(8 * PAGE);
    let how = Adopt { residency: Residency::OnDemand, ..Adopt::new("vmm", 8 * PAGE) };
    let object = MemoryObject::adopt(fd, how).unwrap();
    let part = span(0x10_0000, 2 * PAGE);
    let region = Region::memory(gasp::RegionKind::Ram, part, &object, 3 * PAGE).unwrap();
    assert_eq!(region.as_ptr(), Some(object.as_ptr().wrapping_add(3 * PAGE as usize)));
    assert_eq!(Region::reserved(part).as_ptr(), None);
    let guest = Guest::builder().build().unwrap();
    guest.space().add(region.clone()).unwrap();
    let mapping = guest.map_firmware(GuestPhys(0x10_0000), 8, MapFlags::RW).unwrap();
    assert_eq!(Some(mapping.as_mut_ptr().unwrap()), region.as_ptr());
}

thread_local! {
    static LOCK: std::cell::OnceCell<SpaceLock> = const { std::cell::OnceCell::new() };
}

/// Makes changes through the lock of the thread that calls it.
#[derive(Default)]
struct Meddler(Mutex<Vec<&'static str>>);

impl SpaceListener for Meddler {
    fn before(&self, _: &SpaceChange) -> Result<(), Reason> {
        LOCK.with(|lock| {
            let Some(lock) = lock.get() else { return };
            let added = lock.add(Region::reserved(span(1 << 40, PAGE)));
            let access = lock.set_access(span(0, PAGE), Access::READ);
            let listener = lock.add_listener(Arc::new(Self::default()));
            self.0.lock().unwrap().extend([errno(added), errno(access), errno(listener)]);
        });
        Ok(())
    }
}

#[test]
fn a_listener_cannot_make_changes_through_the_lock_that_its_thread_holds() {
    let (guest, _ram) = plain_guest(8 * PAGE);
    let meddler = Arc::new(Meddler::default());
    guest.space().add_listener(meddler.clone()).unwrap();
    LOCK.with(|lock| {
        lock.set(guest.space().lock().unwrap()).ok().unwrap();
        let lock = lock.get().unwrap();
        lock.add_ram(Some(GuestPhys(1 << 30)), &ram(PAGE)).unwrap();
        assert_eq!(std::mem::take(&mut *meddler.0.lock().unwrap()), ["EBUSY"; 3]);
        lock.remove(span(1 << 30, PAGE)).unwrap().wait();
    });
    assert_eq!(meddler.0.lock().unwrap().len(), 3);
    assert_eq!(pages(&guest.space().regions()), "0+8rwx");
}
