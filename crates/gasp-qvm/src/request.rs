//! A vdev as a configuration requests it, checked against its factory.

use std::ffi::CString;

use gasp::config::{DeviceConfig, Interrupt, Location, Place};

use crate::abi::*;
use crate::error::VdevError;
use crate::factory::Factory;

/// The space that a vdev's registers are in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Space {
    /// Guest-physical memory.
    Memory,
    /// x86 ports.
    Ports,
    /// A PCI function: its BARs, wherever the guest puts them.
    Pci,
}

/// An option of a vdev, with its argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OptionText {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) argument: Option<CString>,
    pub(crate) place: Place,
}

/// An option of the program that hosts a vdev, which the vdev does not see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostOption {
    /// Its index in the host's list.
    pub index: usize,
    /// Its argument.
    pub argument: String,
    /// Where it is, for errors.
    pub place: Place,
}

/// A vdev as it is requested.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// Where it is, if that was requested.
    pub location: Option<Location>,
    /// Its interrupt, if that was requested.
    pub interrupt: Option<Interrupt>,
    /// Where it is requested, for errors.
    pub place: Place,
    pub(crate) options: Vec<OptionText>,
}

impl Request {
    /// The request of a configuration.
    ///
    /// # Errors
    /// With the line: if an option is unknown or lacks its argument, there are several locations,
    /// or the factory excludes the location or the interrupt.
    pub fn of(config: &DeviceConfig, factory: &Factory) -> Result<Self, VdevError> {
        Self::with(config, factory, &[]).map(|(request, _)| request)
    }

    /// The request of a configuration that may have options of the host as well, each with an
    /// argument. An option of the factory of the same name comes first. The host's are returned in
    /// the order of the text.
    ///
    /// # Errors
    /// As for [`of`](Self::of).
    pub fn with(
        config: &DeviceConfig,
        factory: &Factory,
        host: &[&str],
    ) -> Result<(Self, Vec<HostOption>), VdevError> {
        let wrong = |message: &str| Err(VdevError::Config(config.place.error(message)));
        let (mut options, mut hosts) = (Vec::new(), Vec::new());
        let all = factory.options.iter().map(String::as_str).chain(host.iter().copied());
        for option in config.options(&all.collect::<Vec<_>>())? {
            if let Some(index) = option.index.checked_sub(factory.options.len()) {
                let (argument, place) = (option.argument.unwrap_or_default(), option.place);
                hosts.push(HostOption { index, argument: argument.into(), place: place.clone() });
                continue;
            }
            let argument = option.argument.map(CString::new).transpose();
            let argument =
                argument.map_err(|_| option.place.error("the argument has a NUL in it"))?;
            let name = factory.options.get(option.index).map_or("", String::as_str);
            options.push(OptionText {
                name: name.strip_prefix('0').unwrap_or(name).to_owned(),
                index: u32::try_from(option.index).unwrap_or(u32::MAX),
                argument,
                place: option.place.clone(),
            });
        }
        let location = match &*config.locations {
            [] => None,
            [one] => Some(*one),
            _ => return wrong("a vdev has one location; remove all `loc` but one"),
        };
        let name = factory.name();
        if location.is_some() && factory.has(VFF_LOC_NO) {
            return wrong(&format!("`{name}` has no location; remove `loc`"));
        }
        if config.interrupt.is_some() && factory.has(VFF_INTR_NO) {
            return wrong(&format!("`{name}` has no interrupt; remove `intr`"));
        }
        if let Some(interrupt) = &config.interrupt
            && interrupt.line().is_none()
        {
            return wrong(&format!("`intr {interrupt}`: expected a line, as in `ioapic:5`"));
        }
        let request = Self {
            name: config.name.clone(),
            location,
            interrupt: config.interrupt.clone(),
            place: config.place.clone(),
            options,
        };
        if let Some(space) = request.space(factory)
            && !spaces(factory).contains(&space)
        {
            let (wants, has) = (words(space), spaces(factory));
            let has: Vec<_> = has.into_iter().map(words).collect();
            return wrong(&format!("`{name}` cannot be {wants}; it can be {}", has.join(" or ")));
        }
        Ok((request, hosts))
    }

    /// Whether it is to be a PCI function: it is requested as one, or its factory's vdevs are
    /// nothing else.
    pub fn is_pci(&self, factory: &Factory) -> bool {
        self.space(factory).unwrap_or_else(|| default_space(factory)) == Space::Pci
    }

    /// The space of the location that was requested.
    pub(crate) fn space(&self, factory: &Factory) -> Option<Space> {
        Some(match self.location? {
            Location::Default(_) => default_space(factory),
            Location::Memory(_) => Space::Memory,
            Location::Port(_) => Space::Ports,
            Location::Pci { .. } | Location::PciId { .. } => Space::Pci,
        })
    }
}

/// The spaces that a factory's vdevs can be in: those of its flags, or all.
pub(crate) fn spaces(factory: &Factory) -> Vec<Space> {
    let all = [
        (VFF_VDEV_MEM, Space::Memory),
        (VFF_VDEV_X86_IO, Space::Ports),
        (VFF_VDEV_PCI, Space::Pci),
    ];
    let any = factory.flags & VFF_VDEV_LOC_TYPES == 0;
    all.into_iter().filter(|(flag, _)| any || factory.has(*flag)).map(|(_, space)| space).collect()
}

/// The space of a location without a prefix: the first of the factory's.
pub(crate) fn default_space(factory: &Factory) -> Space {
    spaces(factory).first().copied().unwrap_or(Space::Memory)
}

fn words(space: Space) -> &'static str {
    match space {
        Space::Memory => "in memory (`mem:`)",
        Space::Ports => "at ports (`io:`)",
        Space::Pci => "on the PCI bus (`pci:`)",
    }
}
