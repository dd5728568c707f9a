//! The text of a configuration file, and marks of values in it.

use core::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use toml::Spanned;

use super::error::ConfigError;
use super::file::Document;
use super::near;
use crate::error::{Errno, Error, system_words};

/// Maximum size of a file in bytes; a larger one is refused before it is read.
const SIZE_MAX: u64 = 4 << 20;

/// Text and path of a configuration file. The text is kept so that an error while the guest
/// is built can name its line as well.
#[derive(Clone)]
pub(super) struct Source {
    path: PathBuf,
    text: Arc<str>,
    images: Images,
}

/// ROM images that the program passes, by their name in the text.
pub(super) type Images = &'static [(&'static str, &'static [u8])];

/// The value that an error is about: its place in the file, and its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Offset of the value in the text, or of the header of its table, in bytes.
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
}

impl Source {
    pub(super) fn new(text: &str, path: &Path) -> Result<Self, ConfigError> {
        if text.len() as u64 > SIZE_MAX {
            return Err(too_large(path));
        }
        Ok(Self { path: path.into(), text: text.into(), images: &[] })
    }

    pub(super) fn with_images(self, images: Images) -> Self {
        Self { images, ..self }
    }

    /// An image that the program has passed, unless it is empty.
    pub(super) fn image(&self, name: &str) -> Option<&'static [u8]> {
        let found = self.images.iter().find(|(known, _)| *known == name);
        found.map(|(_, bytes)| *bytes).filter(|bytes| !bytes.is_empty())
    }

    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
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
        let text = core::str::from_utf8(&bytes).map_err(|error| {
            let (valid, _) = bytes.split_at(error.valid_up_to());
            ConfigError::new(path, "the text is not UTF-8").at_line(line_after(valid))
        })?;
        Self::new(text, path)
    }

    pub(super) fn parse(&self) -> Result<Document, ConfigError> {
        toml::from_str(&self.text).map_err(|mut error| {
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
                    self.text.get(span.clone())
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
            let failed = ConfigError::new(&self.path, &message).at_line(self.line_at(span.start));
            match key {
                Some(key) => failed.at_key(&key),
                None => failed,
            }
        })
    }

    /// The path of a file that the configuration names.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// The line number of a mark, from 1.
    pub(super) fn line(&self, mark: Mark) -> usize {
        self.line_at(mark.offset)
    }

    /// An error about a value in the file.
    #[cold]
    pub(super) fn wrong(&self, mark: Mark, message: &str) -> ConfigError {
        ConfigError::new(&self.path, message).at_line(self.line(mark)).at_key(mark.key)
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

    fn line_at(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        line_after(before)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.path, f)
    }
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
    ConfigError::new(path, "the file is larger than 4 MiB").with_errno(Errno::FBIG)
}
