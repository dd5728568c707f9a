//! Every interleaving of mapping and revoking threads, by loom, with the slot's own code:
//! `RUSTFLAGS="--cfg loom" cargo test -p gasp --no-default-features --release --lib proof`.
//!
//! The view is one word that is 1 while the range is granted. The guest's memory, and the node
//! of the table that a look-up reads, are loom's cells: the model fails if an access does not
//! *happen before* the next one, even if it came earlier in time.
#![allow(unsafe_code, reason = "shares cells between threads, which is what loom watches")]

use super::*;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread::{self, yield_now};

const VIEW: u32 = 7;
const VDEV: u32 = 1;
const S1: u64 = NEXT_STAMP;
const S2: u64 = 2 * NEXT_STAMP;
const S3: u64 = 3 * NEXT_STAMP;

struct World {
    slot: Slot,
    granted: AtomicU64,
    /// The guest's memory in the range.
    memory: UnsafeCell<()>,
    /// The node that a look-up of the range reads; freed after its removal and a scan.
    node: UnsafeCell<()>,
}

// SAFETY: `Sync` asks that accesses from several threads through `&World` are no data race. The
// slot and `granted` are atomics; the cells have no contents, and loom reports accesses of them
// that are not ordered.
unsafe impl Sync for World {}

fn world() -> Arc<World> {
    Arc::new(World {
        slot: Slot::new(0),
        granted: AtomicU64::new(1),
        memory: UnsafeCell::new(()),
        node: UnsafeCell::new(()),
    })
}

fn spawn<T: 'static>(
    world: &Arc<World>,
    body: impl FnOnce(&World) -> T + 'static,
) -> thread::JoinHandle<T> {
    let world = Arc::clone(world);
    thread::spawn(move || body(&world))
}

impl World {
    /// Creates a mapping of the range, before any thread is started.
    fn mapped(&self, stamp: u64) {
        self.slot.publish(stamp, 0, 4095);
        self.slot.establish(stamp, VIEW, VDEV);
    }

    /// Maps the range, and returns whether that succeeded.
    fn map(&self, stamp: u64) -> bool {
        self.slot.publish(stamp, 0, 8191);
        if self.granted.load(Ordering::Acquire) == 0 {
            self.slot.release();
            return false;
        }
        self.node.with(|_| ());
        self.slot.shorten(4095);
        self.slot.establish(stamp, VIEW, VDEV);
        true
    }

    /// An access to the memory: by the device, or by the host after the revoke.
    fn access(&self) {
        self.memory.with_mut(|_| ());
    }

    /// Maps, accesses and unmaps once, and returns whether the map succeeded.
    fn use_once(&self, stamp: u64) -> bool {
        let mapped = self.map(stamp);
        if mapped {
            self.access();
            self.slot.release();
        }
        mapped
    }

    /// Creates a mapping of another range, which is never revoked.
    fn map_elsewhere(&self, stamp: u64) {
        self.slot.publish(stamp, 8192, 12287);
        self.slot.establish(stamp, VIEW, VDEV);
    }

    /// Revokes the range: removes it, frees its node, waits for its holder, as `Drain::wait`
    /// does, and accesses the memory.
    fn revoke(&self) {
        self.granted.store(0, Ordering::Release);
        barrier::heavy();
        let found = self.slot.held();
        self.node.with_mut(|_| ());
        if let Some(found) = found.filter(|found| found.first <= 4095) {
            while self.slot.holds(found.stamp) {
                yield_now();
            }
        }
        self.access();
    }
}

#[test]
fn no_mapping_outlives_a_completed_revoke() {
    loom::model(|| {
        let world = world();
        let device = spawn(&world, |world| world.use_once(S1));
        world.revoke();
        device.join().unwrap();
        assert!(!world.use_once(S2), "nothing can be mapped any more");
    });
}

#[test]
fn a_device_that_maps_again_and_again_does_not_keep_a_revoke_waiting() {
    loom::model(|| {
        let world = world();
        let device = spawn(&world, |world| {
            world.use_once(S1);
            world.use_once(S2);
        });
        world.revoke();
        device.join().unwrap();
    });
}

