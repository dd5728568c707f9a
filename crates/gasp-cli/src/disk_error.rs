//! Why a disk cannot be opened, and what would help.

use std::io;
use std::path::Path;

use gasp::Errno;
use gasp_nvme::DiskError;

use crate::output::system_words;
use crate::quantity::length;

/// The words for an error.
pub(crate) fn words(error: &DiskError) -> String {
    match error {
        DiskError::File { path, source } => no_file(path, source),
        DiskError::InUse { path, by } => format!("{} {}", path.display(), in_use(*by)),
        DiskError::Memory { size, .. } => no_memory(*size),
        other => other.to_string(),
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
