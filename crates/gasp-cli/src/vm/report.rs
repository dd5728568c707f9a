//! Reports of a VM: events to a file, counters to stderr when they are asked for.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use gasp_vm::Exits;
use serde::Serialize;

use super::answers::Answers;
use super::event::{DeviceTotals, Event, ExitTotals, Totals};
use super::guest::Vm;
use super::plan::Plan;
use super::signals::Signalled;
use super::vdevs::Vdevs;
use super::view;
use crate::failure::Failure;
use crate::out::Out;

/// The interval of totals in JSON, while they change.
const EVERY: Duration = Duration::from_secs(1);

/// The reports of a command.
pub(super) struct Report {
    events: Option<Out<std::fs::File>>,
    answers: Option<Answers>,
    /// Whether stderr may be a terminal in raw mode.
    is_raw: bool,
    started: Instant,
    last: Instant,
    /// Totals as they were last reported.
    reported: Totals,
    /// Totals when they were last shown, and when that was.
    shown: (Totals, Instant),
    /// As they are now.
    now: Totals,
    /// Exits of the machines before.
    before: ExitTotals,
}

#[derive(Serialize)]
struct Line<'a> {
    at: f64,
    #[serde(flatten)]
    event: &'a Event,
}

impl Report {
    /// Reports with events to the file at `path`, which is created or emptied.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let open = |path: &Path| -> io::Result<_> {
            let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
            Out::to(file)
        };
        let events = path
            .map(|path| open(path).map_err(Failure::unwritable("cannot write events to", path)));
        let now = Instant::now();
        Ok(Self {
            events: events.transpose()?,
            answers: None,
            is_raw: false,
            started: now,
            last: now,
            reported: Totals::default(),
            shown: (Totals::default(), now),
            now: Totals::default(),
            before: ExitTotals::default(),
        })
    }

    /// The terminal is in raw mode from now on.
    pub(super) fn raw(&mut self) {
        self.is_raw = true;
    }

    /// Answers those who ask, as well.
    pub(super) fn answer(&mut self, answers: Answers) {
        self.answers = Some(answers);
    }

    /// A machine is about to start.
    pub(super) fn started(&mut self, vm: &Vm, vdevs: Option<&Vdevs>, plan: &Plan) {
        self.event(&Event::started(vm, vdevs, plan));
    }

    /// The power button was pressed.
    pub(super) fn pressed(&mut self) {
        self.event(&Event::PowerButton {});
    }

    /// The state of vdevs, by name.
    pub(super) fn statuses(&mut self, all: &[(String, String)]) {
        for (vdev, text) in all {
            let text = text.trim_end().to_owned();
            let shown = match &*text {
                "" => "it reports nothing",
                text => text,
            };
            self.show(&format!("vdev `{vdev}`: {shown}\n"));
            self.event(&Event::VdevStatus { vdev: vdev.clone(), text });
        }
    }

    /// Writes lines to stderr.
    fn show(&self, text: &str) {
        // Nobody may read it.
        let _ = match self.is_raw {
            true => io::stderr().write_all(&view::with_returns(text.as_bytes())),
            false => io::stderr().write_all(text.as_bytes()),
        };
    }

    /// Reports what has happened since the last call; all of it, if it `is_last` for this machine.
    pub(super) fn tick(
        &mut self,
        vm: &Vm,
        vdevs: Option<&Vdevs>,
        exits: &Exits,
        signalled: &Signalled,
        is_last: bool,
    ) {
        let faults = vm.guest.take_faults();
        for fault in &faults.records {
            self.event(&Event::fault(fault));
        }
        if faults.dropped > 0 {
            self.event(&Event::FaultsDropped { count: faults.dropped });
        }
        let is_read = self.events.is_some() || self.answers.is_some();
        let is_due = is_last || self.last.elapsed() >= EVERY && is_read;
        let is_viewed = signalled.take_view();
        // Counting what is held interrupts the vCPUs, so it is done only for somebody.
        if is_due || is_viewed {
            let built_in = vm.devices.iter().map(DeviceTotals::of);
            let in_c = vdevs.into_iter().flat_map(Vdevs::engines);
            let in_c = in_c.map(|(name, at, vdev)| DeviceTotals::of_vdev(name, at, vdev));
            let devices = built_in.chain(in_c).collect();
            self.now = Totals { exits: self.before.plus(exits), devices };
        }
        if is_due {
            if let Some(answers) = &self.answers {
                answers.update(&self.now);
            }
            self.totals();
        }
        if is_viewed {
            let (before, at) = &self.shown;
            let text = view::table(before, &self.now, at.elapsed());
            self.show(&text);
            self.shown = (self.now.clone(), Instant::now());
        }
    }

    /// A machine has ended.
    pub(super) fn cycled(&mut self) {
        self.totals();
        self.before = self.now.exits;
    }

    /// The guest starts anew.
    pub(super) fn reset(&mut self) {
        self.event(&Event::Reset {});
    }

    /// The command ends.
    pub(super) fn ended(&mut self, outcome: &Result<(), Failure>) {
        let (status, why) = match outcome {
            Ok(()) => (0, "the guest has powered off".into()),
            Err(Failure::Ended { status, message }) => (*status, message.clone()),
            Err(failure) => (failure.status(), failure.message()),
        };
        self.event(&Event::Ended { status, why });
    }

    fn totals(&mut self) {
        self.last = Instant::now();
        if self.now != self.reported {
            self.reported = self.now.clone();
            self.event(&Event::Totals(self.now.clone()));
        }
    }

    /// Writes an event; one that cannot be written is dropped.
    fn event(&mut self, event: &Event) {
        let Some(out) = &mut self.events else { return };
        let at = (self.started.elapsed().as_secs_f64() * 1e6).round() / 1e6;
        // It contains only numbers and strings, which can always be serialized.
        let mut text = serde_json::to_string(&Line { at, event }).unwrap_or_default();
        text.push('\n');
        if let Err(error) = out.write(&text) {
            tracing::warn!("events cannot be written: {error}; the VM runs on");
        }
    }
}