#[test]
fn what_is_found_is_what_was_mapped() {
    loom::model(|| {
        let world = world();
        let device = spawn(&world, |world| world.map(S1));
        world.granted.store(0, Ordering::Release);
        barrier::heavy();
        let found = world.slot.held();
        let mapped = device.join().unwrap();
        let whole = Use { stamp: S1, view: VIEW, vdev: VDEV, first: 0, last: 4095 };
        // The mapping succeeds if and only if the revoking thread finds it.
        assert_eq!(found, mapped.then_some(whole));
    });
}

#[test]
fn a_revoke_that_finds_the_next_mapping_instead_has_waited_for_the_one_before() {
    loom::model(|| {
        let world = world();
        let device = spawn(&world, |world| {
            world.use_once(S1);
            world.map_elsewhere(S2);
        });
        world.revoke();
        device.join().unwrap();
    });
}

/// The same for each word of the slot that may be the first to show the next mapping.
fn revoke_by(judge: fn(Use) -> bool) {
    loom::model(move || {
        let world = world();
        world.mapped(S1);
        let device = spawn(&world, |world| {
            world.access();
            world.slot.release();
            world.slot.publish(S2, 8192, 16383);
            world.slot.shorten(12287);
            world.slot.establish(S2, VIEW + 1, VDEV + 1);
        });
        barrier::heavy();
        if let Some(found) = world.slot.held().filter(|&found| judge(found)) {
            while world.slot.holds(found.stamp) {
                yield_now();
            }
        }
        world.access();
        device.join().unwrap();
    });
}

#[test]
fn the_view_of_the_next_mapping_says_that_the_one_before_has_ended() {
    revoke_by(|found| found.view == VIEW);
}

#[test]
fn the_first_address_of_the_next_mapping_says_that_the_one_before_has_ended() {
    revoke_by(|found| found.first == 0);
}

#[test]
fn the_last_address_of_the_next_mapping_says_that_the_one_before_has_ended() {
    revoke_by(|found| found.last == 4095);
}

#[test]
fn the_last_address_of_a_shortened_mapping_says_that_the_one_before_has_ended() {
    // As if only the end of the shortened mapping lay outside the revoked range.
    revoke_by(|found| found.last == 4095 || found.last == 16383);
}

#[test]
fn a_revoke_without_a_holder_does_not_wait() {
    loom::model(|| {
        let world = world();
        world.granted.store(0, Ordering::Release);
        barrier::heavy();
        assert_eq!(world.slot.held(), None);
    });
}

#[test]
fn a_handle_released_on_another_thread_ends_the_drain() {
    loom::model(|| {
        let world = world();
        world.mapped(S1);
        let other = spawn(&world, |world| {
            world.access();
            world.slot.release();
        });
        world.revoke();
        other.join().unwrap();
        assert!(world.slot.is_free(), "no slot is lost");
    });
}

#[test]
fn the_next_mapping_comes_after_a_release_on_another_thread() {
    loom::model(|| {
        let world = world();
        world.mapped(S1);
        let other = spawn(&world, |world| {
            world.access();
            world.slot.release();
        });
        let owner = spawn(&world, |world| {
            if world.slot.is_free() {
                world.map_elsewhere(S2);
            }
        });
        world.revoke();
        other.join().unwrap();
        owner.join().unwrap();
    });
}

#[test]
fn a_token_is_released_once_and_ends_the_drain() {
    loom::model(|| {
        let world = world();
        world.mapped(S1);
        world.slot.make_token(S1, 0x1000);
        let other = spawn(&world, |world| {
            world.access();
            world.slot.release_token(S1)
        });
        world.revoke();
        assert!(other.join().unwrap());
        assert!(!world.slot.release_token(S1), "of two threads that unmap one succeeds");
        assert!(world.slot.is_free());
    });
}

#[test]
fn of_two_threads_that_unmap_a_token_one_succeeds() {
    loom::model(|| {
        let world = world();
        world.mapped(S1);
        world.slot.make_token(S1, 0x1000);
        let other = spawn(&world, |world| world.slot.release_token(S1));
        let mine = world.slot.release_token(S1);
        world.revoke();
        assert!(mine ^ other.join().unwrap());
        assert!(world.slot.is_free());
    });
}

