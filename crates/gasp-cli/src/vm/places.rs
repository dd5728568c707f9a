//! Which PCI function each device is.

use std::collections::BTreeMap;

use gasp::config::Location;
use gasp_vm::pci::Bdf;

use super::origin::Origin;
use crate::failure::Failure;

/// The functions that are taken, and by whom.
#[derive(Default)]
pub(super) struct Places(BTreeMap<Bdf, (String, Origin)>);

impl Places {
    /// The place that a device asks for.
    pub(super) fn take(
        &mut self,
        location: &Location,
        name: &str,
        origin: &Origin,
    ) -> Result<Bdf, Failure> {
        let (bus, device, function) = match *location {
            Location::Pci { bus, device, function } => (bus, device, function),
            Location::PciId { .. } => {
                let message = format!(
                    "{location}: a device has the identifiers of its type; leave the location \
                     out, or use `pci:0:DEVICE`"
                );
                return Err(origin.wrong(&message));
            }
            Location::Default(_) | Location::Memory(_) | Location::Port(_) => {
                let message = format!(
                    "{location}: the device is on the PCI bus; use `pci:0:DEVICE`, or leave the \
                     location out"
                );
                return Err(origin.wrong(&message));
            }
        };
        let wrong = |why: &str| Err(origin.wrong(&format!("{location}: {why}")));
        let Some(at) = Bdf::new(bus, device, function).filter(|_| bus == 0) else {
            return wrong("there is one bus, 0; use `pci:0:DEVICE`");
        };
        if device == 0 {
            return wrong("the host bridge is there; use devices 1 to 31");
        }
        if let Some((other, there)) = self.0.get(&at) {
            return wrong(&format!("`{other}` is there ({there}); use another device"));
        }
        self.0.insert(at, (name.into(), origin.clone()));
        Ok(at)
    }

    /// The first device number that is free.
    pub(super) fn any(&mut self, name: &str, origin: &Origin) -> Result<Bdf, Failure> {
        let is_taken = |at: &Bdf| self.0.keys().any(|other| other.device() == at.device());
        let mut free = (1..32).filter_map(|device| Bdf::new(0, device, 0));
        let Some(at) = free.find(|at| !is_taken(at)) else {
            return Err(origin.wrong("the PCI bus is full: it has 31 places; use fewer devices"));
        };
        self.0.insert(at, (name.into(), origin.clone()));
        Ok(at)
    }

    /// Refuses a device without a function 0, which no guest would find.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for (at, (name, origin)) in &self.0 {
            let first = Bdf::from_requester_id(at.requester_id() & !7);
            if !self.0.contains_key(&first) {
                let message = format!(
                    "`{name}` is {at}, and there is no {first}: a guest looks for function 0 first"
                );
                return Err(origin.wrong(&message));
            }
        }
        Ok(())
    }
}
