//! What is wrong with a configuration file, and where.

use core::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Errno, Error};

/// A configuration file that cannot be used: where it is wrong, and what was expected.
///
/// It prints as `file:line: key: message`, without the line and the key where there is
/// none. Control characters from the file are printed escaped, so that a file cannot
/// play tricks on a terminal.
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

/// A file can be 4 MiB long and one word; a message should not. In letters.
const TEXT_MAX: usize = 400;

impl ConfigError {
    /// An error about the file as a whole, `EINVAL` unless told otherwise.
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

    pub(super) fn with_errno(mut self, errno: Errno) -> Self {
        self.0.errno = errno;
        self
    }

    pub(super) fn caused_by(mut self, source: Error) -> Self {
        self.0.errno = source.errno();
        self.0.source = Some(source);
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The line in it, from 1; `None` where the file as a whole is meant.
    pub fn line(&self) -> Option<usize> {
        self.0.line
    }

    /// The key that is wrong, with those of the tables around it: `ram.size`,
    /// `domain.drain.deadline-ms`. `None` where the file is not TOML at that place.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// What was expected, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// An error number of the same meaning: that of the system call or of the engine
    /// where one refused; `EEXIST` for two things in one place or of one name; `ENXIO`
    /// where a range passes the guest's address width or has no memory; `EFBIG` for a
    /// file that is too large; `EINVAL` for everything else.
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

/// Escapes control characters, and takes the middle out of what is too long: what was
/// expected is at the end.
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
