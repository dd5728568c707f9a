//! The frame around the bars: title, headings, legend and remarks.

use gasp::{Access, DomainKind, RegionKind, Stability};
use svg::Document;
use svg::node::element::{Description, Title};

use super::bands::Bands;
use super::cell::Rest;
use super::lettering::{Anchor, edged, text, wrapped};
use super::merged;
use super::model::Model;
use super::palette::{self, GREY, PAPER};
use super::positions::{MARGIN, Positions, TOP, WIDTH};
use crate::quantity::{length, several};

/// The most letters on a line of facts.
const FACTS_WIDTH: usize = 150;
/// The height of the frame below the bars, with four remarks.
const BELOW: f64 = 128.0;
/// The height of a remark.
const REMARK: f64 = 16.0;

/// Starts the picture, with title and headings.
pub(super) fn begin(model: &Model, positions: &Positions, bottom: f64) -> Document {
    let fifth = if model.merges() { REMARK } else { 0.0 };
    let height = (bottom + BELOW + fifth).ceil();
    let title = format!("Guest {}: where its memory lies", model.name);
    let paper = edged((0.0, WIDTH), (0.0, height), PAPER).set("stroke", "none");
    let large = text(&title, (MARGIN, 38.0), 21.0, Anchor::Start).set("font-weight", "bold");
    let below = wrapped(&facts(model), FACTS_WIDTH);
    let heading = |words: &str, x: f64| {
        text(words, (x, TOP - 25.0), 13.0, Anchor::Middle).set("font-weight", "bold")
    };
    let remark =
        |words: &str, x: f64| text(words, (x, TOP - 10.0), 10.5, Anchor::Middle).set("fill", GREY);
    let middle = |x: (f64, f64)| (x.0 + x.1) / 2.0;
    let mut picture = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("role", "img")
        .add(Title::new(title))
        .add(Description::new().add(svg::node::Text::new(facts(model))))
        .add(palette::definitions())
        .add(paper)
        .add(large)
        .add(heading("guest-physical", middle(positions.guest)))
        .add(remark("low addresses on top", middle(positions.guest)));
    for (line, y) in below.iter().zip([58.0, 75.0]) {
        picture = picture.add(text(line, (MARGIN, y), 13.0, Anchor::Start).set("fill", GREY));
    }
    if !model.runs.is_empty() {
        picture = picture
            .add(heading("host-physical", middle(positions.host)))
            .add(remark("other memory is grey", middle(positions.host)));
    }
    if !model.columns.is_empty() {
        let words = "What the domains of the IOMMU allow their devices";
        let at = (positions.columns.0, TOP - 62.0);
        picture = picture.add(text(words, at, 12.0, Anchor::Start).set("fill", GREY));
    }
    picture
}

/// Ends the picture, with legend and remarks.
pub(super) fn end(mut picture: Document, model: &Model, bands: &Bands, bottom: f64) -> Document {
    let mut at = MARGIN;
    let y = bottom + 36.0;
    let mut entry = |picture: Document, fill: &str, words: &str| {
        let box_at = ((at, at + 18.0), (y, y + 13.0));
        let picture = picture.add(edged(box_at.0, box_at.1, fill));
        let picture = picture.add(text(words, (at + 24.0, y + 11.0), 11.5, Anchor::Start));
        let letters = f64::from(u32::try_from(words.chars().count()).unwrap_or(0));
        at += 24.0 + letters * 6.7 + 14.0;
        picture
    };
    if !model.columns.is_empty() {
        for access in model.accesses() {
            picture = entry(picture, palette::access(access), &may(access));
        }
        // A bypass domain denies nothing.
        let shown = |rest| {
            let mut columns = model.columns.iter();
            columns.any(|column| column.rest == rest && column.kind != DomainKind::Bypass.name())
        };
        for (rest, words) in
            [(Rest::Denied, "denied"), (Rest::Unasked, "not asked yet: allowed or denied")]
        {
            if shown(rest) {
                picture = entry(picture, palette::rest(rest), words);
            }
        }
    }
    for (kind, words) in [
        (RegionKind::Ram, "RAM"),
        (RegionKind::Rom, "ROM"),
        (RegionKind::PassThrough, "pass-through memory"),
        (RegionKind::Device, "device registers"),
        (RegionKind::Reserved, "reserved"),
    ] {
        if model.bytes(kind) > 0 {
            picture = entry(picture, palette::kind(kind), words);
        }
    }
    let mut y = y + 36.0;
    for remark in remarks(model, bands) {
        picture = picture.add(text(&remark, (MARGIN, y), 11.0, Anchor::Start).set("fill", GREY));
        y += REMARK;
    }
    picture
}

