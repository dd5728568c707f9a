//! Trials on a testbed.

use gasp_testbed::{Testbed, Unavailable};
use libtest_mimic::{Arguments, Failed, Trial};

pub(crate) type Outcome = Result<(), Failed>;
pub(crate) type Body = fn(&Testbed) -> Outcome;

/// Runs the trials on a testbed. If there is none, each is marked as ignored, with the reason in
/// its name, so that it is counted and visible.
pub(crate) fn run(bodies: &[(&str, Body)]) -> ! {
    let arguments = Arguments::from_args();
    let testbed = Testbed::obtain();
    if let Ok(testbed) = &testbed {
        eprintln!("{}", testbed.versions());
    }
    let trials = bodies.iter().map(|(name, body)| trial(name, &testbed, *body)).collect();
    libtest_mimic::run(&arguments, trials).exit()
}

fn trial(name: &str, testbed: &Result<Testbed, Unavailable>, body: Body) -> Trial {
    match testbed {
        Ok(testbed) => {
            let testbed = testbed.clone();
            Trial::test(name, move || body(&testbed))
        }
        Err(why) => {
            Trial::test(format!("{name} [skipped: {why}]"), || Ok(())).with_ignored_flag(true)
        }
    }
}
