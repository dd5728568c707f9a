//! Guests described by TOML files.
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
//!     grant-identity = [{ start = 0x10000, size = "64K", access = "r" }]
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
//! A table in double brackets can occur many times, once for each object; one in single
//! brackets at most once. An unknown key is an error, which suggests the nearest known one. A
//! file of more than 4 MiB is refused.
//!
//! **Bytes** are lengths, addresses and offsets: a number (`4096`, `0x1000`), or a string
//! of a number and one of the units K, M, G, T (`"16M"`, `"0x10K"`), which are powers of
//! 1024. Those of memory are multiples of 4 KiB and of the host's page size; those of
//! `[[mmio]]` and `[[reserve]]` can be any. **Names** have 1 to 128 bytes and no control
//! characters. **Access** is one or more of the letters r, w, x. **Paths** are relative to
//! the file's folder.
//!
//! A key without a default is required.
//!
//! ## `[guest]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `name` | name | `"guest"` | for reports |
//! | `address-width` | bits, 32 to 52 | 48 | width of its addresses; nothing may extend past it |
//! | `frame-broker` | path of a socket | none | the broker of [frame numbers](crate::broker::use_broker), or of tokens, if this process cannot read them itself |
//! | `allow-unpinned` | boolean | `false` | accept host-physical addresses that can change (decision 20) |
//!
//! ## `[drain]`
//! The wait of a revoke for mappings in use (decision 15).
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `deadline-ms` | milliseconds, 0 to 3,600,000 | 1000 | time until `at-deadline` applies |
//! | `at-deadline` | `"wait"` or `"detach"` | `"wait"` | continue to wait, with a warning; or complete the revoke, and leave the mapping its memory |
//!
//! ## `[iommu]`
//! This table, even if empty, gives the guest an IOMMU. Without it every device can access
//! all of RAM (decision 13), and `[[domain]]` is an error.
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `unattached` | `"deny"` or `"bypass"` | `"deny"` | access of a device in no domain: none, or everything (decision 14) |
//!
//! ## `[[ram]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start` | bytes | past the highest RAM so far | guest-physical address |
//! | `size` | bytes | | length |
//! | `backing` | list of `"1G"`, `"2M"`, `"thp"`, `"4K"` | all, in this order | kinds of pages to try; the first that the host has is used |
//! | `residency` | `"pinned"`, `"resident"` or `"on-demand"` | `"pinned"` | see [`Residency`](crate::Residency) |
//! | `pin` | list of `"io-uring"`, `"pipe"` | both, in this order | how to pin, if `residency` is `"pinned"`; see [`PinMethod`](crate::PinMethod) |
//! | `host-contiguous` | `"at least SIZE"` or `"if possible SIZE"` | no requirement | minimum length that every host-physical run must have, or should have; see [`Contiguity`](crate::Contiguity) |
//! | `exclusive` | boolean | `false` | whether the memory file is sealed, so that nobody who receives it can write to it or punch holes into it |
//! | `name` | name, no two the same | `ram` and a number | for reports |
//!
//! ## `[[rom]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start` | bytes | past the highest RAM or ROM so far | guest-physical address |
//! | `size` | bytes, at least the size of the image | the image's, rounded up to 4 KiB | length; zeros follow the image |
//! | `file` | path of a regular file, not empty | | the image |
//!
//! All RAM is placed before all ROM, each in the order of the file. "So far" is in this
//! order. Only RAM and ROM count: a region without `start` is not moved out of the way of
//! other regions.
//!
//! ## `[[reserve]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start`, `size` | bytes | | the guest-physical range that is kept free |
//!
//! ## `[[pass]]`
//! A window to memory or registers of the host.
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start`, `size` | bytes | | the guest-physical range |
//! | `host` | bytes | | host-physical address of the window; trusted, not checked |
//! | `path` | path of a file or character device | | the file to map: `/dev/mem`, a UIO or VFIO resource |
//! | `offset` | bytes | `host` for `/dev/mem`, else 0 | offset of the window in that file |
//! | `access` | access | `"rw"` | the access that it is opened with, and the most that it offers |
//!
//! ## `[[mmio]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start`, `size` | bytes | | the guest-physical range of the registers, without memory |
//! | `vdev` | name of a `[[vdev]]` | | the device that they belong to |
//!
//! No two regions, that is RAM, ROM, reserved ranges, windows and devices, may overlap.
//!
//! ## `[[domain]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `name` | name, no two the same | | |
//! | `kind` | `"bypass"`, `"deny"`, `"identity"` or `"translate"` | | see [`DomainKind`](crate::DomainKind) |
//! | `owner` | name | `"guest"` | the party that configures it; a device cannot move to a domain of another owner |
//! | `limit` | entries, 1 to 268,435,456 | 1,048,576 | see [`DomainOptions::limit`](crate::DomainOptions::limit) |
//! | `drain` | table as `[drain]` | as there | the wait of its revokes |
//! | `grant-identity` | list of grants, up to 65,536 | none | for the kind `identity` |
//! | `grant` | list of grants, up to 65,536 | none | for the kind `translate` |
//!
//! A grant of `grant-identity`:
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `start`, `size` | bytes, rounded outward to 4 KiB | | the guest-physical range, which has the same device addresses |
//! | `access` | access | | the access that is allowed |
//! | `hole` | boolean | `false` | whether the range may lack memory |
//!
//! A grant of `grant`:
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `device` | bytes | | device address of the range |
//! | `guest` | bytes, the last 12 bits as in `device` | | guest-physical address that it is translated to |
//! | `size` | bytes, rounded outward to 4 KiB | | length |
//! | `access` | access | | the access that is allowed |
//! | `hole` | boolean | `false` | whether the range may lack memory |
//!
//! Grants of one domain may overlap: the device has the access of all of them. Two grants
//! that translate one device address to different guest-physical addresses are an error.
//!
//! Without `hole = true` all of a grant must lead to RAM, ROM or a window: in a file, a
//! grant that leads elsewhere is most likely a mistake.
//!
//! ## `[[vdev]]`
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `name` | name, no two the same | | |
//! | `domain` | name of a `[[domain]]` | none: see `unattached` | the domain that it is attached to |

// From text to guest: `source` has the text and the lines of its values, `file` its tables, with
// the values of `size` and `words`; `planner` checks them (`check`, `layout` of regions, `grants`
// and `disjoint`) and returns a `plan`, from which `build` creates the guest.
mod build;
mod check;
mod disjoint;
mod error;
mod file;
mod grants;
mod layout;
pub(crate) mod near;
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

/// The description of a guest, parsed and checked; see the [module](self) for the format.
#[derive(Clone, Debug)]
pub struct Config {
    source: Source,
    plan: Plan,
}

impl Config {
    /// Reads a file. Paths in it are relative to its folder.
    ///
    /// Checks everything that can be checked without creating anything: values, names,
    /// overlaps, that grants lead to memory and do not contradict each other, that ROM images
    /// exist and fit.
    ///
    /// # Errors
    /// If the file cannot be read, is larger than 4 MiB, is not UTF-8 or is not valid; see
    /// [`ConfigError::errno`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::checked(Source::read(path)?)
    }

    /// Parses the text of a file, as [`load`](Self::load) does. `origin` is the path of the
    /// file for messages, and its parent the folder of relative paths.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn parse(text: &str, origin: &Path) -> Result<Self, ConfigError> {
        Self::checked(Source::new(text, origin)?)
    }

    /// Parses a text, as [`parse`](Self::parse) does, whose ROM images are part of the program
    /// as well: `images` has their bytes, by their name in the text (`file`). An image that is
    /// not in it is a file.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
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

    /// The names of the guest's devices, in the order of the file.
    pub fn vdevs(&self) -> impl Iterator<Item = &str> {
        self.plan.vdevs.iter().map(|vdev| vdev.name.as_str())
    }

    /// Creates the guest, with its memory, ROM images, windows, domains and grants, and with
    /// its devices attached. Calls `progress` while it creates RAM.
    ///
    /// # Errors
    /// If the host has less memory than the guest, or refuses some of it, a ROM image or a
    /// window; or if a domain's limit is exceeded. The error names the line that is refused,
    /// and its source is the engine's [`Error`](crate::Error), if there is one. Nothing of the
    /// guest is left then.
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
