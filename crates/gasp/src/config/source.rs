//! The text of a configuration file, and places in it.

use core::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use toml::Spanned;

use super::ConfigError;
use super::file::Document;
use super::near;
use crate::error::{Errno, Error, system_words};

/// Longer files are refused before they are read, in bytes.
const SIZE_MAX: u64 = 4 << 20;

/// A configuration file's text and name. The text is kept so that what is refused only
/// when the guest is built can name its line, too.
#[derive(Clone)]
pub(super) struct Source {
    path: PathBuf,
    text: Arc<str>,
    images: Images,
}

/// ROM images that were handed in, by the name that the text gives them.
pub(super) type Images = &'static [(&'static str, &'static [u8])];

/// A place in the file: what an error is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The first byte of the value, or of its table's header.
    offset: usize,
    /// The key with those of the tables around it.
    key: &'static str,
}

/// What a file is told that describes devices and no guest.
const DEVICES: &str = "unknown key `device`: a guest's register blocks are [[mmio]]; devices to \
                       serve to a VMM are no part of a guest, and in a file for `gasp serve`";

impl Mark {
    /// The guest as a whole.
    pub(super) const GUEST: Self = Self { offset: 0, key: "guest" };

    pub(super) fn of<T>(value: &Spanned<T>, key: &'static str) -> Self {
        Self { offset: value.span().start, key }
    }

    /// The value's place, or that of its table where the file does not give it.
    pub(super) fn or<T, U>(value: Option<&Spanned<T>>, key: &'static str, of: &Spanned<U>) -> Self {
        value.map_or_else(|| Self::of(of, key), |value| Self::of(value, key))
    }

    /// Whether the file has this place behind the other.
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

    /// An image that was handed in, and is not empty.
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
        // The file may grow while it is read.
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
            // Without its copy of the text the error prints the keys that lead to it,
            // which it tells in no other way.
            error.set_input(None);
            let printed = error.to_string();
            let path = printed.trim_end().rsplit_once("\nin `");
            let path = path.and_then(|(_, keys)| keys.strip_suffix('`')).unwrap_or_default();
            let message = error.message();
            // A table that lacks a key, or has a wrong one, is not itself what is wrong.
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

    /// The line of a place, from 1.
    pub(super) fn line(&self, mark: Mark) -> usize {
        self.line_at(mark.offset)
    }

    /// Something in the file is wrong.
    #[cold]
    pub(super) fn wrong(&self, mark: Mark, message: &str) -> ConfigError {
        ConfigError::new(&self.path, message).at_line(self.line(mark)).at_key(mark.key)
    }

    /// The host refused something that the file asks for.
    #[cold]
    pub(super) fn failed(&self, mark: Mark, what: &str, error: &io::Error) -> ConfigError {
        self.wrong(mark, &format!("{what}: {}", system_message(error))).with_errno(errno_of(error))
    }

    /// The engine refused something that the file asks for.
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

/// Opens a file without waiting for anybody, as opening a pipe would.
pub(super) fn open_file(path: &Path, mode: OFlags) -> io::Result<File> {
    let flags = mode | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// The system's words without its number.
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
