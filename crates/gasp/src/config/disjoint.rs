//! Cuts grants that overlap into grants that do not.
//!
//! The engine compares a new grant with all existing ones in its range, which are few for a
//! guest that adds one grant after another. A file can have tens of thousands that all
//! overlap, and the time would grow with the square of their number. If they are cut first,
//! the engine gets each range once, with the union of the accesses, and the time grows in
//! proportion to their number.

use std::collections::BTreeSet;

use super::error::ConfigError;
use super::plan::GrantPlan;
use super::source::Source;
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::Errno;

/// Cuts grants into disjoint ones of whole granules, in the order of their device addresses.
///
/// The grants must be inside an address width of at most 52 bits, so that no sum here wraps.
///
/// # Errors
/// `EEXIST` if two grants translate an address to different ones.
pub(super) fn disjoint(
    source: &Source,
    grants: &[GrantPlan],
) -> Result<Vec<GrantPlan>, ConfigError> {
    let begin = |grant: &GrantPlan| grant.device.0 & !(GRANULE - 1);
    let end = |grant: &GrantPlan| (grant.device.0 + grant.len).next_multiple_of(GRANULE);
    // The begins and ends of grants; at one address the ends come first.
    let begins = grants.iter().enumerate().map(|(index, grant)| (begin(grant), true, index));
    let ends = grants.iter().enumerate().map(|(index, grant)| (end(grant), false, index));
    let mut events: Vec<_> = begins.chain(ends).collect();
    events.sort_unstable();

    let mut parts: Vec<GrantPlan> = Vec::new();
    let mut active = Active::default();
    let mut from = 0;
    // Whether a grant extends from the last part to here.
    let mut goes_on = false;
    for (addr, begin, index) in events {
        let Some(grant) = grants.get(index) else { continue };
        if let Some(first) = active.first(grants).filter(|_| from < addr) {
            let access = active.access();
            match parts.last_mut().filter(|last| goes_on && last.access == access) {
                Some(last) => last.len += addr - from,
                None => parts.push(GrantPlan {
                    at: first.at,
                    device: DeviceAddr(from),
                    guest: GuestPhys(from.wrapping_add(displacement(first))),
                    len: addr - from,
                    access,
                }),
            }
            goes_on = true;
        }
        from = addr;
        if begin {
            if let Some(other) =
                active.first(grants).filter(|other| displacement(other) != displacement(grant))
            {
                return Err(contradiction(source, other, grant, addr));
            }
            active.add(index, grant);
        } else {
            active.remove(index, grant);
            goes_on &= !active.indices.is_empty();
        }
    }
    Ok(parts)
}

/// The grants that cover one address: the active set of the sweep.
#[derive(Default)]
struct Active {
    indices: BTreeSet<usize>,
    /// Number of them that allow each kind of access.
    counts: [(Access, usize); 3],
}

impl Active {
    fn first<'a>(&self, grants: &'a [GrantPlan]) -> Option<&'a GrantPlan> {
        grants.get(*self.indices.first()?)
    }

    fn access(&self) -> Access {
        let some = self.counts.iter().filter(|(_, count)| *count > 0);
        some.fold(Access::empty(), |all, (access, _)| all | *access)
    }

    fn add(&mut self, index: usize, grant: &GrantPlan) {
        self.indices.insert(index);
        let kinds = [Access::READ, Access::WRITE, Access::EXEC];
        for (count, access) in self.counts.iter_mut().zip(kinds) {
            *count = (access, count.1 + usize::from(grant.access.contains(access)));
        }
    }

    fn remove(&mut self, index: usize, grant: &GrantPlan) {
        self.indices.remove(&index);
        for (access, count) in &mut self.counts {
            *count -= usize::from(grant.access.contains(*access));
        }
    }
}

/// Difference between the guest-physical and the device addresses of a grant; it wraps.
fn displacement(grant: &GrantPlan) -> u64 {
    grant.guest.0.wrapping_sub(grant.device.0)
}

fn contradiction(source: &Source, a: &GrantPlan, b: &GrantPlan, addr: u64) -> ConfigError {
    let (old, new) = if a.at.is_after(b.at) { (b, a) } else { (a, b) };
    let message = format!(
        "device address {addr:#x} already leads to guest-physical {:#x}, on {}",
        addr.wrapping_add(displacement(old)),
        source.line(old.at, new.at)
    );
    source.wrong(new.at, &message).with_errno(Errno::EXIST)
}
