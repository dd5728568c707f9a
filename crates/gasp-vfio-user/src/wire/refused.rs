//! Commands that are refused.

use gasp::Errno;

/// The errno that a command is answered with, and the reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} ({errno})")]
pub(crate) struct Refused {
    pub(crate) errno: Errno,
    pub(crate) what: String,
}

impl Refused {
    #[cold]
    pub(crate) fn new(errno: Errno, what: impl Into<String>) -> Self {
        Self { errno, what: what.into() }
    }

    #[cold]
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::new(Errno::INVAL, what)
    }
}

impl From<gasp::Error> for Refused {
    fn from(error: gasp::Error) -> Self {
        Self::new(error.errno(), error.to_string())
    }
}
