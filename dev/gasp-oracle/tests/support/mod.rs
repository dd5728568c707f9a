//! Trials on a testbed, and the report on its console.

use gasp_oracle::parse_line;
use gasp_testbed::{Line, Testbed, Unavailable};
use libtest_mimic::{Completion, Failed, Trial};
use serde::de::DeserializeOwned;

pub(crate) type Outcome = Result<Completion, Failed>;

/// A trial on a testbed. If there is none, it is marked as ignored, with the reason in its name,
/// so that it is counted and visible.
pub(crate) fn on_testbed(
    name: &str,
    testbed: &Result<Testbed, Unavailable>,
    body: fn(&Testbed) -> Outcome,
) -> Trial {
    match testbed {
        Ok(testbed) => {
            let testbed = testbed.clone();
            Trial::ignorable_test(name, move || body(&testbed))
        }
        Err(why) => skipped(name, why),
    }
}

/// A trial that cannot run here.
pub(crate) fn skipped(name: &str, why: impl std::fmt::Display) -> Trial {
    Trial::test(format!("{name} [skipped: {why}]"), || Ok(())).with_ignored_flag(true)
}

/// The report on a console.
pub(crate) fn report<T: DeserializeOwned>(lines: &[Line]) -> Result<T, Failed> {
    let mut reports = lines.iter().filter_map(|line| parse_line(&line.text).transpose());
    match reports.next() {
        Some(report) => report.map_err(|error| Failed::from(error.to_string())),
        None => Err("the guest has printed no report".into()),
    }
}
