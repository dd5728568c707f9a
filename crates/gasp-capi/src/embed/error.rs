//! Errors of the program's calls, and of C functions that the program itself exports.

use core::ffi::c_int;
use core::fmt;

use gasp::Errno;

use crate::boundary::{self, Failure};

/// Why a call failed: an error number, and a text that says what to do.
#[derive(Debug)]
pub struct Error(pub(super) Failure);

impl Error {
    /// An error of the program itself, for [`call`]. The text needs no number: it is appended.
    pub fn new(errno: Errno, text: impl Into<String>) -> Self {
        Self(Failure::Text(errno, text.into()))
    }

    /// The error number.
    pub fn errno(&self) -> Errno {
        Errno::from_raw_os_error(self.0.errno())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<gasp::Error> for Error {
    fn from(error: gasp::Error) -> Self {
        Self(error.into())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

/// Runs the body of a C function that the program exports. Returns `EOK`, or the error number, whose
/// text `gasp_last_error()` then returns. A panic is `ENOTRECOVERABLE`.
pub fn call(body: impl FnOnce() -> Result<(), Error>) -> c_int {
    boundary::call(|| body().map_err(|error| error.0))
}
