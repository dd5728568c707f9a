//! Files of the host whose reads and writes do not wait.

use std::io::IsTerminal;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{
    FileType, Mode, OFlags, Stat, fcntl_getfl, fcntl_setfl, fstat, major, minor, open,
};
use rustix::io::Errno;

/// /dev/ptmx (devices.txt of the kernel): each open of it creates a pseudoterminal.
const PTMX: (u32, u32) = (5, 2);

/// Has reads and writes of a file fail with `EAGAIN` instead of waiting (`O_NONBLOCK`).
///
/// That a file has been polled does not suffice: a terminal that takes something need not take
/// everything, and others may fill a pipe in between.
///
/// The flag belongs to the open file, which a terminal's or a pipe's other users may share, a shell
/// for one. So terminals and pipes are opened once more. What cannot be opened again, a socket or a
/// pseudoterminal's master, gets the flag itself.
pub(crate) fn nonblocking(file: OwnedFd) -> OwnedFd {
    let flagged = || {
        let flags = fcntl_getfl(&file)?;
        if flags.contains(OFlags::NONBLOCK) {
            return Ok(None);
        }
        if can_be_reopened(&file, &fstat(&file)?) {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let access = flags & OFlags::ACCMODE;
            let more = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            if let Ok(again) = open(path, access | more, Mode::empty()) {
                return Ok(Some(again));
            }
        }
        fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
        Ok::<_, Errno>(None)
    };
    match flagged() {
        Ok(again) => again.unwrap_or(file),
        Err(errno) => {
            tracing::error!(%errno, "a device's file cannot be used without waiting");
            file
        }
    }
}

/// Whether another open leads to the same terminal or pipe.
fn can_be_reopened(file: &OwnedFd, stat: &Stat) -> bool {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => true,
        FileType::CharacterDevice => {
            file.is_terminal() && (major(stat.st_rdev), minor(stat.st_rdev)) != PTMX
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::pipe::pipe;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::os::unix::net::UnixStream;

    fn is_nonblocking(file: &OwnedFd) -> bool {
        fcntl_getfl(file).unwrap().contains(OFlags::NONBLOCK)
    }

    /// Writes until nothing is taken; a write that waited would never return.
    fn fill(file: &OwnedFd) -> usize {
        let mut taken = 0;
        loop {
            match rustix::io::write(file, &[b'x'; 4096]) {
                Ok(count) => taken += count,
                Err(errno) => {
                    assert_eq!(errno, Errno::AGAIN);
                    return taken;
                }
            }
        }
    }

    #[test]
    fn a_pipe_and_a_terminal_keep_their_flags_for_their_other_users() {
        let (near, far) = pipe().unwrap();
        let ours = nonblocking(far.try_clone().unwrap());
        assert!(is_nonblocking(&ours) && !is_nonblocking(&far));
        let taken = fill(&ours);
        assert!(taken >= 4096);
        let mut bytes = vec![0; taken];
        assert_eq!(rustix::io::read(&near, &mut bytes), Ok(taken));

        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let ours = nonblocking(slave.try_clone().unwrap());
        assert!(is_nonblocking(&ours) && !is_nonblocking(&slave));
        assert!(fill(&ours) > 0);
        assert!(rustix::io::read(&master, &mut bytes).unwrap() > 0, "it is the same terminal");
    }

    #[test]
    fn a_socket_and_a_master_get_the_flag_themselves() {
        let (near, _far) = UnixStream::pair().unwrap();
        let near = OwnedFd::from(near);
        let ours = nonblocking(near.try_clone().unwrap());
        assert!(is_nonblocking(&ours) && is_nonblocking(&near));

        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let ours = nonblocking(master);
        assert!(is_nonblocking(&ours));
        assert_eq!(ptsname(&ours, Vec::new()).unwrap(), name, "it is no other pseudoterminal");
    }

    #[test]
    fn the_end_of_a_pipe_is_seen_after_it_was_opened_again() {
        let (near, far) = pipe().unwrap();
        let (near, far) = (nonblocking(near), nonblocking(far));
        let mut byte = [0];
        assert_eq!(rustix::io::read(&near, &mut byte), Err(Errno::AGAIN));
        drop(far);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&near, PollFlags::IN)], Some(&now)), Ok(1));
        assert_eq!(rustix::io::read(&near, &mut byte), Ok(0));
    }
}
