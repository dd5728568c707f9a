//! Errors of commands: their messages and exit statuses.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use gasp::config::ConfigError;
use gasp::{Errno, errno_name};
use serde::Serialize;

use crate::output::{self, system_words};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine refuses, because of the guest's configuration or of the machine.
    Refused(gasp::Error),
    /// The configuration file is wrong, or what it describes is unavailable.
    Config(ConfigError),
    /// The arguments are well formed but do not fit the guest.
    Usage(String),
    /// The arguments are not well formed.
    Arguments(clap::Error),
    /// The output has already reported what is wrong.
    Reported,
    /// A guest has ended in a way that its host may want to know of.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "`vm` is not built"))]
    Ended {
        /// The exit status.
        status: u8,
        /// What has happened.
        message: String,
    },
    /// A file or a directory cannot be written.
    Unwritable {
        /// The operation, with the path.
        what: String,
        /// The system's error.
        error: io::Error,
    },
    /// What was requested is unavailable: memory, or a device's image or socket.
    Unavailable {
        /// The closest error number.
        errno: Errno,
        /// What was requested, why it is unavailable, and what to do.
        message: String,
    },
    /// The output cannot be written, or another system call failed.
    Io(io::Error),
}

/// The exit status if the guest or the machine refuses.
const REFUSED: u8 = 1;
/// The exit status of wrong arguments or a wrong configuration, as clap has it.
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
    /// A failure of the operation `what`, such as `"cannot write"`, on `path`.
    pub(crate) fn unwritable(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        move |error| Self::Unwritable { what, error }
    }

    /// Prints the error and returns the exit status.
    ///
    /// A closed pipe is not a failure: its reader has seen enough.
    pub(crate) fn report(self, json: bool) -> ExitCode {
        let status = ExitCode::from(self.status());
        match &self {
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            Self::Reported => return status,
            _ => {}
        }
        let fields = self.fields();
        let written = json && {
            let ErrorFields { errno, reason, message } = &fields;
            let (reason, message) = (reason.clone(), message.clone());
            output::json_line(&ErrorJson { error: ErrorFields { errno, reason, message } }).is_ok()
        };
        if !written {
            let style = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
            // If this cannot be written either, there is no place left to report it.
            let _ = match &self {
                // clap's text has colours of its own, and the usage.
                Self::Arguments(error) => write!(anstream::stderr(), "{}", error.render().ansi()),
                _ => writeln!(anstream::stderr(), "{style}error{style:#}: {}", fields.message),
            };
        }
        status
    }

    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Ended { status, .. } => *status,
            Self::Config(_) | Self::Usage(_) | Self::Arguments(_) => USAGE,
            _ => REFUSED,
        }
    }

    /// The message, of one line.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "`vm` is not built"))]
    pub(crate) fn message(&self) -> String {
        self.fields().message
    }

    fn fields(&self) -> ErrorFields {
        let (errno, reason, message) = match self {
            Self::Ended { message, .. } => ("ECANCELED", message.clone(), message.clone()),
            Self::Reported => ("EIO", String::new(), String::new()),
            Self::Io(error) => (errno_of(error), system_words(error), system_words(error)),
            Self::Unwritable { what, error } => {
                let (words, remedy) = (system_words(error), remedy(error));
                (errno_of(error), words.clone(), format!("{what}: {words}{remedy}"))
            }
            Self::Unavailable { errno, message } => {
                (errno_name(*errno), message.clone(), message.clone())
            }
            Self::Refused(error) => {
                (error.errno_name(), error.reason().to_string(), error.to_string())
            }
            Self::Config(error) => {
                (errno_name(error.errno()), error.message().to_string(), plain(&error.to_string()))
            }
            Self::Usage(message) => ("EINVAL", plain(message), plain(message)),
            Self::Arguments(error) => {
                let text = error.render().to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                // The usage, which follows, is for people.
                let text = text.split("\n\nUsage:").next().unwrap_or(text).trim_end();
                let text = text.split("\n\nFor more").next().unwrap_or(text).to_owned();
                ("EINVAL", text.clone(), text)
            }
        };
        ErrorFields { errno, reason, message }
    }
}

fn errno_of(error: &io::Error) -> &'static str {
    Errno::from_io_error(error).map_or("EIO", errno_name)
}

/// What would help if a path cannot be written.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; create its directory, or choose another path",
        io::ErrorKind::PermissionDenied => "; change the permissions, or choose another path",
        io::ErrorKind::AlreadyExists
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::ReadOnlyFilesystem => "; choose another path",
        _ => "",
    }
}

/// A message without the error numbers in it.
pub(crate) fn plain(message: &str) -> String {
    let mut parts = message.split(" (os error ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.trim_start_matches(|letter: char| letter.is_ascii_digit()).strip_prefix(')') {
            Some(rest) => text.push_str(rest),
            None => text.extend([" (os error ", part]),
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_no_error_numbers() {
        for (message, expected) in [
            ("a.img: No such file or directory (os error 2)", "a.img: No such file or directory"),
            ("a (os error 2); b (os error 13).", "a; b."),
            ("a (os error x) b (os error", "a (os error x) b (os error"),
        ] {
            assert_eq!(plain(message), expected);
        }
        let error = io::Error::from_raw_os_error(24);
        assert_eq!(system_words(&error), gasp::system_words(Errno::MFILE));
    }
}
