//! A guest from a configuration file, as `map` and `layout` use it.

use std::path::Path;

use gasp::Guest;
use gasp::config::Config;

use crate::failure::Failure;
use crate::waiting::Waiting;

/// Reads the file and makes the guest, with a progress bar where that takes long.
pub(crate) fn guest(path: &Path) -> Result<Guest, Failure> {
    let config = Config::load(path)?;
    let mut waiting = Waiting::new();
    let mut note = |progress| waiting.note(progress);
    Ok(config.build(Some(&mut note))?)
}
