//! Colours that can be distinguished with colour blindness; text says the same everywhere.

use gasp::{Access, RegionKind};
use svg::node::element::{Circle, Definitions, Line, Pattern, Rectangle};

use super::cell::Rest;

/// The background, so that the picture is the same on light and dark pages.
pub(super) const PAPER: &str = "#ffffff";
pub(super) const INK: &str = "#1b1f24";
pub(super) const GREY: &str = "#5b6470";
/// Edges of bars and cells.
pub(super) const EDGE: &str = "#8a939e";
/// Memory that is not this guest's.
pub(super) const ELSEWHERE: &str = "#eceff2";

/// The colours of positions in the guest's RAM, from the lowest address to the highest: dark to
/// light, so that the order is visible without colour.
const RAMP: [(f64, f64, f64); 5] = [
    (68.0, 20.0, 104.0),
    (59.0, 82.0, 139.0),
    (33.0, 145.0, 140.0),
    (94.0, 190.0, 98.0),
    (220.0, 205.0, 60.0),
];

/// The colour of RAM at a position in the guest, from 0 to 1.
pub(super) fn ram(share: f64) -> String {
    let at = share.clamp(0.0, 1.0) * 4.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 3")]
    let index = at.floor().min(3.0) as usize;
    let rest = at - at.floor().min(3.0);
    let (from, to) = (RAMP[index.min(3)], RAMP[index.min(3) + 1]);
    let mix = |a: f64, b: f64| (a + (b - a) * rest).round();
    format!("rgb({},{},{})", mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// The colour of a region by its kind.
pub(super) fn kind(kind: RegionKind) -> &'static str {
    match kind {
        RegionKind::Ram => "#21918c",
        RegionKind::Rom => "#d55e00",
        RegionKind::PassThrough => "#b65a96",
        RegionKind::Device => "#d8cbb0",
        RegionKind::Reserved => "#d5d9de",
    }
}

/// The fill of memory that is in none of a domain's cells, defined by [`definitions`].
pub(super) fn rest(rest: Rest) -> &'static str {
    match rest {
        Rest::Denied => "url(#denied)",
        Rest::Unasked => "url(#unasked)",
    }
}

/// The fill of memory that a domain allows: a colour for reading and writing, with dots if it
/// may be executed, too. The patterns are defined by [`definitions`].
pub(super) fn access(access: Access) -> &'static str {
    let (read, write) = (access.contains(Access::READ), access.contains(Access::WRITE));
    match (read, write, access.contains(Access::EXEC)) {
        (true, true, false) => READ_WRITE,
        (true, false, false) => READ,
        (false, true, false) => WRITE,
        (true, true, true) => "url(#rwx)",
        (true, false, true) => "url(#rx)",
        (false, true, true) => "url(#wx)",
        (false, false, true) => "url(#x)",
        (false, false, false) => PAPER,
    }
}

const READ: &str = "#9cc9f0";
const WRITE: &str = "#f5c77e";
const READ_WRITE: &str = "#8fd19e";
const NEITHER: &str = "#dcc6ef";

/// The hatching of denied memory, the lines of memory that was not asked for, and the dots of
/// executable memory.
pub(super) fn definitions() -> Definitions {
    let stroke = Line::new()
        .set("x1", 0)
        .set("y1", 0)
        .set("x2", 0)
        .set("y2", 8)
        .set("stroke", "#a3abb5")
        .set("stroke-width", 2.4);
    let denied = pattern("denied", "#f1f2f4").set("patternTransform", "rotate(45)").add(stroke);
    let line = Line::new()
        .set("x1", 0)
        .set("y1", 4)
        .set("x2", 8)
        .set("y2", 4)
        .set("stroke", "#c9ced5")
        .set("stroke-width", 1);
    let unasked = pattern("unasked", PAPER).add(line);
    let dotted = |name, ground| {
        let dot = Circle::new().set("cx", 4).set("cy", 4).set("r", 1.3).set("fill", INK);
        pattern(name, ground).add(dot.set("fill-opacity", 0.55))
    };
    Definitions::new()
        .add(denied)
        .add(unasked)
        .add(dotted("rwx", READ_WRITE))
        .add(dotted("rx", READ))
        .add(dotted("wx", WRITE))
        .add(dotted("x", NEITHER))
}

fn pattern(name: &str, ground: &str) -> Pattern {
    let ground = Rectangle::new().set("width", 8).set("height", 8).set("fill", ground);
    Pattern::new()
        .set("id", name)
        .set("width", 8)
        .set("height", 8)
        .set("patternUnits", "userSpaceOnUse")
        .add(ground)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_kinds_of_access_are_painted_alike() {
        let all: Vec<Access> = (0..8).map(Access::from_bits_truncate).collect();
        let fills: BTreeSet<&str> = all.iter().map(|all| access(*all)).collect();
        assert_eq!(fills.len(), all.len());
        let defined = definitions().to_string();
        for name in fills.iter().filter_map(|fill| fill.strip_prefix("url(#")?.strip_suffix(')')) {
            assert!(defined.contains(&format!("id=\"{name}\"")), "{name}");
        }
    }
}
