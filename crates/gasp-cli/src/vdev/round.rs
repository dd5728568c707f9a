//! A vdev from its options to its end, in front of a guest with RAM and no processors.

use core::time::Duration;
use std::sync::Arc;

use gasp::config::Location;
use gasp::{Guest, GuestPhys, MemoryObject};
use gasp_capi::embed::ListedGuest;
use gasp_qvm::abi::VFF_LOC_NO;
use gasp_qvm::{End, Factory, Host, Instance, Placed, Request, Space, VdevError};

use super::leftovers::left_thread;
use super::mutex::{Stop, check_mutex};
use super::refusal;
use super::registers;
use super::report::{self, Finding, Kind, Report, Reporter};
use crate::quantity::several;

/// The RAM of the guest, from 0.
const RAM: u64 = 16 << 20;
/// Places for vdevs that have none; the next vdev is at the next multiple.
const IN_MEMORY: (u64, u64) = (0xfa00_0000, 0x10_0000);
const AT_PORTS: (u64, u64) = (0x300, 0x40);
/// The line of a vdev that needs an interrupt; the next vdev has the next one.
const LINE: u32 = 5;
/// How long the threads and timers of a vdev run before its end.
const RUNS_FOR: Duration = Duration::from_millis(100);
/// The guest of a round, and what happens to it.
pub(super) struct Round<'walk> {
    pub(super) factory: &'walk Arc<Factory>,
    pub(super) request: &'walk Request,
    pub(super) poke: bool,
    pub(super) reports: &'walk Reporter,
    guest: Guest,
    listed: ListedGuest,
}

/// A vdev of a round.
struct Part {
    instance: Instance,
    engine: gasp::Vdev,
}

impl<'walk> Round<'walk> {
    pub(super) fn new(
        factory: &'walk Arc<Factory>,
        request: &'walk Request,
        poke: bool,
        reports: &'walk Reporter,
    ) -> Result<Self, String> {
        let made = || -> Result<_, gasp::Error> {
            let guest = Guest::builder().build()?;
            let ram = MemoryObject::ram(RAM).create()?;
            guest.space().add_ram(Some(GuestPhys(0)), &ram)?;
            Ok(guest)
        };
        let guest = made().map_err(|error| error.to_string())?;
        let listed = ListedGuest::new(guest.clone()).map_err(|error| error.to_string())?;
        Ok(Self { factory, request, poke, reports, guest, listed })
    }

    /// The first round: two vdevs at a time, the second one only if it starts.
    pub(super) fn both(&self) -> Result<(), Stop> {
        let first = self.create(0).map_err(|error| self.refused(&error))?;
        self.reports.occasion(" of a second vdev");
        let second = match self.create(1) {
            Ok(second) => Some(second),
            Err(error) => {
                self.found_another(&error, Kind::SecondInstance);
                None
            }
        };
        self.reports.occasion("");
        let parts: Vec<Part> = [Some(first), second].into_iter().flatten().collect();
        self.life(parts)
    }

    /// The second round: after the end of the first one.
    pub(super) fn again(&self) -> Result<(), Stop> {
        self.reports.occasion(", in a second round");
        let lived = match self.create(0) {
            Ok(only) => self.life(vec![only]),
            Err(error) => {
                self.found_another(&error, Kind::SecondRound);
                Err(Stop)
            }
        };
        self.reports.occasion("");
        lived
    }

