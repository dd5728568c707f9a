//! What a vdev is as a PCI function: its model, and where its registers are in the BARs.

use gasp::config::Location;
use gasp_vdev::{Bar, BarKind, Class, Identity, Model, Msix, Register};

use super::bars::{self, BarRegion};
use super::config::Config;
use crate::abi::*;
use crate::access::Access;
use crate::error::VdevError;
use crate::instance::{Instance, Placed};
use crate::request::{Request, Space};

/// The vector of MSI-X, and the pin, that a vdev's interrupt `v_intr` is.
pub const MSIX_VECTOR: u16 = 0;

/// The identity of a vdev that has none of its own: one of QEMU's vendor number, for devices that
/// exist nowhere else, and of no class.
pub const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 0x7664,
    subsystem_vendor: 0x1234,
    subsystem: 1,
    revision: 1,
    class: Class { base: 0xff, sub: 0, interface: 0 },
};

/// The location of a vdev that has to be on the PCI bus, wherever.
pub(super) const ANYWHERE: Location = Location::Pci { bus: 0, device: 0, function: 0 };

/// The least length of a BAR in memory: a page, so that a process can map it.
const PAGE: u64 = 4096;
/// The least and the largest length of a BAR of ports.
const PORTS_MIN: u64 = 4;
const PORTS_MAX: u64 = 256;
/// A BAR below 4 GiB has at most this length: a guest has little space there.
const LOW_MAX: u64 = 1 << 28;
/// The largest BAR.
const LEN_MAX: u64 = 1 << 46;
/// The BAR of the registers, and that of MSI-X: the one between is the upper half of the first, if
/// that is of 64 bits.
const REGISTERS: u8 = 0;
const MESSAGES: u8 = 2;

/// `QSL_PCI_MAKE_LOC()` of where a vdev is requested on the PCI bus.
pub(super) fn on_bus(request: &Request) -> u64 {
    match request.location {
        Some(Location::Pci { bus, device, function }) => {
            u64::from(bus) << 20 | u64::from(device & 0x1f) << 15 | u64::from(function & 7) << 12
        }
        _ => 0,
    }
}

/// A vdev as a function.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) model: Model,
    pub(super) windows: Windows,
}

/// The registers in the BARs.
#[derive(Debug)]
pub(super) struct Windows(Vec<BarRegion>);

impl Windows {
    /// The access that the vdev sees; `None` for one that is outside, or not wholly inside.
    #[inline]
    pub(super) fn access(&self, at: Register) -> Option<Access> {
        let BarRegion { space, start, len, cookie, .. } =
            *self.0.iter().find(|window| window.index == at.bar)?;
        let end = at.offset.checked_add(at.width.bytes())?;
        let addr = start.checked_add(at.offset)?;
        (end <= len).then_some(Access { space, addr, cookie })
    }
}

impl Function {
    /// What an instance that has started is, whose place is `placed`; `bars` are those that it has
    /// described.
    pub(super) fn of(
        instance: &Instance,
        placed: Placed,
        bars: &[BarRegion],
        identity: Identity,
    ) -> Result<Self, VdevError> {
        let function = match instance.virtio_function() {
            Some(model) => Self::virtio(model, placed.start.unwrap_or(0)),
            None => match placed.space {
                Space::Pci => Self::device(instance, bars, placed.start.unwrap_or(0))?,
                Space::Memory | Space::Ports => Self::plain(instance, placed, identity)?,
            },
        };
        let checked = function.model.check();
        checked.map_err(|error| instance.misbehaved(&format!("it is no PCI function: {error}")))?;
        Ok(function)
    }

