//! What the process that a vdev is loaded into tells the one that watches it: lines of JSON.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The most messages of a vdev that are reported; more are dropped.
const MESSAGES_MAX: usize = 200;
/// The most bytes of a text.
const TEXT_MAX: usize = 16 << 10;

/// One line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Report {
    /// What the file has registered.
    Factory(Factory),
    /// A call of the vdev begins.
    Call(String),
    /// The last call has returned.
    Returned,
    /// Where its registers are.
    Placed(Placed),
    /// How many accesses were tried.
    Accesses {
        reads: u32,
        writes: u32,
    },
    /// What it reports of its state.
    Status(String),
    /// A message that the vdev has logged.
    Message {
        level: String,
        text: String,
    },
    Finding(Finding),
    /// The arguments do not fit the vdev.
    Usage(String),
    /// The walk is complete.
    Done,
}

/// What a vdev's file has registered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Factory {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) edition: String,
    pub(super) options: Vec<VdevOption>,
    pub(super) flags: Vec<String>,
    pub(super) access_widths: Vec<u32>,
    pub(super) extra_space: u32,
    pub(super) callbacks: Vec<String>,
}

/// An option that a vdev knows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct VdevOption {
    pub(super) name: String,
    pub(super) argument: bool,
}

/// Where the registers of a vdev are.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Placed {
    /// `mem`, `io` or `pci`.
    pub(super) space: String,
    pub(super) start: Option<u64>,
    pub(super) bytes: u64,
    /// Whether the check has chosen the place.
    pub(super) chosen: bool,
    pub(super) line: Option<u32>,
}

/// Something that is wrong with a vdev.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) kind: Kind,
    /// The call in which it happened, with the occasion if it was not the first.
    pub(super) call: Option<String>,
    pub(super) message: String,
    /// What to do.
    pub(super) advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Severity {
    /// It does not work.
    Error,
    /// It works, but not as its author will have meant.
    Warning,
    /// What a check cannot know, or does not look at.
    Note,
}

/// Kinds of findings, and their list.
macro_rules! kinds {
    ($($kind:ident $severity:ident $meaning:literal,)*) => {
        /// What is wrong. `docs/vdevs.md` lists them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub(super) enum Kind {
            $(#[doc = $meaning] $kind,)*
        }

        impl Kind {
            #[cfg(test)]
            pub(super) const ALL: &[(Self, Severity, &str)] =
                &[$((Self::$kind, Severity::$severity, $meaning)),*];

            pub(super) fn severity(self) -> Severity {
                match self {
                    $(Self::$kind => Severity::$severity,)*
                }
            }
        }
    };
}

kinds! {
    NotLoaded Error "the dynamic loader refuses the file, or it needs a function that is not there",
    NoFactory Error "no constructor has registered a factory",
    Abi Error "it was compiled for other headers",
    Factory Error "the factory is not as its header asks",
    Controller Error "it is an interrupt controller or a PCI root complex, which guests here have already",
    Flags Warning "`factory_flags` has bits without a meaning",
    LocationType Warning "no `VFF_VDEV_*` says where its registers can be, or `VFF_LOC_NO` contradicts one",
    Callbacks Warning "registers that nothing answers, or a function that nothing calls",
    AccessWidths Warning "`acc_sizes` is 0, or has bits of widths that no access has",
    OptionList Warning "an option twice, with an empty name, or hidden by an option that every vdev has",
    Name Warning "a configuration that names the vdev does not find its file",
    Crash Error "a signal has ended the process",
    Hang Error "a call has not returned in time",
    Exit Error "the vdev has ended the process",
    Refused Error "`control` has returned an error number",
    OptionRefused Error "the vdev refuses an option, or its argument",
    ControlResult Warning "`control` has returned an error number where that stops nothing",
    Place Error "`v_block` is no place that a vdev can be at",
    Length Warning "`v_block.length` is 0, so the registers are as long as the widest access",
    Location Note "the vdev has no location of its own, and none was requested",
    Interrupt Error "it cannot have the interrupt that it has chosen",
    NoValue Error "`vread` has succeeded without a value",
    Status Error "`vread` or `vwrite` has returned what ends the guest, or no `VRS_*`",
    BusError Warning "all accesses to its own registers are refused",
    Slow Warning "an access took so long that a virtual CPU would notice",
    Mutex Error "`v_mtx` is locked after a call has returned",
    EarlyThread Warning "a thread was started before `VDEV_CTRL_GUEST_CONFIGURED`",
    Thread Error "a thread outlives `VDEV_CTRL_TERMINATE`",
    Descriptor Warning "a descriptor is open after `VDEV_CTRL_TERMINATE`",
    Mapping Error "guest memory is mapped after `VDEV_CTRL_TERMINATE`",
    SecondInstance Warning "a second vdev of the factory does not start in the same guest",
    SecondRound Error "after its end the vdev does not start again, as for a guest that resets itself",
    EndsGuest Error "it ends a guest that has not run",
    NoPulse Error "an event is prepared, and there is no `pulse`",
    NoTimer Error "a timer is created, and there is no `timer`",
    Host Warning "what the functions that it calls have to say",
    Pci Note "a PCI function, whose registers are not read",
}

