//! A guest from a TOML file.
//!
//! ```
//! use std::path::Path;
//! use gasp::config::Config;
//! use gasp::{DeviceAddr, MapFlags};
//!
//! let text = r#"
//!     [guest]
//!     name = "demo"
//!
//!     [iommu]
//!
//!     [[ram]]
//!     size = "4M"
//!
//!     [[domain]]
//!     name = "disk"
//!     kind = "identity"
//!     allow = [{ start = 0x10000, size = "64K", access = "r" }]
//!
//!     [[vdev]]
//!     name = "disk"
//!     domain = "disk"
//! "#;
//! let guest = Config::parse(text, Path::new("demo.toml"))?.build(None)?;
//! let disk = guest.find_vdev("disk").ok_or("no disk")?;
//! assert!(disk.map(DeviceAddr(0x10000), 512, MapFlags::READ).is_ok());
//! assert!(disk.map(DeviceAddr(0x20000), 512, MapFlags::READ).is_err());
//!
//! let error = Config::parse("[[ram]]\nsize = 0", Path::new("demo.toml")).unwrap_err();
//! assert_eq!(error.to_string(), "demo.toml:2: ram.size: expected more than 0 bytes");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The file
//!
//! A table in double brackets can be there many times, once for each thing; one in single
//! brackets at most once. An unknown key is an error that names the near one, and so is a
//! file larger than 4 MiB.
//!
//! **Bytes** are lengths, addresses and offsets: a number (`4096`, `0x1000`), or a text
//! of a number and one of the units K, M, G, T (`"16M"`, `"0x10K"`), which are powers of
//! 1024. Those of memory are multiples of 4 KiB and of the host's page size; those of
//! `[[mmio]]` and `[[reserve]]` can be any. **Names** are 1 to 128 bytes without control characters. **Access** is one
//! or more of the letters r, w, x. **Paths** are relative to the file's folder.
//!
//! A key without a default must be there.
//!
//! ## `[guest]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `name` | name | `"guest"` | for reports |
//! | `address-width` | bits, 32 to 52 | 48 | how long its addresses are; nothing may pass it |
//! | `frame-broker` | path of a socket | none | who is asked for [frame numbers](crate::broker::use_broker), or tokens, where this process is not told them |
//! | `allow-unpinned` | boolean | `false` | accept host-physical addresses that can change (decision 20) |
//!
//! ## `[drain]`
//! How a revoke waits for mappings that are held (decision 15).
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `deadline-ms` | milliseconds, 0 to 3,600,000 | 1000 | how long before `at-deadline` is done |
//! | `at-deadline` | `"wait"` or `"detach"` | `"wait"` | wait on, with a warning; or go on without the device |
//!
//! ## `[iommu]`
//! Its presence gives the guest an IOMMU. Without it every device reaches all of RAM
//! (decision 13), and there can be no `[[domain]]`.
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `unattached` | `"deny"` or `"bypass"` | `"deny"` | what becomes of a device in no domain (decision 14) |
//!
//! ## `[[ram]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start` | bytes | behind the highest RAM so far | where in the guest |
//! | `size` | bytes | | how much |
//! | `backing` | list of `"1G"`, `"2M"`, `"thp"`, `"4K"` | all, in this order | pages to try; the first that the host has are taken |
//! | `residency` | `"pinned"`, `"resident"` or `"on-demand"` | `"pinned"` | see [`Residency`](crate::Residency) |
//! | `pin` | list of `"io-uring"`, `"pipe"` | both, in this order | how to pin, where `residency` says so; see [`PinMethod`](crate::PinMethod) |
//! | `host-contiguous` | `"at least SIZE"` or `"if possible SIZE"` | as it comes | how long every host-physical run must be, or should be; see [`Contiguity`](crate::Contiguity) |
//! | `exclusive` | boolean | `false` | whether nobody who is given the file may write to it or punch holes into it |
//! | `name` | name, no two the same | `ram` and a number | for reports |
//!
//! ## `[[rom]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start` | bytes | behind the highest RAM or ROM so far | where in the guest |
//! | `size` | bytes, at least those of the file | the file's, rounded up to 4 KiB | how much; zeros are behind the image |
//! | `file` | path of a regular file, not empty | | the image |
//!
//! All RAM is placed before all ROM, each in the order of the file. "So far" is in this
//! order; only RAM and ROM count, and what is placed without `start` is not moved out of
//! the way of anything else.
//!
//! ## `[[reserve]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start`, `size` | bytes | | the addresses that are kept free |
//!
//! ## `[[pass]]`
//! A window to memory or registers of the host.
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start`, `size` | bytes | | where in the guest, and how much |
//! | `host` | bytes | | the host-physical address; believed, not checked |
//! | `path` | path of a file or character device | | what gives access: `/dev/mem`, a UIO or VFIO resource |
//! | `offset` | bytes | `host` for `/dev/mem`, else 0 | where in that it is |
//! | `access` | access | `"rw"` | how it is opened, and all it offers |
//!
//! ## `[[mmio]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start`, `size` | bytes | | the addresses of the registers; no memory is there |
//! | `vdev` | name of a `[[vdev]]` | | whose they are |
//!
//! No two regions, that is RAM, ROM, reserved ranges, windows and devices, may overlap.
//!
//! ## `[[domain]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `name` | name, no two the same | | |
//! | `kind` | `"bypass"`, `"deny"`, `"identity"` or `"translate"` | | see [`DomainKind`](crate::DomainKind) |
//! | `owner` | name | `"guest"` | who configures it: a device cannot move to another owner's domain |
//! | `limit` | entries, 1 to 268,435,456 | 1,048,576 | see [`DomainOptions::limit`](crate::DomainOptions::limit) |
//! | `drain` | table as `[drain]` | as there | how its revokes wait |
//! | `allow` | list of grants, up to 65,536 | none | for the kind `identity` |
//! | `map` | list of grants, up to 65,536 | none | for the kind `translate` |
//!
//! A grant of `allow`:
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start`, `size` | bytes, rounded outward to 4 KiB | | guest memory, at the same device addresses |
//! | `access` | access | | what is allowed |
//! | `hole` | boolean | `false` | whether there need not be memory |
//!
//! A grant of `map`:
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `device` | bytes | | the device addresses |
//! | `guest` | bytes, the last 12 bits as in `device` | | where they lead in the guest |
//! | `size` | bytes, rounded outward to 4 KiB | | how many |
//! | `access` | access | | what is allowed |
//! | `hole` | boolean | `false` | whether there need not be memory |
//!
//! Grants of one domain may overlap: what they allow adds up. Two that lead one device
//! address to different places are an error.
//!
//! Without `hole = true` a grant must lead to RAM, ROM or a window from its first to its
//! last byte: in a file, a grant that leads elsewhere is most likely a slip.
//!
//! ## `[[vdev]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `name` | name, no two the same | | |
//! | `domain` | name of a `[[domain]]` | none: see `unattached` | where it is attached |

mod build;
mod check;
mod disjoint;
mod error;
mod file;
mod grants;
mod layout;
pub mod near;
mod plan;
mod planner;
mod size;
mod source;
mod words;

use std::path::Path;

pub use error::ConfigError;

use crate::guest::Guest;
use crate::memory::RamProgress;
use plan::Plan;
use source::Source;

/// A guest as a file describes it, parsed and checked; see the [module](self) for the
/// format.
#[derive(Clone, Debug)]
pub struct Config {
    source: Source,
    plan: Plan,
}

impl Config {
    /// Reads a file. Relative paths in it are relative to its folder.
    ///
    /// Everything is checked that can be without making anything: values, names,
    /// overlaps, that grants lead to memory and do not contradict each other, and that ROM images are there and fit.
    ///
    /// # Errors
    /// Where the file cannot be read, is larger than 4 MiB, is not UTF-8 or is wrong:
    /// see [`ConfigError::errno`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::checked(Source::read(path)?)
    }

    /// As [`load`](Self::load), of a text that was read already. `origin` is the file's
    /// name for messages, and its parent the folder of relative paths.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, origin: &Path) -> Result<Self, ConfigError> {
        Self::checked(Source::new(text, origin)?)
    }

    /// As [`parse`](Self::parse), of a text whose ROM images are in the program, too: bytes
    /// by the name that the text gives as `file`. Any other is a file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn included(
        text: &str,
        origin: &Path,
        images: &'static [(&'static str, &'static [u8])],
    ) -> Result<Self, ConfigError> {
        Self::checked(Source::new(text, origin)?.with_images(images))
    }

    /// The guest's name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// The names of its devices, in the order of the file.
    pub fn vdevs(&self) -> impl Iterator<Item = &str> {
        self.plan.vdevs.iter().map(|vdev| vdev.name.as_str())
    }

    /// Makes the guest: with its memory, filled with the ROM images, its windows, domains
    /// and grants, and its devices attached. `progress` is told how far RAM has come.
    ///
    /// # Errors
    /// Where the host has less memory than the guest, or refuses some of it, a ROM image
    /// or a window; where a domain's limit is passed. The error names the line that asked for it, and its source is the engine's
    /// [`Error`](crate::Error) where there is one. Nothing is left behind.
    pub fn build(
        &self,
        progress: Option<&mut dyn FnMut(RamProgress)>,
    ) -> Result<Guest, ConfigError> {
        build::build(&self.source, &self.plan, progress)
    }

    fn checked(source: Source) -> Result<Self, ConfigError> {
        let plan = Plan::new(&source, source.parse()?)?;
        Ok(Self { source, plan })
    }
}
