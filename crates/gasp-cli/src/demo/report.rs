//! The results of the demo: the fields of `gasp demo --json`.

use gasp::{Access, Error, Fault, Location, Mapping, Stability};
use serde::Serialize;

use super::guest::DemoGuest;

/// All results. `gasp demo --help` describes the fields.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) ram_bytes: u64,
    pub(super) backing: &'static str,
    pub(super) backing_note: Option<String>,
    pub(super) passed_over: Vec<PassedOver>,
    pub(super) stability: &'static str,
    pub(super) not_pinned_because: Option<&'static str>,
    pub(super) runs: Vec<Run>,
    pub(super) maps: Vec<Map>,
    pub(super) refused: Option<Refused>,
    pub(super) faults: Vec<FaultRecord>,
    pub(super) rom_write: Option<Refused>,
    pub(super) shortened: Option<Shortened>,
    pub(super) drain: Option<Drain>,
    pub(super) verified: bool,
    pub(super) notes: Vec<String>,
}

/// A backing that was tried and unavailable.
#[derive(Serialize)]
pub(super) struct PassedOver {
    pub(super) backing: &'static str,
    pub(super) why: String,
}

/// A host-physical run of the guest's RAM.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Run {
    pub(super) guest: u64,
    pub(super) host: Option<u64>,
    pub(super) len: u64,
}

/// A map that succeeded.
#[derive(Serialize)]
pub(super) struct Map {
    pub(super) device: &'static str,
    pub(super) what: &'static str,
    pub(super) access: String,
    pub(super) addr: u64,
    pub(super) len: u64,
    pub(super) host: Option<u64>,
    pub(super) verified: bool,
}

/// A map that was refused.
#[derive(Serialize)]
pub(super) struct Refused {
    pub(super) device: &'static str,
    pub(super) addr: u64,
    pub(super) len: u64,
    pub(super) access: String,
    pub(super) errno: &'static str,
    pub(super) reason: String,
}

/// The guest's record of a refused access.
#[derive(Serialize)]
pub(super) struct FaultRecord {
    pub(super) device: String,
    pub(super) addr: u64,
    pub(super) access: String,
    pub(super) reason: String,
}

/// A host-contiguous map that may cross the end of a run.
#[derive(Serialize)]
pub(super) struct Shortened {
    pub(super) addr: u64,
    pub(super) asked: u64,
    pub(super) got: Option<u64>,
}

/// A revoke of a range that another thread held.
#[derive(Serialize)]
pub(super) struct Drain {
    pub(super) held_ns: u64,
    pub(super) waited_ns: u64,
    pub(super) holders: usize,
    pub(super) completed: bool,
    pub(super) meanwhile: Meanwhile,
}

/// A new map of the range while the revoke waited.
#[derive(Serialize)]
pub(super) struct Meanwhile {
    pub(super) errno: &'static str,
    pub(super) took_ns: u64,
}

impl Report {
    /// The report on the guest's RAM, before any map.
    pub(super) fn of(demo: &DemoGuest) -> Self {
        // All RAM is requested in the same way, so its first object stands for all, unless the
        // machine ran short of memory in between.
        let backing = demo.ram.first().map(|(_, ram)| ram.backing());
        let passed_over = backing.map_or(&[] as &[_], |backing| &backing.passed_over).iter();
        let runs = demo.ram.iter().flat_map(|(at, ram)| {
            ram.host_extents().map(|extent| Run {
                guest: at.0 + extent.offset,
                host: extent.addr.map(|addr| addr.0),
                len: extent.len,
            })
        });
        let stability = demo.ram.iter().map(|(_, ram)| ram.stability()).min();
        let stability = stability.unwrap_or(Stability::Unpinned);
        let not_pinned_because = demo.ram.iter().find_map(|(_, ram)| ram.not_pinned_because());
        let mut notes = Vec::new();
        if let Some(error) = demo.ram.iter().find_map(|(_, ram)| ram.host_run(0, 1).err()) {
            notes.push(error.reason().to_string());
        }
        if let (Stability::Unpinned, Some(why)) = (stability, not_pinned_because) {
            notes.push(format!("the RAM is not pinned, so its pages can move: {why}"));
        }
        Self {
            ram_bytes: demo.ram.iter().map(|(_, ram)| ram.len()).sum(),
            backing: backing.map_or("none", |backing| backing.obtained.name()),
            backing_note: backing.and_then(|backing| backing.note.clone()),
            passed_over: passed_over
                .map(|passed| PassedOver {
                    backing: passed.backing.name(),
                    why: passed.why.clone(),
                })
                .collect(),
            stability: stability.name(),
            not_pinned_because,
            runs: runs.collect(),
            maps: Vec::new(),
            refused: None,
            faults: Vec::new(),
            rom_write: None,
            shortened: None,
            drain: None,
            verified: false,
            notes,
        }
    }

    /// Whether the host-physical addresses of all the RAM are disclosed.
    pub(super) fn host_known(&self) -> bool {
        self.runs.iter().all(|run| run.host.is_some())
    }
}

impl Map {
    pub(super) fn of(
        device: &'static str,
        what: &'static str,
        mapping: &Mapping,
        verified: bool,
    ) -> Self {
        Self {
            device,
            what,
            access: mapping.access().to_string(),
            addr: mapping.device_addr().0,
            len: mapping.len() as u64,
            host: mapping.host_run().ok().map(|run| run.addr.0),
            verified,
        }
    }
}

impl Refused {
    pub(super) fn of(device: &'static str, access: Access, error: &Error) -> Self {
        Self {
            device,
            addr: error.location().map_or(0, Location::raw),
            len: error.len(),
            access: access.to_string(),
            errno: error.errno_name(),
            reason: error.reason().to_string(),
        }
    }
}

impl From<Fault> for FaultRecord {
    fn from(fault: Fault) -> Self {
        Self {
            device: fault.device.to_string(),
            addr: fault.addr.0,
            access: fault.access.to_string(),
            reason: fault.refusal.to_string(),
        }
    }
}
