//! `gasp demo`: the guest of `examples/demo.toml` on this machine's real pages, and what its devices may do.
//!
//! [`scene`] creates the guest, [`acts`] lets its devices map, [`drain`] takes a range back
//! while it is held, [`verify`] checks every mapping against a second one of the same
//! memory. All of it is collected in a [`report::Report`] and then told: to a person by
//! [`show`], to a program as JSON.

mod acts;
mod drain;
mod report;
mod scene;
mod show;
mod verify;

use crate::cli::Demo;
use crate::failure::Failure;
use crate::output;
use crate::progress::{Progress, release};
use report::Report;
use scene::Scene;
pub(crate) use scene::{RAM_MAX, RAM_MIN};

/// Creates the guest, lets its devices map, and reports what happened.
pub(crate) fn run(args: &Demo) -> Result<(), Failure> {
    let scene = Scene::build(args.ram)?;
    let progress = Progress::start("mapping");
    let report = perform(&scene)?;
    drop(progress);
    match args.json {
        true => output::json(&report)?,
        false => show::show(&scene, &report)?,
    }
    release(scene);
    match report.verified {
        true => Ok(()),
        false => Err(Failure::Told),
    }
}

fn perform(scene: &Scene) -> Result<Report, Failure> {
    let mut report = Report::of(scene);
    acts::whole_map(scene, &mut report)?;
    acts::shortened_map(scene, &mut report)?;
    acts::refused_map(scene, &mut report)?;
    acts::rom_write(scene, &mut report)?;
    drain::revoke_while_held(scene, &mut report)?;
    report.verified = !report.maps.is_empty() && report.maps.iter().all(|map| map.verified);
    Ok(report)
}
