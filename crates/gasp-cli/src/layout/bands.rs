//! Bands from the guest's bar to the host's: runs, merged if they are too thin to be
//! distinguished.

use std::collections::BTreeMap;

use gasp::RegionKind;

use super::model::Run;
use super::scale::Scale;

/// A band, in pixels, and the runs that it stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    /// From the first of its runs to the last.
    pub(super) guest: (f64, f64),
    pub(super) host: (f64, f64),
    /// The total height of its runs, in the guest and in the host.
    pub(super) thick: (f64, f64),
    pub(super) kind: RegionKind,
    /// The address of the first of its runs, in the guest and in the host.
    pub(super) first: (u64, u64),
    pub(super) bytes: u64,
    pub(super) runs: usize,
}

/// All bands, and the resolution at which runs were merged.
pub(super) struct Bands {
    pub(super) bands: Vec<Band>,
    /// In pixels.
    pub(super) grain: f64,
    /// The rows of the host's bar with runs that are less than a pixel high.
    pub(super) rows: Vec<Row>,
}

/// A row of pixels of the host's bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) y: f64,
    /// The share that belongs to this guest, from 0 to 1.
    pub(super) share: f64,
    /// The kind of most of that memory.
    pub(super) kind: RegionKind,
    /// Its average position on the guest's bar.
    pub(super) guest: f64,
}

/// The most bands; more could not be followed.
const MOST: usize = 600;

/// The bands of `runs`, at most [`MOST`] of them.
pub(super) fn of(runs: &[Run], guest: &Scale, host: &Scale) -> Bands {
    let mut all = Vec::new();
    for run in runs {
        let last = run.guest + (run.len - 1);
        let mut first = run.guest;
        loop {
            let part = guest.same_strip(first, last);
            let at = run.host + (first - run.guest);
            let on_guest = (guest.y(part.first), guest.y_end(part.last));
            let on_host = (host.y(at), host.y_end(at + (part.size() - 1)));
            all.push(Band {
                guest: on_guest,
                host: on_host,
                thick: (on_guest.1 - on_guest.0, on_host.1 - on_host.0),
                kind: run.kind,
                first: (part.first, at),
                bytes: part.size(),
                runs: 1,
            });
            match part.last.checked_add(1) {
                Some(next) if part.last < last => first = next,
                _ => break,
            }
        }
    }
    let mut grain = 1.0;
    loop {
        let bands = joined(&all, grain);
        if bands.len() <= MOST || grain > 1000.0 {
            return Bands { bands, grain, rows: rows(&all) };
        }
        grain *= 2.0;
    }
}

/// Merges bands that begin within the same `grain` pixels on both sides.
fn joined(bands: &[Band], grain: f64) -> Vec<Band> {
    #[expect(clippy::cast_possible_truncation, reason = "pixels are few")]
    let cell = |y: f64| (y / grain).floor() as i64;
    let thin = |band: &Band| band.guest.1 - band.guest.0 < grain;
    let mut cells: BTreeMap<(i64, i64, bool), Band> = BTreeMap::new();
    for band in bands {
        let key = (cell(band.guest.0), cell(band.host.0), thin(band));
        cells.entry(key).and_modify(|all| all.add(band)).or_insert(*band);
    }
    // The bands of a cell are placed next to each other, as their runs are in the guest.
    let mut tops: BTreeMap<i64, f64> = BTreeMap::new();
    for ((guest, _, _), band) in cells.iter().filter(|((.., thin), _)| *thin) {
        let top = tops.entry(*guest).or_insert(f64::MAX);
        *top = top.min(band.guest.0);
    }
    for ((guest, _, _), band) in cells.iter_mut().filter(|((.., thin), _)| *thin) {
        if let Some(top) = tops.get_mut(guest) {
            band.guest = (*top, *top + band.thick.0);
            *top = band.guest.1;
        }
    }
    cells.into_values().collect()
}

