//! A VM from a configuration: the devices by their types, and what is not supported by name.

use std::path::Path;

use gasp::Residency;
use gasp::config::{Config, DeviceConfig, Location, Place, Unsupported};
use gasp_qvm::Loader;
use gasp_virtio::block;
use gasp_vm::layout;

use super::kind::{Kind, PortPlan, backing, sockets};
use super::origin::Origin;
use super::places::Places;
use super::plan::{DevicePlan, Memory, Plan};
use super::vdevs::plan::VdevPlan;
use crate::failure::Failure;

/// The port and the line of the serial port, which every VM has.
const SERIAL_PORT: u64 = 0x3f8;
const SERIAL_LINE: u32 = 4;
const LINES: &str = "ioapic";

/// The types of devices.
const TYPES: &str = "nvme, virtio-blk, virtio-net, virtio-console, virtio-entropy, ser8250, iommu";

impl Plan {
    /// The VM that a configuration describes; `file` is its path, for errors.
    pub(super) fn of_config(file: &str, config: Config, loader: &Loader) -> Result<Self, Failure> {
        let machine = config.machine();
        let wrong = |message: &str| Err(Failure::Usage(format!("{file}: {message}")));
        let Some(kernel) = &machine.kernel else {
            return wrong("there is no kernel; add `load FILE`, or `kernel` in [machine]");
        };
        for image in [Some(kernel), machine.initrd.as_ref()].into_iter().flatten() {
            if image.address.is_some() {
                let message = "the address is that of the boot protocol; leave it out";
                return Err(image.place.error(message).into());
            }
        }
        if machine.unsupported != Unsupported::default() {
            return wrong("`unsupported`: only its defaults are supported; leave it out");
        }
        if !machine.exit_on_halt {
            return wrong("`exit-on-halt`: a processor that halts always leaves the guest");
        }
        if !machine.logs.is_empty() {
            tracing::warn!("{file}: `logger`: messages go to stderr, as chosen by -v and RUST_LOG");
        }
        let mut plan = Self {
            name: config.name().into(),
            memory: Memory::Ram(0),
            kernel: kernel.path.clone(),
            initrd: machine.initrd.as_ref().map(|image| image.path.clone()),
            cmdline: machine.cmdline.clone().unwrap_or_default(),
            cpus: machine.cpus,
            iommu: false,
            devices: Vec::new(),
            vdevs: Vec::new(),
            dry_run: machine.dry_run,
        };
        plan.add(&machine.devices, loader)?;
        plan.memory = Memory::Config(Box::new(config.default_residency(Residency::OnDemand)));
        Ok(plan)
    }

    fn add(&mut self, devices: &[DeviceConfig], loader: &Loader) -> Result<(), Failure> {
        let mut places = Places::default();
        let (mut pci, mut serial): (Vec<(&DeviceConfig, Kind)>, Option<&DeviceConfig>) =
            (Vec::new(), None);
        let mut iommu: Option<&DeviceConfig> = None;
        for device in devices {
            if !device.logs.is_empty() {
                let message = "`log` of a device is not supported; use -v or RUST_LOG";
                return Err(device.place.error(message).into());
            }
            let only = |other: &mut Option<&DeviceConfig>| match other {
                Some(first) => {
                    let message = format!("there is one `{}` ({})", device.kind, first.place);
                    Err(Failure::from(device.place.error(&message)))
                }
                None => Ok(()),
            };
            match device.kind.as_str() {
                "ser8250" => {
                    only(&mut serial)?;
                    check_serial(device)?;
                    serial = Some(device);
                }
                DeviceConfig::IOMMU => {
                    only(&mut iommu)?;
                    check_iommu(device)?;
                    iommu = Some(device);
                }
                _ => match kind(device)? {
                    Some(kind) => pci.push((device, kind)),
                    None => match VdevPlan::of(device, loader, TYPES)? {
                        plan if plan.is_pci() => {
                            check_no_interrupt(device)?;
                            pci.push((device, Kind::Vdev(Box::new(plan))));
                        }
                        plan => self.vdevs.push(plan),
                    },
                },
            }
        }
        self.iommu = iommu.is_some();
        // Those that want a place come first.
        let mut placed = Vec::new();
        for (device, kind) in pci {
            let origin = Origin::Place(device.place.clone());
            let at = match &*device.locations {
                [] => None,
                [location] => Some(places.take(location, &device.name, &origin)?),
                _ => return Err(origin.wrong("a PCI device has one location")),
            };
            placed.push((device, kind, origin, at));
        }
        for (device, kind, origin, at) in placed {
            let at = match at {
                Some(at) => at,
                None => places.any(&device.name, &origin)?,
            };
            self.devices.push(DevicePlan { name: device.name.clone(), kind, at, origin });
        }
        // Function 0 of a device has to be there before its others.
        self.devices.sort_by_key(|device| device.at);
        places.check()
    }
}

