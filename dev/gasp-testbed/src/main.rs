//! `testbed`: fetches what the tests need, prints its versions, boots Linux once.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use gasp_testbed::{Initramfs, Testbed, Vm};

/// A real QEMU and a real Linux guest, for tests.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch everything, unless it exists already
    Fetch {
        /// Fetch the present versions of the mirror in any case
        #[arg(long)]
        again: bool,
    },
    /// Boot Linux once and show its console
    Boot {
        /// The script for the guest's shell
        #[arg(default_value = "uname -a; cat /proc/uptime; ls /sys/bus/pci/devices")]
        script: String,
        /// Modules to load first
        #[arg(long)]
        module: Vec<String>,
        /// Devices to add, in QEMU's syntax
        #[arg(long)]
        device: Vec<String>,
        /// Arguments to add to the kernel's command line
        #[arg(long)]
        append: Vec<String>,
    },
    /// Print the versions of the testbed's packages
    Versions,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Fetch { again } => {
            let testbed = if again { Testbed::refresh() } else { Testbed::obtain() }?;
            println!("{} in {}", testbed.versions(), testbed.root().display());
        }
        Command::Versions => println!("{}", Testbed::obtain()?.versions()),
        Command::Boot { script, module, device, append } => {
            let testbed = Testbed::obtain()?;
            let start = Initramfs::new(&testbed).script(&script);
            let initramfs = module.iter().fold(start, |initramfs, name| initramfs.module(name));
            let mut guest = Vm::linux(&testbed, initramfs).echo();
            for device in device {
                guest = guest.device(device);
            }
            for argument in append {
                guest = guest.kernel_arg(argument);
            }
            guest.start()?.finish(Duration::from_secs(120))?;
        }
    }
    Ok(())
}
