//! Detects whether a VMM maps a memory file shared or privately.
//!
//! A VMM may map its guest's memory privately (QEMU: `share=off`). The guest then writes to
//! copies of the pages, and the file remains zero: the device would read empty queues for
//! ever. Neither the protocol nor the file shows it, whose pages are allocated all the
//! same. The kernel's list of the VMM's mappings does, if this process may read it (same
//! user, or `CAP_SYS_PTRACE`).

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use rustix::fs::{major, minor};

/// Maximum number of bytes of the list that are read; a VMM has some hundred mappings of
/// 100 bytes.
const LIST_MAX: u64 = 1 << 20;

/// How a process maps a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sharing {
    /// Shared, at least once.
    Shared,
    /// Only privately, and for writing.
    Private,
    /// Not at all, or this process cannot find out.
    Unknown,
}

/// Timeout for reading the list. The kernel needs the lock of the VMM's address space for
/// it, which a VMM can hold for as long as it likes.
const PATIENCE: Duration = Duration::from_millis(200);
/// Whether a thread is reading a list. If it hangs, no other is started.
static READING: AtomicBool = AtomicBool::new(false);

/// How the process `pid` maps the file with this device and inode.
pub(super) fn of_file(pid: i32, inode: (u64, u64)) -> Sharing {
    if READING.swap(true, Ordering::AcqRel) {
        return Sharing::Unknown;
    }
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::Builder::new().name("sharing".into()).spawn(move || {
        let sharing = read(pid, inode);
        READING.store(false, Ordering::Release);
        // The receiver may have timed out.
        let _ = tell.send(sharing);
    });
    match reader {
        Ok(_) => told.recv_timeout(PATIENCE).unwrap_or(Sharing::Unknown),
        Err(_) => {
            READING.store(false, Ordering::Release);
            Sharing::Unknown
        }
    }
}

fn read(pid: i32, inode: (u64, u64)) -> Sharing {
    match File::open(format!("/proc/{pid}/maps")) {
        Ok(list) => parse(BufReader::new(list.take(LIST_MAX)), inode),
        Err(_) => Sharing::Unknown,
    }
}

/// Parses lines of `from-to perms offset major:minor inode name`.
fn parse(list: impl BufRead, (dev, ino): (u64, u64)) -> Sharing {
    let (dev, ino) = (format!("{:02x}:{:02x}", major(dev), minor(dev)), ino.to_string());
    let mut found = Sharing::Unknown;
    for line in list.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(perms), Some(_), Some(device), Some(number)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if device != dev || number != ino {
            continue;
        }
        match perms.as_bytes() {
            [.., b's'] => return Sharing::Shared,
            [_, b'w', _, b'p'] => found = Sharing::Private,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::makedev;

    #[test]
    fn a_file_that_is_only_mapped_privately_for_writing_is_not_shared() {
        let list = "\
7f0000000000-7f0010000000 rw-p 00000000 00:01 77 /memfd:m0 (deleted)
7f0020000000-7f0030000000 rw-s 00000000 00:01 78 /memfd:m1 (deleted)
7f0040000000-7f0050000000 r--p 00000000 00:01 79 /memfd:m2 (deleted)
7f0060000000-7f0070000000 rw-p 00000000 00:01 80 /memfd:m3 (deleted)
7f0080000000-7f0090000000 rw-s 00000000 00:01 80 /memfd:m3 (deleted)
7f00a0000000-7f00b0000000 rw-p 00000000 fe:01 81 /disk
not a mapping
";
        let parsed = |dev, ino| parse(list.as_bytes(), (makedev(dev, 1), ino));
        assert_eq!(parsed(0, 77), Sharing::Private);
        assert_eq!(parsed(0, 78), Sharing::Shared);
        assert_eq!(parsed(0, 79), Sharing::Unknown, "a read-only mapping shows nothing");
        assert_eq!(parsed(0, 80), Sharing::Shared, "once is enough");
        assert_eq!(parsed(0, 81), Sharing::Unknown, "another device");
        assert_eq!(parsed(0xfe, 81), Sharing::Private);
        assert_eq!(parse(&b"\xff\xfe\n\n"[..], (0, 0)), Sharing::Unknown);
    }
}