/// The kind of a PCI device; `None` if it is none of the built-in ones.
fn kind(device: &DeviceConfig) -> Result<Option<Kind>, Failure> {
    let kind = match device.kind.as_str() {
        "nvme" => nvme(device)?,
        "virtio-blk" | "disk" => virtio_blk(device)?,
        "virtio-net" => virtio_net(device)?,
        "virtio-console" => virtio_console(device)?,
        "virtio-entropy" => {
            device.options::<&str>(&[])?;
            Kind::Entropy
        }
        _ => return Ok(None),
    };
    check_no_interrupt(device)?;
    Ok(Some(kind))
}

fn check_no_interrupt(device: &DeviceConfig) -> Result<(), Failure> {
    let message = "`intr`: a PCI device has its own interrupts; leave it out";
    match &device.interrupt {
        Some(_) => Err(device.place.error(message).into()),
        None => Ok(()),
    }
}

/// The folder of relative paths.
fn folder(place: &Place) -> &Path {
    place.path().parent().unwrap_or(Path::new(""))
}

fn required(device: &DeviceConfig, option: &str, example: &str) -> Failure {
    let kind = &device.kind;
    device.place.error(&format!("`{kind}` requires `{option}`, such as `{example}`")).into()
}

fn nvme(device: &DeviceConfig) -> Result<Kind, Failure> {
    let (mut options, mut found) = (gasp_nvme::Options::default(), None);
    for option in device.options(&["hostdev", "serial", "block-size", "queues"])? {
        let text = option.argument.unwrap_or_default();
        let wrong = |message: &str| Failure::from(option.place.error(message));
        match option.index {
            0 => found = Some(backing(text, folder(option.place)).map_err(|why| wrong(&why))?),
            1 => options.serial = Some(text.into()),
            2 => options.block_size = block_size(text).ok_or_else(|| wrong(BLOCK_SIZE))?,
            _ => {
                let queues = text.parse().ok().filter(|queues| (1..=128).contains(queues));
                options.queues = queues.ok_or_else(|| wrong("`queues`: expected 1 to 128"))?;
            }
        }
    }
    let backing = found.ok_or_else(|| required(device, "hostdev", "hostdev disk.img"))?;
    Ok(Kind::Nvme { backing, options })
}

fn virtio_blk(device: &DeviceConfig) -> Result<Kind, Failure> {
    let (mut options, mut found) = (block::Options::default(), None);
    for option in device.options(&["hostdev", "serial", "block-size", "0readonly"])? {
        let text = option.argument.unwrap_or_default();
        let wrong = |message: &str| Failure::from(option.place.error(message));
        match option.index {
            0 => found = Some(backing(text, folder(option.place)).map_err(|why| wrong(&why))?),
            1 => options.serial = Some(text.into()),
            2 => options.block_size = block_size(text).ok_or_else(|| wrong(BLOCK_SIZE))?,
            _ => options.read_only = true,
        }
    }
    let backing = found.ok_or_else(|| required(device, "hostdev", "hostdev disk.img"))?;
    Ok(Kind::Block { backing, options })
}

