//! Applying a new configuration to served devices.
//!
//! A device is identified by its socket. Devices that the new configuration does not change are
//! left alone. New ones are created before anything else happens, so that a configuration that
//! cannot be applied changes nothing; but a device that needs the socket or the image of one
//! that is removed can only be created after the removal.

use std::path::Path;
use std::sync::Arc;

use super::device::Served;
use super::device_error::DeviceError;
use super::event::ServiceEvent;
use super::id::Id;
use super::plan::Plan;
use super::service::Service;

/// A device that is served.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) id: Id,
    pub(super) plan: Plan,
    pub(super) is_attached: bool,
}

/// The changes of a new configuration.
#[derive(PartialEq, Eq, Default, Debug)]
struct Change {
    added: Vec<Plan>,
    /// To be created after the removals, because they need the images of removed devices.
    added_after: Vec<Plan>,
    removed: Vec<(Id, String)>,
    /// Changed, but attached: they stay as they are.
    kept: Vec<String>,
    /// Changed: the old plan and the new one.
    replaced: Vec<(Id, Plan, Plan)>,
}

impl Change {
    fn between(now: &[Current], plans: Vec<Plan>) -> Self {
        let mut change = Self::default();
        let is_wanted =
            |current: &Current| plans.iter().any(|plan| plan.socket == current.plan.socket);
        let gone = now.iter().filter(|current| !is_wanted(current));
        change.removed = gone.map(|gone| (gone.id, gone.plan.name.clone())).collect();
        for plan in plans {
            match now.iter().find(|current| current.plan.socket == plan.socket) {
                None => change.added.push(plan),
                Some(current) if current.plan == plan => {}
                Some(current) if current.is_attached => change.kept.push(current.plan.name.clone()),
                Some(Current { id, plan: old, .. }) => {
                    change.replaced.push((*id, old.clone(), plan));
                }
            }
        }
        let leaving = change.leaving();
        let images: Vec<&Path> = now
            .iter()
            .filter(|current| leaving.contains(&current.id))
            .filter_map(|current| current.plan.image())
            .collect();
        let waits = |plan: &Plan| plan.image().is_some_and(|image| images.contains(&image));
        (change.added_after, change.added) = change.added.into_iter().partition(waits);
        change
    }

    /// The devices that are to stop.
    fn leaving(&self) -> Vec<Id> {
        let removed = self.removed.iter().map(|(id, _)| *id);
        removed.chain(self.replaced.iter().map(|(id, ..)| *id)).collect()
    }
}

impl Service {
    /// The served devices, with their plans.
    pub(super) fn current(&self) -> Vec<Current> {
        self.fleet.look(|served| Current {
            id: served.id,
            plan: served.plan.clone(),
            is_attached: served.is_attached(),
        })
    }

    /// Applies a new configuration, and reports what has changed, or why nothing has.
    pub(super) fn reload(&mut self, plans: Result<Vec<Plan>, String>) {
        let event = match plans.and_then(|plans| self.carry_out(plans).map_err(|why| why.message)) {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(why) => ServiceEvent::ReloadFailed { why },
        };
        self.outbox.service_event(event);
    }

    /// Applies new plans; returns `None` if the process is to end meanwhile.
    fn carry_out(&mut self, plans: Vec<Plan>) -> Result<Option<ServiceEvent>, DeviceError> {
        let change = Change::between(&self.current(), plans);
        let leaving = change.leaving();
        let added = self.create(&change.added, |served| !leaving.contains(&served.id))?;
        // From here on the changes cannot be undone.
        self.fleet.look(|served| {
            if leaving.contains(&served.id) {
                served.stop();
            }
        });
        self.wait_for(&leaving);
        if self.ending {
            return Ok(None);
        }
        let mut failed = Vec::new();
        let mut applied = Applied::default();
        self.serve(added, &mut applied.added, &mut failed);
        for plan in &change.added_after {
            match self.create(std::slice::from_ref(plan), |_| true) {
                Ok(created) => self.serve(created, &mut applied.added, &mut failed),
                Err(why) => failed.push(why.message),
            }
        }
        for (_, old, new) in &change.replaced {
            match self.create(std::slice::from_ref(new), |_| true) {
                Ok(created) => self.serve(created, &mut applied.replaced, &mut failed),
                Err(why) => {
                    failed.push(why.message);
                    // Restores the old one, so that its VMM can attach.
                    match self.create(std::slice::from_ref(old), |_| true) {
                        Ok(created) => self.serve(created, &mut Vec::new(), &mut failed),
                        Err(why) => failed.push(why.message),
                    }
                }
            }
        }
        let removed = change.removed.into_iter().map(|(_, name)| name).collect();
        let Applied { added, replaced } = applied;
        Ok(Some(ServiceEvent::Reloaded { added, removed, replaced, kept: change.kept, failed }))
    }

    fn serve(&mut self, created: Vec<Served>, done: &mut Vec<String>, failed: &mut Vec<String>) {
        let names: Vec<_> = created.iter().map(|served| Arc::clone(&served.name)).collect();
        match self.start(created) {
            Ok(()) => done.extend(names.iter().map(ToString::to_string)),
            Err(why) => failed.push(why.message),
        }
    }
}

#[derive(Default)]
struct Applied {
    added: Vec<String>,
    replaced: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::requested::Requested;

    fn plan(socket: &str, backing: &str) -> Plan {
        let (kind, backing) = ("nvme".into(), Some(backing.into()));
        let requested = Requested { kind, socket: socket.into(), backing, ..Requested::default() };
        Plan::of(&requested, 0, Path::new("/run")).unwrap()
    }

    #[test]
    fn only_what_is_different_changes() {
        let current =
            |id, plan: &Plan, is_attached| Current { id: Id(id), plan: plan.clone(), is_attached };
        let [same, gone, used, idle] =
            ["same", "gone", "used", "idle"].map(|name| plan(name, &format!("file:{name}.img")));
        let now = [
            current(0, &same, true),
            current(1, &gone, true),
            current(2, &used, true),
            current(3, &idle, false),
        ];
        let (new_used, new_idle) = (plan("used", "null:1M"), plan("idle", "null:1M"));
        let (new, moved) = (plan("new", "null:1M"), plan("moved", "file:gone.img"));
        let plans = [&same, &new, &moved, &new_used, &new_idle].map(Clone::clone).into();
        let change = Change::between(&now, plans);
        let expected = Change {
            added: vec![new],
            added_after: vec![moved],
            removed: vec![(Id(1), gone.name)],
            kept: vec![used.name],
            replaced: vec![(Id(3), idle, new_idle)],
        };
        assert_eq!(change, expected);
    }
}
