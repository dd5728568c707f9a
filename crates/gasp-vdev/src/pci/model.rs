//! The model of a device: identity, BARs, interrupts; checked once.

use gasp::MemoryObject;

use super::vendor::VendorCapability;
use crate::error::ModelError;

/// The bytes of configuration space that vendor-specific capabilities can take: what the header, and
/// the largest MSI-X and MSI capabilities, leave of 256.
const VENDOR_SPACE: usize = 256 - 0x68;

/// A PCI class code: what kind of device it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// The base class.
    pub base: u8,
    /// The subclass.
    pub sub: u8,
    /// The programming interface.
    pub interface: u8,
}

/// The PCI identifiers by which a driver finds its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The vendor ID.
    pub vendor: u16,
    /// The device ID.
    pub device: u16,
    /// The subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// The subsystem ID.
    pub subsystem: u16,
    /// The revision ID.
    pub revision: u8,
    /// The class code.
    pub class: Class,
}

/// The address space of a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarKind {
    /// Port I/O.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes up the next BAR, too.
    Memory64,
}

/// A base address register and its region.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Its index, from 0 to 5.
    pub index: u8,
    /// The size of the region in bytes; a power of two.
    pub size: u64,
    /// Its address space.
    pub kind: BarKind,
    /// Whether reads have no side effects.
    pub prefetchable: bool,
    /// Parts that the VMM can map, so that accesses reach memory instead of the device.
    pub shared: Option<Shared>,
}

/// Parts of a BAR that are plain memory, which a VMM can map into the guest.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Memory of the BAR's size, with a descriptor. Only the areas of it are used.
    pub memory: MemoryObject,
    /// Offset and length of each part; multiples of 4 KiB, in ascending order, without overlap.
    pub areas: Vec<(u64, u64)>,
}

/// The location of the MSI-X table and its pending bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msix {
    /// How many vectors, from 1 to 2048.
    pub vectors: u16,
    /// The BAR that has both.
    pub bar: u8,
    /// The table's offset in it; a multiple of 8.
    pub table: u32,
    /// The pending bits' offset in it; a multiple of 8.
    pub pending: u32,
}

/// The model of a device: a PCI function.
#[derive(Clone, Debug)]
#[must_use]
pub struct Model {
    /// Its PCI identifiers.
    pub identity: Identity,
    /// Its BARs.
    pub bars: Vec<Bar>,
    /// Whether it has an interrupt pin (INTA).
    pub pin: bool,
    /// How many MSI vectors it has: 0, or a power of two up to 32.
    pub msi: u8,
    /// Its MSI-X vectors.
    pub msix: Option<Msix>,
    /// Its vendor-specific capabilities, in the order of the list; at most one is a window.
    pub vendor: Vec<VendorCapability>,
}

impl Bar {
    /// A BAR of registers in memory.
    pub const fn memory(index: u8, size: u64) -> Self {
        Self { index, size, kind: BarKind::Memory32, prefetchable: false, shared: None }
    }

    /// A BAR of registers in memory that may lie above 4 GiB.
    pub const fn memory64(index: u8, size: u64) -> Self {
        Self { index, size, kind: BarKind::Memory64, prefetchable: false, shared: None }
    }
}

impl Model {
    /// Creates a model with this identity, without BARs and interrupts.
    pub const fn new(identity: Identity) -> Self {
        Self { identity, bars: Vec::new(), pin: false, msi: 0, msix: None, vendor: Vec::new() }
    }

    /// Adds a BAR.
    pub fn bar(mut self, bar: Bar) -> Self {
        self.bars.push(bar);
        self
    }

    /// Adds an interrupt pin.
    pub fn pin(self) -> Self {
        Self { pin: true, ..self }
    }

    /// Adds MSI vectors.
    pub fn msi(self, vectors: u8) -> Self {
        Self { msi: vectors, ..self }
    }

    /// Adds MSI-X vectors.
    pub fn msix(self, msix: Msix) -> Self {
        Self { msix: Some(msix), ..self }
    }

    /// Adds a vendor-specific capability.
    pub fn vendor(mut self, capability: VendorCapability) -> Self {
        self.vendor.push(capability);
        self
    }

    /// The BAR with this index, if there is one.
    pub fn find_bar(&self, index: u32) -> Option<&Bar> {
        self.bars.iter().find(|bar| u32::from(bar.index) == index)
    }

