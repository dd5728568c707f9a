//! A VM as it is requested, whether by arguments or by a configuration.

use std::path::PathBuf;

use gasp::config::Config;
use gasp_qvm::Loader;
use gasp_vm::pci::Bdf;

use super::args::{Args, IommuArg};
use super::kind::{Kind, disk, net};
use super::origin::Origin;
use super::places::Places;
use super::vdevs::plan::VdevPlan;
use crate::failure::Failure;

/// The name of a guest that has none.
const NAME: &str = "guest";

/// A VM.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) memory: Memory,
    pub(super) kernel: PathBuf,
    pub(super) initrd: Option<PathBuf>,
    pub(super) cmdline: String,
    pub(super) cpus: u32,
    /// Whether the devices are behind an emulated VT-d.
    pub(super) iommu: bool,
    /// In the order in which they are attached.
    pub(super) devices: Vec<DevicePlan>,
    /// Vdevs in C that are not on the PCI bus, in the order of the configuration.
    pub(super) vdevs: Vec<VdevPlan>,
    /// Whether it is only checked.
    pub(super) dry_run: bool,
}

/// The memory of a VM.
#[derive(Debug)]
pub(super) enum Memory {
    /// So many bytes of RAM.
    Ram(u64),
    /// That of a configuration.
    Config(Box<Config>),
}

/// A PCI device.
#[derive(Debug)]
pub(super) struct DevicePlan {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) at: Bdf,
    pub(super) origin: Origin,
}

impl Plan {
    /// The VM that the arguments describe.
    pub(super) fn of(args: &Args) -> Result<Self, Failure> {
        let loader = Loader::new(args.vdev_path.clone());
        match &*args.words {
            [] => Self::of_arguments(args),
            [file] => Self::of_config(file, Config::load(file.as_ref())?, &loader),
            words => Self::of_config("command line", Config::from_arguments(words)?, &loader),
        }
    }

    fn of_arguments(args: &Args) -> Result<Self, Failure> {
        let mut found = Vec::new();
        for text in &args.disk {
            let origin = Origin::Argument(format!("--disk {text}"));
            let kind = disk(text).map_err(|message| origin.wrong(&message))?;
            found.push((kind, origin));
        }
        for text in &args.net {
            let origin = Origin::Argument(format!("--net {text}"));
            let kind = net(text).map_err(|message| origin.wrong(&message))?;
            found.push((kind, origin));
        }
        if args.rng {
            found.push((Kind::Entropy, Origin::Argument("--rng".into())));
        }
        let mut places = Places::default();
        let mut devices: Vec<DevicePlan> = Vec::new();
        for (kind, origin) in found {
            let number = devices.iter().filter(|device| device.kind.name() == kind.name()).count();
            let name = format!("{}{number}", kind.name());
            let at = places.any(&name, &origin)?;
            devices.push(DevicePlan { name, kind, at, origin });
        }
        let kernel = args.kernel.clone().ok_or_else(|| Failure::Usage("no kernel".into()))?;
        let iommu = match args.iommu {
            None => !args.disk.is_empty(),
            Some(kind) => kind == IommuArg::Vtd,
        };
        Ok(Self {
            name: NAME.into(),
            memory: Memory::Ram(args.ram),
            kernel,
            initrd: args.initrd.clone(),
            cmdline: args.cmdline.clone(),
            cpus: args.cpus,
            iommu,
            devices,
            vdevs: Vec::new(),
            dry_run: false,
        })
    }
}
