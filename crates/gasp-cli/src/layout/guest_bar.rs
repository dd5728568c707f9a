//! The guest's bar: its regions, with kinds, sizes and addresses.

use gasp::{MemoryObject, Region, RegionKind};
use svg::Document;
use svg::node::element::{LinearGradient, Stop};

use super::lettering::{Anchor, address, area, clipped, edged, on_colour, tenths, text, tip, torn};
use super::model::Model;
use super::palette::{self, GREY};
use super::positions::{Positions, TOP};
use super::scale::Scale;
use crate::quantity::length;

/// The least distance of two addresses.
const LABEL: f64 = 12.0;
/// The most letters that fit into the bar.
const LETTERS: usize = 16;

/// Draws the bar and its addresses.
pub(super) fn draw(
    mut picture: Document,
    model: &Model,
    positions: &Positions,
    scale: &Scale,
) -> Document {
    let x = positions.guest;
    let bar = (scale.y(0), scale.bottom());
    let mut drawn = 0.0;
    for (index, region) in model.regions.iter().enumerate() {
        let y = (scale.y(region.span().start().0), scale.y_end(region.span().last().0));
        if y.1 - drawn < 0.5 {
            continue; // It shares its pixel with the previous one.
        }
        drawn = y.1;
        let fill = if region.kind() == RegionKind::Ram {
            let name = format!("ram{index}");
            picture = picture.add(gradient(&name, y, bar));
            format!("url(#{name})")
        } else {
            palette::kind(region.kind()).to_string()
        };
        picture = picture.add(edged(x, y, &fill).add(tip(&describe(region))));
        picture = label(picture, region, x, y);
    }
    let mut last = f64::MIN;
    for strip in scale.strips() {
        let (top, bottom) = (strip.top, strip.top + strip.height);
        if strip.is_break {
            let middle = ((x.0 + x.1) / 2.0, (top + bottom) / 2.0 + 4.0);
            let words = format!("{} empty", length(strip.part.size()));
            picture = picture
                .add(area(x, (top + 1.0, bottom - 1.0), palette::PAPER))
                .add(torn(x, top + 4.0))
                .add(torn(x, bottom - 4.0))
                .add(text(&words, middle, 10.0, Anchor::Middle).set("fill", GREY));
        }
        if top - last >= LABEL {
            picture = picture.add(address(strip.part.first, (x.0 - 8.0, top + 10.0), Anchor::End));
            last = top;
        }
    }
    if let (Some(strip), true) = (scale.strips().last(), scale.strips().len() > 1)
        && let Some(end) = strip.part.last.checked_add(1)
    {
        picture = picture.add(address(end, (x.0 - 8.0, scale.bottom() + 12.0), Anchor::End));
    }
    if model.regions.is_empty() {
        picture = picture.add(text("no memory", (x.0, TOP + 20.0), 12.0, Anchor::Start));
    }
    picture
}

/// The colours of a RAM region, by its position in the picture.
fn gradient(name: &str, y: (f64, f64), bar: (f64, f64)) -> LinearGradient {
    const STOPS: u32 = 8;
    let mut gradient = LinearGradient::new()
        .set("id", name)
        .set("gradientUnits", "userSpaceOnUse")
        .set("x1", 0)
        .set("x2", 0)
        .set("y1", tenths(y.0))
        .set("y2", tenths(y.1));
    for stop in 0..=STOPS {
        let share = f64::from(stop) / f64::from(STOPS);
        let colour = palette::ram(position_in(y.0 + (y.1 - y.0) * share, bar));
        gradient = gradient.add(Stop::new().set("offset", share).set("stop-color", colour));
    }
    gradient
}

/// The position of a height in the bar, from 0 at the top to 1.
pub(super) fn position_in(y: f64, bar: (f64, f64)) -> f64 {
    (y - bar.0) / (bar.1 - bar.0).max(1.0)
}

/// Draws a region's kind, name and size, on as many lines as there is room for.
fn label(picture: Document, region: &Region, x: (f64, f64), y: (f64, f64)) -> Document {
    let (kind, name) = match region.kind() {
        RegionKind::Ram => ("RAM", object_name(region)),
        RegionKind::Rom => ("ROM", object_name(region)),
        RegionKind::PassThrough => ("pass", object_name(region)),
        RegionKind::Reserved => ("reserved", ""),
        RegionKind::Device => ("device", region.owner().unwrap_or_default()),
    };
    let size = length(region.span().len());
    let (middle, centre, height) = ((x.0 + x.1) / 2.0, (y.0 + y.1) / 2.0 + 4.0, y.1 - y.0);
    let bold = |words: &str, y: f64| {
        on_colour(&clipped(words, LETTERS), (middle, y), 12.0).set("font-weight", "bold")
    };
    match name {
        _ if height < LABEL => picture,
        "" => picture.add(bold(&format!("{kind} {size}"), centre)),
        name if height < 2.5 * LABEL => {
            let room = LETTERS.saturating_sub(size.chars().count() + 1);
            picture.add(bold(&format!("{} {size}", clipped(name, room)), centre))
        }
        name => picture
            .add(bold(&format!("{kind} {name}"), centre - 7.0))
            .add(bold(&size, centre + 8.0)),
    }
}

/// The name of a region's memory object; of a path, its last part.
fn object_name(region: &Region) -> &str {
    let name = region.object().map_or("", MemoryObject::name);
    name.rsplit('/').next().unwrap_or(name)
}

fn describe(region: &Region) -> String {
    let what = match (region.object(), region.owner()) {
        (Some(object), _) => format!(
            " {}, from {:#x} of `{}` ({} pages, {})",
            region.access(),
            region.object_offset(),
            object.name(),
            object.backing().obtained,
            object.stability()
        ),
        (None, Some(owner)) => format!(" of {owner}"),
        (None, None) => String::new(),
    };
    format!("{} {}, {}{what}", region.kind(), region.span(), length(region.span().len()))
}
