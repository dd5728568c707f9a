//! How a command ends: the exit status, and what is said about it.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use gasp::config::ConfigError;
use gasp::{Errno, errno_name};
use serde::Serialize;

use crate::output::{self, system_words};

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine, and so the guest's configuration or the machine, says no.
    Refused(gasp::Error),
    /// The configuration file is wrong, or what it describes cannot be had.
    Config(ConfigError),
    /// The arguments are well formed but do not fit the guest.
    Usage(String),
    /// The arguments are not well formed.
    Arguments(clap::Error),
    /// The answer says itself what is wrong.
    Told,
    /// A file, a socket or something else of the system's cannot be had.
    System {
        /// What was to be done, with the name of the thing.
        what: String,
        /// What the system says.
        error: io::Error,
    },
    /// What was asked for cannot be had: memory of the machine, or a device's image or socket.
    Unavailable {
        /// An error number of the same meaning.
        errno: Errno,
        /// What was asked for, why it cannot be had, and what to do.
        message: String,
    },
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
    /// A failure of the system, with what was to be done: `"cannot read"` and a path.
    pub(crate) fn system(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        move |error| Self::System { what, error }
    }

    /// Says what went wrong, and gives the exit status.
    ///
    /// A reader that went away is no failure: whoever closed the pipe has seen enough.
    pub(crate) fn report(self, json: bool) -> ExitCode {
        let status = match &self {
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            Self::Told => return ExitCode::from(REFUSED),
            Self::Config(_) | Self::Usage(_) | Self::Arguments(_) => USAGE,
            _ => REFUSED,
        };
        let fields = self.fields();
        let told = json && {
            let ErrorFields { errno, reason, message } = &fields;
            let (reason, message) = (reason.clone(), message.clone());
            output::json_line(&ErrorJson { error: ErrorFields { errno, reason, message } }).is_ok()
        };
        if !told {
            let style = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
            // If even this cannot be written, nobody listens.
            let _ = match &self {
                // It has its own colours, and the usage.
                Self::Arguments(error) => write!(anstream::stderr(), "{}", error.render().ansi()),
                _ => writeln!(anstream::stderr(), "{style}error{style:#}: {}", fields.message),
            };
        }
        ExitCode::from(status)
    }

    fn fields(&self) -> ErrorFields {
        let (errno, reason, message) = match self {
            Self::Told => ("EIO", String::new(), String::new()),
            Self::Io(error) => (errno_of(error), system_words(error), system_words(error)),
            Self::System { what, error } => {
                let words = system_words(error);
                (errno_of(error), words.clone(), format!("{what}: {words}"))
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
                // What follows is the usage, for a person.
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

/// A message without the numbers that the system's words come with.
fn plain(message: &str) -> String {
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
    fn messages_have_the_systems_words_without_its_numbers() {
        for (message, told) in [
            ("a.img: No such file or directory (os error 2)", "a.img: No such file or directory"),
            ("a (os error 2); b (os error 13).", "a; b."),
            ("a (os error x) b (os error", "a (os error x) b (os error"),
        ] {
            assert_eq!(plain(message), told);
        }
        let error = io::Error::from_raw_os_error(24);
        assert_eq!(system_words(&error), gasp::system_words(Errno::MFILE));
    }
}
