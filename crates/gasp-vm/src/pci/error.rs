//! Why a device cannot be put on the bus.

use gasp::Bytes;
use gasp_vdev::AttachError;
use thiserror::Error;

use super::address::Bdf;
use crate::error::MachineError;

/// A device that cannot be attached, or is not there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PciError {
    /// A function is there already.
    #[error("{0}: another device is there; choose another place")]
    Taken(Bdf),
    /// There is only bus 0.
    #[error("{0}: there is only bus 0; choose a place on it")]
    NoSuchBus(Bdf),
    /// A guest finds the other functions of a device by the first.
    #[error("{0}: function 0 of this device is not there; attach that one first")]
    NoFirstFunction(Bdf),
    /// No device is there.
    #[error("{0}: there is no device")]
    Absent(Bdf),
    /// A base address register is too large for what is left of its window.
    #[error("{at}: there are no addresses left for BAR {bar}, of {:#}", Bytes(*.len))]
    NoRoom {
        /// The function.
        at: Bdf,
        /// Which BAR.
        bar: u8,
        /// Its length in bytes.
        len: u64,
    },
    /// The device cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A part of the VM cannot be created.
    #[error(transparent)]
    Machine(#[from] MachineError),
}
