//! The columns of the domains: what their devices reach, what they are denied, and what they have not
//! asked for yet.

use svg::Document;

use super::cell::{Cell, Device, Rest};
use super::lettering::{Anchor, area, clipped, edged, on_colour, text, tip};
use super::model::{DomainColumn, Model};
use super::palette::{self, GREY};
use super::positions::{Positions, TOP};
use super::scale::Scale;
use crate::quantity::length;

/// The space between columns.
const GAP: f64 = 8.0;
/// The least height of a cell with text.
const WORDS: f64 = 13.0;
/// The least height of a cell with two lines of text.
const TWO_LINES: f64 = 30.0;

/// Draws the columns.
pub(super) fn draw(
    mut picture: Document,
    model: &Model,
    positions: &Positions,
    scale: &Scale,
) -> Document {
    let (left, width) = positions.columns;
    let mut x = left;
    for column in &model.columns {
        let across = (x, x + width - GAP);
        picture = heading(picture, column, across);
        let words = match column.rest {
            Rest::Denied => format!("denied to {}", column.name),
            Rest::Unasked => format!("not asked yet by {}: allowed or denied", column.name),
        };
        let mut drawn = 0.0;
        for region in model.regions.iter().filter(|region| region.kind().is_memory()) {
            let y = (scale.y(region.span().start().0), scale.y_end(region.span().last().0));
            if y.1 - drawn >= 0.5 {
                picture =
                    picture.add(edged(across, y, palette::rest(column.rest)).add(tip(&words)));
                drawn = y.1;
            }
        }
        let mut drawn = 0.0;
        for cell in &column.cells {
            let y = (scale.y(cell.part.first), scale.y_end(cell.part.last));
            // A translating domain's cells are in order of device address, unless they are many.
            if y.1 - drawn >= 0.5 || y.0 < drawn {
                picture = one(picture, cell, column, across, y);
                drawn = y.1;
            }
        }
        x += width;
    }
    picture
}

fn heading(picture: Document, column: &DomainColumn, x: (f64, f64)) -> Document {
    let middle = (x.0 + x.1) / 2.0;
    // 0.6 of its size is roughly the width of a letter.
    let letters = |size: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
        let letters = ((x.1 - x.0) / (size * 0.6)).max(3.0) as usize;
        letters
    };
    let devices = match column.devices.as_slice() {
        [] => "no device".into(),
        devices => devices.join(", "),
    };
    let name =
        text(&clipped(&column.name, letters(13.0)), (middle, TOP - 40.0), 13.0, Anchor::Middle);
    let kind = text(column.kind, (middle, TOP - 25.0), 11.0, Anchor::Middle).set("fill", GREY);
    let who = text(&clipped(&devices, letters(10.5)), (middle, TOP - 10.0), 10.5, Anchor::Middle)
        .set("font-style", "italic")
        .add(tip(&devices));
    picture.add(name.set("font-weight", "bold").add(tip(&column.name))).add(kind).add(who)
}

fn one(
    mut picture: Document,
    cell: &Cell,
    column: &DomainColumn,
    x: (f64, f64),
    y: (f64, f64),
) -> Document {
    let size = length(cell.part.size());
    let from = match cell.device {
        Device::From(device) => Some(format!("at {device:#x}")),
        Device::Same | Device::Several => None,
    };
    let several = if cell.device == Device::Several { "in several mappings, up to " } else { "" };
    let words = format!(
        "{}: {} {several}{size} of guest memory from {:#x} {}",
        column.name,
        cell.access,
        cell.part.first,
        from.as_deref().unwrap_or_default()
    );
    picture = picture.add(area(x, y, palette::PAPER));
    picture = picture.add(edged(x, y, palette::access(cell.access)).add(tip(&words)));
    let (middle, height) = ((x.0 + x.1) / 2.0, y.1 - y.0);
    let centre = (y.0 + y.1) / 2.0 + 4.0;
    let access = cell.access.to_string();
    let line = if x.1 - x.0 < 90.0 { access.clone() } else { format!("{access} {size}") };
    match from {
        _ if height < WORDS => picture,
        Some(from) if height >= TWO_LINES => picture
            .add(on_colour(&line, (middle, centre - 7.0), 11.0))
            .add(on_colour(&from, (middle, centre + 7.0), 10.0)),
        _ => picture.add(on_colour(&line, (middle, centre), 11.0)),
    }
}
