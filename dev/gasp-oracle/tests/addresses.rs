//! In a real Linux guest, a foreign DMA device reads and writes at the addresses that
//! `map_host_contig` has returned.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use gasp_oracle::addresses::{Checked, Report};
use gasp_testbed::{Initramfs, Testbed, Vm};
use libtest_mimic::{Arguments, Completion};
use support::Outcome;

/// The time limit of a boot, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);
/// The number of devices. They copy at the same time, as one copy takes 100 ms.
const DEVICES: usize = 16;

fn main() {
    let arguments = Arguments::from_args();
    let testbed = Testbed::obtain();
    let name = "a_foreign_device_finds_the_bytes_at_the_returned_addresses";
    let trial = support::on_testbed(name, &testbed, foreign_device);
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

fn foreign_device(testbed: &Testbed) -> Outcome {
    let initramfs =
        Initramfs::new(testbed).program(env!("CARGO_BIN_EXE_oracle")).script("oracle addresses");
    let mut vm = Vm::linux(testbed, initramfs).memory(512 << 20).limit(PATIENCE);
    for _ in 0..DEVICES {
        // Without the mask, the device reaches the first 256 MiB, and wraps after them.
        vm = vm.device("edu,dma_mask=0xffffffff");
    }
    let lines = vm.start()?.finish(PATIENCE)?;
    let report: Report = support::report(&lines)?;
    assert_eq!(report.devices, DEVICES);
    let backings: Vec<&str> = report.backings.iter().map(|one| one.backing.as_str()).collect();
    assert_eq!(backings, ["2M", "thp", "4K"]);
    for checked in &report.backings {
        print(checked);
        assert_eq!(checked.missing, None, "{}", checked.backing);
        assert_eq!(checked.stability, "pinned", "{}", checked.backing);
        assert!(checked.runs > 0 && checked.points == 3 * checked.runs_checked);
        assert_eq!(checked.runs_checked, checked.runs, "every run is checked");
        assert!(checked.mismatches.is_empty(), "{:?}", checked.mismatches);
        // Otherwise the test could not fail.
        assert!(checked.wrong >= 4, "{checked:?}");
        assert_eq!(checked.wrong_seen, checked.wrong, "wrong addresses are detected");
    }
    let shortest = report.backings.iter().map(|checked| checked.lengths.0).min();
    assert_eq!(shortest, Some(4096), "the ordinary pages were scattered");
    Ok(Completion::Completed)
}

fn print(checked: &Checked) {
    let Checked { backing, runs, runs_checked, points, lengths: (short, long), .. } = checked;
    let Checked { mismatches, wrong, wrong_seen, milliseconds, stability, .. } = checked;
    eprintln!(
        "{backing} ({stability}): {runs_checked} of {runs} runs of {} to {} KiB, {points} points \
         read and written by the device, {} mismatches; {wrong_seen} of {wrong} wrong addresses \
         detected; {milliseconds} ms",
        short >> 10,
        long >> 10,
        mismatches.len(),
    );
}
