//! The end of a map that is not a mapping.

use crate::addr::DeviceAddr;
use crate::error::Error;

/// A mapping, or why there is none.
pub(crate) type Outcome<T> = core::result::Result<T, Failed>;

/// Why a map has failed.
pub(crate) enum Failed {
    /// What the guest's IOMMU allows at this address is not known: the translator of the device's
    /// domain is to be asked. No slot is held, and nothing has been recorded.
    Missed(DeviceAddr),
    /// It is refused.
    Error(Error),
}

impl Failed {
    /// The error of a map that asks no translator, as those of firmware.
    pub(crate) fn error(self) -> Error {
        match self {
            Self::Error(error) => error,
            Self::Missed(_) => unreachable!("only the domain of a device has a translator"),
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}
