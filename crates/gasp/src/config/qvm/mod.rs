//! The qvm configuration language: the same tables as those of a TOML file, from options.
//!
//! [`lex`] cuts texts into words, [`reader`] follows includes, and [`options`] has the names.
//! [`draft`] has the tables as far as they were read, and the context; what options mean is in
//! [`memory`], [`places`] with the attributes of [`pass`], [`settings`] and [`vdev`].

mod draft;
mod lex;
mod memory;
pub(super) mod options;
mod pass;
mod places;
mod reader;
mod settings;
mod vdev;

use std::path::Path;

use super::error::ConfigError;
use super::file::Document;
use super::source::Source;
use draft::Draft;
use lex::Token;
use reader::Reader;

/// Reads the first text of `source`, and the files that it includes, which are added.
pub(super) fn document(source: &mut Source, path: &Path) -> Result<Document, ConfigError> {
    Draft::read(Reader::new(source, path)?)
}

/// Reads the arguments of a command line, which are added to `source` as one text, with an argument
/// a line.
pub(super) fn arguments(
    source: &mut Source,
    arguments: &[String],
) -> Result<Document, ConfigError> {
    // An argument that has line breaks is one line of the text, so that lines are counted right.
    let lines: Vec<String> = arguments.iter().map(|text| text.replace('\n', " ")).collect();
    let mut offset = source.add(lines.join("\n"), Path::new("command line"))?;
    let mut words = Vec::with_capacity(arguments.len());
    for text in arguments {
        // What has a space was quoted for the shell; so was a path with one.
        let spaced = text.contains(char::is_whitespace) && !text.starts_with('@');
        let quoted = text.is_empty() || spaced;
        words.push(Token { text: text.clone(), offset, quoted });
        offset = offset.saturating_add(text.len()).saturating_add(1);
    }
    Draft::read(Reader::of_words(source, words)?)
}
