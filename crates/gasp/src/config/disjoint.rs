//! Grants that overlap, as pieces that do not.
//!
//! The engine compares a new grant with all that is there in its range, which for a guest
//! that adds grant after grant is little. A file can hold tens of thousands that all
//! overlap, and the time would grow with their square. Cut into pieces, each range is
//! given to the engine once, with the sum of the accesses, and the time grows with the
//! number of grants.

use std::collections::BTreeSet;

use super::ConfigError;
use super::plan::GrantPlan;
use super::source::Source;
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::Errno;

/// Cuts grants into pieces of whole granules, in the order of their device addresses. Two
/// grants that translate an address to different places are an error.
///
/// Grants lie inside an address width of at most 52 bits, so that no sum here wraps.
pub(super) fn disjoint(
    source: &Source,
    grants: &[GrantPlan],
) -> Result<Vec<GrantPlan>, ConfigError> {
    let begin = |grant: &GrantPlan| grant.device.0 & !(GRANULE - 1);
    let end = |grant: &GrantPlan| (grant.device.0 + grant.len).next_multiple_of(GRANULE);
    // Where grants begin and end; at one address first those that end.
    let begins = grants.iter().enumerate().map(|(index, grant)| (begin(grant), true, index));
    let ends = grants.iter().enumerate().map(|(index, grant)| (end(grant), false, index));
    let mut events: Vec<_> = begins.chain(ends).collect();
    events.sort_unstable();

    let mut parts: Vec<GrantPlan> = Vec::new();
    let mut active = Active::default();
    let mut from = 0;
    // Whether a grant goes on from the last piece to here.
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

/// The grants that hold at one address.
#[derive(Default)]
struct Active {
    indices: BTreeSet<usize>,
    /// How many of them allow each kind of access.
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

/// How far a grant translates.
fn displacement(grant: &GrantPlan) -> u64 {
    grant.guest.0.wrapping_sub(grant.device.0)
}

fn contradiction(source: &Source, a: &GrantPlan, b: &GrantPlan, addr: u64) -> ConfigError {
    let (old, new) = if a.at.is_after(b.at) { (b, a) } else { (a, b) };
    let message = format!(
        "device address {addr:#x} is mapped already, to guest-physical {:#x}, on line {}",
        addr.wrapping_add(displacement(old)),
        source.line(old.at)
    );
    source.wrong(new.at, &message).with_errno(Errno::EXIST)
}
