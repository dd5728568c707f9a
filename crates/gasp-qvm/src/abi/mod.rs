//! What C sees: the structures and constants of the headers for vdevs, in both editions.
//! `tests/abi` compares them with the headers.

mod cdev;
mod constants;
mod factory;
mod object;
mod pci;
mod wdog;

pub use cdev::{CdevInput, CdevOutput, CdevState, SigEvent};
pub use constants::*;
pub use factory::{
    AccessCall, Control, Factory710, Factory800, Pulse, Pulse710, Pulse800, TimerCall,
};
pub use object::{Block, GuestIntr, Object710, Object800, SchedInfo, TimerData, VDEV_LOCATION};
pub(crate) use pci::BARS;
pub use pci::{PciConfig, RwState, RwState710, Slice, VpciBar, VpciBar710};
pub use wdog::WdogState;

use thiserror::Error;

/// The edition of the API that a vdev was compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edition {
    /// 7.x.
    V710,
    /// 8.0.
    V800,
}

/// An ABI number that is of no edition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "its ABI number is {0}; this program knows {abi_800} (8.0) and {abi_710} (7.x): compile it \
     with the headers of this version",
    abi_800 = QVM_VDEV_ABI_800,
    abi_710 = QVM_VDEV_ABI_710
)]
pub struct UnknownAbi(pub u32);

impl Edition {
    /// The edition of an ABI number, which `vdev_register_factory` receives.
    ///
    /// # Errors
    /// If it is of none.
    pub fn of(abi: u32) -> Result<Self, UnknownAbi> {
        match abi {
            QVM_VDEV_ABI_800 => Ok(Self::V800),
            QVM_VDEV_ABI_710 => Ok(Self::V710),
            _ => Err(UnknownAbi(abi)),
        }
    }
}
