//! `gasp status`: the counters of a running VM, once or as they change.

use core::time::Duration;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use gasp::Errno;

use super::event::{Status, Totals};
use super::view;
use crate::failure::Failure;
use crate::{output, running};

/// The errors of a VM that is no longer there: the last one if it ends just now.
const GONE: [Errno; 4] = [Errno::NOENT, Errno::CONNREFUSED, Errno::CONNRESET, Errno::PROTO];

/// Arguments of `gasp status`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Socket of the VM: that of its --status
    #[arg(value_name = "SOCKET")]
    vm: PathBuf,
    /// Show them again every so many seconds, until the VM ends
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    every: Option<u32>,
    /// Print JSON, with the fields listed below: an object on a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Shows the counters of a VM.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut before = None;
    loop {
        let asked = running::ask(&args.vm, "status");
        let text = match asked {
            // It was there before: it has ended.
            Err(Failure::Unavailable { errno, .. })
                if before.is_some() && GONE.contains(&errno) =>
            {
                return Ok(());
            }
            asked => asked?,
        };
        let at = Instant::now();
        let status: Status = serde_json::from_slice(&text).map_err(|_| Failure::Unavailable {
            errno: Errno::PROTO,
            message: format!(
                "{}: the answer is not that of a gasp vm of this version",
                args.vm.display()
            ),
        })?;
        let mut out = output::stdout();
        if args.json {
            out.write_all(&text)?;
        } else {
            let (was, since) = before.take().unwrap_or((Totals::default(), None));
            let elapsed = since.map_or(
                Duration::try_from_secs_f64(status.seconds).unwrap_or_default(),
                |since: Instant| at - since,
            );
            writeln!(out, "{}", status.name)?;
            out.write_all(view::table(&was, &status.totals, elapsed).as_bytes())?;
        }
        out.flush()?;
        before = Some((status.totals, Some(at)));
        match args.every {
            Some(seconds) => std::thread::sleep(Duration::from_secs(seconds.into())),
            None => return Ok(()),
        }
    }
}
