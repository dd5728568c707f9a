//! Places in a configuration, for errors that are found after it was read.

use core::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::config::error::ConfigError;

/// Where a configuration says something: file, line and key. Prints as `file:line`.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    path: Arc<Path>,
    line: usize,
    key: &'static str,
}

impl Place {
    pub(in crate::config) fn new(path: Arc<Path>, line: usize, key: &'static str) -> Self {
        Self { path, line, key }
    }

    /// The path of the file; `command line` for arguments.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line number, or the number of the argument, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// An error about what is said here, for a program that finds it wrong: it prints as
    /// `file:line: key: message`, and is `EINVAL`.
    #[cold]
    pub fn error(&self, message: &str) -> ConfigError {
        ConfigError::new(&self.path, message).at_line(self.line).at_key(self.key)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.key)
    }
}
