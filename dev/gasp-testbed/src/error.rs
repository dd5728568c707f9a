//! Errors of guests and of QEMU, once there is a testbed.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a guest or of QEMU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file for the guest cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The guest's kernel has no such module, neither as a file nor built in.
    #[error("the guest's kernel has no module {0}")]
    NoModule(String),
    /// A dynamically linked program needs a library that this machine does not have.
    #[error("{}: its libraries cannot be listed: {why}", program.display())]
    Libraries {
        /// The program.
        program: PathBuf,
        /// The error message of `ldd`.
        why: String,
    },
    /// QEMU cannot be started.
    #[error("QEMU cannot be started: {0}")]
    Start(io::Error),
    /// QEMU ended, or closed its end of a pipe, while something was expected of it.
    #[error("QEMU ended ({}) before {expected}{context}", status_text(*status))]
    Ended {
        /// What was expected.
        expected: String,
        /// Its exit status; `None` if that is not known yet.
        status: Option<ExitStatus>,
        /// The last output of QEMU and the guest.
        context: String,
    },
    /// Something did not happen in time.
    #[error("no {expected} within {}.{:03} s{context}", after.as_secs(), after.subsec_millis())]
    Timeout {
        /// What was expected.
        expected: String,
        /// The duration of the wait.
        after: Duration,
        /// The last output of QEMU and the guest.
        context: String,
    },
    /// The guest's script ended with an error.
    #[error("the guest's script ended with status {code}{context}")]
    Script {
        /// The script's exit status.
        code: i32,
        /// The last output of QEMU and the guest.
        context: String,
    },
    /// QEMU gave an unexpected answer to a qtest command.
    #[error("qtest: `{command}` was answered with `{answer}`")]
    Answer {
        /// The command, shortened.
        command: String,
        /// The answer, shortened.
        answer: String,
    },
    /// No PCI device on bus 0 has these identities.
    #[error("no PCI device {vendor:04x}:{device:04x} on bus 0")]
    NoDevice {
        /// The requested vendor.
        vendor: u16,
        /// The requested device.
        device: u16,
    },
    /// A device or an address does not have or allow what was requested.
    #[error("{0}")]
    Refused(String),
}

fn status_text(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "status unknown".into(), |status| status.to_string())
}
