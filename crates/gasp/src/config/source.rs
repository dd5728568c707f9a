//! The text of a configuration, of one file or several, and marks of values in it.

use core::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use toml::Spanned;

use super::error::ConfigError;
use super::file::Document;
use super::form::Form;
use super::machine::place::Place;
use super::near;
use crate::error::{Errno, Error, system_words};

/// Maximum size of all files in bytes; a larger one is refused before it is read.
const SIZE_MAX: u64 = 4 << 20;

/// The texts of a configuration. Their paths and lines are kept so that an error while the guest
/// is built can name its line as well.
#[derive(Clone)]
pub(super) struct Source {
    /// In the order of their offsets; the first is the one that includes the others.
    files: Vec<Arc<SourceFile>>,
    form: Form,
    images: Images,
}

/// One file, or the arguments of a command line.
struct SourceFile {
    path: Arc<Path>,
    text: String,
    /// Offset of its first byte among those of all files.
    begin: usize,
    /// Offsets of its lines from `begin`, the first of which is 0.
    lines: Vec<usize>,
}

/// ROM images that the program passes, by their name in the text.
pub(super) type Images = &'static [(&'static str, &'static [u8])];

/// The value that an error is about: its place in the file, and its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Offset of the value in the texts, or of the header of its table, in bytes.
    offset: usize,
    /// The key, after those of its tables.
    key: &'static str,
}

/// The message about a file that describes devices and not a guest.
const DEVICES: &str = "unknown key `device`: the register blocks of a guest are [[mmio]]; devices \
                       that are served to a VMM are not part of a guest: see `gasp serve`";

impl Mark {
    /// The guest as a whole.
    pub(super) const GUEST: Self = Self { offset: 0, key: "guest" };

    pub(super) fn at(offset: usize, key: &'static str) -> Self {
        Self { offset, key }
    }

    pub(super) fn of<T>(value: &Spanned<T>, key: &'static str) -> Self {
        Self { offset: value.span().start, key }
    }

    /// The mark of the value or, if the file does not have it, of its table.
    pub(super) fn or<T, U>(value: Option<&Spanned<T>>, key: &'static str, of: &Spanned<U>) -> Self {
        value.map_or_else(|| Self::of(of, key), |value| Self::of(value, key))
    }

    /// Whether this place in the file is after the other.
    pub(super) fn is_after(self, other: Self) -> bool {
        self.offset > other.offset
    }

    /// The option of the qvm language that the key stands for.
    fn option(self) -> &'static str {
        match self.key {
            "guest" | "guest.name" => "system",
            "machine.kernel" | "machine.initrd" => "load",
            "machine.cpus" => "cpu",
            "machine.log" => "logger",
            "vdev.type" | "vdev.options" => "vdev",
            key => match key.split_once('.') {
                Some(("vdev" | "machine", option)) => option,
                Some((option, _)) => option,
                None => key,
            },
        }
    }
}

impl Source {
    pub(super) fn new(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut source = Self::empty(Form::of(path, text));
        source.add(text.into(), path)?;
        Ok(source)
    }

    /// A configuration without files yet.
    pub(super) fn empty(form: Form) -> Self {
        Self { files: Vec::new(), form, images: &[] }
    }

    pub(super) fn with_images(self, images: Images) -> Self {
        Self { images, ..self }
    }

    /// Adds the text of a file, and returns the offset of its first byte.
    pub(super) fn add(&mut self, text: String, path: &Path) -> Result<usize, ConfigError> {
        let begin = self.end();
        if begin.saturating_add(text.len()) as u64 > SIZE_MAX {
            return Err(too_large(path));
        }
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = core::iter::once(0).chain(after).collect();
        self.files.push(Arc::new(SourceFile { path: path.into(), text, begin, lines }));
        Ok(begin)
    }

