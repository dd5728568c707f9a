//! A complete VMM: boots a Linux kernel with a console on the terminal.
//!
//! `cargo run --release -p gasp-vm --example boot -- vmlinux [--initrd initrd.img] [--ram MIB]
//! [--disk FILE] [--virtio FILE]... [--cpus 1] [--cmdline console=ttyS0] [--reset end]`
//!
//! SIGTERM or SIGINT is the power button, and a second one ends the VM; Ctrl-A x ends it from the terminal.
//! The exit status is 0 after a power-off or a reset, and 1 otherwise.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod vmm {
    use core::time::Duration;
    use std::error::Error;
    use std::io;
    use std::process::ExitCode;

    use std::sync::Arc;

    use gasp::{Guest, MemoryObject, Residency, Vdev};
    use gasp_nvme::{Backing, Nvme};
    use gasp_vdev::Shell;
    use gasp_virtio::{VirtioPci, block::Block};
    use gasp_vm::boot::Boot;
    use gasp_vm::pci::PciRoot;
    use gasp_vm::serial::SerialPort;
    use gasp_vm::{End, Ending, Machine, PowerButton, RawTerminal, acpi, layout};
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    type Result<T> = core::result::Result<T, Box<dyn Error>>;
    type Disk = (Arc<Shell>, Vdev);

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
        let guest = Guest::builder().build()?;
        let ram = MemoryObject::ram(options.ram).residency(Residency::OnDemand).create()?;
        layout::add_ram(&guest, &ram)?;
        let disks = options.disks.iter().map(|disk| open(&guest, disk));
        let disks = disks.collect::<Result<Vec<_>>>()?;
        let terminal = RawTerminal::enter(io::stdin())?;
        loop {
            let end = once(&guest, &disks, &options)?;
            // A reset is a new machine on the same guest. As a PC's, its RAM keeps what it has.
            if end != End::Reset || options.reset_ends {
                drop(terminal);
                return Ok(end);
            }
        }
    }

    /// From power-on to the end.
    fn once(guest: &Guest, disks: &[Disk], options: &Options) -> Result<End> {
        let machine = Machine::builder().build(guest)?;
        let pci = PciRoot::new(&machine)?;
        for (shell, vdev) in disks {
            let place = pci.free().ok_or("there are more disks than places for them")?;
            pci.attach(place, Arc::clone(shell), vdev.clone())?;
        }
        let console = SerialPort::connect(&machine, io::stdout())?;
        let button = PowerButton::connect(&machine)?;
        let vcpus = machine.vcpus(options.cpus.try_into()?)?;
        let root = pci.describe(acpi::Tables::new(options.cpus)).write(guest)?;
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

    /// A controller with the file as its disk.
    fn open(guest: &Guest, (virtio, path): &(bool, String)) -> Result<Disk> {
        let file = Backing::file(path);
        let shell = match virtio {
            true => Shell::new(path, VirtioPci::new(Block::new(&file, Default::default())?))?,
            false => Shell::new(path, Nvme::new(&file, Default::default())?)?,
        };
        Ok((Arc::new(shell), guest.vdev(path)?))
    }

    fn press(button: &PowerButton, ending: &Ending, signals: &mut Signals) {
        for (count, _) in signals.forever().enumerate() {
            match count {
                0 => button.press(),
                _ => drop(ending.request(End::Stopped)),
            }
        }
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
