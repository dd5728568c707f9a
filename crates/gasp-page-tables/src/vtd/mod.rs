//! Intel VT-d: second-level (second-stage) tables, in legacy mode.
//!
//! [`SecondLevel`] is the translator of a domain; [`walk`] is one walk, over any memory. What leads
//! to the tables, root and context entries, is read by the owner of the translator, who tells it
//! the outcome ([`SecondLevel::set_table`]).
//!
//! At each level, in this order:
//!
//! | the entry | fault |
//! |---|---|
//! | cannot be read: no system RAM is there | [`TableInaccessible`](Fault::TableInaccessible), 7h |
//! | does not allow what is requested, or nothing at all | [`WriteDenied`](Fault::WriteDenied), 5h, or else [`ReadDenied`](Fault::ReadDenied), 6h |
//! | has a reserved bit that is set | [`Reserved`](Fault::Reserved), Ch |
//!
//! An address that is wider than the tables is refused before, with
//! [`BeyondWidth`](Fault::BeyondWidth), 4h. The order of permission and reserved bits is that of the
//! specification's list of fault conditions.
//!
//! Reserved are: the address bits from the host address width on; the address bits of a large page
//! that are inside it; bit 7 where there can be no large page; bit 11, except in the leaf of a unit
//! with snoop control; bit 62, except in the leaf of a unit with device-TLBs.
//!
//! A fetch of instructions ([`Access::EXEC`](gasp::Access::EXEC)) is a read: legacy mode knows no
//! other, and ignores the bit of the entries that would allow it. Accessed and dirty bits are not
//! set: units have them in scalable mode only.
//!
//! No refusal is kept ([`keep`](gasp::TranslationFault::keep)): without caching mode a guest does
//! not say when it makes an address valid.

mod capabilities;
mod fault;
mod levels;
mod second_level;
mod walk;

pub use capabilities::Capabilities;
pub use fault::Fault;
pub use levels::{Levels, Table};
pub use second_level::SecondLevel;
pub use walk::walk;
