//! Encoding and decoding of messages: the header, fields in the host's byte order, and the
//! layout of each command.
//!
//! No input is trusted: a missing field is a [`Refused`], never a panic, and no length from
//! outside is used before it has been compared with what was received.

pub(crate) mod command;
mod fields;
mod header;
mod messages;
mod refused;
pub(crate) mod version;

pub(crate) use fields::{Fields, Reply};
pub(crate) use header::Header;
pub(crate) use messages::{
    Bitmap, DeviceInfo, DmaMap, DmaUnmap, IrqInfo, IrqSet, RegionAccess, RegionInfo, SparseMmap,
    WRITE_MULTI_ENTRY,
};
pub(crate) use refused::Refused;
