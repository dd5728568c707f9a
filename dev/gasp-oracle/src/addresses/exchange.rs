//! One round of copies by the devices, and the check of what they have copied.

use gasp::Mapping;

use crate::Failure;
use crate::edu::Edu;
use crate::pagemap::PAGE;

/// Bytes copied at each point.
pub(super) const PIECE: usize = 64;

/// A location in a mapping, and its host-physical address according to the engine.
#[derive(Clone, Copy)]
pub(super) struct Point<'a> {
    mapping: &'a Mapping,
    offset: usize,
    /// The address of the run that the map returned, plus the offset.
    host: u64,
    pattern: [u8; PIECE],
}

/// Which address is deliberately replaced by one of another page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    Nothing,
    Source,
    Destination,
}

impl<'a> Point<'a> {
    pub(super) fn new(mapping: &'a Mapping, offset: usize, seed: u64) -> Result<Self, Failure> {
        let run = mapping.host_run()?;
        let (end, len) = ((offset + PIECE) as u64, mapping.len() as u64);
        if run.len != len || end > len {
            return Err(format!("a run of {} bytes for a mapping of {len}", run.len).into());
        }
        let host = run.addr.0 + offset as u64;
        Ok(Self { mapping, offset, host, pattern: pattern(seed) })
    }

    fn holds(&self, pattern: &[u8; PIECE]) -> Result<bool, Failure> {
        let mut bytes = [0; PIECE];
        self.mapping.read_at(self.offset, &mut bytes)?;
        Ok(bytes == *pattern)
    }

    /// The same offset in the page of `other`.
    fn in_page_of(&self, other: &Self) -> u64 {
        let page = PAGE as u64;
        // Up to the end of the page, so that no other memory is accessed.
        other.host / page * page + (self.host % page).min(page - PIECE as u64)
    }
}

/// A unique pattern: no byte is 0, and each seed has another sequence.
fn pattern(seed: u64) -> [u8; PIECE] {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    core::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 | 1
    })
}

/// Makes each device copy from one point to the next; returns the copies that did not arrive.
///
/// There are at most as many points as devices.
pub(super) fn exchange(
    devices: &[Edu],
    points: &[Point<'_>],
    wrong: Wrong,
) -> Result<Vec<String>, Failure> {
    let len = PIECE as u64;
    let next = |index: usize| points.get((index + 1) % points.len().max(1));
    for point in points {
        point.mapping.write_at(point.offset, &point.pattern)?;
    }
    for (index, (device, point)) in devices.iter().zip(points).enumerate() {
        let from = match (wrong, next(index)) {
            (Wrong::Source, Some(other)) => point.in_page_of(other),
            _ => point.host,
        };
        device.start_reading(from, len)?;
    }
    wait(devices, points)?;
    for point in points {
        point.mapping.write_at(point.offset, &[0; PIECE])?;
    }
    for (index, device) in devices.iter().enumerate().take(points.len()) {
        let (target, other) = (next(index), next(index + 1));
        let to = match (wrong, target, other) {
            (Wrong::Destination, Some(target), Some(other)) => target.in_page_of(other),
            (_, Some(target), _) => target.host,
            _ => continue,
        };
        device.start_writing(to, len)?;
    }
    wait(devices, points)?;
    let mut mismatches = Vec::new();
    for (index, point) in points.iter().enumerate() {
        if let Some(target) = next(index)
            && !target.holds(&point.pattern)?
        {
            mismatches.push(format!("{:#x} to {:#x}", point.host, target.host));
        }
    }
    Ok(mismatches)
}

fn wait(devices: &[Edu], points: &[Point<'_>]) -> Result<(), Failure> {
    devices.iter().take(points.len()).try_for_each(Edu::wait)
}

/// At most `most` of the points, no two of them in the same page.
pub(super) fn on_different_pages<'a>(points: &[Point<'a>], most: usize) -> Vec<Point<'a>> {
    let page = |point: &Point<'_>| point.host / PAGE as u64;
    let mut chosen: Vec<Point<'a>> = Vec::new();
    for point in points {
        if chosen.len() < most && chosen.iter().all(|other| page(other) != page(point)) {
            chosen.push(*point);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_differ_and_are_not_what_memory_is_cleared_to() {
        let patterns: Vec<_> = (0..500).map(pattern).collect();
        for (index, one) in patterns.iter().enumerate() {
            assert!(one.iter().all(|&byte| byte != 0));
            assert!(patterns.iter().skip(index + 1).all(|other| other != one));
        }
    }
}
