//! A virtual machine on KVM, in one process, as parts that a program puts together.
//!
//! Guest memory is [`gasp`]'s: RAM, ROM and pass-through windows of a [`gasp::Guest`] are KVM's
//! memory slots, so the vCPUs and the virtual devices see one guest, which is described once. This
//! crate adds the processors, the buses on which they reach devices, and what a kernel needs to
//! start.
//!
//! | | |
//! |---|---|
//! | [`Machine`], [`MachineBuilder`], [`Interrupts`] | the VM: memory slots, interrupt controllers |
//! | [`layout`] | where RAM is: the hole below 4 GiB |
//! | [`Vcpu`], [`Running`], [`Ending`], [`End`], [`Exits`] | processors, a thread each; why the VM has ended |
//! | [`Bus`], [`BusDevice`] | ports, and registers at memory addresses |
//! | [`serial`], [`RawTerminal`] | the console: a 16550, and the terminal that it is shown on |
//! | [`boot`] | a kernel, its command line, initrd and memory map |
//! | [`acpi`], [`PowerButton`] | the tables that Linux finds it all by; power-off, reset, the power button |
//! | [`pci`] | a PCI bus with devices of [`gasp_vdev`] |
//! | [`Iommu`] | the guest's own IOMMU, which the devices are behind |
//! | [`Line`], [`LevelLine`], [`MessageSender`], [`Doorbell`] | interrupts by irqfd, by level, by message; doorbells by ioeventfd |
//!
//! # Signals
//!
//! A vCPU is interrupted by SIGRTMIN, which is sent to its thread and blocked there: no handler is
//! installed, and no other thread sees it.
//!
//! On other systems than Linux on x86-64 this crate is empty.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

pub mod acpi;
pub mod boot;
mod bus;
mod controllers;
mod cpuid;
mod ending;
mod error;
mod event;
mod eventfd;
mod exit;
mod exits;
mod gate;
mod inner;
mod iommu;
mod kick;
pub mod layout;
mod machine;
pub mod pci;
mod power;
mod routes;
mod running;
pub mod serial;
mod slots;
mod terminal;
mod vcpu;

pub use bus::{Bus, BusDevice, BusError};
pub use controllers::{Interrupts, LINES};
pub use ending::{End, Ending, Failure};
pub use error::MachineError;
pub use event::{Doorbell, DoorbellAddr, LevelLine, Line, Rings};
pub use exits::Exits;
pub use iommu::Iommu;
pub use machine::{Machine, MachineBuilder};
pub use power::PowerButton;
pub use routes::{Message, MessageSender};
pub use running::Running;
pub use terminal::RawTerminal;
pub use vcpu::Vcpu;
