//! How a command ends: the exit status, and what is said about it.

use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use gasp::config::ConfigError;
use gasp::errno_name;
use gasp_vdev::devices::nvme::NvmeError;
use gasp_vfio_user::BindError;
use serde::Serialize;

use crate::output;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine, and so the guest's configuration or the machine, says no.
    Refused(gasp::Error),
    /// The configuration file is wrong, or what it describes cannot be had.
    Config(ConfigError),
    /// The arguments are well formed but do not fit the guest.
    Usage(String),
    /// A socket cannot be had.
    Socket(BindError),
    /// What keeps a disk's data cannot be had.
    Disk(NvmeError),
    /// The answer says itself what is wrong.
    Told,
    /// The answer cannot be written, or the system refuses something else.
    Io(io::Error),
}

/// The exit status of a refusal, or of anything that the machine does not give.
const REFUSED: u8 = 1;
/// The exit status of wrong arguments or a wrong configuration; clap's own, too.
const USAGE: u8 = 2;

/// `{"error": …}` on stdout, for `--json`.
#[derive(Serialize)]
struct ErrorJson {
    error: ErrorFields,
}

#[derive(Serialize)]
struct ErrorFields {
    errno: &'static str,
    reason: String,
    message: String,
}

impl Failure {
    /// Says what went wrong, and gives the exit status.
    ///
    /// A reader that went away is no failure: whoever closed the pipe has seen enough.
    pub(crate) fn report(self, json: bool) -> ExitCode {
        let (errno, reason, message, status) = match self {
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            Self::Told => return ExitCode::from(REFUSED),
            Self::Io(error) => ("EIO", error.to_string(), error.to_string(), REFUSED),
            Self::Disk(error) => {
                (errno_name(error.errno()), error.to_string(), error.to_string(), REFUSED)
            }
            Self::Socket(error) => {
                let errno = match &error {
                    BindError::InUse { .. } => "EADDRINUSE",
                    BindError::NotASocket { .. } => "EEXIST",
                    BindError::System { source, .. } => {
                        gasp::Errno::from_io_error(source).map_or("EIO", errno_name)
                    }
                };
                (errno, error.to_string(), error.to_string(), REFUSED)
            }
            Self::Refused(error) => {
                (error.errno_name(), error.reason().to_string(), error.to_string(), REFUSED)
            }
            Self::Config(error) => {
                (errno_name(error.errno()), error.message().to_string(), error.to_string(), USAGE)
            }
            Self::Usage(message) => ("EINVAL", message.clone(), message, USAGE),
        };
        // Nothing is left to be done where even this cannot be written.
        if json {
            let fields = ErrorFields { errno, reason, message };
            let _ = output::json_line(&ErrorJson { error: fields });
        } else {
            let style = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
            let _ = writeln!(anstream::stderr(), "{style}error{style:#}: {message}");
        }
        ExitCode::from(status)
    }
}

impl From<gasp::Error> for Failure {
    fn from(error: gasp::Error) -> Self {
        Self::Refused(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
