//! Why a device cannot be served: its name, the key, and what would help.

use std::io;

use gasp::Errno;
use gasp_nvme::{DiskError, NvmeError};
use gasp_vfio_user::BindError;
use gasp_virtio::block::BlockError;

use super::plan::Plan;
use crate::disk_error;
use crate::failure::Failure;
use crate::output::system_words;
use crate::socket;

/// Why a device cannot be served.
#[derive(Debug)]
pub(super) struct DeviceError {
    pub(super) errno: Errno,
    pub(super) message: String,
}

impl From<DeviceError> for Failure {
    fn from(DeviceError { errno, message }: DeviceError) -> Self {
        Self::Unavailable { errno, message }
    }
}

impl DeviceError {
    /// The value of the configuration's `key` is unavailable.
    pub(super) fn new(plan: &Plan, key: &str, errno: Errno, why: &str) -> Self {
        Self { errno, message: format!("device {:?}: {key}: {why}", plan.name) }
    }

    /// A system call failed that no key of the configuration is about.
    pub(super) fn system(plan: &Plan, error: &io::Error) -> Self {
        let message = format!("device {:?}: {}", plan.name, system_words(error));
        Self { errno: socket::errno_of(error), message }
    }

    /// The socket cannot be created.
    pub(super) fn socket(plan: &Plan, error: &BindError) -> Self {
        let (errno, why) = socket::not_bound(&plan.socket, error);
        Self::new(plan, "socket", errno, &why)
    }

    /// The NVMe disk cannot be created.
    pub(super) fn disk(plan: &Plan, error: &NvmeError) -> Self {
        match error {
            NvmeError::Disk(error) => Self::backing(plan, error),
            other => Self::new(plan, "backing", error.errno(), &other.to_string()),
        }
    }

    /// The virtio disk cannot be created.
    pub(super) fn block(plan: &Plan, error: &BlockError) -> Self {
        match error {
            BlockError::Disk(error) => Self::backing(plan, error),
            other => Self::new(plan, "backing", Errno::INVAL, &other.to_string()),
        }
    }

    /// The backing cannot be opened.
    fn backing(plan: &Plan, error: &DiskError) -> Self {
        Self::new(plan, "backing", error.errno(), &disk_error::words(error))
    }

    /// Two disks have the same serial number.
    pub(super) fn same_serial(plan: &Plan, serial: &str, other: &str) -> Self {
        let why = format!(
            "{serial:?} is the serial of device {other:?}, too, and a guest would take both \
             for one disk; give each its own, or none"
        );
        Self::new(plan, "serial", Errno::EXIST, &why)
    }
}
