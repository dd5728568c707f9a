//! `gasp demo`: the guest of `examples/guest/demo.toml` on this machine's real pages, and what
//! its devices may do.
//!
//! [`guest`] creates the guest, [`maps`] lets its devices map, [`drain`] revokes a range while
//! it is held, [`verify`] checks every mapping against a second one of the same memory. The
//! results are collected in a [`report::Report`], which [`show`] prints as text, or which is
//! printed as JSON.

mod drain;
mod guest;
mod maps;
mod report;
mod show;
mod verify;

use crate::failure::Failure;
use crate::output;
use crate::progress::{Progress, release};
use crate::quantity::parse_length;
use guest::{DemoGuest, RAM_MAX, RAM_MIN};
use report::Report;

/// Arguments of `gasp demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Size of the guest's RAM, a multiple of 1M, from 32M to 1023G
    #[arg(long, default_value = "1G", value_name = "SIZE", value_parser = ram)]
    pub(crate) ram: u64,
    /// Print one JSON object, with the fields listed below
    #[arg(long)]
    pub(crate) json: bool,
}

fn ram(text: &str) -> Result<u64, String> {
    const UNIT: u64 = 1 << 20;
    let len = parse_length(text)?;
    match len.is_multiple_of(UNIT) && (RAM_MIN..=RAM_MAX).contains(&len) {
        true => Ok(len),
        false => Err("expected a multiple of 1M, from 32M to 1023G".into()),
    }
}

/// Creates the guest, lets its devices map, and reports the results.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let demo = DemoGuest::build(args.ram)?;
    let progress = Progress::start("mapping");
    let report = perform(&demo)?;
    drop(progress);
    match args.json {
        true => output::json(&report)?,
        false => show::show(&demo, &report)?,
    }
    release(demo);
    match report.verified {
        true => Ok(()),
        false => Err(Failure::Reported),
    }
}

fn perform(demo: &DemoGuest) -> Result<Report, Failure> {
    let mut report = Report::of(demo);
    maps::whole_map(demo, &mut report)?;
    maps::shortened_map(demo, &mut report)?;
    maps::refused_map(demo, &mut report)?;
    maps::rom_write(demo, &mut report)?;
    drain::revoke_while_held(demo, &mut report)?;
    report.verified = !report.maps.is_empty() && report.maps.iter().all(|map| map.verified);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_of_an_impossible_size_is_refused() {
        assert_eq!(ram("32M"), Ok(32 << 20));
        let wrong = ["0", "1M1", "1K", "31M", "1T", "33000K"];
        assert!(wrong.into_iter().all(|text| ram(text).is_err()));
    }
}
