//! Errors, each with the errno that a front end answers with.

use gasp::system_words;
use gasp::{Bytes, DeviceAddr, Errno};
use thiserror::Error;

use crate::pci::irq_kind::IrqKind;

/// An access to guest memory that failed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum DmaError {
    /// The engine refused it: the guest's IOMMU, or the memory, does not allow it.
    #[error(transparent)]
    Engine(#[from] gasp::Error),
    /// The guest's driver has not made the device bus master.
    #[error(
        "DMA of {:#} at {addr}: the device is not bus master (PCI command register)",
        Bytes(*.len)
    )]
    NotBusMaster {
        /// Where the access begins.
        addr: DeviceAddr,
        /// How many bytes.
        len: u64,
    },
    /// The VMM shares this memory in a way that it cannot be mapped.
    /// [`DeviceContext::transfer`](crate::DeviceContext::transfer),
    /// [`DeviceContext::read`](crate::DeviceContext::read) and
    /// [`DeviceContext::write`](crate::DeviceContext::write) copy it by messages.
    #[error(
        "map of {:#} at {addr}: it cannot be mapped, because {why}; `DeviceContext::transfer` \
         copies it by messages",
        Bytes(*.len)
    )]
    NoDescriptor {
        /// Where the map begins.
        addr: DeviceAddr,
        /// How many bytes.
        len: u64,
        /// Why it cannot be mapped.
        why: &'static str,
    },
    /// A copy by message failed.
    #[error("copy by message of {:#} at {addr}: {}", Bytes(*.len), system_words(*.errno))]
    Message {
        /// Where the copy begins.
        addr: DeviceAddr,
        /// How many bytes.
        len: u64,
        /// The VMM's error, or why it did not answer.
        errno: Errno,
    },
}

impl DmaError {
    /// The error number, for a device's status register.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Engine(error) => error.errno(),
            Self::NotBusMaster { .. } => Errno::PERM,
            Self::NoDescriptor { .. } => Errno::NXIO,
            Self::Message { errno, .. } => *errno,
        }
    }
}

/// A model that is not a valid PCI function.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{what}")]
pub struct ModelError {
    pub(crate) what: String,
}

/// A register access that reaches no register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RegionError {
    /// The device has no such BAR.
    #[error("there is no BAR {0}")]
    NoSuchBar(u32),
    /// The access extends past the end of the BAR or of configuration space.
    #[error("{:#} at {offset:#x} extend past the end at {size:#x}", Bytes(*.len))]
    OutOfRange {
        /// Where the access begins.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// How many there are.
        size: u64,
    },
    /// No VMM is attached to the device.
    #[error("the device is not attached to a VMM")]
    Detached,
}

impl RegionError {
    /// The error number.
    pub fn errno(self) -> Errno {
        match self {
            Self::NoSuchBar(_) | Self::OutOfRange { .. } => Errno::INVAL,
            Self::Detached => Errno::NODEV,
        }
    }
}

/// A request about interrupts that the device refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum IrqError {
    /// The device has fewer vectors.
    #[error("{kind} vectors {start} to {start}+{count}: the device has {have}")]
    OutOfRange {
        /// Which interrupts.
        kind: IrqKind,
        /// The first vector.
        start: u32,
        /// How many vectors.
        count: u32,
        /// How many the device has.
        have: u32,
    },
    /// The descriptor is not an eventfd.
    #[error("a descriptor for {0} is not an eventfd")]
    NotAnEvent(IrqKind),
    /// Interrupts of this kind do not support it.
    #[error("{kind}: {what}")]
    Unsupported {
        /// Which interrupts.
        kind: IrqKind,
        /// What they do not support.
        what: &'static str,
    },
}

impl IrqError {
    /// The error number.
    pub fn errno(self) -> Errno {
        match self {
            Self::OutOfRange { .. } | Self::NotAnEvent(_) => Errno::INVAL,
            Self::Unsupported { .. } => Errno::OPNOTSUPP,
        }
    }
}

/// Why a shell cannot be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// It is already attached.
    #[error("the device is already attached to a VMM")]
    Attached,
    /// Its thread or doorbell cannot be created.
    #[error("the device's thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
}
