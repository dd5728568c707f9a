//! The two halves of an asymmetric barrier.
//!
//! The mapping side must make its store to the slot visible before it looks a range up; the
//! revoking side must make its removal visible before it reads the slots. Both need a
//! store-load barrier. If the kernel has membarrier(2), the revoking side pays for both: its
//! call makes every running thread of the process pass a full barrier, and the mapping side
//! only keeps the compiler from reordering. Otherwise each side has a fence, as it has under
//! loom, which models fences but not system calls.

use core::sync::atomic::{AtomicBool, compiler_fence};
use std::sync::Once;

use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

use crate::sync::{Ordering, fence};

/// Whether the mapping side needs no fence. It becomes `true` at most once, after the process
/// is registered for expedited membarriers; a thread that has not seen that yet is only slower.
static EXPEDITED: AtomicBool = AtomicBool::new(false);

/// Chooses the kind of barrier; called before the first view is created.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        use MembarrierCommand::{PrivateExpedited, RegisterPrivateExpedited};
        let expedited = membarrier_query().contains_command(PrivateExpedited)
            && membarrier(RegisterPrivateExpedited).is_ok()
            && membarrier(PrivateExpedited).is_ok();
        EXPEDITED.store(expedited, Ordering::SeqCst);
    });
}

/// Whether the revoking side pays for both halves, with membarrier(2).
#[inline(always)]
pub(crate) fn is_expedited() -> bool {
    EXPEDITED.load(Ordering::Relaxed)
}

/// The mapping side's half, between publishing in a slot and the look-up.
#[inline(always)]
pub(crate) fn light() {
    light_if(is_expedited());
}

#[inline(always)]
fn light_if(expedited: bool) {
    if expedited {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The revoking side's half, between the removal and the loads of the slots.
pub(crate) fn heavy() {
    heavy_if(is_expedited());
}

fn heavy_if(expedited: bool) {
    fence(Ordering::SeqCst);
    if !expedited {
        return;
    }
    let mut result = membarrier(MembarrierCommand::PrivateExpedited);
    if result == Err(Errno::PERM) {
        // A forked child whose kernel did not keep the registration.
        result = membarrier(MembarrierCommand::RegisterPrivateExpedited)
            .and_then(|()| membarrier(MembarrierCommand::PrivateExpedited));
    }
    if let Err(error) = result {
        // It cannot fail after it was registered and tried once; continuing without it could
        // leave a device with access to memory that was revoked.
        tracing::error!(%error, "membarrier failed; aborting, as revokes would no longer be safe");
        std::process::abort();
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    //! The store-buffering litmus test, on the machine's own processors: each side stores, and
    //! loads what the other side stores, and at least one of them must see the other's store.
    //! There are no locks and no other barriers between the two accesses. It runs without
    //! barriers first, to find out whether this machine reorders the two accesses at all.

    use super::*;
    use core::sync::atomic::{AtomicBool, AtomicU64};
    use parking_lot::Mutex;
    use std::io::Write as _;
    use std::time::{Duration, Instant};

    #[repr(align(128))]
    struct Line(AtomicU64);

    /// Cache lines that both sides write. A store to one that the other processor has just
    /// written takes long, and later stores wait for it in the store buffer.
    const CONTENDED: usize = 24;

    struct Litmus {
        mapping: Line,
        revoking: Line,
        round: Line,
        done: Line,
        seen: Line,
        contended: [Line; CONTENDED],
        stop: AtomicBool,
    }

    impl Litmus {
        fn new() -> Self {
            let line = || Line(AtomicU64::new(0));
            let (mapping, revoking, round, done, seen) = (line(), line(), line(), line(), line());
            let (contended, stop) = (core::array::from_fn(|_| line()), AtomicBool::new(false));
            Self { mapping, revoking, round, done, seen, contended, stop }
        }

        fn contend(&self, round: u64) {
            self.contended.iter().for_each(|line| line.0.store(round, Ordering::Relaxed));
        }

        /// The mapping side: publishes, then looks up.
        fn map(&self, light: impl Fn()) {
            let mut last = 0;
            while !self.stop.load(Ordering::Relaxed) {
                let round = self.round.0.load(Ordering::Acquire);
                if round == last {
                    core::hint::spin_loop();
                    continue;
                }
                last = round;
                self.contend(round);
                self.mapping.0.store(round, Ordering::Release);
                light();
                let seen = self.revoking.0.load(Ordering::Acquire);
                self.seen.0.store(seen, Ordering::Relaxed);
                self.done.0.store(round, Ordering::Release);
            }
        }

        /// The revoking side: removes, then scans. Returns the number of rounds in which neither
        /// side saw the other, and the number of rounds.
        fn revoke(&self, heavy: impl Fn(), rounds: u64, within: Duration) -> (u64, u64) {
            let (started, mut missed, mut round) = (Instant::now(), 0, 0);
            while round < rounds && (started.elapsed() < within) {
                round += 1;
                self.contend(round);
                self.round.0.store(round, Ordering::Release);
                // The delay varies, so that the two sides race at different moments.
                for _ in 0..round % 64 {
                    core::hint::spin_loop();
                }
                self.revoking.0.store(round, Ordering::Release);
                heavy();
                let published = self.mapping.0.load(Ordering::Acquire);
                let mut spins = 0_u32;
                while self.done.0.load(Ordering::Acquire) != round {
                    spins += 1;
                    if spins.is_multiple_of(10_000) {
                        std::thread::yield_now();
                    }
                }
                let looked_up = self.seen.0.load(Ordering::Relaxed);
                missed += u64::from(published != round && looked_up != round);
            }
            self.stop.store(true, Ordering::Relaxed);
            (missed, round)
        }

        fn run(
            light: impl Fn() + Sync,
            heavy: impl Fn(),
            rounds: u64,
            within: Duration,
        ) -> (u64, u64) {
            let litmus = Self::new();
            std::thread::scope(|scope| {
                scope.spawn(|| litmus.map(&light));
                litmus.revoke(heavy, rounds, within)
            })
        }
    }

    /// Prints to standard error even if the test passes: the harness captures `eprintln!`.
    fn say(what: core::fmt::Arguments<'_>) {
        writeln!(std::io::stderr(), "protocol::barrier: {what}").unwrap();
    }

    fn one_side_sees_the_other(expedited: bool) {
        const ROUNDS: u64 = 200_000;
        const WITHIN: Duration = Duration::from_secs(4);
        // One litmus test at a time: with the threads of two tests on two processors, threads
        // that should race share a processor, and the test shows nothing.
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock();
        let none = || compiler_fence(Ordering::SeqCst);
        let (shown, tried) = Litmus::run(none, none, ROUNDS, WITHIN);
        if shown == 0 {
            say(format_args!(
                "skipped in part: in {tried} rounds without barriers this machine kept stores and \
                 loads in order, so that the test shows nothing about barriers here"
            ));
        }
        let (missed, rounds) =
            Litmus::run(|| light_if(expedited), || heavy_if(expedited), ROUNDS, WITHIN);
        assert_eq!(missed, 0, "of {rounds} rounds; {shown} of {tried} without barriers");
        eprintln!("{shown} of {tried} rounds without barriers, {missed} of {rounds} with them");
    }

    #[test]
    fn with_membarrier_one_side_sees_the_other() {
        prepare();
        if !is_expedited() {
            say(format_args!(
                "skipped: no membarrier(2) here; tests/without_membarrier.rs is for this"
            ));
            return;
        }
        one_side_sees_the_other(true);
    }

    #[test]
    fn with_fences_one_side_sees_the_other() {
        one_side_sees_the_other(false);
    }
}
