//! The sections of a help text, parsed so that it can be wrapped to any width and rendered as
//! a manual page.
//!
//! A text consists of paragraphs, separated by empty lines. One that ends with a colon is the
//! heading of the indented lines after it. These are examples; or terms and meanings, with
//! two spaces in between and continuation lines that are indented further.

use crate::columns::wrapped;

/// The longest term that has its meaning on the same line.
const TERM_MAX: usize = 20;

/// A part of a text under one heading.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) kind: Kind,
    pub(crate) blocks: Vec<Block>,
}

/// The section of a manual page to which a section of a text belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Description,
    Examples,
    Json,
    ExitStatus,
}

#[derive(Debug)]
pub(crate) enum Block {
    Paragraph(String),
    /// Command lines.
    Lines(Vec<String>),
    /// Terms and their meanings.
    Terms(Vec<(String, String)>),
}

impl Kind {
    fn of(paragraph: &str) -> Self {
        let heads = |word| paragraph.starts_with(word) && paragraph.ends_with(':');
        match () {
            () if heads("Example") => Self::Examples,
            () if heads("Fields of --json") => Self::Json,
            () if heads("Exit status") => Self::ExitStatus,
            () => Self::Description,
        }
    }
}

pub(super) fn parse(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for part in text.split("\n\n") {
        let indented = part.lines().position(|line| line.starts_with(' '));
        let count = indented.unwrap_or(usize::MAX);
        let paragraph = part.lines().take(count).collect::<Vec<_>>().join(" ");
        let lines: Vec<&str> = part.lines().skip(count).collect();
        let kind = Kind::of(&paragraph);
        let mut blocks = vec![Block::Paragraph(paragraph)];
        match (kind, lines.as_slice()) {
            (_, []) => {}
            (Kind::Examples, lines) => {
                let line = |line: &&str| line.strip_prefix("  ").unwrap_or(line).to_owned();
                blocks.push(Block::Lines(lines.iter().map(line).collect()));
            }
            (_, lines) => blocks.push(Block::Terms(terms(lines))),
        }
        match sections.last_mut().filter(|last| last.kind == kind) {
            Some(last) => last.blocks.extend(blocks),
            None => sections.push(Section { kind, blocks }),
        }
    }
    sections
}

fn terms(lines: &[&str]) -> Vec<(String, String)> {
    let mut terms: Vec<(String, String)> = Vec::new();
    for line in lines {
        let text = line.trim_start();
        match (line.len() - text.len() > 2, terms.last_mut()) {
            (true, Some((_, meaning))) if meaning.is_empty() => meaning.push_str(text),
            (true, Some((_, meaning))) => {
                meaning.push(' ');
                meaning.push_str(text);
            }
            _ => {
                let (term, meaning) = text.split_once("  ").unwrap_or((text, ""));
                terms.push((term.into(), meaning.trim_start().into()));
            }
        }
    }
    terms
}

/// Renders a text in lines of at most `width`.
pub(super) fn as_help(sections: &[Section], width: usize) -> String {
    let mut parts: Vec<String> = Vec::new();
    for block in sections.iter().flat_map(|section| &section.blocks) {
        let lines = match block {
            Block::Paragraph(text) => wrapped(text, width, "", ""),
            Block::Lines(lines) => lines.iter().flat_map(|line| command(line, width)).collect(),
            Block::Terms(terms) => in_two_columns(terms, width),
        };
        let text = lines.join("\n");
        match (block, parts.last_mut()) {
            (Block::Paragraph(_), _) | (_, None) => parts.push(text),
            (_, Some(heading)) => {
                heading.push('\n');
                heading.push_str(&text);
            }
        }
    }
    parts.join("\n\n")
}

/// Wraps a command line, continued as a shell accepts it: before an option, a pipe or a
/// redirection, and never inside quotes.
fn command(line: &str, width: usize) -> Vec<String> {
    let mut quoted = false;
    let breaks = |letter: char, rest: &str| {
        quoted ^= letter == '\'';
        !quoted && ["--", "|", ">"].iter().any(|start| rest.starts_with(start))
    };
    let mut lines = wrapped_at(line, breaks, width.saturating_sub(2), "  ", "      ");
    let continued = lines.len().saturating_sub(1);
    lines.iter_mut().take(continued).for_each(|line| line.push_str(" \\"));
    lines
}

/// Wraps a text only at spaces for which `breaks` holds. It is called with each letter and the
/// rest of the text after it.
pub(super) fn wrapped_at(
    text: &str,
    mut breaks: impl FnMut(char, &str) -> bool,
    width: usize,
    first: &str,
    rest: &str,
) -> Vec<String> {
    const GLUE: char = '\u{a0}';
    let glued: String = text
        .char_indices()
        .map(|(at, letter)| {
            let after = text.get(at + letter.len_utf8()..).unwrap_or_default();
            if !breaks(letter, after) && letter == ' ' { GLUE } else { letter }
        })
        .collect();
    let lines = wrapped(&glued, width, first, rest);
    lines.into_iter().map(|line| line.replace(GLUE, " ")).collect()
}

fn in_two_columns(terms: &[(String, String)], width: usize) -> Vec<String> {
    let lengths = terms.iter().map(|(term, _)| term.chars().count());
    let column = lengths.filter(|length| *length <= TERM_MAX).max().unwrap_or(0);
    let rest = " ".repeat(column + 4);
    let mut lines = Vec::new();
    for (term, meaning) in terms {
        if term.chars().count() > column || meaning.is_empty() {
            lines.extend(wrapped(term, width, "  ", "  "));
            if !meaning.is_empty() {
                lines.extend(wrapped(meaning, width, &rest, &rest));
            }
        } else {
            lines.extend(wrapped(meaning, width, &format!("  {term:column$}  "), &rest));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Examples:
  gasp x --config a-file.toml
  gasp x
  gasp x --config a-file.toml --socket a.sock

Words that explain, and go
on in another line.

Fields of --json, in
bytes:
  one           what it is, at
                some length
  a term that is far too long
                and what it means

Exit status:
  0  done";

    #[test]
    fn a_text_has_its_sections_and_loses_no_word_at_any_width() {
        let sections = parse(TEXT);
        let kinds: Vec<Kind> = sections.iter().map(|section| section.kind).collect();
        assert_eq!(kinds, [Kind::Examples, Kind::Description, Kind::Json, Kind::ExitStatus]);
        for width in [40, 60, 100] {
            let text = as_help(&sections, width);
            let words = text.split_whitespace().filter(|word| *word != "\\");
            assert!(words.eq(TEXT.split_whitespace()), "{text}");
            assert!(text.lines().all(|line| line.len() <= width), "{text}");
            assert!(text.contains("\n  gasp x --config a-file.toml\n"), "{text}");
        }
        assert!(
            as_help(&sections, 40)
                .contains("\n  gasp x --config a-file.toml \\\n      --socket a.sock\n")
        );
        assert!(as_help(&sections, 100).contains("\n  one  what it is, at some length\n"));
    }

    #[test]
    fn a_command_is_continued_where_a_shell_accepts_it() {
        let line = "gasp probe --json | jq '.checks[] | select(.verdict != \"yes\")' > a";
        assert_eq!(command(line, 100), [format!("  {line}")]);
        assert_eq!(
            command(line, 55),
            [
                "  gasp probe --json \\",
                "      | jq '.checks[] | select(.verdict != \"yes\")' \\",
                "      > a"
            ]
        );
        assert_eq!(command("gasp --svg - | a", 18), ["  gasp --svg - \\", "      | a"]);
    }
}
