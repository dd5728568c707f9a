//! The sample vdevs of `examples/vdev`, driven register by register as their drivers do.
//!
//! Each trial runs for both editions of the API. All of them run once more under the sanitizers for
//! addresses, leaks and undefined behaviour, and under valgrind: this program executes itself, with
//! the vdevs compiled for that. Where a tool is missing, a trial is ignored, with the reason in its
//! name.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "samples/device.rs"]
mod device;
#[path = "samples/ser8250.rs"]
mod ser8250;
mod support;
#[path = "samples/tools.rs"]
mod tools;
#[path = "samples/wdt_sp805.rs"]
mod wdt_sp805;

use libtest_mimic::{Arguments, Trial};

/// A test of a sample: its name, and what runs it for an edition.
type Test = (&'static str, fn(u32));

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for (name, test) in wdt_sp805::TESTS.iter().chain(ser8250::TESTS) {
        for edition in [800, 710] {
            trials.push(Trial::test(format!("{name}, edition {edition}"), move || {
                test(edition);
                Ok(())
            }));
        }
    }
    trials.extend(tools::trials());
    libtest_mimic::run(&arguments, trials).exit();
}
