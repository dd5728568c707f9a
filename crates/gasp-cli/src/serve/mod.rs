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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
/// How long a stop may take before the process ends without it.
const PATIENCE: Duration = Duration::from_secs(10);
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
    let asked = stop_at_signals(sender.clone())?;
    raise_descriptor_limit();
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
    let ended = attend(&servers, &notices, &asked, &mut *tell);
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

/// From now on the first signal ends the wait instead of the process; the result says
/// whether it has come. A second one, or some time that was not enough, ends the process: it
/// may be stuck in writing to somebody who does not read. (The sockets it leaves behind are
/// seen to be nobody's at the next start.)
fn stop_at_signals(sender: SyncSender<Notice>) -> io::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&asked);
    let handler = move || {
        if told.swap(true, Ordering::AcqRel) {
            std::process::exit(130);
        }
        // A full channel is looked at all the time, and the flag with it.
        let _ = sender.try_send(Notice::Stop);
        std::thread::spawn(|| {
            std::thread::sleep(PATIENCE);
            std::process::exit(130);
        });
    };
    ctrlc::set_handler(handler).map_err(io::Error::other)?;
    Ok(asked)
}

/// Each VMM may send some hundred descriptors of memory: what may be had is made use of.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of descriptors stays");
    }
}

/// Tells what happens until the end.
fn attend(
    servers: &[Served],
    notices: &Receiver<Notice>,
    asked: &AtomicBool,
    tell: &mut dyn Tell,
) -> Result<(), Failure> {
    let mut totals: Vec<Totals> = servers.iter().map(|_| Totals::default()).collect();
    let mut next = Instant::now();
    while !asked.load(Ordering::Acquire) {
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
    Ok(())
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
