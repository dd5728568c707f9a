//! The peers: other implementations, with the same set-up and addresses.

mod floor;
mod setup;
mod vm_memory;

pub(crate) use floor::{Floor, PerRequest};
pub(crate) use setup::{Addresses, Order, Setup, addresses, addresses_of, target};
pub(crate) use vm_memory::VmMemory;