    /// One whose registers are BAR 0.
    fn plain(instance: &Instance, placed: Placed, identity: Identity) -> Result<Self, VdevError> {
        let factory = instance.factory();
        let mut model = Model::new(identity);
        let mut windows = Vec::new();
        if !factory.has(VFF_LOC_NO) {
            let len = placed.len;
            let size = len.checked_next_power_of_two().filter(|size| *size <= LEN_MAX);
            let bar = match (placed.space, size) {
                (Space::Ports, Some(..=PORTS_MAX)) => Bar {
                    kind: BarKind::Io,
                    ..Bar::memory(REGISTERS, len.next_power_of_two().max(PORTS_MIN))
                },
                (Space::Ports, _) => {
                    let why = format!(
                        "it has {len} ports, and a BAR of ports has at most {PORTS_MAX}: use it \
                         with `loc io:` in `gasp vm`"
                    );
                    return Err(instance.misbehaved(&why));
                }
                (_, Some(size @ ..=LOW_MAX)) => Bar::memory(REGISTERS, size.max(PAGE)),
                (_, Some(size)) => Bar::memory64(REGISTERS, size),
                (_, None) => {
                    let why =
                        format!("its registers have {len:#x} bytes, more than a BAR can have");
                    return Err(instance.misbehaved(&why));
                }
            };
            model = model.bar(bar);
            let (space, start) = (placed.space, placed.start.unwrap_or(0));
            windows.push(BarRegion { index: REGISTERS, space, start, len, cookie: 0 });
        }
        if !factory.has(VFF_INTR_NO) {
            model = with_messages(model.pin(), MESSAGES);
        }
        Ok(Self { model, windows: Windows(windows) })
    }

    /// One that is a PCI device itself, at this location on the bus.
    fn device(instance: &Instance, bars: &[BarRegion], location: u64) -> Result<Self, VdevError> {
        let config = Config::read(instance, location)?;
        bars::program(instance, location, bars)?;
        let mut model = Model::new(config.identity());
        for region in bars {
            let BarRegion { index, space, len, .. } = *region;
            let (is_wide, prefetchable) = config.bar(index);
            let kind = match (space, is_wide) {
                (Space::Ports, _) => BarKind::Io,
                (_, true) => BarKind::Memory64,
                (_, false) => BarKind::Memory32,
            };
            model = model.bar(Bar { kind, prefetchable, ..Bar::memory(index, len) });
        }
        model = config.vendor().into_iter().fold(model, Model::vendor);
        if !instance.factory().has(VFF_INTR_NO) {
            model = model.pin();
            model = match (config.msix(), free_bar(&model)) {
                (Some(msix), _) => model.msix(msix),
                (None, Some(bar)) => with_messages(model, bar),
                (None, None) => model,
            };
        }
        for id in config.dropped() {
            tracing::debug!(
                vdev = instance.name(),
                "its PCI capability {id:#04x} is left out: the function has MSI-X, and \
                 vendor-specific ones"
            );
        }
        Ok(Self { model, windows: Windows(bars.to_vec()) })
    }

    /// A virtio device, whose registers are in its only BAR, from its location on.
    fn virtio(model: Model, location: u64) -> Self {
        let window = |bar: &Bar| BarRegion {
            index: bar.index,
            space: Space::Memory,
            start: location,
            len: bar.size,
            cookie: 0,
        };
        let windows = Windows(model.bars.iter().map(window).collect());
        Self { model, windows }
    }

    /// Whether a guest could take one for the other.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let bars = |model: &Model| -> Vec<_> {
            model.bars.iter().map(|bar| (bar.index, bar.size, bar.kind)).collect()
        };
        let windows = |windows: &Windows| -> Vec<_> {
            windows.0.iter().map(|window| (window.index, window.len)).collect()
        };
        self.model.identity == other.model.identity
            && self.model.msix == other.model.msix
            && bars(&self.model) == bars(&other.model)
            && windows(&self.windows) == windows(&other.windows)
    }
}

/// Adds MSI-X with one vector, in a BAR of its own.
fn with_messages(model: Model, bar: u8) -> Model {
    model.bar(Bar::memory(bar, PAGE)).msix(Msix { vectors: 1, bar, table: 0, pending: 0x800 })
}

/// A BAR that a model does not use.
fn free_bar(model: &Model) -> Option<u8> {
    let is_used = |place: u8| {
        model.bars.iter().any(|bar| {
            bar.index == place || (bar.kind == BarKind::Memory64 && bar.index + 1 == place)
        })
    };
    (0..6).find(|place| !is_used(*place))
}
