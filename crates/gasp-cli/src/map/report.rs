//! The result of a map: the fields of `gasp map --json`.

use gasp::{DeviceAddr, DomainKind, Grant, HostMapping, Scatter, Stability, Vdev};
use gasp::{FrameAccess, frame_access};
use serde::Serialize;

/// The result of a map. `gasp map --help` describes the fields.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) vdev: String,
    pub(super) addr: u64,
    pub(super) len: u64,
    pub(super) access: String,
    pub(super) stability: &'static str,
    pub(super) first: Option<First>,
    pub(super) runs: Vec<Run>,
    /// Why host-physical addresses are not disclosed.
    #[serde(skip)]
    pub(super) host_unknown: Option<&'static str>,
}

/// The host-contiguous run at the start of the map.
#[derive(Serialize)]
pub(super) struct First {
    pub(super) host: u64,
    pub(super) len: u64,
}

/// A host-physical run.
#[derive(Serialize)]
pub(super) struct Run {
    pub(super) device: u64,
    pub(super) guest: Option<u64>,
    pub(super) host: Option<u64>,
    pub(super) len: u64,
}

impl Report {
    pub(super) fn of(vdev: &Vdev, scatter: &Scatter, first: Option<&HostMapping>) -> Self {
        let translation = Translation::of(vdev);
        let mut runs = Vec::new();
        for piece in scatter.pieces() {
            runs.extend(piece.host_extents().map(|extent| {
                let device = DeviceAddr(piece.device_addr().0 + extent.offset);
                let guest = translation.guest(device);
                let host = extent.addr.map(|addr| addr.0);
                Run { device: device.0, guest, host, len: extent.len }
            }));
        }
        let stability = scatter.pieces().map(|piece| piece.stability()).min();
        let host_unknown = match (frame_access(), stability) {
            (FrameAccess::Denied(why), _) => Some(why),
            (_, Some(Stability::Unpinned)) => {
                Some("it can change, and the guest is not configured with allow-unpinned")
            }
            _ => Some("not all pages of this memory are in place"),
        };
        let first = first.map(HostMapping::run);
        Self {
            vdev: vdev.name().into(),
            addr: scatter.device_addr().0,
            len: scatter.len() as u64,
            access: scatter.access().to_string(),
            stability: stability.map_or("unpinned", |stability| stability.name()),
            host_unknown: host_unknown.filter(|_| first.is_none()),
            first: first.map(|run| First { host: run.addr.0, len: run.len }),
            runs,
        }
    }
}

/// The translation of a device's addresses to guest-physical ones.
struct Translation {
    /// In order of device address; `None` if device addresses are guest-physical ones.
    grants: Option<Vec<Grant>>,
}

impl Translation {
    fn of(vdev: &Vdev) -> Self {
        let domain = vdev.domain().filter(|domain| domain.kind() == DomainKind::Translate);
        Self { grants: domain.map(|domain| domain.grants()) }
    }

    fn guest(&self, device: DeviceAddr) -> Option<u64> {
        let Some(grants) = &self.grants else { return Some(device.0) };
        let after = grants.partition_point(|grant| grant.device.start() <= device);
        let grant = grants.get(after.checked_sub(1)?)?;
        let inside = grant.device.contains(device);
        inside.then(|| grant.guest.0 + (device.0 - grant.device.start().0))
    }
}