#[test]
fn a_stale_token_never_shows_nor_ends_the_next_mapping() {
    loom::model(|| {
        let world = world();
        world.mapped(S1);
        world.slot.make_token(S1, 0x1000);
        let stale = spawn(&world, |world| {
            let seen = world.slot.token_pointer(S1);
            assert!(matches!(seen, None | Some(0x1000)), "{seen:?}");
            world.slot.release_token(S1)
        });
        let mine = world.slot.release_token(S1);
        if mine || world.slot.is_free() {
            world.mapped(S2);
            world.slot.make_token(S2, 0x2000);
            assert!(mine ^ stale.join().unwrap());
            assert_eq!(world.slot.token_pointer(S2), Some(0x2000));
        } else {
            stale.join().unwrap();
        }
    });
}

#[test]
fn a_mapping_that_is_no_token_has_no_pointer() {
    loom::model(|| {
        let world = world();
        world.mapped(S1);
        world.slot.make_token(S1, 0x1000);
        world.slot.release();
        world.mapped(S2);
        for stamp in [0, S1, S2, S2 | BUSY, S3] {
            assert_eq!(world.slot.token_pointer(stamp), None, "{stamp}");
        }
    });
}

#[test]
fn a_late_mark_does_not_erase_a_newer_one() {
    loom::model(|| {
        let world = world();
        let late = spawn(&world, |world| world.slot.mark_revoked(S1));
        world.slot.mark_revoked(S2);
        late.join().unwrap();
        assert!(world.slot.is_revoked(S2));
    });
}

#[test]
fn a_mark_reaches_the_mapping_it_is_meant_for_and_no_other() {
    loom::model(|| {
        let world = world();
        world.mapped(S1);
        let revoker = spawn(&world, |world| world.slot.mark_revoked(S1));
        world.slot.release();
        world.slot.publish(S2, 0, 4095);
        assert!(!world.slot.is_revoked(S2));
        revoker.join().unwrap();
        assert!(!world.slot.is_revoked(S2));
    });
}

#[test]
fn a_look_up_in_steps_is_found_by_whoever_revokes_what_a_later_step_has_found() {
    loom::model(|| {
        let (world, step) = (world(), Arc::new(Slot::new(1)));
        let device = {
            let step = Arc::clone(&step);
            spawn(&world, move |world| {
                // The first step has found its part of the range; this is the second.
                world.slot.publish(S1, 0, 4095);
                world.slot.establish(S1, VIEW, VDEV);
                step.publish(S1, 0, 4095);
                let found = world.granted.load(Ordering::Acquire) == 1;
                if found {
                    world.node.with(|_| ());
                }
                step.release();
                if found {
                    world.access();
                }
                world.slot.release();
            })
        };
        world.granted.store(0, Ordering::Release);
        barrier::heavy();
        let found = [step.held(), world.slot.held()].map(|held| held.map(|held| held.stamp));
        world.node.with_mut(|_| ());
        assert_eq!(found[0], None, "it is never established");
        if let Some(stamp) = found[1] {
            while world.slot.holds(stamp) {
                yield_now();
            }
        }
        world.access();
        device.join().unwrap();
    });
}

/// The word of a range that is being evicted.
const EVICTING: u64 = 2;

#[test]
fn what_is_held_is_in_the_table_though_it_is_being_evicted_without_its_lock() {
    loom::model(|| {
        let world = world();
        let table = Arc::new(loom::sync::Mutex::new(()));
        let device = spawn(&world, |world| {
            world.slot.publish(S1, 0, 4095);
            // Only a word that is not being evicted is found.
            if world.granted.load(Ordering::Acquire) != 1 {
                return world.slot.release();
            }
            world.slot.establish(S1, VIEW, VDEV);
            world.access();
            world.slot.release();
        });
        let evicts = {
            let table = Arc::clone(&table);
            spawn(&world, move |world| {
                let set = |from, to| {
                    let _table = table.lock().unwrap();
                    if world.granted.load(Ordering::Relaxed) == from {
                        world.granted.store(to, Ordering::Release);
                    }
                };
                set(1, EVICTING);
                barrier::heavy();
                let is_held = world.slot.held().is_some();
                set(EVICTING, u64::from(is_held));
            })
        };
        // A change of memory. It would wait for whoever holds what it finds in the table, as a revoke
        // does; what it does not find there it takes at once.
        let lock = table.lock().unwrap();
        let found = world.granted.load(Ordering::Relaxed) != 0;
        world.granted.store(0, Ordering::Release);
        drop(lock);
        if !found {
            world.access();
        }
        device.join().unwrap();
        evicts.join().unwrap();
        assert_eq!(world.granted.load(Ordering::Relaxed), 0, "an eviction puts nothing back");
    });
}
