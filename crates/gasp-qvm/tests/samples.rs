//! The sample vdevs of `examples/vdev`, driven register by register as their drivers do.
//!
//! Each trial runs for both editions of the API. All of them run once more under the sanitizers for
//! addresses, leaks and undefined behaviour, and under valgrind: this program executes itself, with
//! the vdevs compiled for that. Where a tool is missing, a trial is ignored, with the reason in its
//! name.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "samples/block.rs"]
mod block;
#[path = "samples/device.rs"]
mod device;
#[path = "virtio/driver.rs"]
#[allow(dead_code, unused_imports, reason = "a part of it is for other tests")]
mod driver;
#[path = "samples/entropy.rs"]
mod entropy;
#[path = "samples/makefile.rs"]
mod makefile;
#[path = "samples/ser8250.rs"]
mod ser8250;
mod support;
#[path = "samples/tools.rs"]
mod tools;
#[path = "samples/wdt_sp805.rs"]
mod wdt_sp805;

use libtest_mimic::Arguments;

/// A test of a sample: its name, and what runs it for an edition.
type Test = (&'static str, fn(u32));

fn main() {
    let arguments = Arguments::from_args();
    let disk = block::lack();
    let mut trials = Vec::new();
    let tests = [
        (wdt_sp805::TESTS, None),
        (ser8250::TESTS, None),
        (entropy::TESTS, None),
        (block::UNPRIVILEGED, None),
        (block::TESTS, disk.as_ref()),
    ];
    for (tests, lack) in tests {
        for (name, test) in tests {
            for edition in [800, 710] {
                let run = move || {
                    test(edition);
                    Ok(())
                };
                trials.push(tools::trial(format!("{name}, edition {edition}"), lack, run));
            }
        }
    }
    trials.extend(makefile::trials());
    trials.extend(tools::trials());
    libtest_mimic::run(&arguments, trials).exit();
}
