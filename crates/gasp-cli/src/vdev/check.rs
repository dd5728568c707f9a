//! `gasp vdev check`: the process that the user starts, and the one that it starts.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::args::Args;
use super::record::Record;
use super::report::Reporter;
use super::{child, log, show, walk};
use crate::failure::Failure;
use crate::output;

/// Checks a vdev.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.walk {
        return walk_for_another(args);
    }
    // What can be known without the file is known at once.
    args.config("vdev").map_err(Failure::Usage)?;
    let is_path = args.vdev.contains('/') || args.vdev.ends_with(".so");
    if is_path && !Path::new(&args.vdev).exists() {
        let message =
            format!("{}: there is no such file; build it with cc -shared -fPIC", args.vdev);
        return Err(Failure::Usage(message));
    }
    let record = if args.in_process { here(args)? } else { child::watch(args)? };
    if let Some(message) = record.usage {
        return Err(Failure::Usage(message));
    }
    if args.json {
        output::json(&record)?;
    } else {
        show::show(&record)?;
    }
    if record.is_clean() { Ok(()) } else { Err(Failure::Reported) }
}

/// Walks in this process, which was started for that, with a socket as stdin.
fn walk_for_another(args: &Args) -> Result<(), Failure> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let reports = Reporter::new(UnixStream::from(socket));
    log::install(reports.clone());
    // A crash is reported by the parent; its memory is of no use to anyone.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(errno) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        tracing::debug!(%errno, "a crash may write its memory to a file");
    }
    walk::walk(args, &reports);
    Ok(())
}

/// Walks in this process.
fn here(args: &Args) -> Result<Record, Failure> {
    let (theirs, ours) = UnixStream::pair()?;
    let reports = Reporter::new(theirs);
    log::install(reports.clone());
    let reader = std::thread::Builder::new().name("reports".into()).spawn(move || {
        let mut record = Record::default();
        child::read_all(ours, &mut record);
        record
    })?;
    walk::walk(args, &reports);
    reports.close();
    let record = reader.join().map_err(|_| std::io::Error::other("the reports were lost"))?;
    Ok(record.finished())
}
