//! What can be wrong with a vdev.

use std::path::PathBuf;

use gasp::Errno;
use gasp::config::ConfigError;
use thiserror::Error;

use crate::abi::UnknownAbi;

/// Why a vdev cannot be loaded, or does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VdevError {
    /// There is no file of it.
    #[error(
        "there is no vdev-{name}.so{}; name its folder with --vdev-path or in LD_LIBRARY_PATH",
        searched(.folders)
    )]
    NotFound {
        /// The vdev's name.
        name: String,
        /// The folders that were searched before the dynamic loader's own.
        folders: Vec<PathBuf>,
    },
    /// The dynamic loader refuses its file.
    #[error("{file}: it cannot be loaded: {why}")]
    NotLoaded {
        /// The file, as it was looked for.
        file: String,
        /// The dynamic loader's message, with what to do where that is known.
        why: String,
    },
    /// It has registered no factory.
    #[error(
        "{file}: it is no vdev: none of its constructors has called vdev_register_factory() with a \
         factory"
    )]
    NoFactory {
        /// The file.
        file: String,
    },
    /// It was compiled for other headers.
    #[error("{file}: {abi}")]
    Abi {
        /// The file.
        file: String,
        /// Its number.
        abi: UnknownAbi,
    },
    /// A factory is not as the header asks.
    #[error("{file}: the factory `{factory}`: {why}")]
    Factory {
        /// The file.
        file: String,
        /// The factory's name.
        factory: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Two files, or one twice, register a factory of one name.
    #[error("two factories are called `{name}`: one in {first}, one in {second}; rename one")]
    Twice {
        /// The name.
        name: String,
        /// The file that had it first.
        first: String,
        /// The file that has it as well.
        second: String,
    },
    /// Its file was refused before, with this error; it is not loaded again.
    #[error("{why}")]
    Before {
        /// The error number.
        errno: Errno,
        /// The error.
        why: String,
    },
    /// Its file has several factories, and none of the name that was asked for.
    #[error("{file}: it has no factory `{name}`, but {}", .others.join(", "))]
    Other {
        /// The file.
        file: String,
        /// The name that was asked for.
        name: String,
        /// The names of its factories.
        others: Vec<String>,
    },
    /// Its options, location or interrupt are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It has refused what it was asked to do.
    #[error("vdev `{vdev}`: {phase} failed: {}", refusal(.message, *.errno))]
    Refused {
        /// The vdev's name.
        vdev: String,
        /// The call of `control` that failed, or what it was to do.
        phase: String,
        /// The error number that it has returned.
        errno: Errno,
        /// The last error that it has logged, or an empty text.
        message: String,
    },
    /// It did what it must not do.
    #[error("vdev `{vdev}`: {why}")]
    Misbehaved {
        /// The vdev's name.
        vdev: String,
        /// What, and what to do.
        why: String,
    },
    /// The engine or the host has refused something for it.
    #[error("vdev `{vdev}`: {why}")]
    Host {
        /// The vdev's name.
        vdev: String,
        /// The error number.
        errno: Errno,
        /// What, and why.
        why: String,
    },
}

impl VdevError {
    /// The error number of the failure.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotFound { .. } => Errno::NOENT,
            Self::NotLoaded { .. } | Self::NoFactory { .. } | Self::Abi { .. } => Errno::NOEXEC,
            Self::Twice { .. } => Errno::EXIST,
            Self::Config(error) => error.errno(),
            Self::Refused { errno, .. } | Self::Host { errno, .. } | Self::Before { errno, .. } => {
                *errno
            }
            Self::Factory { .. } | Self::Other { .. } | Self::Misbehaved { .. } => Errno::INVAL,
        }
    }
}

fn searched(folders: &[PathBuf]) -> String {
    match folders {
        [] => String::new(),
        _ => {
            let folders: Vec<_> =
                folders.iter().map(|folder| folder.display().to_string()).collect();
            format!(" in {}", folders.join(", "))
        }
    }
}

fn refusal(message: &str, errno: Errno) -> String {
    match message {
        "" => errno.to_string(),
        _ => format!("{message} ({errno})"),
    }
}
