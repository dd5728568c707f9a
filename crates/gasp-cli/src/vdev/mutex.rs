//! The mutex of a vdev, after each of its calls.

use core::time::Duration;
use std::time::Instant;

use gasp_qvm::Instance;

use super::report::{Finding, Kind, Reporter};

/// How long a thread of a vdev may hold its mutex.
const MUTEX_WITHIN: Duration = Duration::from_secs(1);

/// The walk cannot go on; why has been reported.
#[derive(Debug)]
pub(super) struct Stop;

/// Whether a call has left `v_mtx` locked. Then the next one would wait for ever.
pub(super) fn check_mutex(vdev: &Instance, call: &str, reports: &Reporter) -> Result<(), Stop> {
    let deadline = Instant::now() + MUTEX_WITHIN;
    while vdev.mutex_is_held() {
        if Instant::now() >= deadline {
            reports.finding(
                Finding::new(Kind::Mutex, "v_mtx is locked after it has returned")
                    .in_call(call)
                    .advice(
                        "unlock it on each way out; the walk ends here, since the next call would \
                         wait for ever",
                    ),
            );
            return Err(Stop);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
