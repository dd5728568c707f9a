//! Pinned pages stay while the kernel moves what it can: on this machine, and in a guest with
//! little memory that swaps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs::OpenOptions;
use std::time::Duration;

use gasp::{FrameAccess, PinAccess, frame_access, pin_access};
use gasp_oracle::neighbours::meminfo;
use gasp_oracle::stress::{self, Options, Report, Verdict};
use gasp_testbed::{Initramfs, Testbed, Vm};
use libtest_mimic::{Arguments, Completion, Trial};
use support::Outcome;

/// The time limit of a boot and a run, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);
const COMPACT: &str = "/proc/sys/vm/compact_memory";
/// The fewest pinned pages for a meaningful run.
const PINNED_PAGES: usize = 100_000;

fn main() {
    let mut arguments = Arguments::from_args();
    // One after the other: memory pressure of one would disturb the other.
    arguments.test_threads = Some(1);
    let testbed = Testbed::obtain();
    let name = "pinned_pages_stay_while_others_move";
    let here = format!("{name} (this machine)");
    let trials = vec![
        match lack() {
            None => Trial::ignorable_test(here, on_this_machine),
            Some(why) => support::skipped(&here, why),
        },
        support::on_testbed(&format!("{name} (a guest that swaps)"), &testbed, in_a_guest),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// Why the test cannot run on this machine; `None` if it can.
fn lack() -> Option<String> {
    if let FrameAccess::Denied(why) = frame_access() {
        return Some(why.into());
    }
    if let PinAccess::Denied(why) = pin_access(PINNED_PAGES * 4096) {
        return Some(why.into());
    }
    if let Err(error) = OpenOptions::new().write(true).open(COMPACT) {
        return Some(format!("{COMPACT}: {error}"));
    }
    // Twice as much as needed, because others use this machine.
    let (have, need) = (meminfo("MemAvailable") >> 20, stress::needed() >> 19);
    (have < need).then(|| format!("{have} MiB are available, {need} are needed"))
}

fn on_this_machine() -> Outcome {
    let options = Options { time: Duration::from_secs(20), pressure: false };
    let report = stress::run(&options).map_err(|error| error.to_string())?;
    judged(&report)
}

fn in_a_guest(testbed: &Testbed) -> Outcome {
    let swap = tempfile::NamedTempFile::new()?;
    swap.as_file().set_len(512 << 20)?;
    let drive = format!("if=none,id=swap,format=raw,file={}", swap.path().display());
    let script = "
        mkswap /dev/nvme0n1 > /dev/null
        swapon /dev/nvme0n1
        oracle stress --pressure";
    let initramfs = Initramfs::new(testbed).program(env!("CARGO_BIN_EXE_oracle")).script(script);
    let vm = Vm::linux(testbed, initramfs)
        .memory(1280 << 20)
        .cpus(2)
        .arg("-drive")
        .arg(drive)
        .device("nvme,drive=swap,serial=1")
        .limit(PATIENCE)
        .start()?;
    let lines = vm.finish(PATIENCE)?;
    judged(&support::report(&lines)?)
}

fn judged(report: &Report) -> Outcome {
    eprintln!("{report}");
    if report.pages_of("pinned") < PINNED_PAGES {
        return Ok(Completion::ignored_with("fewer than 100,000 pages were pinned"));
    }
    assert!(report.mappings >= 1000, "{} mappings", report.mappings);
    // Pages that nothing pins may have moved, and the engine's audit sees those.
    let moved: usize = ["unpinned", "reserved"].map(|class| report.stale_of(class)).iter().sum();
    assert_eq!(report.audited.changed > 0, moved > 0, "the engine's audit sees what moved");
    match report.verdict() {
        Verdict::Held => Ok(Completion::Completed),
        Verdict::Inconclusive => {
            Ok(Completion::ignored_with("inconclusive: no page of the control group moved"))
        }
        Verdict::Broken => Err("a page moved that was promised not to".into()),
    }
}
