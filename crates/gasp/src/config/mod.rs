//! Guests described by files, in TOML or in the configuration language of qvm.
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
//! # The two forms
//!
//! A file whose name ends in `.qvmconf`, or is given with a leading `@`, is in the publicly
//! documented configuration language of qvm: options such as `ram 1G` and `vdev virtio-blk`.
//! `docs/configuration.md` in the source tree says what is supported. A file whose name ends in
//! `.toml` is in TOML, with the tables below. In any other file the first line that is not a
//! comment decides.
//!
//! Both describe the same guests: memory ([`Config::build`]), and the machine that a VMM makes of
//! it ([`Config::machine`]). Only TOML has the keys that the engine has beyond the language: how
//! RAM is backed and pinned, domains and their grants.
//!
//! # The file in TOML
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
//! | `residency` | `"pinned"`, `"resident"` or `"on-demand"` | `"pinned"` | see [`Residency`] |
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
//! | `file` | path of a regular file, not empty | none, if there is a `size` | the image |
//!
//! All RAM is placed before all ROM, each in the order of the file. "So far" is in this
//! order. Only RAM and ROM count: a region without `start` is not moved out of the way of
//! other regions.
//!
//! ## `[[load]]`
//! A file that is copied into RAM or ROM when the guest is created, in the order of the file.
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `address` | bytes | | guest-physical address of its first byte |
//! | `file` | path of a regular file, not empty | | the file; all of it must be in RAM and ROM |
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
//! | `ram` | boolean | `false` | system RAM to the guest, which every map accepts, and not only one that [accepts any memory](crate::MapFlags::any) |
//! | `uncached` | boolean | `false` | opened with `O_SYNC`, by which `/dev/mem` maps it uncached |
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
//! | `type` | name | none | its kind, for a VMM: see [`DeviceConfig`]. Without a type it is only a name under which a program maps, and has none of the keys below |
//! | `loc` | list of [locations](Location) | none | where it is in the guest: `"mem:0xfa000000"`, `"io:0x3f8"`, `"pci:0:3.0"` |
//! | `intr` | [interrupt](Interrupt) | none | its interrupt: `"ioapic:4"`. A controller that is a device must be before it in the file |
//! | `options` | list of strings | none | options of its type: a name, and an argument after a space (`"hostdev disk.img"`) |
//! | `log` | list of tables as in `[machine]` | none | where its messages are written |
//!
//! A device of the type `iommu` gives a guest without an `[iommu]` table an IOMMU that devices in
//! no domain bypass: as on hardware, until the guest's driver enables it.
//!
//! ## `[machine]`
//! What a VMM needs beside memory and devices. Nothing of it matters to [`Config::build`].
//!
//! | key | type | default | meaning |
//! |---|---|---|---|
//! | `cpus` | number, 1 to 255 | 1 | virtual processors |
//! | `kernel` | path | none | the image that is started |
//! | `initrd` | path | none | the initial RAM disk of a Linux kernel |
//! | `kernel-address`, `initrd-address` | bytes | the image's, or the loader's choice | where they are loaded |
//! | `cmdline` | string | none | the kernel's command line |
//! | `exit-on-halt` | boolean | `true` | whether a processor that halts leaves the guest |
//! | `unsupported` | table with `instruction`, `reference`, `register`, each `"abort"`, `"fail"` or `"ignore"` | fail, ignore, fail | what happens on accesses that nothing handles: see [`Unsupported`] |
//! | `log` | list of tables with `levels` (of `"fatal"`, `"internal"`, `"error"`, `"warning"`, `"info"`, `"debug"`, `"verbose"`) and `to` (`"stdout"`, `"stderr"` or `"none"`) | none | where messages are written |
//! | `dry-run` | boolean | `false` | check the machine, and do not start it |

// From text to guest: `source` has the texts and the lines of their values, in a `form`. `file` has
// the tables of a TOML file, with the values of `size` and `words`; `qvm` makes the same tables of
// options. `planner` checks them (`check`, `layout` of regions, `loads`, `machine`, `grants` and
// `disjoint`) and returns a `plan`, from which `build` creates the guest.
mod build;
mod check;
mod disjoint;
mod error;
mod file;
mod form;
mod grants;
mod layout;
mod loads;
mod machine;
mod memory;
pub(crate) mod near;
mod plan;
mod planner;
mod qvm;
mod size;
mod source;
mod words;

use std::path::Path;

pub use error::ConfigError;
pub use machine::{
    Action, DeviceConfig, DeviceOption, ImageConfig, Interrupt, Location, LogConfig, LogLevel,
    LogTo, MachineConfig, Place, Unsupported, Word,
};

use crate::guest::Guest;
use crate::memory::{RamProgress, Residency};
use form::Form;
use plan::Plan;
use source::Source;

/// The description of a guest, parsed and checked; see the [module](self) for the formats.
#[derive(Clone, Debug)]
pub struct Config {
    source: Source,
    plan: Plan,
    residency: Residency,
}

impl Config {
    /// Reads a file, and those that it includes. Paths in a file are relative to its folder.
    ///
    /// Checks everything that can be checked without creating anything: values, names,
    /// overlaps, that grants lead to memory and do not contradict each other, that ROM images
    /// exist and fit.
    ///
    /// # Errors
    /// If a file cannot be read, is not UTF-8 or is not valid, or if all are larger than 4 MiB
    /// together; see [`ConfigError::errno`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::checked(Source::read(path)?, path)
    }

    /// Parses the text of a file, as [`load`](Self::load) does. `origin` is the path of the
    /// file for messages, decides the form by its extension, and its parent is the folder of
    /// relative paths.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn parse(text: &str, origin: &Path) -> Result<Self, ConfigError> {
        Self::checked(Source::new(text, origin)?, origin)
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
        Self::checked(Source::new(text, origin)?.with_images(images), origin)
    }

    /// Reads the arguments of a command line, as `qvm` has them: options of the qvm language, each
    /// word an argument, and files as `@guest.qvmconf`. Paths in arguments are relative to the
    /// current folder. Errors name the number of the argument as the line.
    ///
    /// ```
    /// use gasp::config::Config;
    /// let config = Config::from_arguments(["system", "demo", "ram", "16M", "cpu", "cpu"])?;
    /// assert_eq!((config.name(), config.machine().cpus), ("demo", 2));
    ///
    /// let error = Config::from_arguments(["ram", "16Q"]).unwrap_err();
    /// assert!(error.to_string().starts_with("command line:2: ram: expected bytes"));
    /// # Ok::<(), gasp::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn from_arguments<T: Into<String>>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let arguments: Vec<String> = arguments.into_iter().map(Into::into).collect();
        let mut source = Source::empty(Form::Qvm);
        let document = qvm::arguments(&mut source, &arguments)?;
        let plan = Plan::new(&source, document)?;
        Ok(Self { source, plan, residency: Residency::default() })
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
        build::build(&self.source, &self.plan, self.residency, progress)
    }

    /// Sets how RAM is held whose text does not say it; [`Residency::Pinned`] by default.
    #[must_use]
    pub fn default_residency(self, residency: Residency) -> Self {
        Self { residency, ..self }
    }

    /// The machine that the configuration describes, beside its memory.
    pub fn machine(&self) -> &MachineConfig {
        &self.plan.machine
    }

    fn checked(mut source: Source, path: &Path) -> Result<Self, ConfigError> {
        let document = match source.form() {
            Form::Toml => source.parse()?,
            Form::Qvm => qvm::document(&mut source, path)?,
        };
        let plan = Plan::new(&source, document)?;
        Ok(Self { source, plan, residency: Residency::default() })
    }
}
