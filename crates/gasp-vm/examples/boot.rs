//! A complete VMM: boots a Linux kernel with a console on the terminal.
//!
//! `cargo run --release -p gasp-vm --example boot -- vmlinux [--initrd initrd.img] [--ram MIB]
//! [--disk FILE] [--virtio FILE]... [--cpus 1] [--cmdline console=ttyS0] [--reset end]`
//!
//! Its disks are behind a VT-d, which Linux uses with `intel_iommu=on`.
//! SIGTERM or SIGINT is the power button, and a second one ends the VM; Ctrl-A x ends it from the terminal.
//! The exit status is 0 after a power-off or a reset, and 1 otherwise.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod vmm {
    use core::time::Duration;
    use std::error::Error;
    use std::io;
    use std::process::ExitCode;
    use std::sync::Arc;

    use gasp::{Guest, MemoryObject, Residency, Unattached, Vdev};
    use gasp_nvme::{Backing, Nvme};
    use gasp_vdev::Shell;
    use gasp_virtio::{VirtioPci, block::Block};
    use gasp_vm::boot::Boot;
    use gasp_vm::pci::{Bdf, PciRoot};
    use gasp_vm::serial::SerialPort;
    use gasp_vm::{End, Ending, Iommu, Machine, PowerButton, RawTerminal, acpi, layout};
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    type Result<T> = core::result::Result<T, Box<dyn Error>>;
    type Disk = (Bdf, Arc<Shell>, Vdev);

    struct Options {
        kernel: String,
        initrd: Option<String>,
        cmdline: String,
        disks: Vec<(bool, String)>, // whether by virtio, or by NVMe
        ram: u64,
        cpus: u32,
        reset_ends: bool,
    }

    pub(crate) fn main() -> ExitCode {
        match run() {
            Ok(End::PowerOff | End::Reset) => return ExitCode::SUCCESS,
            Ok(end) => eprintln!("boot: {end}"),
            Err(error) => eprintln!("boot: {error}"),
        }
        ExitCode::FAILURE
    }

    fn run() -> Result<End> {
        let options = options()?;
        let guest = Guest::builder().iommu(Unattached::Bypass).build()?;
        let ram = MemoryObject::ram(options.ram).residency(Residency::OnDemand).create()?;
        layout::add_ram(&guest, &ram)?;
        let iommu = Iommu::new(&guest)?;
        let disks = options.disks.iter().zip(1..).map(|(disk, at)| open(&guest, &iommu, disk, at));
        let disks = disks.collect::<Result<Vec<_>>>()?;
        let _terminal = RawTerminal::enter(io::stdin())?;
        loop {
            let end = once(&guest, &iommu, &disks, &options)?;
            // A reset is a new machine on the same guest. As a PC's, its RAM keeps what it has.
            if end != End::Reset || options.reset_ends {
                return Ok(end);
            }
        }
    }

    /// From power-on to the end.
    fn once(guest: &Guest, iommu: &Iommu, disks: &[Disk], options: &Options) -> Result<End> {
        let machine = Machine::builder().build(guest)?;
        iommu.connect(&machine)?;
        let pci = PciRoot::new(&machine)?;
        for (at, shell, vdev) in disks {
            pci.attach(*at, Arc::clone(shell), vdev.clone())?;
        }
        let console = SerialPort::connect(&machine, io::stdout())?;
        let button = PowerButton::connect(&machine)?;
        let vcpus = machine.vcpus(options.cpus.try_into()?)?;
        let tables = pci.describe(acpi::Tables::new(options.cpus));
        let root = iommu.describe(tables).write(guest)?;
        let boot = Boot::new(&options.kernel).cmdline(&options.cmdline).acpi(root);
        let boot = options.initrd.iter().fold(boot, Boot::initrd);
        boot.load(guest)?.apply(guest, &vcpus[0])?;

        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let (handle, ending) = (signals.handle(), machine.ending().clone());
        let presses = std::thread::spawn(move || press(&button, &ending, &mut signals));
        let running = machine.start(vcpus)?;
        let input = console.read_from(io::stdin())?;
        let end = running.wait();
        handle.close();
        for thread in [presses, input] {
            thread.join().map_err(|_| "a thread has panicked")?;
        }
        console.flush(Duration::from_secs(1));
        Ok(end)
    }

    /// A controller with the file as its disk, as this device of the PCI bus.
    fn open(guest: &Guest, iommu: &Iommu, disk: &(bool, String), number: u8) -> Result<Disk> {
        let (virtio, path) = disk;
        let at = Bdf::new(0, number, 0).ok_or("there are more disks than places for them")?;
        let (vdev, file) = (guest.vdev(path)?, Backing::file(path));
        iommu.attach(at, &vdev)?.wait();
        if !virtio {
            return Ok((at, Shell::new(path, Nvme::new(&file, Default::default())?)?.into(), vdev));
        }
        let block = VirtioPci::behind_iommu(Block::new(&file, Default::default())?);
        Ok((at, Shell::new(path, block)?.into(), vdev))
    }

    fn press(button: &PowerButton, ending: &Ending, signals: &mut Signals) {
        signals.forever().take(1).for_each(|_| button.press());
        signals.forever().take(1).for_each(|_| _ = ending.request(End::Stopped));
    }

    fn options() -> Result<Options> {
        let mut arguments = std::env::args().skip(1);
        let kernel = arguments.next().ok_or("which kernel? boot KERNEL [--initrd FILE] ...")?;
        let cmdline = "console=ttyS0".to_string();
        let (initrd, disks, ram, cpus, reset_ends) = (None, Vec::new(), 512 << 20, 1, false);
        let mut options = Options { kernel, initrd, cmdline, disks, ram, cpus, reset_ends };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            match name.as_str() {
                "--initrd" => options.initrd = Some(value),
                "--disk" => options.disks.push((false, value)),
                "--virtio" => options.disks.push((true, value)),
                "--cmdline" => options.cmdline = value,
                "--ram" => options.ram = value.parse::<u64>()?.saturating_mul(1 << 20),
                "--cpus" => options.cpus = value.parse()?,
                "--reset" => options.reset_ends = value == "end",
                _ => return Err(format!("there is no option {name}").into()),
            }
        }
        Ok(options)
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    vmm::main()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() {
    eprintln!("boot: KVM on x86-64 is needed");
}
