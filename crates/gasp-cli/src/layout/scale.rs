//! The positions of addresses in the picture.
//!
//! The sizes of parts differ by a factor of a million, so each part has a scale of its own: it
//! is at least high enough for a line of text, and the remaining height is distributed in
//! proportion to the cube roots of the sizes. The addresses between parts are a short break.

/// A range of addresses that is drawn. Both ends are inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Part {
    pub(super) fn size(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// A part or a break, with its position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strip {
    pub(super) part: Part,
    pub(super) top: f64,
    pub(super) height: f64,
    /// Whether it stands for omitted addresses.
    pub(super) is_break: bool,
}

/// The position of each address.
#[derive(Debug)]
pub(super) struct Scale {
    strips: Vec<Strip>,
    bottom: f64,
}

/// The height of a break.
const BREAK: f64 = 26.0;
/// The least height of a part if there is room: a line of text.
const LINE: f64 = 24.0;
/// The least height of a part if there are very many.
const HAIR: f64 = 3.0;
/// The height of a picture beyond which the least height of its parts shrinks.
const TALLEST: f64 = 1400.0;

impl Scale {
    /// Positions parts, which are in order and do not overlap, from `top` on. They take `height` in
    /// all, or more if there are many.
    pub(super) fn new(parts: &[Part], top: f64, height: f64) -> Self {
        let breaks = parts.windows(2).filter(|pair| gap(pair).is_some()).count();
        let count = number(parts.len()).max(1.0);
        let room = (TALLEST - number(breaks) * BREAK) / count;
        let least = room.clamp(HAIR, LINE);
        let taken = number(breaks) * BREAK + number(parts.len()) * least;
        let rest = (height - taken).max(0.0);
        let weight: f64 = parts.iter().map(|part| root(*part)).sum();

        let mut strips = Vec::new();
        let mut at = top;
        let mut place = |part: Part, height: f64, is_break: bool| {
            strips.push(Strip { part, top: at, height, is_break });
            at += height;
        };
        for (index, &part) in parts.iter().enumerate() {
            place(part, least + rest * root(part) / weight.max(1.0), false);
            if let Some(gap) = parts.get(index..index + 2).and_then(gap) {
                place(gap, BREAK, true);
            }
        }
        Self { strips, bottom: at.max(top + height) }
    }

    /// All parts and breaks, from the top.
    pub(super) fn strips(&self) -> &[Strip] {
        &self.strips
    }

    /// The lower end.
    pub(super) fn bottom(&self) -> f64 {
        self.bottom
    }

    /// The position at which the byte at `addr` begins. An address that is not drawn has the
    /// position of the next one that is.
    pub(super) fn y(&self, addr: u64) -> f64 {
        let index = self.strips.partition_point(|strip| strip.part.last < addr);
        match self.strips.get(index) {
            Some(strip) => strip.y(addr.max(strip.part.first)),
            None => self.bottom,
        }
    }

    /// The position at which the byte at `last` ends.
    pub(super) fn y_end(&self, last: u64) -> f64 {
        let index = self.strips.partition_point(|strip| strip.part.last < last);
        match self.strips.get(index) {
            Some(strip) if last < strip.part.last => strip.y(last.max(strip.part.first) + 1),
            Some(strip) => strip.top + strip.height,
            None => self.bottom,
        }
    }

    /// The part of `[first, last]` that is on the same strip as `first`.
    pub(super) fn same_strip(&self, first: u64, last: u64) -> Part {
        let index = self.strips.partition_point(|strip| strip.part.last < first);
        let end = self.strips.get(index).map_or(last, |strip| strip.part.last.min(last));
        Part { first, last: end.max(first) }
    }
}

impl Strip {
    #[expect(clippy::cast_precision_loss, reason = "a pixel is far larger than the error")]
    fn y(&self, addr: u64) -> f64 {
        let share = (addr - self.part.first) as f64 / self.part.size() as f64;
        self.top + self.height * share
    }
}

fn gap(pair: &[Part]) -> Option<Part> {
    let [before, after] = pair else { return None };
    let (first, last) = (before.last.checked_add(1)?, after.first.checked_sub(1)?);
    (first <= last).then_some(Part { first, last })
}

#[expect(clippy::cast_precision_loss, reason = "a pixel is far larger than the error")]
fn root(part: Part) -> f64 {
    (part.size() as f64).cbrt()
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [Part; 3] = [
        Part { first: 0, last: (1 << 30) - 1 },
        Part { first: 1 << 30, last: (1 << 30) + 4095 },
        Part { first: 0xfffc_0000, last: u64::MAX },
    ];

    #[test]
    fn every_part_is_high_enough_to_be_seen_and_gaps_are_breaks() {
        let scale = Scale::new(&PARTS, 100.0, 600.0);
        assert!(scale.strips().iter().all(|strip| strip.height >= LINE));
        let breaks = scale.strips().iter().map(|strip| strip.is_break).collect::<Vec<_>>();
        assert_eq!(breaks, [false, false, true, false]);
        assert!((scale.bottom() - 700.0).abs() < 0.001);
    }

    #[test]
    fn higher_addresses_are_never_above_lower_ones() {
        let scale = Scale::new(&PARTS, 0.0, 600.0);
        let addrs = [0, 1, 4096, 1 << 29, 1 << 30, 1 << 31, 0xfffc_0000, 1 << 60, u64::MAX];
        for pair in addrs.windows(2) {
            assert!(scale.y(pair[0]) <= scale.y(pair[1]), "{pair:x?}");
            assert!(scale.y(pair[0]) <= scale.y_end(pair[0]));
        }
        assert!((scale.y_end(u64::MAX) - 600.0).abs() < 0.001);
    }

    #[test]
    fn very_many_parts_make_the_picture_higher_but_not_endless() {
        let parts: Vec<Part> =
            (0..200).map(|at| Part { first: at * 0x2000, last: at * 0x2000 + 0xfff }).collect();
        let scale = Scale::new(&parts, 0.0, 600.0);
        assert!(scale.bottom() < 8000.0, "{}", scale.bottom());
        assert!(Scale::new(&[], 5.0, 10.0).bottom() >= 15.0);
    }
}
