//! Opening the file or block device that a disk's blocks are stored in.

use std::fs::{File, FileType};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;

use crate::error::DiskError;

/// Opens an image, locked for one disk at a time, or for those that only read it. Returns it and its
/// size.
pub(crate) fn open(path: &Path, read_only: bool) -> Result<(File, u64), DiskError> {
    let failed = |source| DiskError::File { path: path.to_owned(), source };
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskError::NotADisk { path: path.to_owned(), kind: name_of(kind) });
    }
    let mut file = File::options().read(true).write(!read_only).open(path).map_err(failed)?;
    let lock = match read_only {
        true => FlockOperation::NonBlockingLockShared,
        false => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(&file, lock) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(DiskError::InUse { path: path.to_owned(), by: holder_of(&file) });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    // Also works for a block device, whose metadata has no size.
    let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
    Ok((file, size))
}

/// What it is, if neither a file nor a block device.
fn name_of(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_char_device() => "a character device",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "of an unknown kind",
    }
}

/// The process that has locked the file, if the kernel reports it.
///
/// # References
/// [proc_locks(5)](https://man7.org/linux/man-pages/man5/proc_locks.5.html)
fn holder_of(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    find_holder(&locks, (major(metadata.dev()), minor(metadata.dev()), metadata.ino()))
}

/// Lines are `1: FLOCK  ADVISORY  WRITE 4711 fe:00:6594569 0 EOF`.
fn find_holder(locks: &str, (major, minor, inode): (u32, u32, u64)) -> Option<u32> {
    let place = format!("{major:02x}:{minor:02x}:{inode}");
    let mut lines = locks.lines().map(|line| line.split_ascii_whitespace());
    lines.find_map(|mut words| {
        let (kind, process, at) = (words.nth(1)?, words.nth(2)?, words.next()?);
        // A lock that is held in another PID namespace has a number that means nothing here.
        (kind == "FLOCK" && at == place).then(|| process.parse().ok().filter(|id| *id > 0))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 12 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 27342 fe:00:6594569 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 99 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  READ -1 fe:00:78 0 EOF\n\
                     odd\n";
        assert_eq!(find_holder(locks, (0xfe, 0, 6_594_569)), Some(27342));
        assert_eq!(find_holder(locks, (0xfe, 1, 6_594_569)), None);
        assert_eq!(find_holder(locks, (0xfe, 0, 77)), None, "other kinds, and who waits");
        assert_eq!(find_holder(locks, (0xfe, 0, 78)), None, "no process of this namespace");
    }
}
