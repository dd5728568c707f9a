//! Virtio over PCI (virtio 1.2, 4.1).

mod engine;
mod function;
mod interrupt;
mod layout;
mod registers;
mod status;

pub use function::VirtioPci;
