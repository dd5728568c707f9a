//! The contents of a picture, collected from the guest.

use std::collections::BTreeSet;

use gasp::{Access, Domain, DomainKind, Guest, GuestPhys, Region, RegionKind, Span, Unattached};

use super::cell::{Cell, Device, Rest};
use super::merged;
use super::scale::{Part, Scale};

/// What a picture shows of a guest.
pub(super) struct Model {
    pub(super) name: String,
    /// In order of address.
    pub(super) regions: Vec<Region>,
    pub(super) columns: Vec<DomainColumn>,
    /// How many domains have no column, for lack of room.
    pub(super) hidden_columns: usize,
    /// In order of guest-physical address.
    pub(super) runs: Vec<Run>,
    /// Why some host-physical addresses are not known, if so.
    pub(super) host_unknown: Option<String>,
}

/// A domain, or the devices that are attached to none.
pub(super) struct DomainColumn {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) devices: Vec<String>,
    pub(super) cells: Vec<Cell>,
    pub(super) rest: Rest,
}

/// A host-physical run of guest memory.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) guest: u64,
    pub(super) host: u64,
    pub(super) len: u64,
    pub(super) kind: RegionKind,
}

/// The most columns.
const COLUMNS: usize = 6;
/// The most parts of the guest's bar for which grants have parts of their own.
const PARTS_FINE: usize = 36;
/// The most parts of the guest's bar; if there are more, neighbours are merged.
const PARTS: usize = 120;
/// The most parts of the host's bar.
const ISLANDS: usize = 14;

impl Model {
    pub(super) fn of(guest: &Guest) -> Self {
        let regions = guest.space().regions();
        let domains = guest.domains();
        let stray = DomainColumn::without_domain(guest, &regions);
        let hidden_columns = (domains.len() + usize::from(stray.is_some())).saturating_sub(COLUMNS);
        let columns = domains
            .iter()
            .map(|domain| DomainColumn::of(guest, domain, &regions))
            .chain(stray)
            .take(COLUMNS)
            .collect();
        let (mut runs, mut host_unknown) = (Vec::new(), None);
        for region in &regions {
            if let Err(why) = runs_of(region, &mut runs) {
                host_unknown.get_or_insert(why);
            }
        }
        Self { name: guest.name().into(), regions, columns, hidden_columns, runs, host_unknown }
    }

    /// The parts of the guest's bar: regions, split where a grant begins or ends.
    pub(super) fn guest_parts(&self) -> Vec<Part> {
        let whole: Vec<Part> = self.regions.iter().map(|region| part(region.span())).collect();
        let cells = self.columns.iter().flat_map(|column| &column.cells);
        let mut cuts: Vec<u64> = cells
            .flat_map(|cell| [Some(cell.part.first), cell.part.last.checked_add(1)])
            .flatten()
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut parts = Vec::new();
        for &Part { mut first, last } in &whole {
            let from = cuts.partition_point(|&cut| cut <= first);
            for &cut in cuts.iter().skip(from).take_while(|&&cut| cut <= last) {
                parts.push(Part { first, last: cut - 1 });
                first = cut;
            }
            parts.push(Part { first, last });
        }
        let parts = if parts.len() <= PARTS_FINE { parts } else { whole };
        joined(&parts, PARTS)
    }

    /// The parts of the host's bar: runs, with the addresses between those that are close.
    pub(super) fn host_parts(&self) -> Vec<Part> {
        let mut runs: Vec<Part> = self
            .runs
            .iter()
            .map(|run| Part { first: run.host, last: run.host + (run.len - 1) })
            .collect();
        runs.sort_unstable_by_key(|run| run.first);
        let mut close = 0;
        loop {
            let islands = islands(&runs, close);
            if islands.len() <= ISLANDS {
                return islands;
            }
            close = (close * 2).max(1 << 20);
        }
    }

    /// The total height in the picture of the guest memory whose host-physical address is known.
    pub(super) fn known_height(&self, guest: &Scale) -> f64 {
        let high = |run: &Run| guest.y_end(run.guest + (run.len - 1)) - guest.y(run.guest);
        self.runs.iter().map(high).sum::<f64>().max(40.0)
    }

    /// Every kind of access that a domain allows, each once.
    pub(super) fn accesses(&self) -> Vec<Access> {
        let cells = self.columns.iter().flat_map(|column| &column.cells);
        let all: BTreeSet<u8> = cells.map(|cell| cell.access.bits()).collect();
        all.into_iter().map(Access::from_bits_truncate).collect()
    }

    /// Whether a column has cells that stand for several mappings.
    pub(super) fn merges(&self) -> bool {
        let mut cells = self.columns.iter().flat_map(|column| &column.cells);
        cells.any(|cell| cell.device == Device::Several)
    }

    /// The bytes of all regions of one kind.
    pub(super) fn bytes(&self, kind: RegionKind) -> u64 {
        let regions = self.regions.iter().filter(|region| region.kind() == kind);
        regions.fold(0, |sum, region| sum.saturating_add(region.span().len()))
    }
}

