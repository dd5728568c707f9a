//! The words of a configuration with the files that it includes.

use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use super::lex::{self, LexError, Token};
use crate::config::error::ConfigError;
use crate::config::source::{Mark, Source, read_text};
use crate::error::Errno;

/// Maximum depth of includes.
const DEPTH_MAX: usize = 8;
/// Maximum number of files, which are counted each time that they are included.
const FILES_MAX: usize = 64;
/// Maximum number of words of all files.
const WORDS_MAX: usize = 1 << 16;

/// What is read next.
#[derive(Debug)]
pub(super) enum Item {
    /// A word in the place of an option.
    Word(Token),
    /// The beginning or the end of an included file.
    Edge,
    /// The end of everything.
    End,
}

/// The words of a configuration, in order.
pub(super) struct Reader<'a> {
    pub(super) source: &'a mut Source,
    /// The files that are open, the innermost last.
    open: Vec<Open>,
    words: usize,
}

struct Open {
    words: IntoIter<Token>,
    /// The canonical path; empty if the text is not that of a file.
    path: PathBuf,
}

impl<'a> Reader<'a> {
    /// A reader of the first text of `source`.
    pub(super) fn new(source: &'a mut Source, path: &Path) -> Result<Self, ConfigError> {
        let text = source.text().to_owned();
        let mut reader = Self { source, open: Vec::new(), words: 0 };
        let path = std::fs::canonicalize(path).unwrap_or_default();
        reader.enter(&text, 0, path)?;
        Ok(reader)
    }

    /// A reader of words that are already separate.
    pub(super) fn of_words(source: &'a mut Source, words: Vec<Token>) -> Result<Self, ConfigError> {
        let count = words.len();
        if let Some(first) = words.get(WORDS_MAX) {
            let mark = Mark::at(first.offset, "");
            return Err(source.wrong(mark, "there are too many words").with_errno(Errno::NOSPC));
        }
        let open = vec![Open { words: words.into_iter(), path: PathBuf::new() }];
        Ok(Self { source, open, words: count })
    }

    /// The next word in the place of an option. `@FILE` is followed.
    pub(super) fn next(&mut self) -> Result<Item, ConfigError> {
        let Some(file) = self.open.last_mut() else { return Ok(Item::End) };
        match file.words.next() {
            Some(word) if !word.quoted && word.text.starts_with('@') => {
                self.include(&word)?;
                Ok(Item::Edge)
            }
            Some(word) => {
                self.is_literal(&word, "")?;
                Ok(Item::Word(word))
            }
            None => {
                self.open.pop();
                Ok(if self.open.is_empty() { Item::End } else { Item::Edge })
            }
        }
    }

    /// The next word of the same file, which stays the next.
    pub(super) fn peek(&self) -> Option<&Token> {
        self.open.last()?.words.as_slice().first()
    }

    /// The argument of an option: the next word of the same file.
    pub(super) fn argument(
        &mut self,
        option: &Token,
        key: &'static str,
        what: &str,
    ) -> Result<Token, ConfigError> {
        let word = self.open.last_mut().and_then(|file| file.words.next());
        let mark = Mark::at(option.offset, key);
        let word = word.ok_or_else(|| {
            self.source.wrong(mark, &format!("the argument is missing: expected {what}"))
        })?;
        self.is_literal(&word, key)?;
        Ok(word)
    }

    /// Refuses what stands for a number of the host's.
    fn is_literal(&self, word: &Token, key: &'static str) -> Result<(), ConfigError> {
        if word.quoted || !word.text.contains("$asinfo_") {
            return Ok(());
        }
        let message =
            format!("`{}`: this host has no QNX system page; write the number", word.text);
        let mark = Mark::at(word.offset, key);
        Err(self.source.wrong(mark, &message).with_errno(Errno::NOTSUP))
    }

    fn include(&mut self, word: &Token) -> Result<(), ConfigError> {
        let mark = Mark::at(word.offset, "@");
        let name = word.text.get(1..).unwrap_or_default();
        let wrong = |source: &Source, message: &str| Err(source.wrong(mark, message));
        if name.is_empty() {
            return wrong(self.source, "expected a path right after it: `@other.qvmconf`");
        }
        if self.open.len() >= DEPTH_MAX {
            return wrong(self.source, &format!("includes are nested more than {DEPTH_MAX} deep"));
        }
        if self.source.count() >= FILES_MAX {
            return wrong(self.source, &format!("more than {FILES_MAX} files are included"));
        }
        let path = self.source.resolve(mark, name);
        let refused = |source: &Source, error: &ConfigError| {
            let message = format!("{}: {}", path.display(), error.message());
            source.wrong(mark, &message).with_errno(error.errno())
        };
        let canonical = std::fs::canonicalize(&path).unwrap_or_default();
        if !canonical.as_os_str().is_empty() && self.open.iter().any(|file| file.path == canonical)
        {
            let message = format!("{} includes itself", path.display());
            return wrong(self.source, &message);
        }
        let text = read_text(&path).map_err(|error| match error.line() {
            // Its own line says more than that of the include.
            Some(_) => error,
            None => refused(self.source, &error),
        })?;
        let begin = self.source.add(text.clone(), &path);
        let begin = begin.map_err(|error| refused(self.source, &error))?;
        self.enter(&text, begin, canonical)
    }

    fn enter(&mut self, text: &str, begin: usize, path: PathBuf) -> Result<(), ConfigError> {
        let words = lex::words(text, begin, WORDS_MAX.saturating_sub(self.words));
        let words = words.map_err(|LexError { offset, message }| {
            let error = self.source.wrong(Mark::at(offset, ""), message);
            match message.contains("too many") {
                true => error.with_errno(Errno::NOSPC),
                false => error,
            }
        })?;
        self.words = self.words.saturating_add(words.len());
        self.open.push(Open { words: words.into_iter(), path });
        Ok(())
    }
}
