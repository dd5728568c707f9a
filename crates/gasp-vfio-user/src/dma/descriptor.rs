//! Inspects the descriptor of a DMA_MAP: the kind of file, its access mode, its seals.
//!
//! The file may be on a file system whose server does not answer (FUSE), so nothing here
//! queries the server: `statx` returns the type and the inode number from the kernel's own
//! copy.

use std::os::fd::{AsRawFd, OwnedFd};

use gasp::{Access, Errno};
use rustix::fs::{AtFlags, FileType, OFlags, RawMode, SealFlags, StatxFlags};

use crate::wire::Refused;

/// Maximum length of a file name in an error, in characters.
const NAME_MAX: usize = 64;

/// A descriptor of a file that can be memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    /// Device and inode number.
    pub(super) inode: (u64, u64),
    /// The access mode of the descriptor.
    pub(super) access: Access,
}

impl Descriptor {
    /// Inspects a descriptor whose memory is to be used with `access`.
    ///
    /// Refuses a file that can be neither mapped nor read and written at an offset, naming
    /// its kind (`ENODEV`, as from mmap(); `EBADF` for a descriptor opened with `O_PATH`),
    /// and a descriptor that was not opened for `access` (`EACCES`).
    pub(super) fn inspect(fd: &OwnedFd, access: Access) -> Result<Self, Refused> {
        let os = |what| move |errno| Refused::new(errno, what);
        let mode = rustix::fs::fcntl_getfl(fd)
            .map_err(os("the flags of the descriptor cannot be read"))?;
        if mode.contains(OFlags::PATH) {
            let what = "the descriptor was opened with O_PATH, which gives no access to the file";
            return Err(Refused::new(Errno::BADF, what));
        }
        let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::TYPE | StatxFlags::INO;
        let stat = rustix::fs::statx(fd, "", how, wanted)
            .map_err(os("the type of the descriptor cannot be read"))?;
        check_kind(fd, RawMode::from(stat.stx_mode), (stat.stx_rdev_major, stat.stx_rdev_minor))?;
        let opened = match mode & OFlags::RWMODE {
            OFlags::RDWR => Access::RW,
            OFlags::WRONLY => Access::WRITE,
            _ => Access::READ,
        };
        // mmap() needs a readable descriptor, whatever the access of the window.
        if !opened.contains(Access::READ) {
            return Err(Refused::new(Errno::ACCESS, "the descriptor was opened for writing only"));
        }
        if !opened.contains(access) {
            let what = "the window is writable, but the descriptor was opened for reading only";
            return Err(Refused::new(Errno::ACCESS, what));
        }
        let dev = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        Ok(Self { inode: (dev, stat.stx_ino), access: opened })
    }
}

/// Refuses files that cannot be memory.
fn check_kind(fd: &OwnedFd, mode: RawMode, device: (u32, u32)) -> Result<(), Refused> {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile | FileType::BlockDevice => return Ok(()),
        FileType::CharacterDevice if is_dax(device) => return Ok(()),
        FileType::CharacterDevice => "a character device that is not memory",
        FileType::Directory => "a directory",
        FileType::Socket => "a socket",
        FileType::Fifo => "a pipe",
        FileType::Symlink => "a symbolic link",
        FileType::Unknown => "of an unknown kind",
    };
    let what = format!("the descriptor is not memory but {kind}{}", name_of(fd));
    Err(Refused::new(Errno::NODEV, what))
}

/// Whether a character device is persistent memory (DAX), which VMMs pass to guests.
fn is_dax((major, minor): (u32, u32)) -> bool {
    let link = std::fs::read_link(format!("/sys/dev/char/{major}:{minor}/subsystem"));
    link.is_ok_and(|link| link.file_name().is_some_and(|name| name == "dax"))
}

/// The kernel's name of the file of a descriptor, for people to recognise it.
fn name_of(fd: &OwnedFd) -> String {
    let Ok(name) = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) else {
        return String::new();
    };
    let name: String = name.to_string_lossy().chars().take(NAME_MAX).collect();
    format!(" ({})", name.escape_debug())
}

/// The seals of a file. A file that can be truncated, and can be sealed against that, is
/// sealed here; a seal cannot be removed.
pub(super) fn seal(fd: &OwnedFd) -> SealFlags {
    let seals = seals_of(fd);
    let can_be_cut = !seals.intersects(SealFlags::SHRINK | SealFlags::SEAL);
    // Only memory files have seals, and only a writable descriptor can add one.
    if can_be_cut && rustix::fs::fcntl_add_seals(fd, SealFlags::SHRINK).is_ok() {
        return seals | SealFlags::SHRINK;
    }
    seals
}

/// The seals of a file; empty for files that cannot have seals.
pub(super) fn seals_of(fd: &OwnedFd) -> SealFlags {
    rustix::fs::fcntl_get_seals(fd).unwrap_or(SealFlags::empty())
}
