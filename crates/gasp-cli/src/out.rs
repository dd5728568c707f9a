//! A writer of reports, to a reader that may be slow or have closed the pipe.
//!
//! A report that cannot be written is dropped and counted: the guests matter more than their
//! log.

use core::sync::atomic::{AtomicU64, Ordering};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How long to wait for a reader that has kept up so far.
const PATIENCE: Duration = Duration::from_secs(1);

/// The count of reports that were lost: not written, or too many for the queue.
#[derive(Clone, Default, Debug)]
pub(crate) struct Lost(Arc<AtomicU64>);

impl Lost {
    /// Counts a lost report.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds reports that were taken from the count.
    pub(crate) fn restore(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number of lost reports since the last call.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// An unbuffered writer of whole reports, which never waits long.
pub(crate) struct Out<W> {
    to: W,
    /// The last report was cut off, so the next one begins with a newline.
    torn: bool,
    /// The last report could not be written.
    failing: bool,
}

impl Out<File> {
    /// A writer to a standard stream.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub(crate) fn to(stream: impl AsFd) -> io::Result<Self> {
        Ok(Self::new(File::from(stream.as_fd().try_clone_to_owned()?)))
    }
}

impl<W: Write + AsFd> Out<W> {
    fn new(to: W) -> Self {
        Self { to, torn: false, failing: false }
    }

    /// Writes a report, with its newline. Returns `Ok(false)` if it was dropped, and the report
    /// before it as well.
    ///
    /// # Errors
    /// If it was dropped, and the report before it was not.
    pub(crate) fn write(&mut self, report: &str) -> io::Result<bool> {
        match self.try_write(report) {
            Ok(()) => {
                self.failing = false;
                Ok(true)
            }
            Err(_) if self.failing => Ok(false),
            Err(error) => {
                self.failing = true;
                Err(error)
            }
        }
    }

    fn try_write(&mut self, report: &str) -> io::Result<()> {
        if self.torn {
            self.write_some(b"\n")?;
            self.torn = false;
        }
        let mut rest = report.as_bytes();
        while !rest.is_empty() {
            let written = self.write_some(rest);
            // A part may have been written, to which the next report must not be joined.
            self.torn = rest.len() < report.len();
            let written = written?;
            rest = rest.get(written..).unwrap_or_default();
        }
        self.torn = false;
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait()?;
            match self.to.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }

    /// Waits until something can be written; not at all if the last report could not be written.
    fn wait(&self) -> io::Result<()> {
        let patience = if self.failing { Duration::ZERO } else { PATIENCE };
        let patience = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.to, PollFlags::OUT)];
        match poll(&mut fds, Some(&patience)) {
            Ok(0) => Err(io::Error::new(ErrorKind::TimedOut, "nobody reads them")),
            // Also if poll() reports an error: that of the write is more precise.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_report_that_was_cut_off_is_not_joined_to_the_next_one() {
        let (to, mut reader) = UnixStream::pair().unwrap();
        to.set_nonblocking(true).unwrap();
        let mut out = Out::new(to);
        let long = "x".repeat(16 << 20);
        assert_eq!(out.write(&long).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(!out.write("dropped\n").unwrap(), "and not waited for");
        let mut read = vec![0; 64 << 20];
        let len = reader.read(&mut read).unwrap();
        assert!(len < long.len());
        reader.set_nonblocking(true).unwrap();
        while reader.read(&mut read).is_ok() {}
        assert!(out.write("next\n").unwrap());
        let len = reader.read(&mut read).unwrap();
        assert_eq!(&read[..len], b"\nnext\n");
    }

    #[test]
    fn a_closed_pipe_is_an_error_once() {
        let (to, reader) = UnixStream::pair().unwrap();
        drop(reader);
        let mut out = Out::new(to);
        assert_eq!(out.write("a\n").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(!out.write("b\n").unwrap());
    }
}
