//! State shared by the threads of one server.

use core::time::Duration;
use std::sync::Arc;

use gasp::Guest;
use gasp_vdev::Shell;
use parking_lot::Mutex;

use crate::options::Options;
use crate::report::{Counters, ServerEvent};
use crate::socket::Listener;
use crate::stop::Stop;

/// The device, its socket, and its statistics.
pub(crate) struct Service {
    pub(crate) shell: Shell,
    pub(crate) listener: Listener,
    pub(crate) options: Options,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: Arc<Stop>,
    /// The guest of the attached VMM.
    pub(crate) guest: Mutex<Option<Guest>>,
}

impl Service {
    /// Reports a client that is turned away.
    pub(crate) fn turned_away(&self, why: &'static str) {
        let reported = self
            .counters
            .report_limited(&self.counters.turned_away, || ServerEvent::TurnedAway { why });
        if reported {
            tracing::warn!(device = self.shell.name(), why, "turns a client away");
        }
    }

    /// Reports a client that was answered with `EBUSY`.
    pub(crate) fn in_use(&self, pid: Option<i32>, by: Option<i32>, since: Duration) {
        let event = || ServerEvent::InUse { pid, by, since };
        if self.counters.report_limited(&self.counters.turned_away, event) {
            let device = self.shell.name();
            tracing::warn!(device, ?pid, ?by, ?since, "in use: turns another VMM away (EBUSY)");
        }
    }
}
