//! A guest from a configuration file, as `map`, `audit` and `layout` use it.

use std::path::Path;

use gasp::Guest;
use gasp::config::Config;

use crate::failure::Failure;
use crate::progress::Progress;

/// Reads the file and creates the guest, with a sign of life if that takes long.
pub(crate) fn guest(path: &Path) -> Result<Guest, Failure> {
    create(&Config::load(path)?)
}

/// Creates the guest of a file that was read.
pub(crate) fn create(config: &Config) -> Result<Guest, Failure> {
    let progress = Progress::start("creating the guest");
    let mut note = |so_far| progress.ram(so_far);
    Ok(config.build(Some(&mut note))?)
}
