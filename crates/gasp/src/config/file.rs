//! The tables of the file: keys and types, without further checks.
//!
//! A value whose line an error can name is [`Spanned`].

use serde::Deserialize;
use toml::Spanned;

use super::machine::settings::{Action, LogLevel, LogTo};
use super::size::{Bytes, Contiguous, Number};
use super::words::{Letters, Named};
use crate::iommu::DomainKind;
use crate::iommu::Unattached;
use crate::mapping::Deadline;
use crate::memory::{Backing, PinMethod, Residency};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Document {
    #[serde(default)]
    pub(super) guest: GuestTable,
    #[serde(default)]
    pub(super) drain: DrainTable,
    pub(super) iommu: Option<IommuTable>,
    #[serde(default)]
    pub(super) ram: Vec<Spanned<RamTable>>,
    #[serde(default)]
    pub(super) rom: Vec<Spanned<RomTable>>,
    #[serde(default)]
    pub(super) load: Vec<Spanned<LoadTable>>,
    #[serde(default)]
    pub(super) reserve: Vec<Spanned<ReserveTable>>,
    #[serde(default)]
    pub(super) pass: Vec<Spanned<PassTable>>,
    #[serde(default)]
    pub(super) mmio: Vec<Spanned<MmioTable>>,
    #[serde(default)]
    pub(super) domain: Vec<Spanned<DomainTable>>,
    #[serde(default)]
    pub(super) vdev: Vec<Spanned<VdevTable>>,
    #[serde(default)]
    pub(super) machine: MachineTable,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct GuestTable {
    pub(super) name: Option<Spanned<String>>,
    pub(super) address_width: Option<Spanned<Number>>,
    #[serde(default)]
    pub(super) allow_unpinned: bool,
    pub(super) frame_broker: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DrainTable {
    pub(super) deadline_ms: Option<Spanned<Number>>,
    pub(super) at_deadline: Option<Named<Deadline>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct IommuTable {
    pub(super) unattached: Option<Named<Unattached>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RamTable {
    pub(super) start: Option<Spanned<Bytes>>,
    pub(super) size: Spanned<Bytes>,
    pub(super) backing: Option<Spanned<Vec<Named<Backing>>>>,
    pub(super) residency: Option<Named<Residency>>,
    pub(super) pin: Option<Vec<Named<PinMethod>>>,
    pub(super) host_contiguous: Option<Contiguous>,
    #[serde(default)]
    pub(super) exclusive: bool,
    pub(super) name: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RomTable {
    pub(super) start: Option<Spanned<Bytes>>,
    pub(super) size: Option<Spanned<Bytes>>,
    pub(super) file: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LoadTable {
    pub(super) address: Spanned<Bytes>,
    pub(super) file: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ReserveTable {
    pub(super) start: Spanned<Bytes>,
    pub(super) size: Spanned<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PassTable {
    pub(super) start: Spanned<Bytes>,
    pub(super) size: Spanned<Bytes>,
    pub(super) host: Spanned<Bytes>,
    pub(super) path: Spanned<String>,
    pub(super) offset: Option<Spanned<Bytes>>,
    pub(super) access: Option<Letters>,
    #[serde(default)]
    pub(super) ram: bool,
    #[serde(default)]
    pub(super) uncached: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MmioTable {
    pub(super) start: Spanned<Bytes>,
    pub(super) size: Spanned<Bytes>,
    pub(super) vdev: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DomainTable {
    pub(super) name: Spanned<String>,
    pub(super) kind: Spanned<Named<DomainKind>>,
    pub(super) owner: Option<Spanned<String>>,
    pub(super) limit: Option<Spanned<Number>>,
    pub(super) drain: Option<DrainTable>,
    pub(super) grant_identity: Option<Spanned<Vec<Spanned<GrantIdentityTable>>>>,
    pub(super) grant: Option<Spanned<Vec<Spanned<GrantTable>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct GrantIdentityTable {
    pub(super) start: Spanned<Bytes>,
    pub(super) size: Spanned<Bytes>,
    pub(super) access: Letters,
    #[serde(default)]
    pub(super) hole: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct GrantTable {
    pub(super) device: Spanned<Bytes>,
    pub(super) guest: Spanned<Bytes>,
    pub(super) size: Spanned<Bytes>,
    pub(super) access: Letters,
    #[serde(default)]
    pub(super) hole: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct VdevTable {
    pub(super) name: Spanned<String>,
    pub(super) domain: Option<Spanned<String>>,
    pub(super) r#type: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) loc: Vec<Spanned<String>>,
    pub(super) intr: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) log: Vec<Spanned<LogTable>>,
    /// Each an option's name, followed by its argument, if it takes one.
    #[serde(default)]
    pub(super) options: Vec<Spanned<String>>,
    /// The same as words, each with whether it is quoted, from a form that does not know which of
    /// them are arguments.
    #[serde(skip)]
    pub(super) words: Vec<(Spanned<String>, bool)>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MachineTable {
    pub(super) cpus: Option<Spanned<Number>>,
    pub(super) kernel: Option<Spanned<String>>,
    pub(super) kernel_address: Option<Spanned<Bytes>>,
    pub(super) initrd: Option<Spanned<String>>,
    pub(super) initrd_address: Option<Spanned<Bytes>>,
    pub(super) cmdline: Option<Spanned<String>>,
    pub(super) exit_on_halt: Option<bool>,
    #[serde(default)]
    pub(super) dry_run: bool,
    #[serde(default)]
    pub(super) unsupported: UnsupportedTable,
    #[serde(default)]
    pub(super) log: Vec<Spanned<LogTable>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct UnsupportedTable {
    pub(super) instruction: Option<Named<Action>>,
    pub(super) reference: Option<Named<Action>>,
    pub(super) register: Option<Named<Action>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LogTable {
    pub(super) levels: Vec<Named<LogLevel>>,
    pub(super) to: Named<LogTo>,
}
