//! Limits on the resources of a VMM, and the treatment of memory that it can take away.

use gasp_vfio_user::{Options, Unsealed};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::requested::{Requested, Wrong, wrong};
use crate::quantity::parse_length;

/// Descriptors that the process needs for itself and for clients that it rejects.
const OWN_DESCRIPTORS: u64 = 64;
/// Descriptors of a server besides its client's: socket, connection, event notification, image.
const OF_A_SERVER: u64 = 16;
/// The least descriptors with which a VMM can attach a device that has interrupts.
const DESCRIPTORS_MIN: u64 = 16;

/// The configured limits; `None` is the server's own.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Limits {
    unsealed: Option<Unsealed>,
    max_memory: Option<u64>,
    max_dma_maps: Option<u32>,
    max_descriptors: Option<u32>,
    max_drains: Option<u32>,
}

impl Limits {
    pub(super) fn of(requested: &Requested) -> Result<Self, Wrong> {
        let unsealed = match requested.unsealed.as_deref().map(|text| (text, text.parse())) {
            None => None,
            Some((_, Ok(unsealed))) => Some(unsealed),
            Some((text, Err(_))) => {
                let message = format!("expected message, trust or refuse, not {text:?}");
                return wrong("unsealed", message);
            }
        };
        let max_memory = match requested.max_memory.as_deref().map(parse_length) {
            None => None,
            Some(Ok(0)) => return wrong("max-memory", "expected more than 0 bytes"),
            Some(Ok(bytes)) => Some(bytes),
            Some(Err(message)) => return wrong("max-memory", message),
        };
        Ok(Self {
            unsealed,
            max_memory,
            max_dma_maps: number("max-dma-maps", requested.max_dma_maps, 1, 65_535)?,
            max_descriptors: number(
                "max-descriptors",
                requested.max_descriptors,
                DESCRIPTORS_MIN,
                1 << 20,
            )?,
            max_drains: number("max-drains", requested.max_drains, 1, 65_535)?,
        })
    }

    /// The options `own` with these limits, for one of `devices` in this process.
    pub(super) fn apply(&self, own: Options, devices: usize) -> Options {
        let share = share(descriptors(), devices, own.max_descriptors);
        Options {
            unsealed: self.unsealed.unwrap_or(own.unsealed),
            max_memory: self.max_memory.unwrap_or(own.max_memory),
            max_dma_maps: self.max_dma_maps.unwrap_or(own.max_dma_maps),
            max_descriptors: self.max_descriptors.unwrap_or(share),
            max_drains: self.max_drains.unwrap_or(own.max_drains),
            ..own
        }
    }
}

fn number(key: &'static str, given: Option<u64>, min: u64, max: u32) -> Result<Option<u32>, Wrong> {
    let Some(given) = given else { return Ok(None) };
    match u32::try_from(given).ok().filter(|number| given >= min && *number <= max) {
        Some(number) => Ok(Some(number)),
        None => wrong(key, format!("expected {min} to {max}, not {given}")),
    }
}

/// The descriptors that each device may hold, so that `limit` is enough for all devices and the
/// process itself.
fn share(limit: u64, devices: usize, own: u32) -> u32 {
    let devices = u64::try_from(devices).unwrap_or(u64::MAX).max(1);
    let share = (limit.saturating_sub(OWN_DESCRIPTORS) / devices).saturating_sub(OF_A_SERVER);
    u32::try_from(share.max(DESCRIPTORS_MIN)).map_or(own, |share| share.min(own))
}

fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the soft limit of descriptors to the hard one: each VMM may send several hundred.
pub(super) fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of descriptors cannot be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_default_to_those_of_the_server() {
        let requested = Requested {
            unsealed: Some("refuse".into()),
            max_memory: Some("64G".into()),
            max_descriptors: Some(100),
            ..Requested::default()
        };
        let options = Limits::of(&requested).unwrap().apply(Options::default(), 1000);
        assert_eq!(options.unsealed, Unsealed::Refuse);
        assert_eq!((options.max_memory, options.max_descriptors), (64 << 30, 100));
        assert_eq!(options.max_drains, Options::default().max_drains);
        assert_eq!(options.max_dma_maps, Options::default().max_dma_maps);
    }

    #[test]
    fn an_impossible_limit_is_refused_with_its_key() {
        let key = |requested: Requested| Limits::of(&requested).unwrap_err().key;
        assert_eq!(
            key(Requested { unsealed: Some("no".into()), ..Requested::default() }),
            "unsealed"
        );
        assert_eq!(
            key(Requested { max_memory: Some("0".into()), ..Requested::default() }),
            "max-memory"
        );
        assert_eq!(
            key(Requested { max_memory: Some("x".into()), ..Requested::default() }),
            "max-memory"
        );
        assert_eq!(
            key(Requested { max_dma_maps: Some(0), ..Requested::default() }),
            "max-dma-maps"
        );
        assert_eq!(
            key(Requested { max_dma_maps: Some(1 << 32), ..Requested::default() }),
            "max-dma-maps"
        );
        assert_eq!(
            key(Requested { max_descriptors: Some(1), ..Requested::default() }),
            "max-descriptors"
        );
        assert_eq!(
            key(Requested { max_drains: Some(70_000), ..Requested::default() }),
            "max-drains"
        );
    }

    #[test]
    fn descriptors_are_shared_among_the_devices() {
        assert_eq!(share(1 << 20, 4, 512), 512);
        assert_eq!(share(1024, 4, 512), 224);
        assert_eq!(share(1024, 1000, 512), 16);
        assert_eq!(share(0, 0, 512), 16);
        assert_eq!(share(u64::MAX, 1, 512), 512);
        for devices in 1..30 {
            let all = devices * (u64::from(share(4096, devices as usize, 512)) + OF_A_SERVER);
            assert!(all + OWN_DESCRIPTORS <= 4096, "{devices}");
        }
    }
}
