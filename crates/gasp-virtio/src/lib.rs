//! Virtio devices as virtual PCI functions, on guest memory of [`gasp`].
//!
//! [`VirtioPci`] is the transport (virtio 1.2, 4.1: virtio over PCI bus, without a legacy interface)
//! around a [`VirtioDevice`]: a PCI function of `gasp-vdev`, which every front end can serve. Its
//! split queues are those of the crate `virtio-queue`, unchanged, over bursts of `gasp-vm-memory`:
//! each access to a ring, and each buffer, is checked against what the guest's IOMMU allows the
//! device at that moment. Nothing is held but what a request in progress uses, so a guest that unmaps
//! memory waits for one step of one request at most.
//!
//! ```
//! use gasp_virtio::block::{self, Block};
//! use gasp_virtio::entropy::Entropy;
//! use gasp_virtio::{Backing, VirtioPci};
//! use gasp_vdev::Shell;
//!
//! let block = Block::new(&Backing::memory(64 << 20), block::Options::default())?;
//! let disk = Shell::new("disk", VirtioPci::new(block))?;
//! let rng = Shell::new("rng", VirtioPci::new(Entropy::new()))?;
//! assert_eq!(disk.model().identity.device, 0x1042);
//! assert_eq!(rng.model().identity.device, 0x1044);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a driver does wrong hurts its own device only:
//!
//! | | |
//! |---|---|
//! | a buffer is not mapped for the device | the request fails, as its kind of device can say so, and the guest's IOMMU records a fault |
//! | a chain loops, has its buffers in the wrong order, or is no request | the device stops (DEVICE_NEEDS_RESET) |
//! | a ring or an answer cannot be accessed | the device stops |
//! | features that are not offered, or without `VIRTIO_F_VERSION_1` | FEATURES_OK stays clear |
//! | registers of any width, at any offset | each field takes the bytes that are its own |
//!
//! | file | |
//! |---|---|
//! | `device` | the trait of a kind of device |
//! | `block`, `entropy`, `console`, `net` | the devices |
//! | `nonblocking`, `watch` | files of a device that do not wait, and a thread that waits for them |
//! | `queue` | chains of descriptors, on their way to the device and back |
//! | [`transport`] | registers, status, interrupts, and the device's thread; its parts for other transports |
//!
//! Not supported: packed queues, `VIRTIO_F_IN_ORDER`, `VIRTIO_F_RING_RESET`,
//! `VIRTIO_F_NOTIFICATION_DATA`, rings in memory that is reached by messages only, an available ring
//! at device address 0.

pub mod block;
mod console;
mod device;
pub mod entropy;
pub mod net;
mod nonblocking;
mod queue;
pub mod transport;
mod watch;

pub use console::Console;
pub use device::{Kind, VirtioDevice, Waits};
/// The backing of a block device, and why it cannot be opened.
pub use gasp_disk::{Backing, DiskError};
pub use queue::{ActiveQueue, Broken, Chain, SegmentError, Segments};
pub use transport::VirtioPci;
