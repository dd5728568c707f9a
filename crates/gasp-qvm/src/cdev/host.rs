//! Host devices: files, opened so that nothing waits.
#![allow(unsafe_code, reason = "the settings of terminals")]

use core::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gasp::Errno;
use rustix::fs::{FileType, Mode, OFlags};

use super::options::Use;

/// An open host device. Dropping it restores the settings of a terminal.
#[derive(Debug)]
pub(crate) struct HostDevice {
    fd: OwnedFd,
    before: Option<Settings>,
}

/// The settings of a terminal.
#[derive(Clone, Copy)]
pub(crate) struct Settings(pub(crate) libc::termios);

impl core::fmt::Debug for Settings {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Settings")
    }
}

impl HostDevice {
    /// Opens one. A terminal passes bytes as they are from now on. A file of output alone is created
    /// if there is none, and appended to. A pipe of input goes on when one writer has ended and
    /// the next begins.
    ///
    /// # Errors
    /// Those of open(2).
    pub(crate) fn open(path: &Path, used: Use) -> Result<Self, Errno> {
        let is_pipe = || {
            let found = rustix::fs::stat(path);
            found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo)
        };
        let mode = match used {
            // Of Linux: a pipe that has a writer in this process does not end.
            Use::Input if is_pipe() => OFlags::RDWR,
            Use::Input => OFlags::RDONLY,
            Use::Output => OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND,
            Use::Both => OFlags::RDWR,
        };
        let flags = mode | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o666))?;
        let before = raw(fd.as_fd());
        Ok(Self { fd, before })
    }

    /// The settings that are restored, if it is a terminal.
    pub(crate) fn settings(&self) -> Option<Settings> {
        self.before
    }
}

impl AsFd for HostDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Has a terminal pass bytes as they are; its settings before.
fn raw(fd: BorrowedFd<'_>) -> Option<Settings> {
    let mut found = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: `found` is valid for writes.
    if unsafe { libc::tcgetattr(fd.as_raw_fd(), found.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: tcgetattr(3) has succeeded, so it has filled it.
    let before = unsafe { found.assume_init() };
    let mut settings = before;
    // SAFETY: `settings` are those of a terminal, valid for reads and writes.
    unsafe { libc::cfmakeraw(&raw mut settings) };
    set(fd, &settings);
    Some(Settings(before))
}

fn set(fd: BorrowedFd<'_>, settings: &libc::termios) {
    // SAFETY: `settings` is valid for reads. If it fails, the terminal is gone.
    unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, settings) };
}

impl Drop for HostDevice {
    fn drop(&mut self) {
        if let Some(Settings(before)) = &self.before {
            set(self.fd.as_fd(), before);
        }
    }
}
