//! A vdev in C as a configuration requests it.

use std::sync::Arc;

use gasp::config::{DeviceConfig, Place};
use gasp_qvm::{Factory, Loader, Request, VdevError};
use gasp_vm::acpi::HardwareId;

use super::lines::CONTROLLER;
use crate::failure::Failure;

/// The options of each vdev that the vdev does not see.
const HOST_OPTIONS: [&str; 1] = ["hid"];

/// A vdev, whose file is loaded and whose options are checked as far as its factory says.
#[derive(Clone, Debug)]
pub(in crate::vm) struct VdevPlan {
    pub(in crate::vm) name: String,
    /// Its type.
    pub(in crate::vm) kind: String,
    pub(in crate::vm) place: Place,
    pub(super) factory: Arc<Factory>,
    pub(super) request: Request,
    /// The hardware identifier that the configuration has chosen.
    pub(super) hid: Option<HardwareId>,
}

impl VdevPlan {
    /// The vdev of a type that none of the built-in ones, `types`, is.
    pub(in crate::vm) fn of(
        device: &DeviceConfig,
        loader: &Loader,
        types: &str,
    ) -> Result<Self, Failure> {
        let wrong = |message: &str| Failure::from(device.place.error(message));
        let kind = &device.kind;
        let factory = loader.load(kind).map_err(|error| match error {
            VdevError::NotFound { .. } => {
                wrong(&format!("`{kind}` is none of the built-in types ({types}), and {error}"))
            }
            error => wrong(&error.to_string()),
        })?;
        let (request, host) = Request::with(device, &factory, &HOST_OPTIONS)
            .map_err(|error| failure(error, &device.place))?;
        let mut hid = None;
        for option in host {
            let id = HardwareId::new(&option.argument).ok_or_else(|| {
                let message = format!(
                    "`hid {}`: expected an identifier of PNP or ACPI, such as PNP0501 or LNRO0005",
                    option.argument
                );
                Failure::from(option.place.error(&message))
            })?;
            hid = Some(id);
        }
        let is_pci = request.is_pci(&factory);
        if let (true, Some(_)) = (is_pci, &hid) {
            return Err(wrong("`hid`: a PCI function has identifiers of its own; leave it out"));
        }
        if let Some(interrupt) = request.interrupt.as_ref().filter(|_| !is_pci)
            && interrupt.controller != CONTROLLER
        {
            let message = format!(
                "`intr {interrupt}`: there is one interrupt controller, `{CONTROLLER}`; use \
                 `{CONTROLLER}:{}`",
                interrupt.input.as_deref().unwrap_or("5")
            );
            return Err(wrong(&message));
        }
        let (name, kind, place) = (device.name.clone(), kind.clone(), device.place.clone());
        Ok(Self { name, kind, place, factory, request, hid })
    }

    /// Whether it is a PCI function.
    pub(in crate::vm) fn is_pci(&self) -> bool {
        self.request.is_pci(&self.factory)
    }
}

/// The failure of a vdev that is requested at a place.
pub(super) fn failure(error: VdevError, place: &Place) -> Failure {
    match error {
        VdevError::Config(error) => Failure::Config(error),
        error => Failure::Unavailable {
            errno: error.errno(),
            message: place.error(&error.to_string()).to_string(),
        },
    }
}
