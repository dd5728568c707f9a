//! The revoke protocol: synchronisation between a device that maps and a guest that revokes,
//! without a lock on the device's side.
//!
//! It deals with device addresses, not with memory. A slot is a *hazard pointer* that covers a
//! range: the mapping side publishes the range it is about to look up in a [`slot`] that only
//! its thread publishes in, and looks the range up *after* that. The revoking side removes the
//! range from the view, makes every other thread's earlier stores visible with one
//! [`barrier`](mod@barrier), membarrier(2), and reads the slots in a [`scan`](mod@scan). Either
//! the look-up fails, or the scan sees the slot.
//!
//! * [`slot`]: one mapping. [`block`]: how a scan skips slots that are free. [`directory`]:
//!   slots by number.
//! * [`lane`]: a thread's slots. [`sections`]: a thread's read-side critical sections, which
//!   [`section`] exports for front ends.
//! * [`holder`]: a mapping as the revoking side sees it.

mod barrier;
mod block;
mod directory;
mod holder;
mod lane;
mod scan;
mod section;
mod sections;
mod slot;

pub(crate) use barrier::{heavy, is_expedited, prepare};
pub(crate) use directory::{lane as lane_of, slot as slot_by_id};
pub(crate) use holder::{Holder, Key};
pub(crate) use lane::{Lane, SLOTS_MAX, is_looking_up, is_own, own};
pub(crate) use scan::scan;
pub use section::{Section, grace_period};
pub(crate) use slot::{Slot, Use};
