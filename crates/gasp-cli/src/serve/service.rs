//! The service: starts and stops the devices of this process, according to orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use gasp::Residency;
use gasp_qvm::Loader;
use gasp_vfio_user::Options;

use super::device::Served;
use super::device_error::DeviceError;
use super::event::Event;
use super::fleet::Fleet;
use super::id::Id;
use super::orders::{Order, Orders};
use super::outbox::Outbox;
use super::plan::Plan;
use super::sockets::Sockets;
use crate::failure::Failure;

/// The devices of this process, and all that is needed to serve them.
pub(super) struct Service {
    pub(super) fleet: Fleet,
    pub(super) outbox: Outbox,
    pub(super) sockets: Sockets,
    pub(super) orders: Orders,
    pub(super) residency: Residency,
    /// Finds vdevs in C.
    pub(super) loader: Loader,
    /// The identifier of the next device.
    pub(super) next: u64,
    /// An order to end has arrived.
    pub(super) ending: bool,
}

impl Service {
    /// Creates the devices of all plans, or none if one of them fails. Their serials must be
    /// unique among themselves and the served devices that `stay`.
    pub(super) fn create(
        &mut self,
        plans: &[Plan],
        stay: impl Fn(&Served) -> bool,
    ) -> Result<Vec<Served>, DeviceError> {
        let serial = |served: &Served| Some((served.serial.clone()?, Arc::clone(&served.name)));
        let there = self.fleet.look(|served| stay(served).then(|| serial(served)).flatten());
        let devices = there.len() + plans.len();
        let mut serials: BTreeMap<_, _> = there.into_iter().flatten().collect();
        let mut created = Vec::new();
        for plan in plans {
            let own = Options { mode: plan.mode, residency: self.residency, ..Options::default() };
            let options = plan.limits.apply(own, devices);
            let id = Id(self.next);
            self.next += 1;
            let (outbox, sockets) = (&self.outbox, &self.sockets);
            let served = Served::bind(id, plan, options, &self.loader, outbox, sockets)?;
            if let Some((serial, name)) = serial(&served)
                && let Some(other) = serials.insert(serial.clone(), name)
            {
                return Err(DeviceError::same_serial(plan, &serial, &other));
            }
            created.push(served);
        }
        Ok(created)
    }

    /// Serves devices that have been created.
    pub(super) fn start(&self, created: Vec<Served>) -> Result<(), DeviceError> {
        // Reported before any event of theirs.
        self.outbox.added(created.iter().map(Served::intro).collect());
        for mut served in created {
            served.start(&self.orders.sender)?;
            self.fleet.push(served);
        }
        Ok(())
    }

    /// Carries out orders until one to end.
    ///
    /// # Errors
    /// If no device is left.
    pub(super) fn run(&mut self, mut reload: impl FnMut(&mut Self)) -> Result<(), Failure> {
        while !self.ending {
            match self.orders.next() {
                Order::End => self.ending = true,
                Order::Reload => reload(self),
                Order::Status => self.tell_status(),
                Order::Ended(id) => self.ended(id),
            }
            if self.fleet.is_empty() {
                return Err(Failure::Reported);
            }
        }
        Ok(())
    }

    /// Reports the state of each vdev, as it describes it itself.
    fn tell_status(&self) {
        let vdevs =
            self.fleet.look(|served| Some((Arc::clone(&served.name), served.vdev.clone()?)));
        for (name, vdev) in vdevs.into_iter().flatten() {
            let report = vdev.status();
            let lines: Vec<&str> = match &report {
                None => vec!["no VMM is attached, or it has failed"],
                Some(report) if report.trim().is_empty() => vec!["nothing to report"],
                Some(report) => report.lines().collect(),
            };
            for line in lines {
                self.outbox.event(&name, Event::Status { text: line.into() });
            }
        }
    }

    /// Stops all devices, and reports the last state of each.
    pub(super) fn stop_all(&mut self) {
        let stopped = self.fleet.look(|served| {
            served.stop();
            served.id
        });
        self.wait_for(&stopped);
    }

    /// Waits for devices that are stopping. All that they wait for ends with the stop; if not,
    /// the deadline for a stop of all devices ends the process.
    pub(super) fn wait_for(&mut self, stopped: &[Id]) {
        while stopped.iter().any(|id| self.fleet.has(*id)) {
            match self.orders.next() {
                Order::End => self.ending = true,
                // A configuration is being applied already, or the process ends.
                Order::Reload | Order::Status => {}
                Order::Ended(id) => self.ended(id),
            }
        }
    }

    /// Removes a device whose thread has ended, by a stop or a failure.
    fn ended(&mut self, id: Id) {
        let Some(served) = self.fleet.take(id) else { return };
        let name = Arc::clone(&served.name);
        if let Some(event) = served.take_faults() {
            self.outbox.event(&name, event);
        }
        let (snapshot, failed) = served.end();
        if let Some(why) = failed {
            tracing::error!(device = %name, why, "a device has failed; the others are still served");
            self.outbox.event(&name, Event::Failed { why });
        }
        self.outbox.event(&name, Event::Stopped(snapshot));
    }
}
