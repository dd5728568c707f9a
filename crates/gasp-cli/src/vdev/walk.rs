//! The walk: a vdev's file, its factory, and its life, twice.

use gasp_qvm::{Loader, Request, VdevError};

use super::args::Args;
use super::factory;
use super::leftovers::{Leftovers, left_thread};
use super::mutex::Stop;
use super::refusal;
use super::report::{Finding, Kind, Report, Reporter};
use super::round::Round;

/// Walks, and reports.
pub(super) fn walk(args: &Args, reports: &Reporter) {
    match walked(args, reports) {
        // Why it has stopped is reported.
        Ok(()) | Err(Stop) => reports.send(&Report::Done),
    }
}

fn walked(args: &Args, reports: &Reporter) -> Result<(), Stop> {
    reports.call("its constructor");
    let factory = Loader::new(args.vdev_path.clone()).load(&args.vdev).map_err(|error| {
        match error {
            VdevError::NotFound { .. } => reports.send(&Report::Usage(error.to_string())),
            error => reports.finding(refusal::of_load(&error)),
        }
        Stop
    })?;
    reports.send(&Report::Returned);
    reports.send(&Report::Factory(factory::described(&factory)));
    let findings = factory::findings(&factory);
    let is_refused = findings.iter().any(|finding| finding.kind == Kind::Controller);
    findings.into_iter().for_each(|finding| reports.finding(finding));
    if is_refused {
        return Err(Stop);
    }
    let usage = |message: String| {
        reports.send(&Report::Usage(message));
        Stop
    };
    let config = args.config(factory.name()).map_err(usage)?;
    let Some(device) = config.machine().devices.first() else { return Err(Stop) };
    let request = Request::of(device, &factory).map_err(|error| match error {
        VdevError::Config(error) => usage(args.explained(&error)),
        error => usage(error.to_string()),
    })?;
    let round = || Round::new(&factory, &request, args.poke, reports).map_err(usage);
    round()?.both()?;
    let before = Leftovers::now();
    round()?.again()?;
    let (threads, descriptors) = Leftovers::since(&before);
    threads.iter().for_each(|name| reports.finding(left_thread(name)));
    // A thread that goes on, or a mapping, keeps its guest, and that its memory.
    let keeps_guest = reports.has_found(Kind::Thread) || reports.has_found(Kind::Mapping);
    for target in descriptors.iter().filter(|_| !keeps_guest) {
        reports.finding(
            Finding::new(Kind::Descriptor, format!("a descriptor of {target} is open"))
                .in_call("control(TERMINATE)")
                .advice("close there what it has opened: each guest that resets itself adds one"),
        );
    }
    Ok(())
}