/// The rows for runs that are too thin to be visible on their own.
fn rows(bands: &[Band]) -> Vec<Row> {
    #[derive(Default)]
    struct Sum {
        high: f64,
        guest: f64,
        kind: Option<RegionKind>,
    }
    let mut sums: BTreeMap<i64, Vec<Sum>> = BTreeMap::new();
    for band in bands.iter().filter(|band| band.thick.1 < 1.0) {
        #[expect(clippy::cast_possible_truncation, reason = "pixels are few")]
        let row = sums.entry(band.host.0.floor() as i64).or_default();
        let at = row.iter().position(|sum| sum.kind == Some(band.kind));
        let at = at.unwrap_or_else(|| {
            row.push(Sum { kind: Some(band.kind), ..Sum::default() });
            row.len() - 1
        });
        if let Some(sum) = row.get_mut(at) {
            sum.high += band.thick.1;
            sum.guest += band.thick.1 * (band.guest.0 + band.guest.1) / 2.0;
        }
    }
    let row = |(y, sums): (i64, Vec<Sum>)| {
        let share: f64 = sums.iter().map(|sum| sum.high).sum();
        let most = sums.into_iter().max_by(|a, b| a.high.total_cmp(&b.high))?;
        #[expect(clippy::cast_precision_loss, reason = "pixels are few")]
        let y = y as f64;
        let guest = most.guest / most.high.max(f64::MIN_POSITIVE);
        Some(Row { y, share: share.min(1.0), kind: most.kind?, guest })
    };
    sums.into_iter().filter_map(row).collect()
}

impl Band {
    /// The extents to draw: the total height of its runs, centred on them.
    pub(super) fn drawn(&self) -> ((f64, f64), (f64, f64)) {
        let centred = |(top, bottom): (f64, f64), thick: f64| {
            let (middle, half) = ((top + bottom) / 2.0, thick.clamp(0.7, bottom - top + 0.7) / 2.0);
            (middle - half, middle + half)
        };
        (centred(self.guest, self.thick.0), centred(self.host, self.thick.1))
    }

    fn add(&mut self, other: &Self) {
        self.guest = (self.guest.0.min(other.guest.0), self.guest.1.max(other.guest.1));
        self.host = (self.host.0.min(other.host.0), self.host.1.max(other.host.1));
        self.thick = (self.thick.0 + other.thick.0, self.thick.1 + other.thick.1);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.runs += other.runs;
    }
}

#[cfg(test)]
mod tests {
    use super::super::scale::Part;
    use super::*;

    #[test]
    fn scattered_pages_become_few_bands_and_no_byte_is_lost() {
        let pages: u64 = 1 << 16;
        let runs: Vec<Run> = (0..pages)
            .map(|picture| Run {
                guest: picture << 12,
                host: (picture.wrapping_mul(40_503) % pages) << 12,
                len: 4096,
                kind: RegionKind::Ram,
            })
            .collect();
        let whole = Part { first: 0, last: (pages << 12) - 1 };
        let scale = Scale::new(&[whole], 0.0, 600.0);
        let Bands { bands, rows, .. } = of(&runs, &scale, &scale);
        assert!(rows.len() <= 600 && rows.iter().all(|row| row.share <= 1.0));
        assert!(bands.len() <= MOST, "{}", bands.len());
        assert_eq!(bands.iter().map(|band| band.bytes).sum::<u64>(), pages << 12);
        assert!(bands.iter().all(|band| band.guest.1 <= 600.1 && band.host.1 <= 600.1));
    }

    #[test]
    fn a_run_over_two_parts_is_two_bands() {
        let parts = [Part { first: 0, last: 0xfff }, Part { first: 0x1000, last: 0x7fff }];
        let guest = Scale::new(&parts, 0.0, 600.0);
        let host = Scale::new(&[Part { first: 0x10000, last: 0x17fff }], 0.0, 600.0);
        let run = Run { guest: 0, host: 0x10000, len: 0x8000, kind: RegionKind::Ram };
        let bands = of(&[run], &guest, &host).bands;
        let firsts: Vec<_> = bands.iter().map(|band| band.first).collect();
        assert_eq!(firsts, [(0, 0x10000), (0x1000, 0x11000)]);
    }
}
