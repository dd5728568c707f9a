//! Where the contents of a file come from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

#[derive(Clone, Debug)]
pub(super) enum Source {
    Bytes(Vec<u8>),
    Host(PathBuf),
}

/// The contents of a file of this machine.
pub(super) fn contents(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::File { path: path.into(), source })
}
