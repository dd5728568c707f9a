//! Errors of configuration files.

use core::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Errno, Error};

/// An error in a configuration: file, line, key, and what was expected.
///
/// It prints as `file:line: key: message`, without the line or the key if it has none.
/// Control characters from the file are printed escaped, so that a file cannot send control
/// sequences to a terminal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(Box<Inner>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Inner {
    path: PathBuf,
    line: Option<usize>,
    key: Option<String>,
    message: String,
    errno: Errno,
    source: Option<Error>,
}

/// Maximum length of a message or a key in bytes; a longer one is shortened to as many
/// characters, because a file can be one word of 4 MiB.
const TEXT_MAX: usize = 400;

impl ConfigError {
    /// An error about the file as a whole: `EINVAL`, unless another errno is set.
    #[cold]
    pub(super) fn new(path: &Path, message: &str) -> Self {
        Self(Box::new(Inner {
            path: path.into(),
            line: None,
            key: None,
            message: printable(message),
            errno: Errno::INVAL,
            source: None,
        }))
    }

    pub(super) fn at_line(mut self, line: usize) -> Self {
        self.0.line = Some(line);
        self
    }

    pub(super) fn at_key(mut self, key: &str) -> Self {
        self.0.key = Some(printable(key));
        self
    }

    /// The same error with another error number.
    #[must_use]
    pub fn with_errno(mut self, errno: Errno) -> Self {
        self.0.errno = errno;
        self
    }

    pub(super) fn caused_by(mut self, source: Error) -> Self {
        self.0.errno = source.errno();
        self.0.source = Some(source);
        self
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The line number, from 1; `None` if the error is about the file as a whole.
    pub fn line(&self) -> Option<usize> {
        self.0.line
    }

    /// The key of the wrong value, after those of its tables: `ram.size`,
    /// `domain.drain.deadline-ms`; in the qvm language the option. `None` if the error is about
    /// the file as a whole, or if it has no such thing at that line.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// The message, without path, line and key.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The error number: that of the system call or of the engine, if one failed; `EEXIST` for
    /// two objects in one range or of one name; `ENXIO` if a range extends past the guest's
    /// address width or has no memory; `EFBIG` if the file is too large; `ENOENT` for a name
    /// that is not defined; `ENOSPC` for too many grants; `ENOMEM` for more memory than the host
    /// has; `EISDIR` or `ENODEV` for a file of the wrong kind; `ENOTSUP` for an option of the
    /// qvm language that is known and not supported; `EINVAL` for everything else.
    pub fn errno(&self) -> Errno {
        self.0.errno
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.path.display())?;
        if let Some(line) = self.0.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.0.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.0.message)
    }
}

impl core::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.0.source.as_ref().map(|error| error as _)
    }
}

/// Escapes control characters, and removes the middle of a text that is too long: its end says
/// what was expected.
fn printable(text: &str) -> String {
    let shown: String = match text.len() <= TEXT_MAX {
        true => text.into(),
        false => {
            let mut tail: Vec<char> = text.chars().rev().take(TEXT_MAX / 2).collect();
            tail.reverse();
            text.chars().take(TEXT_MAX / 2).chain(['…']).chain(tail).collect()
        }
    };
    let mut printed = String::with_capacity(shown.len());
    for letter in shown.chars() {
        match letter.is_control() {
            true => printed.extend(letter.escape_default()),
            false => printed.push(letter),
        }
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_short_with_both_its_ends_and_has_no_control_characters() {
        let text = format!("\u{1b}[2J\n{}, expected y", "é".repeat(1 << 20));
        let error = ConfigError::new(Path::new("a.toml"), &text).at_line(3).at_key("ram\r");
        let text = error.to_string();
        assert!(text.starts_with("a.toml:3: ram\\r: \\u{1b}[2J\\né"), "{text}");
        assert!(text.ends_with("é, expected y"), "{text}");
        assert!(text.chars().count() < 500 && !text.contains(char::is_control));
    }
}
