//! A real QEMU and a real Linux guest, for tests.
//!
//! Everything comes from Debian's packages, through the machine's package manager, into a
//! folder that git ignores: nothing is installed, no privilege is needed, and the second run
//! uses what the first has fetched. QEMU emulates the processor in software, so the machine
//! needs no hardware virtualisation.
//!
//! ```no_run
//! use std::time::Duration;
//! use gasp_testbed::{Initramfs, Testbed, Vm};
//!
//! let testbed = Testbed::obtain()?; // or the reason to skip the test, visibly
//! let initramfs = Initramfs::new(&testbed).script("uname -r; echo ready; nproc");
//! let vm = Vm::linux(&testbed, initramfs).memory(128 << 20).start()?;
//! println!("after {:?}", vm.wait_for("ready", Duration::from_secs(60))?.at);
//! vm.finish(Duration::from_secs(60))?; // an error if the script failed
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | | |
//! |---|---|
//! | [`Testbed`], [`Unavailable`] | what is fetched, from where, and why it is unavailable |
//! | [`Initramfs`] | busybox, modules in load order, the test's files and script |
//! | [`Vm`] | a running guest: its console, its end, its whole-run timeout |
//! | [`qtest`] | QEMU without a guest: the test drives devices and the IOMMU itself |
//!
//! No QEMU outlives its test: dropping the handle kills it, a watcher kills it at its
//! deadline, and the kernel kills it when the test's process dies in any other way.

mod console;
mod error;
mod fetch;
mod initramfs;
mod machine;
mod process;
pub mod qtest;
mod testbed;
mod unavailable;
mod vm;

pub use console::Line;
pub use error::{Error, Result};
pub use initramfs::Initramfs;
pub use testbed::{Testbed, Versions};
pub use unavailable::Unavailable;
pub use vm::{Vm, VmBuilder};
