//! The boundary to C: failures and panics become an error number and a text.

use core::any::Any;
use core::ffi::c_int;
use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gasp::config::ConfigError;
use gasp::{Errno, Error};

use crate::last_error;
use crate::types::EOK;

/// Why a call fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine refused.
    Engine(Error),
    /// The configuration file is wrong.
    Config(ConfigError),
    /// An argument, or the moment, is wrong.
    Call(Errno, &'static str),
    /// The same, with a text that names what it concerns.
    Text(Errno, String),
    /// A failure inside the library: a panic.
    Internal(String),
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// An argument that is not valid: `EINVAL`.
    pub(crate) fn invalid(why: &'static str) -> Self {
        Self::Call(Errno::INVAL, why)
    }

    /// Misuse, such as a call in the wrong phase or without its lock: also logs a warning.
    #[cold]
    pub(crate) fn misuse(errno: Errno, why: &'static str) -> Self {
        tracing::warn!("{why}");
        Self::Call(errno, why)
    }

    pub(crate) fn errno(&self) -> c_int {
        match self {
            Self::Engine(error) => error.errno().raw_os_error(),
            Self::Config(error) => error.errno().raw_os_error(),
            Self::Call(errno, _) | Self::Text(errno, _) => errno.raw_os_error(),
            Self::Internal(_) => libc::ENOTRECOVERABLE,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Call(errno, why) => write!(f, "{why} ({})", gasp::errno_name(*errno)),
            Self::Text(errno, why) => write!(f, "{why} ({})", gasp::errno_name(*errno)),
            Self::Internal(what) => {
                write!(f, "a failure inside libgasp: {what} (ENOTRECOVERABLE)")
            }
        }
    }
}

/// Runs the body of a function that returns an error number.
#[inline(always)]
pub(crate) fn call(body: impl FnOnce() -> Outcome) -> c_int {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => EOK,
        Ok(Err(failure)) => record(failure),
        Err(panic) => record(caught(panic)),
    }
}

/// Runs the body of a function that returns another value: `failed`, with errno set, on failure.
pub(crate) fn value<T>(failed: T, body: impl FnOnce() -> Outcome<T>) -> T {
    let errno = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return value,
        Ok(Err(failure)) => record(failure),
        Err(panic) => record(caught(panic)),
    };
    set_errno(errno);
    failed
}

#[cold]
fn record(failure: Failure) -> c_int {
    let errno = failure.errno();
    match &failure {
        Failure::Internal(_) => tracing::error!("{failure}"),
        _ => tracing::debug!("{failure}"),
    }
    last_error::set(&failure);
    errno
}

#[cold]
fn caught(panic: Box<dyn Any + Send>) -> Failure {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    // Dropping the payload could panic again.
    core::mem::forget(panic);
    Failure::Internal(text.unwrap_or_else(|| "a panic without a message".into()))
}

/// Sets the C library's errno of this thread.
pub(crate) fn set_errno(errno: c_int) {
    #![allow(unsafe_code, reason = "errno is a variable of the C library")]
    // SAFETY: the function has no requirements.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: `place` is this thread's errno, which is aligned, valid for writes as long as the
    // thread runs, and accessed by no other thread.
    unsafe { place.write(errno) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use last_error::copy as text;

    #[test]
    fn a_panic_becomes_an_error_number_and_a_text() {
        assert_eq!(call(|| panic!("a test")), libc::ENOTRECOVERABLE);
        assert!(text().contains("a test"), "{}", text());
        assert_eq!(value(7, || panic!("another {}", 1)), 7);
        assert!(text().contains("another 1"), "{}", text());
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOTRECOVERABLE));
    }

    #[test]
    fn a_success_leaves_the_last_failure_alone() {
        assert_eq!(call(|| Err(Failure::invalid("a reason"))), libc::EINVAL);
        assert_eq!(call(|| Ok(())), EOK);
        assert_eq!(text(), "a reason (EINVAL)");
    }
}
