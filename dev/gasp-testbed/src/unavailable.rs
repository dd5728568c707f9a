//! Why there is no testbed.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no testbed on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// It is turned off by `GASP_TESTBED=off`.
    #[error("GASP_TESTBED=off")]
    TurnedOff,
    /// Debian's QEMU for x86-64 does not run here.
    #[error("the testbed is for x86-64")]
    Architecture,
    /// This machine is not Debian, whose packages are needed.
    #[error("this machine is not Debian but {0}")]
    NotDebian(String),
    /// Debian's package manager has no mirror.
    #[error("no Debian mirror is configured")]
    NoMirror,
    /// A program that fetches or unpacks has failed, often without a network.
    #[error("{program}: {why}")]
    Program {
        /// The program.
        program: String,
        /// Its first error message.
        why: String,
    },
    /// A package is not as expected.
    #[error("{package}: {why}")]
    Package {
        /// Its name.
        package: String,
        /// What is missing.
        why: String,
    },
    /// A file or folder cannot be created or read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Unavailable {
    pub(crate) fn file(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { path, source }
    }

    pub(crate) fn package(package: &str, why: impl Into<String>) -> Self {
        Self::Package { package: package.into(), why: why.into() }
    }
}