const BLOCK_SIZE: &str = "`block-size`: expected 512 or 4096";

fn block_size(text: &str) -> Option<u32> {
    text.parse().ok().filter(|size| [512, 4096].contains(size))
}

fn virtio_net(device: &DeviceConfig) -> Result<Kind, Failure> {
    let (mut port, mut mac) = (None, None);
    for option in device.options(&["tap", "socket", "mac"])? {
        let text = option.argument.unwrap_or_default();
        let wrong = |message: &str| Failure::from(option.place.error(message));
        match option.index {
            0 => port = Some(PortPlan::Tap(text.into())),
            1 => port = Some(sockets(text, folder(option.place)).map_err(|why| wrong(&why))?),
            _ => {
                let expected = "`mac`: expected an address of one device, as 02:00:00:00:00:01";
                mac = Some(mac_of(text).ok_or_else(|| wrong(expected))?);
            }
        }
    }
    let port = port.ok_or_else(|| required(device, "tap` or `socket", "tap tap0"))?;
    Ok(Kind::Net { port, mac })
}

/// An Ethernet address that is not one of a group.
fn mac_of(text: &str) -> Option<[u8; 6]> {
    let bytes = text.split(':').map(|byte| {
        let is_hex = byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hex.then(|| u8::from_str_radix(byte, 16).ok()).flatten()
    });
    let bytes: [u8; 6] = bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()?;
    let [first, ..] = bytes;
    (first & 1 == 0 && bytes != [0; 6]).then_some(bytes)
}

fn virtio_console(device: &DeviceConfig) -> Result<Kind, Failure> {
    let options = device.options(&["hostdev"])?;
    let option = options.last().ok_or_else(|| required(device, "hostdev", "hostdev /dev/pts/4"))?;
    Ok(Kind::Console(folder(option.place).join(option.argument.unwrap_or_default())))
}

/// The serial port is where every VM has it, and on the terminal.
fn check_serial(device: &DeviceConfig) -> Result<(), Failure> {
    let wrong = |message: &str| Err(Failure::from(device.place.error(message)));
    for option in device.options(&["hostdev"])? {
        if !matches!(option.argument, Some("-" | ">-")) {
            let message = "`hostdev`: the serial port is on stdin and stdout; use `-`, or leave \
                           it out";
            return Err(option.place.error(message).into());
        }
    }
    let is_there = |location: &Location| match location {
        Location::Default(port) => *port == SERIAL_PORT,
        Location::Port(port) => u64::from(*port) == SERIAL_PORT,
        _ => false,
    };
    if !device.locations.iter().all(is_there) {
        return wrong("the serial port is at io:0x3f8; use that, or leave the location out");
    }
    match &device.interrupt {
        Some(it) if it.controller != LINES || it.line() != Some(SERIAL_LINE) => {
            wrong("the serial port's interrupt is ioapic:4; use that, or leave it out")
        }
        _ => Ok(()),
    }
}

/// The IOMMU is where every VM has it.
fn check_iommu(device: &DeviceConfig) -> Result<(), Failure> {
    device.options::<&str>(&[])?;
    let is_there = |location: &Location| match location {
        Location::Default(addr) => *addr == layout::IOMMU.0,
        Location::Memory(addr) => *addr == layout::IOMMU,
        _ => false,
    };
    let message = match device.locations.iter().all(is_there) {
        false => format!("the IOMMU is at mem:{:#x}; use that, or leave it out", layout::IOMMU.0),
        true if device.interrupt.is_some() => {
            "the IOMMU's interrupts are messages; leave `intr` out".into()
        }
        true => return Ok(()),
    };
    Err(device.place.error(&message).into())
}
