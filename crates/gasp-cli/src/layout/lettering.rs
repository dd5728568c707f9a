//! Text and boxes of the picture.

use svg::node::element::{Path, Rectangle, Text, Title};

use super::palette::{EDGE, GREY, INK, PAPER};

/// The font of words.
const SANS: &str = "'DejaVu Sans', Verdana, 'Segoe UI', sans-serif";
/// The font of addresses.
const MONO: &str = "'DejaVu Sans Mono', Menlo, Consolas, monospace";

/// Which part of a text is at its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A line of text.
pub(super) fn text(words: &str, at: (f64, f64), size: f64, anchor: Anchor) -> Text {
    let anchor = match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    Text::new(words)
        .set("x", tenths(at.0))
        .set("y", tenths(at.1))
        .set("font-family", SANS)
        .set("font-size", size)
        .set("text-anchor", anchor)
        .set("fill", INK)
}

/// An address.
pub(super) fn address(addr: u64, at: (f64, f64), anchor: Anchor) -> Text {
    text(&crate::quantity::address(addr), at, 11.0, anchor)
        .set("font-family", MONO)
        .set("fill", GREY)
}

/// A line of text that is readable on any colour.
pub(super) fn on_colour(words: &str, at: (f64, f64), size: f64) -> Text {
    text(words, at, size, Anchor::Middle)
        .set("paint-order", "stroke")
        .set("stroke", PAPER)
        .set("stroke-width", 3.5)
        .set("stroke-linejoin", "round")
}

/// A filled box.
pub(super) fn area(x: (f64, f64), y: (f64, f64), fill: &str) -> Rectangle {
    Rectangle::new()
        .set("x", tenths(x.0))
        .set("y", tenths(y.0))
        .set("width", tenths((x.1 - x.0).max(0.1)))
        .set("height", tenths((y.1 - y.0).max(0.1)))
        .set("fill", fill)
}

/// A box with an edge.
pub(super) fn edged(x: (f64, f64), y: (f64, f64), fill: &str) -> Rectangle {
    area(x, y, fill).set("stroke", EDGE).set("stroke-width", 1)
}

/// The torn edge of a bar, where addresses are omitted.
pub(super) fn torn(x: (f64, f64), y: f64) -> Path {
    const TEETH: u32 = 12;
    let step = (x.1 - x.0) / f64::from(TEETH);
    let mut line = format!("M{},{}", tenths(x.0), tenths(y));
    for tooth in 1..=TEETH {
        let rise = if tooth % 2 == 1 { -3.0 } else { 3.0 };
        let rise = if tooth == TEETH { 0.0 } else { rise };
        let at = x.0 + step * f64::from(tooth);
        line.push_str(&format!(" L{},{}", tenths(at), tenths(y + rise)));
    }
    Path::new().set("d", line).set("fill", "none").set("stroke", EDGE).set("stroke-width", 1.2)
}

/// A tool tip.
pub(super) fn tip(words: &str) -> Title {
    Title::new(words)
}

/// Rounds a coordinate to a tenth of a pixel, to keep files small.
pub(super) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The text, cut to `most` letters with an ellipsis.
pub(super) fn clipped(words: &str, most: usize) -> String {
    if words.chars().count() <= most {
        return words.into();
    }
    let mut short: String = words.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Wraps a paragraph to lines of at most `width` letters. A longer word gets a line of its own.
pub(super) fn wrapped(words: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_clipped_and_paragraphs_wrapped() {
        assert_eq!(clipped("disk", 4), "disk");
        assert_eq!(clipped("a-long-name", 5), "a-lo…");
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert!(wrapped("", 7).is_empty());
    }
}