impl Finding {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let (severity, message) = (kind.severity(), message.into());
        Self { severity, kind, call: None, message, advice: None }
    }

    /// Adds the call.
    pub(super) fn in_call(self, call: impl Into<String>) -> Self {
        Self { call: Some(call.into()), ..self }
    }

    /// Adds what to do.
    pub(super) fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// The sender of reports.
#[derive(Clone, Debug)]
pub(super) struct Reporter(Arc<Mutex<Sender>>);

#[derive(Debug)]
struct Sender {
    to: UnixStream,
    messages: usize,
    /// What a call of the vdev is called, after its name.
    occasion: &'static str,
    /// The kinds of findings so far.
    found: Vec<Kind>,
}

impl Reporter {
    pub(super) fn new(to: UnixStream) -> Self {
        Self(Arc::new(Mutex::new(Sender { to, messages: 0, occasion: "", found: Vec::new() })))
    }

    /// Adds an occasion to the calls from now on: " in a second guest".
    pub(super) fn occasion(&self, occasion: &'static str) {
        self.0.lock().occasion = occasion;
    }

    pub(super) fn call(&self, call: &str) {
        let call = format!("{call}{}", self.0.lock().occasion);
        self.send(&Report::Call(call));
    }

    pub(super) fn finding(&self, mut finding: Finding) {
        let occasion = {
            let mut sender = self.0.lock();
            if !sender.found.contains(&finding.kind) {
                sender.found.push(finding.kind);
            }
            sender.occasion
        };
        finding.call = finding.call.map(|call| format!("{call}{occasion}"));
        self.send(&Report::Finding(finding));
    }

    /// Whether there was a finding of this kind.
    pub(super) fn has_found(&self, kind: Kind) -> bool {
        self.0.lock().found.contains(&kind)
    }

    pub(super) fn send(&self, report: &Report) {
        let report = match report {
            Report::Message { level, text } => {
                let mut sender = self.0.lock();
                sender.messages += 1;
                if sender.messages > MESSAGES_MAX {
                    return;
                }
                Report::Message { level: level.clone(), text: cut(text) }
            }
            Report::Status(text) => Report::Status(cut(text)),
            other => other.clone(),
        };
        let Ok(mut line) = serde_json::to_vec(&report) else { return };
        line.push(b'\n');
        // If the other process is gone, there is nobody to tell.
        let _ = self.0.lock().to.write_all(&line);
    }

    /// Ends the reports.
    pub(super) fn close(&self) {
        let _ = self.0.lock().to.shutdown(Shutdown::Both);
    }
}

/// The beginning of a text.
pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the documentation has each kind, with its severity and its meaning.
    #[test]
    fn the_documentation_lists_every_kind() {
        let page = include_str!("../../../../docs/vdevs.md");
        for (kind, severity, meaning) in Kind::ALL {
            let name = |value: &dyn erased::Json| value.json();
            let row = format!("| `{}` | {} | {meaning} |", name(kind), name(severity));
            assert!(page.contains(&row), "docs/vdevs.md has no row\n{row}");
        }
        let rows = page.lines().filter(|line| {
            ["| error | ", "| warning | ", "| note | "].iter().any(|part| line.contains(part))
        });
        assert_eq!(rows.count(), Kind::ALL.len());
    }

    mod erased {
        pub(super) trait Json {
            fn json(&self) -> String;
        }
        impl<T: serde::Serialize> Json for T {
            fn json(&self) -> String {
                serde_json::to_value(self).unwrap().as_str().unwrap().to_owned()
            }
        }
    }

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(TEXT_MAX);
        assert_eq!(cut(&format!("a{long}")).len(), TEXT_MAX - 1);
    }
}
