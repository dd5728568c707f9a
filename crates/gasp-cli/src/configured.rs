//! Guests from configuration files, for `map`, `audit` and `layout`.

use std::path::Path;

use gasp::Guest;
use gasp::config::Config;

use crate::failure::Failure;
use crate::progress::Progress;

/// Reads a configuration file and creates its guest, showing progress if that takes long.
pub(crate) fn guest(path: &Path) -> Result<Guest, Failure> {
    create(&Config::load(path)?)
}

/// Creates the guest of a configuration.
pub(crate) fn create(config: &Config) -> Result<Guest, Failure> {
    let progress = Progress::start("creating the guest");
    let mut note = |so_far| progress.ram(so_far);
    Ok(config.build(Some(&mut note))?)
}
