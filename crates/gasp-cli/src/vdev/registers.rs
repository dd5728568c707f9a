//! Accesses to the registers of a vdev, in each width that its factory allows.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::time::Instant;

use gasp_capi::embed::{self, ListedGuest};
use gasp_capi::types::{GRF_VIRT_RD, GRF_VIRT_WR};
use gasp_qvm::abi::*;
use gasp_qvm::inspect::{Tried, status_name};
use gasp_qvm::{Access, Instance, Space};

use super::factory::WIDTHS;
use super::mutex::{Stop, check_mutex};
use super::report::{Finding, Kind, Report, Reporter};

/// The most accesses of one width: more registers are not looked at.
const ACCESSES_MAX: usize = 1024;
/// An access that takes longer is noticed by the virtual CPU that waits for it.
const SLOW: Duration = Duration::from_millis(100);

/// A region of the vdev.
struct Window {
    space: Space,
    span: RangeInclusive<u64>,
    flags: u32,
    cookie: u32,
}

/// Reads all registers; `poke` also writes zeros to them, before.
pub(super) fn walk(
    vdev: &Instance,
    guest: &ListedGuest,
    poke: bool,
    reports: &Reporter,
) -> Result<(), Stop> {
    let windows = windows(vdev, guest);
    let mut tried = Tally::default();
    let mut writes = Tally::default();
    for width in WIDTHS.into_iter().filter(|&width| vdev.factory().allows(width as usize)) {
        for window in &windows {
            for addr in places(window, width).take(ACCESSES_MAX) {
                let access = Access { space: window.space, addr, cookie: window.cookie };
                let at = format!("{width} bytes at {addr:#x}");
                if poke && window.flags & GRF_VIRT_WR != 0 {
                    reports.call(&format!("vwrite of {at}"));
                    let began = Instant::now();
                    let zeros = [0; 8];
                    let data = zeros.get(..width as usize).unwrap_or_default();
                    writes.count(vdev.try_write(access, data), false, at.clone(), began.elapsed());
                    check_mutex(vdev, "vwrite", reports)?;
                }
                if window.flags & GRF_VIRT_RD != 0 {
                    reports.call(&format!("vread of {at}"));
                    let began = Instant::now();
                    tried.count(vdev.try_read(access, width as usize), true, at, began.elapsed());
                    check_mutex(vdev, "vread", reports)?;
                }
            }
        }
    }
    reports.send(&Report::Returned);
    reports.send(&Report::Accesses { reads: tried.all, writes: writes.all });
    tried.findings("vread", "reads", reports);
    writes.findings("vwrite", "writes", reports);
    Ok(())
}

/// The regions of a vdev, those that the host has made as well as its own.
fn windows(vdev: &Instance, guest: &ListedGuest) -> Vec<Window> {
    let spaces = [(embed::Space::Memory, Space::Memory), (embed::Space::Ports, Space::Ports)];
    let mut all = Vec::new();
    for (listed, space) in spaces {
        let regions = guest.regions(listed).into_iter();
        let own = regions.filter(|region| region.vdev.addr() == vdev.address());
        all.extend(own.map(|region| Window {
            space,
            span: region.span,
            flags: region.flags,
            cookie: region.cookie,
        }));
    }
    all
}

/// The addresses of registers of this width, aligned to it.
fn places(window: &Window, width: u32) -> impl Iterator<Item = u64> + '_ {
    let width = u64::from(width);
    let first = window.span.start().checked_next_multiple_of(width);
    let next = move |at: &u64| at.checked_add(width);
    core::iter::successors(first, next).take_while(move |at| {
        at.checked_add(width - 1).is_some_and(|last| last <= *window.span.end())
    })
}

/// How accesses have ended.
#[derive(Default)]
struct Tally {
    all: u32,
    /// Where each kind has happened first, and how often.
    without_value: Option<(String, u32)>,
    refused: u32,
    ends: Option<(String, u32, u32)>,
    slowest: Option<(String, Duration)>,
}

impl Tally {
    fn count(&mut self, tried: Option<Tried>, is_read: bool, at: String, took: Duration) {
        let Some(tried) = tried else { return };
        self.all += 1;
        if took > SLOW && self.slowest.as_ref().is_none_or(|(_, slowest)| took > *slowest) {
            self.slowest = Some((at.clone(), took));
        }
        match tried.status {
            VRS_NORMAL | VRS_NO_ADVANCE | VRS_CONTINUE => {
                if is_read && tried.value.is_none() {
                    self.without_value.get_or_insert((at, 0)).1 += 1;
                }
            }
            VRS_BUS_ERROR => self.refused += 1,
            status => self.ends.get_or_insert((at, status, 0)).2 += 1,
        }
    }

    fn findings(&self, call: &str, what: &str, reports: &Reporter) {
        let all = self.all;
        let find = |kind, message: String, advice: &str| {
            reports.finding(Finding::new(kind, message).in_call(call).advice(advice));
        };
        if let Some((at, count)) = &self.without_value {
            find(
                Kind::NoValue,
                format!("succeeded without a value in {count} of {all} {what}, first of {at}"),
                "call guest_cpu_write(gcp, GXF_NONE, oopnd, 1, …) and return \
                 guest_cpu_to_vrs() of its result; until then the guest reads ones",
            );
        }
        if let Some((at, status, count)) = &self.ends {
            let name = status_name(*status);
            let is_known = matches!(*status, VRS_ABORT | VRS_TERMINATE) || *status >= VRS_ERRNO;
            let message = match is_known {
                true => format!(
                    "returned {name}, which ends the guest, in {count} of {all} {what}, first of {at}"
                ),
                false => format!("returned {name}, in {count} of {all} {what}, first of {at}"),
            };
            find(
                Kind::Status,
                message,
                "return VRS_NORMAL, or VRS_BUS_ERROR to refuse an access: a guest must not be able \
                 to end itself by a register; guest_cpu_to_vrs() converts error numbers",
            );
        }
        if self.refused == all && all > 0 {
            find(
                Kind::BusError,
                format!("returned VRS_BUS_ERROR for all {all} {what}"),
                "compare vopnd->location, which is the guest-physical address and not an offset, \
                 with v_block.location; acc_sizes and v_block.length say which accesses there are",
            );
        }
        if let Some((at, took)) = &self.slowest {
            find(
                Kind::Slow,
                format!("took {} ms for {at}", took.as_millis()),
                "what waits belongs into a thread of its own (vdev_thread_create()): a virtual CPU \
                 stands still meanwhile",
            );
        }
    }
}
