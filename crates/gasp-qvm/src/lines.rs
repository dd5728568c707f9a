//! Interrupt lines that a vdev assigns by itself.

use std::sync::Arc;

use gasp::Errno;

use crate::abi::GuestIntr;
use crate::controller::{self, ANY_LINE, Refused};
use crate::live::Live;

/// Assigns a line to a vdev: this one, or one that the host chooses for `None`.
pub(crate) fn assign(
    live: &Arc<Live>,
    line: Option<u32>,
    exclusive: bool,
) -> Result<GuestIntr, Refused> {
    if live.is_running() {
        return Err(Refused::new(
            Errno::PERM,
            "it assigns an interrupt while the guest runs; do that in control(ASSIGN)",
        ));
    }
    let lines = live.host.lines();
    if let Some(line) = line.filter(|&line| line >= lines) {
        let name = controller::NAME;
        return Err(Refused::new(
            Errno::NXIO,
            format!(
                "there is no `{name}:{line}`: `{name}` has the lines 0 to {}",
                lines.max(1) - 1
            ),
        ));
    }
    let present = live.object.interrupt();
    if live.has_interrupt(present.src_id) {
        return match line {
            Some(line) if line != present.param => Err(Refused::new(
                Errno::BUSY,
                format!(
                    "it has the line {} already, and a vdev has one: not {line}",
                    present.param
                ),
            )),
            _ => Ok(present),
        };
    }
    let given = live.host.assign(line, exclusive).map_err(|errno| {
        let which = line.map_or("a line".to_owned(), |line| format!("the line {line}"));
        Refused::new(
            errno,
            format!("{which} of `{}` cannot be assigned: {errno}", controller::NAME),
        )
    })?;
    let param = given.unwrap_or(ANY_LINE);
    let intr = GuestIntr { pic: controller::pointer(), param, src_id: live.number_interrupt() };
    live.object.set_interrupt(intr);
    Ok(intr)
}

/// The line of an interrupt that a vdev has, as it is now; `None` if the host has not chosen yet.
pub(crate) fn line_of(live: &Live, intr: &GuestIntr) -> Option<u32> {
    let chosen = |intr: &GuestIntr| Some(intr.param).filter(|&line| line != ANY_LINE);
    chosen(intr).or_else(|| {
        let own = live.object.interrupt();
        chosen(&own).filter(|_| own.src_id == intr.src_id)
    })
}
