//! The arguments of `gasp vm`.

use std::path::PathBuf;

use crate::quantity::parse_some_length;

/// Arguments of `gasp vm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Configuration file in TOML or in the language of qvm; or several words: options of that
    /// language, as in `ram 512M load vmlinux`
    #[arg(value_name = "FILE")]
    pub(crate) words: Vec<String>,
    /// Kernel: a bzImage or an ELF vmlinux
    #[arg(long, value_name = "FILE", required_unless_present = "words", conflicts_with = "words")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial RAM disk of a Linux kernel
    #[arg(long, value_name = "FILE", conflicts_with = "words")]
    pub(crate) initrd: Option<PathBuf>,
    /// Command line of the kernel
    #[arg(long, value_name = "TEXT", default_value = "console=ttyS0", conflicts_with = "words")]
    pub(crate) cmdline: String,
    /// Size of the guest's RAM, allocated as the guest uses it
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_some_length)]
    #[arg(conflicts_with = "words")]
    pub(crate) ram: u64,
    /// Virtual processors, 1 to 255
    #[arg(long, value_name = "NUMBER", default_value = "1", conflicts_with = "words")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=255))]
    pub(crate) cpus: u32,
    /// A disk, described below; can be repeated
    #[arg(long, value_name = "[KIND:]PATH[,readonly]", conflicts_with = "words")]
    pub(crate) disk: Vec<String>,
    /// A network device, described below; can be repeated
    #[arg(long, value_name = "PORT", conflicts_with = "words")]
    pub(crate) net: Vec<String>,
    /// A source of random numbers
    #[arg(long, conflicts_with = "words")]
    pub(crate) rng: bool,
    /// The guest's IOMMU: vtd or off; by default vtd if there are disks
    #[arg(long, value_name = "KIND", hide_possible_values = true, conflicts_with = "words")]
    pub(crate) iommu: Option<IommuArg>,
    /// A folder to search for vdevs in C, vdev-NAME.so, before those of the dynamic loader; can be
    /// repeated
    #[arg(long, value_name = "FOLDER")]
    pub(crate) vdev_path: Vec<PathBuf>,
    /// What a reset of the guest does: restart or end
    #[arg(long, value_name = "WHAT", default_value = "restart", hide_possible_values = true)]
    pub(crate) reset: ResetArg,
    /// The KVM device
    #[arg(long, value_name = "PATH", default_value = "/dev/kvm")]
    pub(crate) kvm: String,
    /// Answer gasp status and gasp layout --vm at a socket, for this user alone
    #[arg(long, value_name = "SOCKET")]
    pub(crate) status: Option<PathBuf>,
    /// Write events as JSON to a file, with the fields listed below
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The values of `--iommu`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum IommuArg {
    /// An emulated VT-d, which the guest's driver has to enable
    Vtd,
    /// None: devices reach all of the guest's memory
    Off,
}

/// The values of `--reset`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum ResetArg {
    /// The guest starts anew
    Restart,
    /// The command ends
    End,
}