    fn create(&self, number: u64) -> Result<Part, VdevError> {
        let mut request = self.request.clone();
        if number > 0 {
            request.name = format!("{}{number}", request.name);
            let away = |start: u64, (_, step): (u64, u64)| start.saturating_add(number * step);
            request.location = match request.location {
                Some(Location::Memory(at)) => {
                    Some(Location::Memory(GuestPhys(away(at.0, IN_MEMORY))))
                }
                Some(Location::Port(port)) => {
                    let port = away(port.into(), AT_PORTS);
                    Some(Location::Port(u16::try_from(port).unwrap_or(u16::MAX)))
                }
                // Its flags decide where it is: far enough for both.
                Some(Location::Default(at)) => Some(Location::Default(away(
                    at,
                    match at {
                        ..=0xffff => AT_PORTS,
                        _ => IN_MEMORY,
                    },
                ))),
                other => other,
            };
        }
        let engine = self.guest.vdev(&request.name).map_err(|error| VdevError::Host {
            vdev: request.name.clone(),
            errno: error.errno(),
            why: error.to_string(),
        })?;
        let host = Arc::new(Seat(self.reports.clone()));
        let created = Instance::create(&self.listed, &engine, self.factory, &request, host);
        self.reports.send(&Report::Returned);
        Ok(Part { instance: created?, engine })
    }

    fn refused(&self, error: &VdevError) -> Stop {
        self.reports.finding(refusal::of_start(error, self.factory));
        Stop
    }

    fn found_another(&self, error: &VdevError, kind: Kind) {
        let Finding { call, message, .. } = refusal::of_start(error, self.factory);
        let finding = Finding { call, ..Finding::new(kind, message) };
        self.reports.finding(finding.advice(
            "keep all state in v_device, and give back in TERMINATE what the process has once",
        ));
    }

    fn life(&self, parts: Vec<Part>) -> Result<(), Stop> {
        let lived = self.start(&parts).and_then(|()| self.run(&parts));
        for (number, Part { instance, engine }) in parts.into_iter().enumerate() {
            self.end(number, instance, &engine, lived.is_ok());
        }
        lived
    }

    fn start(&self, parts: &[Part]) -> Result<(), Stop> {
        for Part { instance, .. } in parts {
            check_mutex(instance, "control(OPTIONS_END)", self.reports)?;
            instance.assign().map_err(|error| self.refused(&error))?;
            check_mutex(instance, "control(ASSIGN)", self.reports)?;
            self.check_threads(instance);
        }
        for (number, Part { instance, .. }) in parts.iter().enumerate() {
            self.place(number, instance)?;
        }
        for Part { instance, .. } in parts {
            instance.make_region().map_err(|error| {
                let finding = Finding::new(Kind::Place, error.to_string());
                self.reports
                    .finding(finding.advice("choose another place, or pass one with --loc"));
                Stop
            })?;
        }
        // It cannot have been started: it is new.
        let _ = self.listed.start();
        for Part { instance, .. } in parts {
            instance.configured().map_err(|error| self.refused(&error))?;
            check_mutex(instance, "control(GUEST_CONFIGURED)", self.reports)?;
        }
        for Part { instance, .. } in parts {
            instance.starting().map_err(|error| self.refused(&error))?;
            check_mutex(instance, "control(GUEST_STARTING)", self.reports)?;
        }
        Ok(())
    }

    /// Gives a vdev a place and an interrupt, if it has none.
    fn place(&self, number: usize, instance: &Instance) -> Result<(), Stop> {
        let placed = instance.placed().map_err(|error| self.refused(&error))?;
        let has_location = !self.factory.has(VFF_LOC_NO);
        let has_registers = has_location && self.factory.answers() != (false, false);
        if number == 0 && has_registers && instance.own_length() == 0 {
            let message = format!("v_block.length is 0: its registers are {} bytes", placed.len);
            self.reports.finding(
                Finding::new(Kind::Length, message)
                    .advice("set v_block.length in OPTIONS_START, to the bytes of all registers"),
            );
        }
        let chosen = placed.start.is_none() && has_registers && placed.space != Space::Pci;
        if chosen {
            let (first, step) = match placed.space {
                Space::Ports => AT_PORTS,
                Space::Memory | Space::Pci => IN_MEMORY,
            };
            let step = step.max(placed.len.checked_next_power_of_two().unwrap_or(step));
            instance.place(first.saturating_add(number as u64 * step), placed.len);
        } else if let Some(start) = placed.start.filter(|_| number > 0 && has_location) {
            // Where the first one is, if it has a place of its own.
            self.move_away(instance, placed, start);
        }
        if instance.wants_line() {
            instance.set_line(LINE + u32::try_from(number).unwrap_or(0));
        }
        if number == 0 {
            self.tell(instance, chosen, has_registers)?;
        }
        Ok(())
    }

