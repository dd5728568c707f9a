//! The blocks of a virtual disk, moved straight between their backing and guest memory.
//!
//! What the disks of `gasp-nvme` and `gasp-virtio` share: a [`Backing`] is a file, a block device,
//! memory or nothing; a [`Disk`] is one that is open; [`Data`] is where a transfer's bytes are in the
//! guest, mapped for as long as the transfer takes and passed to preadv(2) and pwritev(2) as it is.
//!
//! ```
//! use gasp_disk::{Allocation, Backing, Disk};
//!
//! let disk = Disk::open(&Backing::memory(1 << 20), 9)?;
//! assert_eq!(disk.blocks(), 2048);
//! disk.zero(512, 4096, Allocation::Release, || false)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | file | |
//! |---|---|
//! | `backing`, `image`, `serial` | what a disk is stored in: as requested, opened and locked, told apart |
//! | `disk` | reads, writes, zeroes and flushes |
//! | `data` | the guest's side of a transfer |
//! | `vectored`, `anonymous` | the unsafe code: vectored I/O on mapped guest memory, and a memory disk |

mod anonymous;
mod backing;
mod data;
mod disk;
mod error;
mod image;
pub mod serial;
mod vectored;

pub use backing::Backing;
pub use data::{Data, Direction, Part};
pub use disk::{Allocation, Disk};
pub use error::{DiskError, Failure};
