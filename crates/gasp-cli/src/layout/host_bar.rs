//! The host's bar, and the bands to it from the guest's.

use gasp::RegionKind;
use svg::Document;
use svg::node::element::Path;

use super::bands::{Band, Bands};
use super::guest_bar::position_in;
use super::lettering::{Anchor, address, area, edged, tenths, text, tip, torn, wrapped};
use super::model::Model;
use super::palette::{self, ELSEWHERE, GREY, INK};
use super::positions::{Positions, TOP};
use super::scale::Scale;
use crate::quantity::{length, several};

const LABEL: f64 = 12.0;

/// Draws bar and bands, or a box that says why host-physical addresses are not known.
pub(super) fn draw(
    mut picture: Document,
    model: &Model,
    positions: &Positions,
    scale: &Scale,
    bands: &Bands,
    bottom: f64,
) -> Document {
    if let Some(why) = &model.host_unknown {
        picture = unknown(picture, why, positions, scale, !model.runs.is_empty());
    }
    if model.runs.is_empty() {
        return picture;
    }
    let x = positions.host;
    for strip in scale.strips().iter().filter(|strip| !strip.is_break) {
        picture = picture.add(edged(x, (strip.top, strip.top + strip.height), ELSEWHERE));
    }
    for band in &bands.bands {
        let fill = colour(band.kind, (band.guest.0 + band.guest.1) / 2.0, bottom);
        picture = picture.add(curve(band, positions, &fill));
        if band.runs == 1 && band.thick.1 >= 1.0 {
            picture = picture.add(area(x, band.host, &fill));
        }
    }
    for row in &bands.rows {
        let fill = colour(row.kind, row.guest, bottom);
        let share = tenths(row.share.max(0.3));
        picture = picture.add(area(x, (row.y, row.y + 1.0), &fill).set("fill-opacity", share));
    }
    let mut last = f64::MIN;
    for strip in scale.strips() {
        let (top, end) = (strip.top, strip.top + strip.height);
        if strip.is_break {
            let middle = ((x.0 + x.1) / 2.0, (top + end) / 2.0 + 4.0);
            let words = format!("{} of others", length(strip.part.size()));
            picture = picture
                .add(torn(x, top + 4.0))
                .add(torn(x, end - 4.0))
                .add(text(&words, middle, 10.0, Anchor::Middle).set("fill", GREY));
        } else if top - last >= LABEL {
            picture =
                picture.add(address(strip.part.first, (x.1 + 8.0, top + 10.0), Anchor::Start));
            last = top;
            if strip.height >= 2.0 * LABEL {
                let words = format!("{} from here", length(strip.part.size()));
                let at = (x.1 + 8.0, top + 23.0);
                picture = picture.add(text(&words, at, 10.0, Anchor::Start).set("fill", GREY));
            }
        }
    }
    picture
}

/// The colour of RAM is that of its position in the guest, of other memory that of its kind.
fn colour(kind: RegionKind, guest: f64, bottom: f64) -> String {
    match kind {
        RegionKind::Ram => palette::ram(position_in(guest, (TOP, bottom))),
        kind => palette::kind(kind).into(),
    }
}

fn curve(band: &Band, positions: &Positions, fill: &str) -> Path {
    let (left, right) = (positions.guest.1, positions.host.0);
    let middle = tenths((left + right) / 2.0);
    let (guest, host) = band.drawn();
    let (g0, g1) = (tenths(guest.0), tenths(guest.1));
    let (h0, h1) = (tenths(host.0), tenths(host.1));
    let shape = format!(
        "M{left},{g0} C{middle},{g0} {middle},{h0} {right},{h0} L{right},{h1} \
         C{middle},{h1} {middle},{g1} {left},{g1} Z"
    );
    let words = format!(
        "guest {:#x} to host {:#x}: {} in {}",
        band.first.0,
        band.first.1,
        length(band.bytes),
        several(band.runs, "run")
    );
    Path::new().set("d", shape).set("fill", fill).set("fill-opacity", 0.5).add(tip(&words))
}

/// Draws a box that says why addresses are not known: in place of the bar, or below the part
/// that is known.
fn unknown(
    mut picture: Document,
    why: &str,
    positions: &Positions,
    scale: &Scale,
    known: bool,
) -> Document {
    let (x, y) = match known {
        false => (
            (positions.guest.1 + 40.0, positions.host.1 + 112.0),
            (TOP, scale.bottom().max(TOP + 160.0)),
        ),
        true => (
            (positions.host.0 - 90.0, positions.host.1 + 112.0),
            (scale.bottom() + 30.0, scale.bottom() + 150.0),
        ),
    };
    let heading = match known {
        false => "Host-physical addresses: not known",
        true => "The other host-physical addresses: not known",
    };
    picture = picture.add(edged(x, y, "#fafbfc").set("stroke-dasharray", "6 5"));
    let middle = (x.0 + x.1) / 2.0;
    let mut at = (y.0 + y.1) / 2.0 - 24.0;
    picture =
        picture.add(text(heading, (middle, at), 13.0, Anchor::Middle).set("font-weight", "bold"));
    for line in wrapped(why, 46) {
        at += 18.0;
        picture = picture.add(text(&line, (middle, at), 11.5, Anchor::Middle).set("fill", INK));
    }
    picture
}