    fn move_away(&self, instance: &Instance, placed: Placed, start: u64) {
        let requested = self.request.location.is_some();
        let step = match placed.space {
            Space::Memory => IN_MEMORY.1.max(placed.len),
            Space::Ports => AT_PORTS.1.max(placed.len),
            Space::Pci => return,
        };
        if let (false, Some(start)) = (requested, start.checked_add(step)) {
            instance.place(start, placed.len);
        }
    }

    fn tell(&self, instance: &Instance, chosen: bool, has_registers: bool) -> Result<(), Stop> {
        let Placed { space, start, len } =
            instance.placed().map_err(|error| self.refused(&error))?;
        let (name, remark) = match space {
            Space::Memory => ("mem", "`gasp vm` chooses one"),
            Space::Ports => ("io", "`gasp vm` requires one at ports"),
            Space::Pci => ("pci", ""),
        };
        if has_registers || start.is_some() {
            self.reports.send(&Report::Placed(report::Placed {
                space: name.into(),
                start,
                bytes: len,
                chosen,
                line: instance.line(),
            }));
        }
        if chosen {
            let message = format!("it has no location of its own; {remark}");
            self.reports.finding(
                Finding::new(Kind::Location, message)
                    .advice("pass the one it will have with --loc"),
            );
        }
        if space == Space::Pci && has_registers {
            let message = "it is a PCI function: its registers are not read";
            self.reports.finding(
                Finding::new(Kind::Pci, message)
                    .advice("attach it to a guest, with gasp vm or gasp serve"),
            );
        }
        Ok(())
    }

    fn run(&self, parts: &[Part]) -> Result<(), Stop> {
        self.reports.call("running");
        std::thread::sleep(RUNS_FOR);
        self.reports.send(&Report::Returned);
        for Part { instance, .. } in parts.iter().take(1) {
            registers::walk(instance, &self.listed, self.poke, self.reports)?;
            self.reports.send(&Report::Status(instance.status()));
            check_mutex(instance, "control(STATUS)", self.reports)?;
            instance.button();
            check_mutex(instance, "control(BUTTON)", self.reports)?;
        }
        Ok(())
    }

    fn end(&self, number: usize, instance: Instance, engine: &gasp::Vdev, was_running: bool) {
        self.reports.call("control(TERMINATE)");
        let left = instance.terminate();
        self.reports.send(&Report::Returned);
        for name in left.iter().filter(|_| number == 0) {
            self.reports.finding(left_thread(name));
        }
        let held = engine.held();
        if held > 0 && number == 0 && was_running {
            let message = format!("{} of guest memory left", several(held, "mapping"));
            self.reports.finding(
                Finding::new(Kind::Mapping, message)
                    .in_call("control(TERMINATE)")
                    .advice("unmap with gasp_unmap_handle() what it has mapped"),
            );
        }
    }

    fn check_threads(&self, instance: &Instance) {
        if let Some(name) = instance.threads().first() {
            self.reports.finding(
                Finding::new(Kind::EarlyThread, format!("the thread `{name}` runs already"))
                    .in_call("control(ASSIGN)")
                    .advice(
                        "start threads in GUEST_CONFIGURED: until then the guest is not complete, \
                         and may not come to be",
                    ),
            );
        }
    }
}

/// The host of a vdev: it has no guest that could take interrupts.
#[derive(Debug)]
struct Seat(Reporter);

impl Host for Seat {
    fn interrupt(&self, _: bool) {}

    fn message(&self, _: u64, _: u32) {}

    fn end(&self, end: &End) {
        let finding = Finding::new(Kind::EndsGuest, end.to_string());
        self.0.finding(finding.advice("end a guest only for what the guest does"));
    }
}
