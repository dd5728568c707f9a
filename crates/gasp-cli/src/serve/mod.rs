//! `gasp serve`: devices on vfio-user sockets, for VMMs to attach.
//!
//! | | |
//! |---|---|
//! | [`plan`] | which devices, checked: the same for the file and for `--device` |
//! | [`file`] | the configuration file |
//! | [`spec`] | `--device` |
//! | [`device`] | a device on its socket, and its thread |
//! | [`event`] | what happens, as a line for a person and as JSON |
//! | [`totals`] | how a device stands, and what is new since the last look |
//! | [`log`], [`live`] | lines; a view that is drawn anew |
//! | [`qemu`] | the arguments that a VMM needs |

mod device;
mod event;
mod file;
mod live;
mod log;
mod plan;
mod qemu;
mod spec;
mod totals;

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use gasp::Residency;
use gasp_vfio_user::{Options, ServeError};

use crate::cli::Serve;
use crate::failure::Failure;
use device::{Served, Task};
use event::{Event, Tell};
use plan::Plan;
use totals::Totals;

/// How often faults are looked for, and the view is drawn.
const TICK: Duration = Duration::from_millis(100);
/// Events that wait to be told; more are counted, so that a VMM that does much wrong costs
/// no memory.
const BACKLOG: usize = 1024;

/// What the main thread is told.
enum Notice {
    /// Something happened to the device with this number.
    Event(usize, Event),
    /// A server ended by itself.
    Ended(ServeError),
    /// SIGINT, SIGTERM or SIGHUP.
    Stop,
}

/// Serves the devices that the arguments name until a signal comes.
pub(crate) fn run(args: &Serve) -> Result<(), Failure> {
    let plans = plans(args)?;
    let (sender, notices) = mpsc::sync_channel(BACKLOG);
    stop_at_signals(sender.clone())?;
    let residency = args.residency.into();
    let mut servers = Vec::new();
    for (index, plan) in plans.iter().enumerate() {
        let options = Options { mode: plan.mode, residency, ..Options::default() };
        servers.push(Served::bind(index, plan, options, &sender)?);
    }
    let mut tell: Box<dyn Tell> = match args.json {
        true => Box::new(log::Json::new()),
        false if io::stdout().is_terminal() => Box::new(live::Live::new(&servers)),
        false => Box::new(log::Lines::new(&servers)),
    };
    tell.begin(&servers)?;
    let tasks = servers.iter().map(|server| server.start(&sender)).collect::<io::Result<_>>()?;
    let ended = attend(&servers, &notices, &mut *tell);
    stop(&servers, tasks);
    // What was on its way when the servers stopped.
    let told = match ended {
        Ok(()) => last_words(&servers, &notices, &mut *tell),
        Err(failure) => Err(failure),
    };
    drop(servers); // And the sockets with them.
    told
}

fn plans(args: &Serve) -> Result<Vec<Plan>, Failure> {
    match (&args.config, &args.device, &args.socket) {
        (Some(config), ..) => file::load(config),
        (None, Some(spec), Some(socket)) => Ok(vec![spec::parse(spec, socket)?]),
        // The arguments are declared such that this cannot be.
        _ => Err(Failure::Usage("a configuration, or a device and its socket, is needed".into())),
    }
}

/// From now on the signals end the wait instead of the process.
fn stop_at_signals(sender: SyncSender<Notice>) -> io::Result<()> {
    let handler = move || {
        // Nobody listens any longer: the process ends anyway.
        let _ = sender.send(Notice::Stop);
    };
    ctrlc::set_handler(handler).map_err(io::Error::other)
}

/// Tells what happens until the end.
fn attend(
    servers: &[Served],
    notices: &Receiver<Notice>,
    tell: &mut dyn Tell,
) -> Result<(), Failure> {
    let mut totals: Vec<Totals> = servers.iter().map(|_| Totals::default()).collect();
    let mut next = Instant::now();
    loop {
        match notices.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Notice::Event(index, event)) => report(servers, tell, index, &event)?,
            Ok(Notice::Ended(error)) => return Err(Failure::Io(io::Error::other(error))),
            Ok(Notice::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if next <= Instant::now() {
            for (index, (server, totals)) in servers.iter().zip(&mut totals).enumerate() {
                if let Some(event) = totals.look(server) {
                    report(servers, tell, index, &event)?;
                }
            }
            tell.totals(servers, &totals)?;
            next = Instant::now() + TICK;
        }
    }
}

fn report(
    servers: &[Served],
    tell: &mut dyn Tell,
    index: usize,
    event: &Event,
) -> Result<(), Failure> {
    match servers.get(index) {
        Some(server) => Ok(tell.event(server, event)?),
        None => Ok(()),
    }
}

fn stop(servers: &[Served], tasks: Vec<Task>) {
    for server in servers {
        server.server.stopper().stop();
    }
    for task in tasks {
        if task.join().is_err() {
            tracing::error!("a server's thread panicked");
        }
    }
}

fn last_words(
    servers: &[Served],
    notices: &Receiver<Notice>,
    tell: &mut dyn Tell,
) -> Result<(), Failure> {
    while let Ok(notice) = notices.try_recv() {
        match notice {
            Notice::Event(index, event) => report(servers, tell, index, &event)?,
            Notice::Ended(error) => return Err(Failure::Io(io::Error::other(error))),
            Notice::Stop => {}
        }
    }
    for (index, server) in servers.iter().enumerate() {
        report(servers, tell, index, &Event::Stopped(server.snapshot()))?;
    }
    Ok(tell.end()?)
}

impl From<crate::cli::ServeResidency> for Residency {
    fn from(residency: crate::cli::ServeResidency) -> Self {
        match residency {
            crate::cli::ServeResidency::Pinned => Self::Pinned,
            crate::cli::ServeResidency::OnDemand => Self::OnDemand,
        }
    }
}
