//! For programs in Rust that host virtual devices in C.
//!
//! Such a program creates the guest with the engine and lists it here; from then on the C functions
//! of its devices find it. Each device that the program hosts is listed as well, which gives it a
//! `vdev_t`.
//!
//! ```
//! use gasp_capi::embed::{ListedGuest, Space};
//! use gasp_capi::types::{GRF_VIRT_RD, GRF_VIRT_WR};
//!
//! let guest = ListedGuest::new(gasp::Guest::builder().build()?)?;
//! let trace = guest.list(&guest.engine().vdev("trace")?)?;
//! trace.add_registers(Space::Memory, 0xfa00_0000..=0xfa00_0fff, GRF_VIRT_RD | GRF_VIRT_WR, 7)?;
//! guest.start()?;
//!
//! // The guest accesses 0xfa000010: whose registers are there?
//! let region = guest.region_at(Space::Memory, 0xfa00_0010).unwrap();
//! assert_eq!((region.vdev, region.cookie), (trace.pointer(), 7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What C may do to what is listed here
//!
//! Nothing in C destroys such a guest or vdev: `gasp_guest_destroy` and `gasp_vdev_destroy` fail
//! with `EPERM`. A vdev may change the registers of its guest, its own and those of others, as
//! `<qvm/gasp.h>` allows it to.

mod error;
mod guest;
mod registers;
mod vdev;

pub use error::{Error, call};
pub use guest::{ListedGuest, engine_of};
pub use vdev::{ListedVdev, VDEV_BYTES, vdev_of};

pub use crate::lock::Space;
pub use crate::regions::RegionAt;
