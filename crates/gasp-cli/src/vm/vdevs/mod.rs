//! The vdevs in C of a machine: made when it is powered on, and ended with it.
//!
//! | | |
//! |---|---|
//! | [`plan`] | a vdev as it is requested |
//! | [`places`], [`lines`] | what is taken of addresses, ports and interrupts |
//! | [`host`], [`windows`] | a vdev's place in its machine |
//! | [`function`] | a vdev on the PCI bus, which lasts |

pub(in crate::vm) mod function;
mod host;
mod lines;
mod places;
pub(in crate::vm) mod plan;
mod windows;

use core::ops::Range;
use std::sync::Arc;

use gasp_capi::embed::ListedGuest;
use gasp_qvm::{Decoder, Instance, Placed, Space, VdevError};
use gasp_vm::acpi::{HardwareId, PlatformDevice, Tables};
use gasp_vm::{Machine, MachineError};
use parking_lot::Mutex;

use host::{Seat, Wires};
use lines::Lines;
use places::Places;
use plan::{VdevPlan, failure};
use windows::Windows;

use super::guest::Vm;
use crate::failure::Failure;

/// The hardware identifier of a vdev that nobody has chosen one for; it is not registered.
const OWN_HID: &str = "GASP0001";

/// The vdevs of a machine. Dropping them ends them.
pub(in crate::vm) struct Vdevs<'a> {
    /// Before the vdevs: nothing reaches them any more when they end.
    windows: Option<Windows>,
    all: Vec<Vdev<'a>>,
    guest: ListedGuest,
    decoder: Arc<Decoder>,
    lines: Arc<Mutex<Lines>>,
}

struct Vdev<'a> {
    plan: &'a VdevPlan,
    engine: gasp::Vdev,
    seat: Arc<Seat>,
    instance: Arc<Instance>,
}

impl<'a> Vdevs<'a> {
    /// Creates all vdevs with their options, and lets them choose places. Without a machine they
    /// are only checked.
    pub(in crate::vm) fn create(
        vm: &Vm,
        plans: &'a [VdevPlan],
        machine: Option<&Machine>,
    ) -> Result<Self, Failure> {
        let guest = ListedGuest::new(vm.guest.clone())
            .map_err(|error| unavailable(error.errno(), &error.to_string()))?;
        let decoder = Arc::new(Decoder::new(&guest));
        let lines = Arc::new(Mutex::new(Lines::new()));
        let mut this = Self { windows: None, all: Vec::new(), guest, decoder, lines };
        for plan in plans {
            let vdev = match vm.guest.find_vdev(&plan.name) {
                Some(vdev) => vdev,
                None => vm.guest.vdev(&plan.name)?,
            };
            let wires = |machine: &Machine| Wires {
                messages: machine.messages(),
                ending: machine.ending().clone(),
            };
            let seat = Seat::new(&plan.name, machine.map(wires), &this.lines);
            let instance = Instance::create(
                &this.guest,
                &vdev,
                &plan.factory,
                &plan.request,
                Arc::clone(&seat) as _,
            );
            let instance = Arc::new(instance.map_err(|error| failure(error, &plan.place))?);
            this.all.push(Vdev { plan, engine: vdev, seat, instance });
        }
        // What the configuration says comes before what they choose themselves.
        for vdev in &this.all {
            if let Some(line) = vdev.instance.line() {
                let taken = this.lines.lock().take(line, &vdev.plan.name);
                taken.map_err(|why| vdev.wrong(&why))?;
            }
        }
        this.each(|vdev| vdev.instance.assign())?;
        Ok(this)
    }

    fn each(&self, call: impl Fn(&Vdev) -> Result<(), VdevError>) -> Result<(), Failure> {
        self.all
            .iter()
            .try_for_each(|vdev| call(vdev).map_err(|error| failure(error, &vdev.plan.place)))
    }

    /// Gives places and lines to those that have none, and refuses what is taken. `high` is the
    /// window of PCI devices past the end of RAM.
    pub(in crate::vm) fn place(&self, vm: &Vm, high: Range<u64>) -> Result<(), Failure> {
        let mut places = Places::of_machine(high);
        places.add_regions(&vm.guest);
        let mut without = Vec::new();
        for vdev in &self.all {
            let placed = vdev.placed()?;
            let Placed { space, start, len } = placed;
            if let Some(start) = start.filter(|_| space != Space::Pci) {
                let last = start.saturating_add(len - 1);
                let taken = places.take(space, start..=last, &vdev.plan.name);
                taken.map_err(|why| vdev.wrong(&why))?;
            }
            without.push((vdev, placed));
        }
        for (vdev, placed) in without {
            let (instance, name) = (&vdev.instance, &vdev.plan.name);
            if instance.wants_place(placed) {
                if placed.space == Space::Ports {
                    return Err(vdev.wrong("its ports need a place: add `loc io:PORT`"));
                }
                let start = places.any(placed.len, name).map_err(|why| vdev.wrong(&why))?;
                instance.place(start, placed.len);
            }
            if instance.wants_line() {
                let line = self.lines.lock().any(name).map_err(|why| vdev.wrong(&why))?;
                instance.set_line(line);
            }
        }
        Ok(())
    }