    /// Checks that it is a valid PCI function, as [`Shell::new`](crate::Shell::new) does.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |what: String| Err(ModelError { what });
        let mut taken = [false; 6];
        for Bar { index, size, kind, shared, .. } in &self.bars {
            let least = if *kind == BarKind::Io { 4 } else { 16 };
            let most = match kind {
                BarKind::Io => 256,
                BarKind::Memory32 => 1 << 31,
                BarKind::Memory64 => 1 << 46,
            };
            if !size.is_power_of_two() || *size < least || *size > most {
                return fail(format!(
                    "BAR {index}: the size {size:#x} must be a power of two from {least} to {most:#x}"
                ));
            }
            let places = if *kind == BarKind::Memory64 { 2 } else { 1 };
            for place in usize::from(*index)..usize::from(*index) + places {
                match taken.get_mut(place) {
                    Some(taken) if !*taken => *taken = true,
                    _ => return fail(format!("BAR {index}: already in use, or past BAR 5")),
                }
            }
            if let Some(Shared { memory, areas }) = shared {
                let mut end = 0;
                for &(offset, len) in areas {
                    let stop = offset.checked_add(len).filter(|stop| stop <= size);
                    let Some(stop) = stop.filter(|_| {
                        offset >= end && len > 0 && (offset | len).is_multiple_of(gasp::GRANULE)
                    }) else {
                        return fail(format!(
                            "BAR {index}: shared areas must be pages, in ascending order"
                        ));
                    };
                    end = stop;
                }
                if memory.len() != *size || memory.file().is_none_or(|(_, at)| at != 0) {
                    return fail(format!(
                        "BAR {index}: its shared memory must be a file of its size"
                    ));
                }
            }
        }
        if self.msi != 0 && (!self.msi.is_power_of_two() || self.msi > 32) {
            return fail(format!(
                "{} MSI vectors: the number must be a power of two up to 32",
                self.msi
            ));
        }
        self.check_vendor()?;
        match self.msix {
            Some(msix) => self.check_msix(msix),
            None => Ok(()),
        }
    }

    fn check_vendor(&self) -> Result<(), ModelError> {
        let taken: usize = self.vendor.iter().map(|one| one.len().next_multiple_of(4)).sum();
        let windows = self.vendor.iter().filter(|one| one.window.is_some()).count();
        let inside = self.vendor.iter().all(VendorCapability::is_window_inside);
        if taken > VENDOR_SPACE || windows > 1 || !inside {
            let what = format!(
                "vendor-specific capabilities: {taken} bytes of at most {VENDOR_SPACE}, {windows} \
                 windows of at most one, whose registers must be inside"
            );
            return Err(ModelError { what });
        }
        Ok(())
    }

    fn check_msix(&self, msix: Msix) -> Result<(), ModelError> {
        let Msix { vectors, bar, table, pending } = msix;
        let size = self.find_bar(u32::from(bar)).map_or(0, |bar| bar.size);
        let table = (u64::from(table), 16 * u64::from(vectors));
        let pending = (u64::from(pending), 8 * u64::from(vectors).div_ceil(64));
        let apart = table.0 + table.1 <= pending.0 || pending.0 + pending.1 <= table.0;
        let inside = |part: (u64, u64)| part.0.is_multiple_of(8) && part.0 + part.1 <= size;
        if !(1..=2048).contains(&vectors) || !apart || !inside(table) || !inside(pending) {
            let what = format!(
                "MSI-X: the table of {vectors} vectors (1 to 2048) and the pending bits must \
                 fit into BAR {bar}, aligned to 8 bytes and without overlap"
            );
            return Err(ModelError { what });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::vendor::Window;
    use super::*;

    pub(crate) const IDENTITY: Identity = Identity {
        vendor: 0x1234,
        device: 0x5678,
        subsystem_vendor: 0x9abc,
        subsystem: 0xdef0,
        revision: 7,
        class: Class { base: 0x08, sub: 0x01, interface: 0x02 },
    };

    #[test]
    fn a_model_that_no_bus_could_hold_is_refused() {
        let ok = Model::new(IDENTITY).bar(Bar::memory(0, 4096)).bar(Bar::memory64(4, 1 << 33));
        ok.check().unwrap();
        let bad = [
            Model::new(IDENTITY).bar(Bar::memory(0, 4095)),
            Model::new(IDENTITY).bar(Bar::memory(6, 4096)),
            Model::new(IDENTITY).bar(Bar::memory64(5, 4096)),
            Model::new(IDENTITY).bar(Bar::memory64(0, 4096)).bar(Bar::memory(1, 4096)),
            Model::new(IDENTITY).msi(3),
            Model::new(IDENTITY).msix(Msix { vectors: 1, bar: 0, table: 0, pending: 16 }),
            ok.clone().msix(Msix { vectors: 2, bar: 0, table: 0, pending: 16 }),
            ok.clone().msix(Msix { vectors: 0, bar: 0, table: 0, pending: 16 }),
            ok.clone().msix(Msix { vectors: 256, bar: 0, table: 0, pending: 4096 }),
        ];
        let window = Window { bar: 1, offset: 5, len: 9, data: 13 };
        let capability =
            |len, window| VendorCapability { window, ..VendorCapability::new(vec![0; len]) };
        ok.clone()
            .vendor(capability(17, Some(window)))
            .vendor(capability(100, None))
            .check()
            .unwrap();
        let bad = bad.into_iter().chain([
            ok.clone().vendor(capability(16, Some(window))),
            ok.clone().vendor(capability(17, Some(window))).vendor(capability(17, Some(window))),
            ok.clone().vendor(capability(150, None)),
        ]);
        let bad: Vec<Model> = bad.collect();
        for (case, model) in bad.iter().enumerate() {
            assert!(model.check().is_err(), "case {case}");
        }
    }
}
