//! The process that a vdev is loaded into, watched from outside: a crash or a call that does not
//! return ends that process and not this one.

use core::time::Duration;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use super::args::Args;
use super::record::Record;
use super::report::Report;
use crate::failure::Failure;

/// The longest line of a report, in bytes.
const LINE_MAX: u64 = 1 << 20;
/// The most bytes of what a vdev prints that are kept.
const PRINTED_MAX: usize = 64 << 10;

/// Starts the process, and takes its reports.
pub(super) fn watch(args: &Args) -> Result<Record, Failure> {
    let (ours, theirs) = UnixStream::pair()?;
    let (printed, writer) = io::pipe()?;
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args(args.of_walk()).stdin(Stdio::from(OwnedFd::from(theirs)));
    command.stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn()?;
    // Our copies of the descriptors, without which the ends of the streams are seen.
    drop(command);
    let printed = thread::Builder::new().name("printed".into()).spawn(move || kept(printed))?;
    let mut record = Record::default();
    let status = follow(child, ours, args.limit(), &mut record)?;
    let printed = printed.join().unwrap_or_default();
    record.ended(status, &printed);
    Ok(record.finished())
}

/// The beginning of a stream, all of which is read.
fn kept(mut from: impl Read) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    // A stream that cannot be read has ended.
    while let Ok(len @ 1..) = from.read(&mut piece) {
        let room = PRINTED_MAX.saturating_sub(all.len());
        all.extend_from_slice(piece.get(..len.min(room)).unwrap_or_default());
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Takes the reports until the process has ended; ends it if a call takes too long. Returns how it
/// has ended by itself.
fn follow(
    mut child: Child,
    reports: UnixStream,
    limit: Duration,
    record: &mut Record,
) -> io::Result<Option<ExitStatus>> {
    let mut lines = Lines::new(reports);
    let mut deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.next(Some(left))? {
            Next::Report(report) => {
                // What a vdev logs does not prove that its call will return.
                if !matches!(report, Report::Message { .. }) {
                    deadline = Instant::now() + limit;
                }
                record.take(report);
            }
            Next::Late => break,
            Next::End => {
                let until = Instant::now() + limit;
                while Instant::now() < until {
                    if let Some(status) = child.try_wait()? {
                        return Ok(Some(status));
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                break;
            }
        }
    }
    record.hangs(limit);
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Takes the reports until their end.
pub(super) fn read_all(reports: UnixStream, record: &mut Record) {
    let mut lines = Lines::new(reports);
    while let Ok(Next::Report(report)) = lines.next(None) {
        record.take(report);
    }
}

/// The lines of a process.
struct Lines {
    from: BufReader<UnixStream>,
    line: Vec<u8>,
}

enum Next {
    Report(Report),
    /// There was none in time.
    Late,
    End,
}

impl Lines {
    fn new(from: UnixStream) -> Self {
        Self { from: BufReader::new(from), line: Vec::new() }
    }

    /// The next one, if there is one in time.
    fn next(&mut self, within: Option<Duration>) -> io::Result<Next> {
        let deadline = within.map(|within| Instant::now() + within);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Next::Late);
            }
            self.from.get_ref().set_read_timeout(left)?;
            let room = LINE_MAX.saturating_sub(self.line.len() as u64);
            match self.from.by_ref().take(room).read_until(b'\n', &mut self.line) {
                // What was read of a line stays until the rest is there.
                Err(error)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) =>
                {
                    return Ok(Next::Late);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // The process has died with unread data of ours.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Next::End),
                Err(error) => return Err(error),
                Ok(0) => return Ok(Next::End),
                Ok(_) => {}
            }
            let line = core::mem::take(&mut self.line);
            // The vdev may write there as well: a line that is no report says nothing.
            if let Ok(report) = serde_json::from_slice(&line) {
                return Ok(Next::Report(report));
            }
        }
    }
}
