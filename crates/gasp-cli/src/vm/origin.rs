//! Where a device comes from, for errors about it.

use core::fmt;

use gasp::Errno;
use gasp::config::Place;

use crate::failure::Failure;

/// An argument of the command line, or a place in a configuration.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// Such as `--disk a.img`.
    Argument(String),
    Place(Place),
}

impl Origin {
    /// What is said here is wrong.
    pub(super) fn wrong(&self, message: &str) -> Failure {
        match self {
            Self::Argument(text) => Failure::Usage(format!("{text}: {message}")),
            Self::Place(place) => Failure::Config(place.error(message)),
        }
    }

    /// What is requested here is unavailable.
    pub(super) fn unavailable(&self, errno: Errno, message: &str) -> Failure {
        let message = match self {
            Self::Argument(text) => format!("{text}: {message}"),
            Self::Place(place) => place.error(message).to_string(),
        };
        Failure::Unavailable { errno, message }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(text) => f.write_str(text),
            Self::Place(place) => place.fmt(f),
        }
    }
}
