//! `gasp serve`: devices on vfio-user sockets, for VMMs to attach.
//!
//! | | |
//! |---|---|
//! | [`wish`], [`plan`] | which devices, as they are asked for, and checked: the same for the file and for `--device` |
//! | [`limits`] | what a VMM may have a device hold |
//! | [`file`] | the configuration file |
//! | [`spec`] | `--device` |
//! | [`service`] | the devices, started and stopped as [`orders`] say |
//! | [`reload`] | what a configuration that is read again changes |
//! | [`device`] (by its [`id`]), [`fleet`] | a device on its socket, and its thread; all of them |
//! | [`sockets`] | their socket files, removed on each way out |
//! | [`refusal`] | why a device cannot be served, and what would help |
//! | [`event`] | what happens, as a line for a person and as JSON |
//! | [`outbox`], [`reporter`] | where it is put, and the thread that tells it, for which nobody waits |
//! | [`tell`]: [`log`]; [`live`], [`columns`] | lines; a view that is drawn anew |
//! | [`out`] | a writer that drops what cannot be written |
//! | [`qemu`] | the arguments that a VMM needs |

mod columns;
mod device;
mod event;
mod file;
mod fleet;
mod id;
mod limits;
mod live;
mod log;
mod orders;
mod out;
mod outbox;
mod plan;
mod qemu;
mod refusal;
mod reload;
mod reporter;
mod service;
mod sockets;
mod spec;
mod tell;
mod wish;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use gasp::Residency;

use crate::failure::Failure;
use crate::logging;
use fleet::Fleet;
use orders::Orders;
use out::Lost;
use plan::Plan;
use reload::Current;
use reporter::Reporting;
use service::Service;
use sockets::Sockets;
use tell::Tell;

/// Arguments of `gasp serve`.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("devices").required(true).args(["config", "device"])))]
pub(crate) struct Args {
    /// The devices and their sockets, as below
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One device: its kind and its keys, as below
    #[arg(long, value_name = "KIND[,KEY=VALUE...]", requires = "socket")]
    pub(crate) device: Option<String>,
    /// The socket of the one device
    #[arg(long, value_name = "PATH", requires = "device")]
    pub(crate) socket: Option<PathBuf>,
    /// How firmly guest memory is held while it is mapped
    #[arg(long, value_name = "HOW", default_value = "on-demand")]
    pub(crate) residency: Held,
    /// Print what happens as JSON, with the fields below
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `--residency` may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Held {
    /// All in place from the first map on; host-physical addresses are known, and given to a
    /// device if the VMM is trusted not to replace its memory (unsealed = "trust")
    Pinned,
    /// As the guest and the host use it: costs nothing, but addresses are not known
    OnDemand,
}

/// Serves the devices that the arguments name until a signal comes.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let source = Source::of(args)?;
    let plans = source.read(&[]).map_err(Failure::Usage)?;
    limits::raise_descriptor_limit();
    let (sockets, fleet, lost) = (Sockets::default(), Fleet::default(), Lost::default());
    let orders = Orders::from_signals(sockets.clone())?;
    let reporting = Reporting::start(teller(args.json, &lost)?, fleet.clone(), lost)?;
    let mut service = Service {
        fleet,
        outbox: reporting.outbox().clone(),
        sockets,
        orders,
        residency: args.residency.into(),
        next: 0,
        ending: false,
    };
    let made = service.create(&plans, |_| true)?;
    let outbox = service.outbox.clone();
    logging::take(move |line| outbox.log(line));
    // A panic ends the thread of one device. It is told as all else is: in the view, and
    // without waiting for stderr.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let served = service.start(made).map_err(Failure::from).and_then(|()| {
        service.run(|service| {
            let wanted = source.read(&service.current());
            service.reload(wanted);
        })
    });
    service.stop_all();
    reporting.end();
    served
}

/// Where the devices are named.
enum Source<'a> {
    File(&'a Path),
    Arguments(Plan),
}

impl<'a> Source<'a> {
    fn of(args: &'a Args) -> Result<Self, Failure> {
        match (&args.config, &args.device, &args.socket) {
            (Some(config), ..) => Ok(Self::File(config)),
            (None, Some(spec), Some(socket)) => Ok(Self::Arguments(spec::parse(spec, socket)?)),
            // The arguments are declared such that this cannot be.
            _ => {
                let message = "a configuration, or a device and its socket, is needed";
                Err(Failure::Usage(message.into()))
            }
        }
    }

    /// The devices that are wanted, if those of `now` are there.
    fn read(&self, now: &[Current]) -> Result<Vec<Plan>, String> {
        let mut plans = match self {
            Self::File(path) => file::load(path)?,
            Self::Arguments(_) if !now.is_empty() => {
                return Err("--device was given, and so there is no file to read again".into());
            }
            Self::Arguments(plan) => vec![plan.clone()],
        };
        let now: Vec<_> = now.iter().map(|current| &current.plan).collect();
        plan::keep_names(&mut plans, &now);
        Ok(plans)
    }
}

fn teller(json: bool, lost: &Lost) -> io::Result<Box<dyn Tell>> {
    // One that can move its cursor.
    let can_draw = || io::stdout().is_terminal() && std::env::var_os("TERM") != Some("dumb".into());
    Ok(match json {
        true => Box::new(log::Json::new(lost.clone())?),
        false if can_draw() => Box::new(live::Live::new(lost.clone())?),
        false => Box::new(log::Lines::new(lost.clone())?),
    })
}

impl From<Held> for Residency {
    fn from(residency: Held) -> Self {
        match residency {
            Held::Pinned => Self::Pinned,
            Held::OnDemand => Self::OnDemand,
        }
    }
}
