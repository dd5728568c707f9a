//! Why a kernel cannot be started: one line each, which says what to do.

use std::io;
use std::path::PathBuf;

use gasp::Bytes;
use thiserror::Error;

/// A kernel, initrd or command line that cannot be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BootError {
    /// A file cannot be opened.
    #[error("{}: {source}; check the path", .path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory, a device or a pipe.
    #[error("{} is not a regular file; give the file itself", .path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// A file cannot be read to its end.
    #[error("{} cannot be read: {why}; check that nobody changes it", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It is neither a bzImage nor an ELF file.
    #[error("{} is no kernel but {found}; give a bzImage or an ELF vmlinux for x86-64", .path.display())]
    NotAKernel {
        /// Which.
        path: PathBuf,
        /// What it seems to be.
        found: &'static str,
    },
    /// The file ends before the kernel does.
    #[error(
        "{} has {:#} of a kernel of {:#}; copy it again",
        .path.display(), Bytes(*.len), Bytes(*.expected)
    )]
    Truncated {
        /// Which.
        path: PathBuf,
        /// How long it is, in bytes.
        len: u64,
        /// How long it says that it is.
        expected: u64,
    },
    /// A kernel that cannot be started here.
    #[error("{}: {why}", .path.display())]
    Unsupported {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        why: &'static str,
    },
    /// There is no RAM at address 0, where a kernel starts.
    #[error(
        "the guest has no RAM at address 0, where a kernel starts; add some (`layout::add_ram`)"
    )]
    NoRam,
    /// The RAM at address 0 can be taken away by another process while it is written.
    #[error(
        "the guest's RAM at address 0 can be taken away by its owner; seal its file against \
         shrinking, or use RAM of gasp's own"
    )]
    Guarded,
    /// The kernel does not fit into the RAM at address 0.
    #[error(
        "the kernel needs the first {:#} of RAM, and there are {:#}; give the guest more",
        Bytes(*.needed), Bytes(*.available)
    )]
    RamTooSmall {
        /// How many bytes from address 0 on, without an initrd.
        needed: u64,
        /// How many bytes there are in one piece.
        available: u64,
    },
    /// The initrd does not fit between the kernel and the end of RAM.
    #[error(
        "the initrd {} has {:#}, and there is room for {:#} beside the kernel; give the guest more \
         RAM or make it smaller",
        .path.display(), Bytes(*.len), Bytes(*.room)
    )]
    InitrdTooLarge {
        /// Which.
        path: PathBuf,
        /// How many bytes.
        len: u64,
        /// How many there could be.
        room: u64,
    },
    /// The command line is longer than the kernel takes.
    #[error("a command line of {len} bytes: the kernel takes at most {limit}; shorten it")]
    CommandLineTooLong {
        /// How many bytes it has.
        len: u64,
        /// How many it could have.
        limit: u64,
    },
    /// The command line has a zero in it.
    #[error("the command line has a zero byte at {at}, where the kernel would end it; remove it")]
    CommandLineHasZero {
        /// Where, in bytes.
        at: usize,
    },
    /// The guest's memory has more pieces than the boot protocol can describe.
    #[error(
        "the guest's memory has {count} pieces, and a kernel is told of 128; use fewer regions"
    )]
    TooManyRegions {
        /// How many.
        count: usize,
    },
    /// The guest's memory cannot be written.
    #[error(transparent)]
    Memory(#[from] gasp::Error),
    /// A vCPU does not take its first state.
    #[error(transparent)]
    Vcpu(#[from] crate::MachineError),
}
