//! What came with a DMA_MAP: which kind of file, opened for what, sealed against what.
//!
//! The file may lie on a file system whose server does not answer (FUSE), so nothing here
//! asks it: `statx` takes the type and the inode's number from the kernel's own copy.

use std::os::fd::{AsRawFd, OwnedFd};

use gasp::{Access, Errno};
use rustix::fs::{AtFlags, FileType, OFlags, RawMode, SealFlags, StatxFlags};

use crate::wire::Refused;

/// The most bytes of a name in an error.
const NAME_MAX: usize = 64;

/// A descriptor of something that memory can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    /// Device and number of the inode.
    pub(super) inode: (u64, u64),
    /// What the descriptor was opened for, as far as memory has use for it.
    pub(super) access: Access,
}

impl Descriptor {
    /// Inspects a descriptor whose memory is to be used with `access`.
    ///
    /// Refuses what can be neither mapped nor read and written at an offset, with the kind
    /// of descriptor in the text (`ENODEV`, as from mmap(); `EBADF` for one that was opened
    /// with `O_PATH`), and one that was not opened for `access` (`EACCES`).
    pub(super) fn inspect(fd: &OwnedFd, access: Access) -> Result<Self, Refused> {
        let os = |what| move |errno| Refused::new(errno, what);
        let mode = rustix::fs::fcntl_getfl(fd).map_err(os("the descriptor has no flags"))?;
        if mode.contains(OFlags::PATH) {
            let what = "the descriptor was opened with O_PATH and gives access to nothing";
            return Err(Refused::new(Errno::BADF, what));
        }
        let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::TYPE | StatxFlags::INO;
        let stat = rustix::fs::statx(fd, "", how, wanted)
            .map_err(os("the descriptor does not tell its type"))?;
        check_kind(fd, RawMode::from(stat.stx_mode), (stat.stx_rdev_major, stat.stx_rdev_minor))?;
        let opened = match mode & OFlags::RWMODE {
            OFlags::RDWR => Access::RW,
            OFlags::WRONLY => Access::WRITE,
            _ => Access::READ,
        };
        // A map of it would need to read, whatever the window is for.
        if !opened.contains(Access::READ) {
            return Err(Refused::new(Errno::ACCESS, "the descriptor was opened for writing only"));
        }
        if !opened.contains(access) {
            let what =
                "the window is to be written, and the descriptor was opened for reading only";
            return Err(Refused::new(Errno::ACCESS, what));
        }
        let dev = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        Ok(Self { inode: (dev, stat.stx_ino), access: opened })
    }
}

/// Refuses what memory cannot be.
fn check_kind(fd: &OwnedFd, mode: RawMode, device: (u32, u32)) -> Result<(), Refused> {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile | FileType::BlockDevice => return Ok(()),
        FileType::CharacterDevice if is_dax(device) => return Ok(()),
        FileType::CharacterDevice => "a character device that is not memory",
        FileType::Directory => "a directory",
        FileType::Socket => "a socket",
        FileType::Fifo => "a pipe",
        FileType::Symlink => "a symbolic link",
        FileType::Unknown => "not a file",
    };
    let what = format!("the descriptor is no memory: it is {kind}{}", name_of(fd));
    Err(Refused::new(Errno::NODEV, what))
}

/// Whether a character device is persistent memory, which is given to guests.
fn is_dax((major, minor): (u32, u32)) -> bool {
    let link = std::fs::read_link(format!("/sys/dev/char/{major}:{minor}/subsystem"));
    link.is_ok_and(|link| link.file_name().is_some_and(|name| name == "dax"))
}

/// What the kernel calls the file behind a descriptor, for a person to recognise it.
fn name_of(fd: &OwnedFd) -> String {
    let Ok(name) = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) else {
        return String::new();
    };
    let name: String = name.to_string_lossy().chars().take(NAME_MAX).collect();
    format!(" ({})", name.escape_debug())
}

/// What a file is sealed against. One that can be cut off and can be sealed against that is
/// sealed here; a seal cannot be taken back.
pub(super) fn seal(fd: &OwnedFd) -> SealFlags {
    let seals = seals_of(fd);
    let can_be_cut = !seals.intersects(SealFlags::SHRINK | SealFlags::SEAL);
    // Only a memory file knows seals, and only who may write it adds one.
    if can_be_cut && rustix::fs::fcntl_add_seals(fd, SealFlags::SHRINK).is_ok() {
        return seals | SealFlags::SHRINK;
    }
    seals
}

/// What a file is sealed against; other files than memory files cannot be.
pub(super) fn seals_of(fd: &OwnedFd) -> SealFlags {
    rustix::fs::fcntl_get_seals(fd).unwrap_or(SealFlags::empty())
}
