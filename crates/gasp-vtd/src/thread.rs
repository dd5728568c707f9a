//! The thread of a unit. It runs while invalidations wait for drains, so that no vCPU does; most never
//! need it.

use core::time::Duration;
use std::io;
use std::thread;

/// The longest time between two looks at what has completed.
const LONGEST: Duration = Duration::from_millis(1);

/// What is left to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// Nothing: the thread ends.
    Nothing,
    /// To wait for drains.
    Drains,
    /// To process descriptors.
    Descriptors,
}

/// Starts the thread, which calls `step` until nothing is left.
pub(crate) fn start(step: impl Fn() -> Left + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("vtd".into()).spawn(move || run(step)).map(drop)
}

fn run(step: impl Fn() -> Left) {
    let mut pause = Duration::from_micros(1);
    loop {
        match step() {
            Left::Nothing => return,
            Left::Descriptors => thread::yield_now(),
            Left::Drains => {
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST);
            }
        }
    }
}
