//! `gasp serve`: devices on vfio-user sockets, for VMMs to attach.
//!
//! | | |
//! |---|---|
//! | [`requested`], [`plan`] | devices as they are requested, and checked; the same for the file and for `--device` |
//! | [`limits`] | limits on the resources of a VMM |
//! | [`file`] | the configuration file |
//! | [`spec`] | `--device` |
//! | [`service`] | starts and stops devices according to [`orders`] |
//! | [`reload`] | the changes of a new configuration |
//! | [`device`] (by its [`id`]), [`fleet`] | a device on its socket with its thread; all of them |
//! | [`vdev`], [`load`] | a virtual device in C, as a device on a socket; its creation |
//! | [`sockets`] | the socket files, removed by every kind of end |
//! | [`device_error`] | why a device cannot be served, and what would help |
//! | [`event`] | device events, as text and as JSON |
//! | [`outbox`], [`reporter`] | the queue of reports, which never blocks; the thread that writes them |
//! | [`sink`]: [`log`]; [`live`], [`table`] | output formats: lines and JSON; a live view on a terminal |
//! | [`qemu`] | QEMU's arguments to attach a device |

mod device;
mod device_error;
mod event;
mod file;
mod fleet;
mod id;
mod limits;
mod live;
mod load;
mod log;
mod orders;

mod outbox;
mod plan;
mod qemu;
mod reload;
mod reporter;
mod requested;
mod service;
mod sink;
mod sockets;
mod spec;
mod table;
mod vdev;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use gasp::Residency;
use gasp_qvm::Loader;

use crate::failure::Failure;
use crate::logging;
use crate::out::Lost;
use fleet::Fleet;
use orders::Orders;
use plan::Plan;
use reload::Current;
use reporter::Reporting;
use service::Service;
use sink::Sink;
use sockets::Sockets;

/// Arguments of `gasp serve`.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("devices").required(true).args(["config", "device"])))]
pub(crate) struct Args {
    /// File with the devices and their sockets, described below
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A single device: its kind and keys, described below
    #[arg(long, value_name = "KIND[,KEY=VALUE...]", requires = "socket")]
    pub(crate) device: Option<String>,
    /// Socket of the single device
    #[arg(long, value_name = "PATH", requires = "device")]
    pub(crate) socket: Option<PathBuf>,
    /// Folder to search for vdevs in C, before those of the dynamic loader; can be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) vdev_path: Vec<PathBuf>,
    /// How guest memory is held while it is mapped: pinned or on-demand, described below
    #[arg(long, value_name = "HOW", default_value = "on-demand", hide_possible_values = true)]
    pub(crate) residency: ResidencyArg,
    /// Print events as JSON, with the fields listed below
    #[arg(long)]
    pub(crate) json: bool,
}

/// The values of `--residency`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum ResidencyArg {
    /// Pinned, with known host-physical addresses
    Pinned,
    /// Allocated as the guest uses it, without known addresses
    OnDemand,
}

/// Serves the devices that the arguments name, until a signal ends the process.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let source = Source::of(args)?;
    let plans = source.read(&[]).map_err(Failure::Usage)?;
    limits::raise_descriptor_limit();
    let (sockets, fleet, lost) = (Sockets::default(), Fleet::default(), Lost::default());
    let orders = Orders::from_signals(sockets.clone())?;
    let reporting = Reporting::start(sink(args.json, &lost)?, fleet.clone(), lost)?;
    let mut service = Service {
        fleet,
        outbox: reporting.outbox().clone(),
        sockets,
        orders,
        residency: args.residency.into(),
        loader: Loader::new(args.vdev_path.clone()),
        next: 0,
        ending: false,
    };
    let created = service.create(&plans, |_| true)?;
    let outbox = service.outbox.clone();
    logging::redirect(move |line| outbox.log(line));
    // A panic ends the thread of one device. It is logged like everything else: in the live
    // view, and without blocking on stderr.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let served = service.start(created).map_err(Failure::from).and_then(|()| {
        service.run(|service| {
            let plans = source.read(&service.current());
            service.reload(plans);
        })
    });
    service.stop_all();
    reporting.end();
    served
}

/// Where the devices are specified.
enum Source<'a> {
    File(&'a Path),
    Arguments(Plan),
}

impl<'a> Source<'a> {
    fn of(args: &'a Args) -> Result<Self, Failure> {
        match (&args.config, &args.device, &args.socket) {
            (Some(config), ..) => Ok(Self::File(config)),
            (None, Some(spec), Some(socket)) => Ok(Self::Arguments(spec::parse(spec, socket)?)),
            // clap rejects all other combinations.
            _ => {
                let message = "either --config, or --device and --socket, is required";
                Err(Failure::Usage(message.into()))
            }
        }
    }

    /// The requested devices, if those of `now` are served.
    fn read(&self, now: &[Current]) -> Result<Vec<Plan>, String> {
        let mut plans = match self {
            Self::File(path) => file::load(path)?,
            Self::Arguments(_) if !now.is_empty() => {
                return Err(
                    "the device was given by --device: there is no file to read again".into()
                );
            }
            Self::Arguments(plan) => vec![plan.clone()],
        };
        let now: Vec<_> = now.iter().map(|current| &current.plan).collect();
        plan::keep_names(&mut plans, &now);
        Ok(plans)
    }
}

fn sink(json: bool, lost: &Lost) -> io::Result<Box<dyn Sink>> {
    // Whether stdout is a terminal that can move its cursor.
    let can_draw = || io::stdout().is_terminal() && std::env::var_os("TERM") != Some("dumb".into());
    Ok(match json {
        true => Box::new(log::Json::new(lost.clone())?),
        false if can_draw() => Box::new(live::Live::new(lost.clone())?),
        false => Box::new(log::Text::new(lost.clone())?),
    })
}

impl From<ResidencyArg> for Residency {
    fn from(residency: ResidencyArg) -> Self {
        match residency {
            ResidencyArg::Pinned => Self::Pinned,
            ResidencyArg::OnDemand => Self::OnDemand,
        }
    }
}
