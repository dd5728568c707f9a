//! What a check has found out.

use core::time::Duration;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use serde::Serialize;

use super::report::{Factory, Finding, Kind, Placed, Report, Severity, cut};

/// The names of signals that a crash may have.
const SIGNALS: [(i32, &str); 8] = [
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (15, "SIGTERM"),
];

/// The result of a check; its fields are those of `--json`.
#[derive(Default, Debug, Serialize)]
pub(super) struct Record {
    pub(super) factory: Option<Factory>,
    pub(super) place: Option<Placed>,
    /// The calls that have returned, in order, each once.
    pub(super) calls: Vec<String>,
    pub(super) reads: u32,
    pub(super) writes: u32,
    pub(super) status: String,
    pub(super) log: Vec<Message>,
    pub(super) printed: String,
    pub(super) findings: Vec<Finding>,
    /// The arguments do not fit the vdev.
    #[serde(skip)]
    pub(super) usage: Option<String>,
    /// The call that has not returned.
    #[serde(skip)]
    current: Option<String>,
    /// The last call that has returned.
    #[serde(skip)]
    last: Option<String>,
    #[serde(skip)]
    is_done: bool,
}

/// A message that the vdev has logged.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    pub(super) level: String,
    pub(super) text: String,
}

impl Record {
    /// Whether nothing is wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }

    /// How many findings have a severity.
    pub(super) fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    pub(super) fn take(&mut self, report: Report) {
        match report {
            Report::Factory(factory) => self.factory = Some(factory),
            Report::Placed(placed) => self.place = Some(placed),
            Report::Call(call) => {
                self.returned();
                self.current = Some(call);
            }
            Report::Returned => self.returned(),
            Report::Accesses { reads, writes } => {
                self.reads += reads;
                self.writes += writes;
            }
            Report::Status(text) if self.status.is_empty() => self.status = text,
            Report::Status(_) => {}
            Report::Message { level, text } => self.log.push(Message { level, text }),
            Report::Finding(finding) => self.add(finding),
            Report::Usage(message) => self.usage = Some(message),
            Report::Done => self.is_done = true,
        }
    }

    fn returned(&mut self) {
        let Some(call) = self.current.take() else { return };
        // Those of registers are counted.
        if call.starts_with("control") && !self.calls.contains(&call) {
            self.calls.push(call.clone());
        }
        self.last = Some(call);
    }

    /// Adds a finding, unless another occasion has had it before.
    fn add(&mut self, finding: Finding) {
        // How slow it was differs each time.
        let same = |other: &Finding| {
            other.kind == finding.kind
                && (other.message == finding.message || finding.kind == Kind::Slow)
        };
        if !self.findings.iter().any(same) {
            self.findings.push(finding);
        }
    }

    /// Where the vdev is.
    fn at(&self) -> String {
        match (&self.current, &self.last) {
            (Some(call), _) => call.clone(),
            (None, Some(last)) => format!("after {last}"),
            (None, None) => "while it was loaded".into(),
        }
    }

    /// The process was ended, because of the time limit.
    pub(super) fn hangs(&mut self, limit: Duration) {
        let seconds = limit.as_secs();
        let message = match &self.current {
            Some(_) => format!("has not returned after {seconds} s"),
            None => format!("nothing has happened for {seconds} s"),
        };
        let advice = match self.current.as_deref() {
            Some(call) if call.starts_with("vread") || call.starts_with("vwrite") => {
                "a virtual CPU waits for it: look for a lock that is held"
            }
            Some(call) if call.contains("TERMINATE") => {
                "look for a thread that it joins and that does not end, or a `pulse` or `timer` \
                 that does not return"
            }
            _ => "look for a lock that is held, or a wait for what comes later",
        };
        let finding = Finding::new(Kind::Hang, message).in_call(self.at()).advice(advice);
        self.add(finding);
    }

    /// The process has ended: `status`, if by itself; `printed` is what it has printed.
    pub(super) fn ended(&mut self, status: Option<ExitStatus>, printed: &str) {
        let (crash, rest) = crash_of(printed);
        self.printed = cut(rest.trim());
        let Some(status) = status else { return };
        let ends = |finding: &Finding| finding.kind == Kind::EndsGuest;
        if let Some(number) = status.signal() {
            let signal = SIGNALS.iter().find(|(signal, _)| *signal == number);
            let signal =
                signal.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).into());
            // A thread of the vdev may have crashed, and not the call.
            let at = crash.unwrap_or_else(|| self.at());
            let finding = Finding::new(Kind::Crash, format!("has crashed: {signal}")).in_call(at);
            let finding = finding.advice(self.advice_on_crash());
            self.add(finding);
        } else if !self.is_done && !self.findings.iter().any(ends) {
            let code = status.code().unwrap_or(0);
            let message = format!("has ended the process, with the exit status {code}");
            let advice = match printed.contains("Sanitizer") || printed.contains("runtime error: ")
            {
                true => "a sanitizer has ended it, which says above what it has found",
                false => "return an error number, or call qvm_fatal()",
            };
            let finding = Finding::new(Kind::Exit, message).in_call(self.at()).advice(advice);
            self.add(finding);
        }
    }

    fn advice_on_crash(&self) -> String {
        let debug = "run gdb --args gasp vdev check --in-process with the same arguments";
        match &self.factory {
            Some(factory) if factory.extra_space == 0 => format!(
                "extra_space is 0, so v_device is NULL: set it to the size of the state; or {debug}"
            ),
            _ => debug.into(),
        }
    }

    /// The record in its final order: by severity.
    pub(super) fn finished(mut self) -> Self {
        self.findings.sort_by_key(|finding| finding.severity);
        self
    }
}

/// Where a crash was, if the process has said so, and the other lines that it has printed.
fn crash_of(printed: &str) -> (Option<String>, String) {
    let mut at = None;
    let is_other = |line: &&str| {
        let crash =
            line.strip_prefix("gasp: vdev `").and_then(|line| line.split_once("` has crashed: "));
        match crash.and_then(|(_, line)| line.split_once(" in ")) {
            Some((_, place)) => {
                at = Some(place.to_owned());
                false
            }
            None => true,
        }
    };
    let others: Vec<&str> = printed.lines().filter(is_other).collect();
    (at, others.join("\n"))
}