impl DomainColumn {
    fn of(guest: &Guest, domain: &Domain, regions: &[Region]) -> Self {
        let attached =
            |vdev: &gasp::Vdev| vdev.domain().is_some_and(|other| other.name() == domain.name());
        let devices = guest.vdevs().iter().filter(|vdev| attached(vdev)).map(name).collect();
        let cells = match domain.kind() {
            DomainKind::Bypass => everything(regions),
            _ => {
                let grants = domain.grants();
                let memory = regions.iter().filter(|region| region.kind().is_memory());
                let memory: Vec<Part> = memory.map(|region| part(region.span())).collect();
                merged::cells(grants.iter().flat_map(|grant| cells_of(grant, regions)), &memory)
            }
        };
        let rest = if domain.kind() == DomainKind::Ask { Rest::Unasked } else { Rest::Denied };
        Self { name: domain.name().into(), kind: domain.kind().name(), devices, cells, rest }
    }

    /// The devices that are attached to no domain.
    fn without_domain(guest: &Guest, regions: &[Region]) -> Option<Self> {
        let stray: Vec<_> =
            guest.vdevs().into_iter().filter(|vdev| vdev.domain().is_none()).collect();
        if stray.is_empty() {
            return None;
        }
        let denied = guest.iommu() == Some(Unattached::Deny);
        let cells = if denied { Vec::new() } else { everything(regions) };
        let kind = if denied { "denied" } else { "bypass" };
        let devices = stray.iter().map(name).collect();
        Some(Self { name: "no domain".into(), kind, devices, cells, rest: Rest::Denied })
    }
}

fn name(vdev: &gasp::Vdev) -> String {
    vdev.name().into()
}

fn part(span: Span<GuestPhys>) -> Part {
    Part { first: span.start().0, last: span.last().0 }
}

fn everything(regions: &[Region]) -> Vec<Cell> {
    let memory = regions.iter().filter(|region| region.kind().is_memory());
    let cell = |region: &Region| Cell {
        part: part(region.span()),
        access: region.access(),
        device: Device::Same,
    };
    memory.map(cell).collect()
}

/// What a grant allows in effect: the memory that it leads to, with the access that both allow.
fn cells_of<'a>(grant: &'a gasp::Grant, regions: &'a [Region]) -> impl Iterator<Item = Cell> + 'a {
    let span = Span::new(grant.guest, grant.device.len()).ok();
    span.into_iter().flat_map(move |span| {
        let from = regions.partition_point(|region| region.span().last() < span.start());
        let near =
            regions.iter().skip(from).take_while(move |region| region.span().overlaps(&span));
        near.filter_map(move |region| {
            let both = region.span().intersection(&span)?;
            let access = grant.access & region.access();
            let device = grant.device.start().0 + (both.start().0 - span.start().0);
            let device = if device == both.start().0 { Device::Same } else { Device::From(device) };
            (!access.is_empty()).then(|| Cell { part: part(both), access, device })
        })
    })
}

/// Appends the host-physical runs of a region; the error is why they are not known.
fn runs_of(region: &Region, runs: &mut Vec<Run>) -> Result<(), String> {
    let Some(object) = region.object() else { return Ok(()) };
    let offset = region.object_offset();
    let (start, len) = (region.span().start().0, region.span().len());
    let mut done = 0;
    while done < len {
        let run = object
            .host_run(offset + done, len - done)
            .map_err(|error| error.reason().to_string())?;
        let kind = region.kind();
        runs.push(Run { guest: start + done, host: run.addr.0, len: run.len, kind });
        done += run.len;
    }
    Ok(())
}

/// Merges neighbours, with the addresses between them, into at most `most` parts.
fn joined(parts: &[Part], most: usize) -> Vec<Part> {
    let together = parts.len().div_ceil(most).max(1);
    let join =
        |chunk: &[Part]| Some(Part { first: chunk.first()?.first, last: chunk.last()?.last });
    parts.chunks(together).filter_map(join).collect()
}

/// Merges runs that are at most `close` bytes apart.
fn islands(runs: &[Part], close: u64) -> Vec<Part> {
    let mut islands: Vec<Part> = Vec::new();
    for run in runs {
        match islands.last_mut() {
            Some(island) if run.first <= island.last.saturating_add(close).saturating_add(1) => {
                island.last = island.last.max(run.last);
            }
            _ => islands.push(*run),
        }
    }
    islands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_are_close_become_one_part() {
        let run = |first, last| Part { first, last };
        let runs = [run(0, 9), run(10, 19), run(25, 29), run(100, 109)];
        assert_eq!(islands(&runs, 0), [run(0, 19), run(25, 29), run(100, 109)]);
        assert_eq!(islands(&runs, 5), [run(0, 29), run(100, 109)]);
        assert_eq!(islands(&runs, 1000), [run(0, 109)]);
    }

    #[test]
    fn very_many_parts_are_merged() {
        let parts: Vec<Part> =
            (0..1000).map(|at| Part { first: at * 10, last: at * 10 + 4 }).collect();
        let few = joined(&parts, 100);
        assert_eq!((few.len(), few[0].first, few[99].last), (100, 0, 9994));
    }
}
