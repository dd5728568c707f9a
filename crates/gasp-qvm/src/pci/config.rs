//! The configuration space of a vdev that is a PCI device, as it answers reads of it.

use gasp_vdev::{Class, Identity, Msix, VendorCapability, Window};

use crate::access::{Access, Answer};
use crate::error::VdevError;
use crate::instance::Instance;
use crate::request::Space;

/// The bytes that are read: what has registers and capabilities.
const SIZE: u16 = 256;

const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u8 = 1 << 4;
const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
/// The first byte that a capability can be at.
const FIRST: usize = 0x40;
const VENDOR_SPECIFIC: u8 = 0x09;
const MSIX: u8 = 0x11;
/// The most capabilities that there is space for.
const CAPABILITIES_MAX: usize = 48;
/// Of a vendor-specific capability of virtio (virtio 1.2, 4.1.4): the window on the BARs.
const VIRTIO: u16 = 0x1af4;
const VIRTIO_WINDOW: u8 = 5;

/// What a configuration space says.
pub(super) struct Config(Vec<u8>);

impl Config {
    /// Reads that of a vdev, whose location on the bus is `location`.
    pub(super) fn read(instance: &Instance, location: u64) -> Result<Self, VdevError> {
        let mut bytes = Vec::new();
        for offset in (0..SIZE).step_by(4) {
            let addr = location | u64::from(offset);
            let mut data = [0; 4];
            match instance.read(Access { space: Space::Pci, addr, cookie: 0 }, &mut data) {
                Answer::Done => bytes.extend(data),
                // Past what the vdev has.
                _ if usize::from(offset) >= FIRST => bytes.extend([0; 4]),
                _ => {
                    let why = format!(
                        "it does not answer a read of 4 bytes at {offset:#x} of its configuration \
                         space: use vpci_cfg_read()"
                    );
                    return Err(instance.misbehaved(&why));
                }
            }
        }
        let config = Self(bytes);
        match config.half(0) {
            0 | 0xffff => {
                let why = "its configuration space has no vendor ID";
                Err(instance.misbehaved(why))
            }
            _ => Ok(config),
        }
    }

    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at + 1)])
    }

    fn word(&self, at: usize) -> u32 {
        u32::from(self.half(at)) | u32::from(self.half(at + 2)) << 16
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            vendor: self.half(0x00),
            device: self.half(0x02),
            subsystem_vendor: self.half(0x2c),
            subsystem: self.half(0x2e),
            revision: self.byte(0x08),
            class: Class {
                base: self.byte(0x0b),
                sub: self.byte(0x0a),
                interface: self.byte(0x09),
            },
        }
    }

    /// Whether a BAR is of 64 bits, and whether it is prefetchable.
    pub(super) fn bar(&self, index: u8) -> (bool, bool) {
        let bits = self.byte(BARS + 4 * usize::from(index));
        (bits & 0b110 == 0b100, bits & 0b1000 != 0)
    }

    /// Each capability: its ID, and where it is.
    fn capabilities(&self) -> impl Iterator<Item = (u8, usize)> {
        let there = self.byte(STATUS) & STATUS_CAPABILITIES != 0;
        let mut next = if there { self.byte(CAPABILITIES) } else { 0 };
        let list = core::iter::from_fn(move || {
            let at = usize::from(next & !3);
            (at >= FIRST).then(|| {
                next = self.byte(at + 1);
                (self.byte(at), at)
            })
        });
        // One that leads back to an earlier one ends.
        list.take(CAPABILITIES_MAX)
    }

    /// Its MSI-X capability.
    pub(super) fn msix(&self) -> Option<Msix> {
        let (_, at) = self.capabilities().find(|(id, _)| *id == MSIX)?;
        let (table, pending) = (self.word(at + 4), self.word(at + 8));
        Some(Msix {
            vectors: (self.half(at + 2) & 0x7ff) + 1,
            // Three bits.
            bar: (table & 7) as u8,
            table: table & !7,
            pending: pending & !7,
        })
    }

    /// Its vendor-specific capabilities.
    pub(super) fn vendor(&self) -> Vec<VendorCapability> {
        let own = self.capabilities().filter(|(id, _)| *id == VENDOR_SPECIFIC);
        own.map(|(_, at)| {
            let end = (at + usize::from(self.byte(at + 2))).min(self.0.len());
            let contents = self.0.get(at + 3..end).unwrap_or_default().to_vec();
            let is_window = self.half(0) == VIRTIO
                && contents.first() == Some(&VIRTIO_WINDOW)
                && contents.len() >= 17;
            match is_window {
                true => {
                    let mut writable = vec![0, 0xff, 0, 0, 0];
                    writable.extend([0xff; 12]);
                    let window = Some(Window { bar: 1, offset: 5, len: 9, data: 13 });
                    VendorCapability { contents, writable, window }
                }
                false => VendorCapability::new(contents),
            }
        })
        .collect()
    }

    /// The IDs of capabilities that the function does not have, as it cannot carry them out.
    pub(super) fn dropped(&self) -> Vec<u8> {
        let ids = self.capabilities().map(|(id, _)| id);
        ids.filter(|id| ![VENDOR_SPECIFIC, MSIX].contains(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration space with these capabilities, each with the bytes after its pointer.
    fn config(capabilities: &[(u8, &[u8])]) -> Config {
        let mut bytes = vec![0; 256];
        let mut at = FIRST;
        bytes[STATUS] = STATUS_CAPABILITIES;
        bytes[CAPABILITIES] = at as u8;
        for (number, (id, rest)) in capabilities.iter().enumerate() {
            let next = at + (2 + rest.len()).next_multiple_of(4);
            bytes[at] = *id;
            bytes[at + 1] = if number + 1 == capabilities.len() { 0 } else { next as u8 };
            bytes[at + 2..at + 2 + rest.len()].copy_from_slice(rest);
            at = next;
        }
        Config(bytes)
    }

    #[test]
    fn capabilities_are_read_and_those_that_cannot_be_offered_are_named() {
        let msix = [2, 0, 3, 0x20, 0, 0, 3, 0x30, 0, 0];
        let config = config(&[(0x01, &[1, 2]), (VENDOR_SPECIFIC, &[5, 7, 8]), (MSIX, &msix)]);
        let expected = Msix { vectors: 3, bar: 3, table: 0x2000, pending: 0x3000 };
        assert_eq!(config.msix(), Some(expected));
        assert_eq!(config.vendor(), [VendorCapability::new(vec![7, 8])]);
        assert_eq!(config.dropped(), [0x01]);
    }

    #[test]
    fn a_list_that_leads_back_or_out_ends() {
        let mut looped = config(&[(VENDOR_SPECIFIC, &[3])]);
        looped.0[FIRST + 1] = FIRST as u8;
        assert_eq!(looped.capabilities().count(), CAPABILITIES_MAX);
        let mut out = config(&[(VENDOR_SPECIFIC, &[0xff])]);
        assert_eq!(out.vendor()[0].contents.len(), 256 - FIRST - 3);
        out.0[FIRST + 1] = 0xff;
        assert!(out.capabilities().count() <= CAPABILITIES_MAX);
        out.0[CAPABILITIES] = 0xfc;
        out.0[0xfc] = MSIX;
        assert_eq!(out.msix(), Some(Msix { vectors: 1, bar: 0, table: 0, pending: 0 }));
    }
}
