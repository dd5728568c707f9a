//! Why a device cannot be served: its name, the key, and what would help.

use std::io;
use std::path::Path;

use gasp::Errno;
use gasp_nvme::{DiskError, NvmeError};
use gasp_vfio_user::BindError;
use gasp_virtio::block::BlockError;

use super::plan::Plan;
use crate::failure::Failure;
use crate::output::system_words;
use crate::quantity::length;
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
    pub(super) fn socket(plan: &Plan, error: BindError) -> Self {
        let path = plan.socket.display();
        let (errno, why) = match error {
            BindError::InUse { .. } => (
                Errno::ADDRINUSE,
                format!(
                    "{path}: another server listens on this socket; end it, or choose another path"
                ),
            ),
            BindError::NotASocket { .. } => (
                Errno::EXIST,
                format!(
                    "{path}: there is a file that is no socket; remove it, or choose another path"
                ),
            ),
            BindError::System { source, .. } => {
                let why = socket::why_not(&plan.socket, &source);
                (socket::errno_of(&source), format!("{path}: {why}"))
            }
        };
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
        let why = match error {
            DiskError::File { path, source } => no_file(path, source),
            DiskError::InUse { path, by } => format!("{} {}", path.display(), in_use(*by)),
            DiskError::Memory { size, .. } => no_memory(*size),
            other => other.to_string(),
        };
        Self::new(plan, "backing", error.errno(), &why)
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

fn no_file(path: &Path, error: &io::Error) -> String {
    let why = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => format!(
            "does not exist; create it, for example with truncate -s 1G {}, or choose another",
            path.display()
        ),
        Some(Errno::ACCESS | Errno::PERM) => {
            "may not be read and written by this process; change its permissions, or choose \
             another"
                .into()
        }
        Some(Errno::ROFS) => "is read-only, and a disk must be writable; choose another".into(),
        Some(Errno::TXTBSY) => "is a running program; choose another".into(),
        _ => format!(
            "cannot be opened: {}; choose another file or block device",
            system_words(error)
        ),
    };
    format!("{} {why}", path.display())
}

/// Which process has locked the image, and what to do about it.
fn in_use(by: Option<u32>) -> String {
    match by {
        Some(pid) if pid == std::process::id() => {
            "is the image of another device of this process; each needs its own".into()
        }
        Some(pid) => {
            let command = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            let command = command
                .map_or_else(|_| String::new(), |command| format!(" ({})", command.trim_end()));
            format!("is locked by process {pid}{command}; end that, or choose another image")
        }
        None => "is locked by another process (lslocks may show which); end that, or choose \
                 another image"
            .into(),
    }
}

fn no_memory(size: u64) -> String {
    let there = available().map_or_else(String::new, |available| {
        format!("; this machine has {} available", length(available))
    });
    format!(
        "{} of memory cannot be allocated{there}: ask for less, or store the data in a file \
         (file:PATH)",
        length(size)
    )
}

/// The memory that can be allocated without swapping, in bytes.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1 << 10)
}