/// The guest on one line.
fn facts(model: &Model) -> String {
    let mut facts = Vec::new();
    for (kind, words) in [(RegionKind::Ram, "RAM"), (RegionKind::Rom, "ROM")] {
        if model.bytes(kind) > 0 {
            facts.push(format!("{} of {words}", length(model.bytes(kind))));
        }
    }
    facts.extend(pages(model));
    match model.runs.len() {
        1.. if model.host_unknown.is_some() => {
            facts.push("host-physical addresses known in part".into());
        }
        0 if model.host_unknown.is_none() => {}
        0 => facts.push("host-physical addresses not known".into()),
        runs => facts.push(several(runs, "host-physical run")),
    }
    facts.join("  ·  ")
}

/// The kinds of the RAM's pages, and whether their addresses can change; with their sizes if
/// there are several.
fn pages(model: &Model) -> Vec<String> {
    let mut kinds: Vec<(String, u64)> = Vec::new();
    for region in model.regions.iter().filter(|region| region.kind() == RegionKind::Ram) {
        let Some(object) = region.object() else { continue };
        let stays = match object.stability() {
            Stability::Pinned => "pinned",
            Stability::Reserved => "from a reserved pool",
            Stability::Unpinned => "not pinned: addresses can change",
        };
        let words = format!("{} pages, {stays}", object.backing().obtained);
        let len = region.span().len();
        match kinds.iter_mut().find(|(known, _)| *known == words) {
            Some((_, sum)) => *sum = sum.saturating_add(len),
            None => kinds.push((words, len)),
        }
    }
    match kinds.as_slice() {
        [(words, _)] => vec![words.clone()],
        kinds => {
            let share = |(words, len): &(String, u64)| format!("{} on {words}", length(*len));
            kinds.iter().map(share).collect()
        }
    }
}

/// The access that a domain allows, in words.
fn may(access: Access) -> String {
    let kinds = [(Access::READ, "read"), (Access::WRITE, "write"), (Access::EXEC, "execute")];
    let words = kinds.into_iter().filter(|(kind, _)| access.contains(*kind)).map(|(_, word)| word);
    match words.collect::<Vec<_>>().as_slice() {
        [first, second, third] => format!("may {first}, {second} and {third}"),
        words => format!("may {}", words.join(" and ")),
    }
}

fn remarks(model: &Model, bands: &Bands) -> Vec<String> {
    let mut remarks = vec![
        "Heights grow with the cube root of the size, and each part has a scale of its own. A \
         torn edge stands for omitted addresses."
            .to_string(),
    ];
    if bands.bands.iter().any(|band| band.kind == RegionKind::Ram) {
        remarks.push(
            "A band leads from guest memory to where it lies in the host. The colour of RAM, \
             dark to light, is its position in the guest."
                .into(),
        );
    }
    if bands.bands.iter().any(|band| band.runs > 1) {
        remarks.push(format!(
            "Runs that begin within {} px of each other on both sides are merged into one band, \
             as thick as they are together.",
            bands.grain
        ));
    }
    if model.merges() {
        remarks.push(format!(
            "If a domain has more than {} mappings, neighbours are merged: where any memory is \
             allowed, the row is painted with all access to any of it.",
            merged::FEW
        ));
    }
    if model.hidden_columns > 0 {
        remarks.push(format!("Not shown: {}.", several(model.hidden_columns, "more domain")));
    }
    remarks
}
