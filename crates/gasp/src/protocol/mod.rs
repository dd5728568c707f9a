//! The revoke protocol: how a device that maps and a guest that revokes agree, without a lock
//! on the device's side.
//!
//! It knows device addresses, and no memory. The mapping side publishes what it is about to
//! look up in a [`slot`] that only its thread writes, and looks the range up *after* that; the
//! revoking side takes the range out of the view, makes every other thread's earlier stores
//! visible with one [`barrier`](mod@barrier), membarrier(2), and reads the slots in a
//! [`scan`](mod@scan). Either the look-up fails, or the slot is seen.
//!
//! * [`slot`]: one mapping; [`block`]: how a scan passes over slots that are free;
//!   [`directory`]: slots by number.
//! * [`lane`]: a thread's slots. [`sections`]: its other uses of what it has not mapped, which
//!   [`section`] gives to front ends.
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