    /// Connects all to the machine, and tells them that the guest is complete.
    pub(in crate::vm) fn connect(
        &mut self,
        machine: &Machine,
        high: Range<u64>,
    ) -> Result<(), Failure> {
        let mut windows = Windows::new(machine, &self.decoder);
        for vdev in &self.all {
            let instance = &vdev.instance;
            if let Some(line) = instance.line() {
                vdev.seat.connect(machine.level_line(line)?);
            }
            instance.make_region().map_err(|error| failure(error, &vdev.plan.place))?;
            let Placed { space, start, len } = vdev.placed()?;
            if let (Some(start), true) = (start, instance.has_region()) {
                windows.add(space, start, len).map_err(MachineError::from)?;
            }
            self.decoder.add(instance);
        }
        self.windows = Some(windows);
        // From here on there may be threads.
        let started = self.guest.start();
        started.map_err(|error| unavailable(error.errno(), &error.to_string()))?;
        self.each(|vdev| vdev.instance.configured())?;
        self.check_own_regions(high)
    }

    /// Refuses regions of vdevs where the machine itself has something, which would hide them.
    fn check_own_regions(&self, high: Range<u64>) -> Result<(), Failure> {
        use gasp_capi::embed;
        for (space, regions) in [
            (Space::Memory, self.guest.regions(embed::Space::Memory)),
            (Space::Ports, self.guest.regions(embed::Space::Ports)),
        ] {
            for region in regions {
                let address = region.vdev.addr();
                let owner = self.all.iter().find(|vdev| vdev.instance.address() == address);
                let Some(owner) = owner else { continue };
                let mut machine = Places::of_machine(high.clone());
                let taken = machine.take(space, region.span, &owner.plan.name);
                taken.map_err(|why| owner.wrong(&why))?;
            }
        }
        Ok(())
    }

    /// The first processor is about to run.
    pub(in crate::vm) fn start(&self) -> Result<(), Failure> {
        self.each(|vdev| vdev.instance.starting())
    }

    /// Adds all that have a place to the ACPI tables.
    pub(in crate::vm) fn describe(&self, mut tables: Tables) -> Result<Tables, Failure> {
        for (number, vdev) in (0..PlatformDevice::MOST).zip(&self.all) {
            let Placed { space, start, len } = vdev.placed()?;
            let Some(start) = start else { continue };
            let default = match vdev.instance.is_virtio_mmio() {
                true => HardwareId::VIRTIO_MMIO,
                false => OWN_HID,
            };
            let hid = vdev.plan.hid.clone().or_else(|| HardwareId::new(default));
            let Some(hid) = hid else { continue };
            let last = start.saturating_add(len - 1);
            let port = |port: u64| u16::try_from(port).unwrap_or(u16::MAX);
            let mut device = PlatformDevice::new(number, hid);
            device = match space {
                Space::Memory => device.memory(start..=last),
                Space::Ports => device.ports(port(start)..=port(last)),
                Space::Pci => continue,
            };
            if let Some(line) = vdev.instance.line() {
                device = device.line(line);
            }
            tables = tables.device(&device);
        }
        Ok(tables)
    }

    /// Whether a thread is in a vdev for ever: nobody can wait for it, or end the vdev.
    pub(in crate::vm) fn are_stuck(&self) -> bool {
        self.all.iter().any(|vdev| vdev.seat.is_stuck())
    }

    /// Whether a vdev has asked for the power button.
    pub(in crate::vm) fn have_button(&self) -> bool {
        self.all.iter().any(|vdev| vdev.instance.has_button())
    }

    /// Tells those that have asked for the power button, or all if none has, that it was pressed.
    pub(in crate::vm) fn button(&self) {
        let only = self.have_button();
        for vdev in self.all.iter().filter(|vdev| !only || vdev.instance.has_button()) {
            vdev.instance.button();
        }
    }

    /// The state of each, as it reports it.
    pub(in crate::vm) fn status(&self) -> Vec<(String, String)> {
        let status = |vdev: &Vdev| (vdev.plan.name.clone(), vdev.instance.status());
        self.all.iter().map(status).collect()
    }

    /// Name, type and place of each.
    pub(in crate::vm) fn intros(&self) -> impl Iterator<Item = (&str, &str, String)> {
        self.all.iter().map(|vdev| (&*vdev.plan.name, &*vdev.plan.kind, vdev.at()))
    }

    /// Name, place and device of the engine of each.
    pub(in crate::vm) fn engines(&self) -> impl Iterator<Item = (&str, String, &gasp::Vdev)> {
        self.all.iter().map(|vdev| (&*vdev.plan.name, vdev.at(), &vdev.engine))
    }
}

impl Vdev<'_> {
    fn placed(&self) -> Result<Placed, Failure> {
        self.instance.placed().map_err(|error| failure(error, &self.plan.place))
    }

    /// Its place, as reports have it.
    fn at(&self) -> String {
        match self.instance.placed() {
            Ok(Placed { space: Space::Memory, start: Some(start), .. }) => {
                format!("mem:{start:#x}")
            }
            Ok(Placed { space: Space::Ports, start: Some(start), .. }) => format!("io:{start:#x}"),
            _ => "-".into(),
        }
    }

    fn wrong(&self, why: &str) -> Failure {
        self.plan.place.error(why).into()
    }
}

impl Drop for Vdevs<'_> {
    fn drop(&mut self) {
        self.windows = None;
        for Vdev { instance, plan, .. } in self.all.drain(..) {
            match Arc::into_inner(instance) {
                // It reports itself which threads go on.
                Some(instance) => drop(instance.terminate()),
                None => tracing::error!(vdev = plan.name, "it is in use at its end"),
            }
        }
    }
}

fn unavailable(errno: gasp::Errno, why: &str) -> Failure {
    Failure::Unavailable { errno, message: format!("vdevs: {why}") }
}