    /// The number of files.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// An image that the program has passed, unless it is empty.
    pub(super) fn image(&self, name: &str) -> Option<&'static [u8]> {
        let found = self.images.iter().find(|(known, _)| *known == name);
        found.map(|(_, bytes)| *bytes).filter(|bytes| !bytes.is_empty())
    }

    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        // As on the command line of the language.
        let named = path.to_str().and_then(|path| path.strip_prefix('@')).map(Path::new);
        let (path, form) = match named {
            Some(path) => (path, Some(Form::Qvm)),
            None => (path, None),
        };
        let text = read_text(path)?;
        let mut source = Self::empty(form.unwrap_or_else(|| Form::of(path, &text)));
        source.add(text, path)?;
        Ok(source)
    }

    /// Parses the text as TOML.
    pub(super) fn parse(&self) -> Result<Document, ConfigError> {
        let text = self.text();
        toml::from_str(text).map_err(|mut error| {
            let span = error.span().unwrap_or_default();
            // Without its copy of the text the error prints the keys that lead to it; it
            // has no other way to return them.
            error.set_input(None);
            let printed = error.to_string();
            let path = printed.trim_end().rsplit_once("\nin `");
            let path = path.and_then(|(_, keys)| keys.strip_suffix('`')).unwrap_or_default();
            let message = error.message();
            // If a table lacks a key, or has a wrong one, the error is about that key.
            let inner = match message.strip_prefix("missing field `") {
                Some(rest) => rest.split('`').next(),
                None if message.starts_with("unknown field") || message == "duplicate key" => {
                    text.get(span.clone())
                }
                None => None,
            };
            let key = match (path, inner) {
                ("", inner) => inner.map(str::to_owned),
                (path, None) => Some(path.to_owned()),
                (path, Some(inner)) => Some(format!("{path}.{inner}")),
            };
            let single = message.starts_with("invalid type: ")
                && message.ends_with(", expected a sequence")
                && !path.contains('.');
            let message = match single {
                true => format!("expected a list of tables: write [[{path}]]"),
                false if path.is_empty() && inner == Some("device") => DEVICES.to_owned(),
                false => near::explained(message),
            };
            let (path, line) = self.line_at(span.start);
            let failed = ConfigError::new(path, &message).at_line(line);
            match key {
                Some(key) => failed.at_key(&key),
                None => failed,
            }
        })
    }

    /// The text of the first file.
    pub(super) fn text(&self) -> &str {
        self.files.first().map_or("", |file| &file.text)
    }

    /// The path of a file that the configuration names at a mark.
    pub(super) fn resolve(&self, mark: Mark, path: &str) -> PathBuf {
        let folder = self.file_at(mark.offset).and_then(|file| file.path.parent());
        folder.unwrap_or(Path::new("")).join(path)
    }

    /// The line of a mark for a message about the value at another: `line 3`, or
    /// `line 3 of other.qvmconf`.
    pub(super) fn line(&self, mark: Mark, seen_from: Mark) -> String {
        let (path, line) = self.line_at(mark.offset);
        match path == self.line_at(seen_from.offset).0 {
            true => format!("line {line}"),
            false => format!("line {line} of {}", path.display()),
        }
    }

    /// The place of a mark, for whoever uses the configuration.
    pub(super) fn place(&self, mark: Mark) -> Place {
        let (_, line) = self.line_at(mark.offset);
        let path = self
            .file_at(mark.offset)
            .map_or_else(|| Path::new("").into(), |file| file.path.clone());
        Place::new(path, line, self.key(mark))
    }

    /// An error about a value in the file.
    #[cold]
    pub(super) fn wrong(&self, mark: Mark, message: &str) -> ConfigError {
        let (path, line) = self.line_at(mark.offset);
        let error = ConfigError::new(path, message).at_line(line);
        match self.key(mark) {
            "" => error,
            key => error.at_key(key),
        }
    }

    /// An error of a system call for a value in the file.
    #[cold]
    pub(super) fn failed(&self, mark: Mark, what: &str, error: &io::Error) -> ConfigError {
        self.wrong(mark, &format!("{what}: {}", system_message(error))).with_errno(errno_of(error))
    }

    /// An error of the engine for a value in the file.
    #[cold]
    pub(super) fn refused(&self, mark: Mark, error: Error) -> ConfigError {
        self.wrong(mark, &error.to_string()).caused_by(error)
    }

    /// The key of a mark, in the words of the form.
    fn key(&self, mark: Mark) -> &'static str {
        match self.form {
            Form::Toml => mark.key,
            Form::Qvm => mark.option(),
        }
    }

    /// The file with an offset; of an offset past the end, the last one.
    fn file_at(&self, offset: usize) -> Option<&SourceFile> {
        let after = self.files.partition_point(|file| file.begin <= offset);
        self.files.get(after.saturating_sub(1)).map(AsRef::as_ref)
    }

    /// The file and the line number, from 1, of an offset.
    fn line_at(&self, offset: usize) -> (&Path, usize) {
        let Some(file) = self.file_at(offset) else { return (Path::new(""), 1) };
        let inside = offset.saturating_sub(file.begin);
        (&file.path, file.lines.partition_point(|start| *start <= inside).max(1))
    }

    /// The offset after all files, which is not one of theirs.
    fn end(&self) -> usize {
        self.files.last().map_or(0, |file| file.begin + file.text.len() + 1)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files.iter().map(|file| &file.path)).finish()
    }
}

/// Reads a text, unless it is too large or no regular file.
pub(super) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let fail = |error: io::Error| {
        let message = format!("cannot read the file: {}", system_message(&error));
        ConfigError::new(path, &message).with_errno(errno_of(&error))
    };
    let file = open_file(path, OFlags::RDONLY).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() {
        let errno = if metadata.is_dir() { Errno::ISDIR } else { Errno::NODEV };
        let what = if metadata.is_dir() { "a directory" } else { "no regular file" };
        let message = format!("expected a configuration file, and this is {what}");
        return Err(ConfigError::new(path, &message).with_errno(errno));
    }
    if metadata.len() > SIZE_MAX {
        return Err(too_large(path));
    }
    let mut bytes = Vec::new();
    // The file can grow while it is read.
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    String::from_utf8(bytes).map_err(|error| {
        let (valid, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        ConfigError::new(path, "the text is not UTF-8").at_line(line_after(valid))
    })
}

/// Opens a file without blocking, as opening a pipe otherwise can.
pub(super) fn open_file(path: &Path, mode: OFlags) -> io::Result<File> {
    let flags = mode | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// The system's message for an error, without its number.
fn system_message(error: &io::Error) -> String {
    Errno::from_io_error(error).map_or_else(|| error.to_string(), system_words)
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}

fn line_after(text: &[u8]) -> usize {
    text.iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn too_large(path: &Path) -> ConfigError {
    ConfigError::new(path, "the configuration is larger than 4 MiB").with_errno(Errno::FBIG)
}
