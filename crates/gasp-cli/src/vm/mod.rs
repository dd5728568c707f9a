//! `gasp vm`: a virtual machine on KVM, in this process.
//!
//! | | |
//! |---|---|
//! | [`args`] | the arguments |
//! | [`plan`], [`configured`] | the VM that they, or a configuration, describe |
//! | [`kind`], [`places`], [`origin`] | kinds of devices; which PCI function each is; where it was requested, for errors |
//! | [`vdevs`] | vdevs in C, which are made with each machine |
//! | [`guest`] | memory, IOMMU and devices, which last while machines come and go |
//! | [`power`] | from power-on to the end, once for each reset |
//! | [`signals`] | the power button, and the view |
//! | [`report`]: [`event`], [`view`] | events as JSON, and a table for people |
//! | [`answers`], [`status`] | a socket that others ask the VM at; one that does |

mod answers;
mod args;
mod configured;
mod event;
mod guest;
mod kind;
mod origin;
mod places;
mod plan;
mod power;
mod report;
mod signals;
pub(crate) mod status;
mod vdevs;
mod view;

use std::io::{self, Write};

use gasp_vm::{End, RawTerminal};

use answers::Answers;
pub(crate) use args::Args;
use args::ResetArg;
use guest::Vm;
use plan::Plan;
use report::Report;
use signals::Signalled;
use vdevs::Vdevs;

use crate::failure::Failure;
use crate::logging;

/// The exit status if the guest has reset itself, and is not restarted.
const RESET: u8 = 3;
/// The exit status if the guest cannot go on.
const CRASHED: u8 = 4;
/// The exit status if the host has ended the guest: a shell's for SIGINT.
const STOPPED: u8 = 130;

/// Runs a VM until it ends.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut report = Report::open(args.json.as_deref())?;
    let outcome = until_the_end(args, &mut report);
    report.ended(&outcome);
    outcome
}

fn until_the_end(args: &Args, report: &mut Report) -> Result<(), Failure> {
    let plan = Plan::of(args)?;
    let signalled = Signalled::install()?;
    let vm = Vm::create(&plan)?;
    if plan.dry_run {
        return Vdevs::create(&vm, &plan.vdevs, None)?.place(&vm, 0..0);
    }
    if let Some(path) = &args.status {
        report.answer(Answers::listen(path, &plan.name, &vm.guest)?);
    }
    // Dropping it restores the terminal, before an error is printed.
    let terminal = RawTerminal::enter(io::stdin())?;
    if terminal.is_some() {
        report.raw();
        // The terminal does not return the carriage by itself any more.
        logging::redirect(|line| _ = io::stderr().write_all(&view::with_returns(line)));
        tracing::info!("Ctrl-A x ends the VM");
    }
    loop {
        match power::cycle(&vm, &plan, &args.kvm, &signalled, report)? {
            // A new machine on the same guest. As a PC's, its RAM keeps what it has.
            End::Reset if args.reset == ResetArg::Restart => report.reset(),
            end => return outcome(&end),
        }
    }
}

/// What the end of a guest is to its host.
fn outcome(end: &End) -> Result<(), Failure> {
    let status = match end {
        End::PowerOff => return Ok(()),
        End::Reset => RESET,
        End::Stopped => STOPPED,
        End::Device { status: 0, why } => {
            tracing::info!("{why}");
            return Ok(());
        }
        End::Device { status, .. } => *status,
        _ => CRASHED,
    };
    Err(Failure::Ended { status, message: end.to_string() })
}
