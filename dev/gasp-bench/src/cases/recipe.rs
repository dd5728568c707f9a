//! A case: its contestants, and how they are created.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::time::Instant;

/// Runs an operation this many times; returns how long that took.
pub type Work = Box<dyn FnMut(u32) -> Duration>;

/// One implementation of a case.
pub struct Contestant {
    /// The implementation.
    pub name: &'static str,
    /// Its operation.
    pub work: Work,
}

impl core::fmt::Debug for Contestant {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}

/// One operation to be measured. The first contestant is gasp.
#[derive(Debug)]
pub struct Case {
    /// Operation, number of grants, order of addresses, threads.
    pub name: String,
    /// The implementations that are compared.
    pub contestants: Vec<Contestant>,
}

/// A case to be set up: its name is known before its memory is allocated.
pub type Recipe = (String, Box<dyn FnOnce() -> gasp::Result<Case>>);

pub(super) fn recipe(
    name: String,
    make: impl FnOnce() -> gasp::Result<Vec<Contestant>> + 'static,
) -> Recipe {
    let title = name.clone();
    (name, Box::new(move || Ok(Case { name: title, contestants: make()? })))
}

/// A contestant whose operation is called with a running number.
pub(super) fn contestant(
    name: &'static str,
    mut operation: impl FnMut(usize) + 'static,
) -> Contestant {
    let mut next = 0_usize;
    let work = move |count: u32| {
        let start = Instant::now();
        for _ in 0..count {
            operation(next);
            next = next.wrapping_add(1);
        }
        start.elapsed()
    };
    Contestant { name, work: Box::new(work) }
}

/// A contestant whose operation two threads run at once: from the start of the first to the end of
/// the last, so that a round in which one ran after the other is not the fastest.
pub(super) fn pair<F: FnMut(usize)>(
    name: &'static str,
    operation: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Contestant {
    let work = move |count: u32| {
        let ready = AtomicU32::new(0);
        let one = |thread: usize| {
            let mut operation = operation(thread);
            operation(thread);
            ready.fetch_add(1, Ordering::SeqCst);
            // No thread has to be woken, unless the machine is busy.
            let mut spins = 0_u32;
            while ready.load(Ordering::SeqCst) < 2 {
                spins += 1;
                match spins < 10_000 {
                    true => std::hint::spin_loop(),
                    false => std::thread::yield_now(),
                }
            }
            let start = Instant::now();
            for next in 0..count as usize {
                operation(next);
            }
            (start, Instant::now())
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| one(1));
            let mine = one(0);
            let theirs = other.join().unwrap_or(mine);
            mine.1.max(theirs.1) - mine.0.min(theirs.0)
        })
    };
    Contestant { name, work: Box::new(work) }
}
