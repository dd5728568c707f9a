//! Programs for the emulated machine and its guests, statically linked.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What is built.
pub(crate) struct Programs {
    /// `gasp`, as users build it.
    pub(crate) gasp: PathBuf,
    /// What the guest measures with.
    pub(crate) rounds: PathBuf,
}

/// Builds them with cargo, which reports its progress on stderr.
pub(crate) fn build() -> Result<Programs> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let workspace = workspace.ok_or("the workspace is not found")?;
    let folder = workspace.join("target/static");
    for package in ["gasp-cli", "gasp-guest"] {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--release", "-p", package, "--target", TARGET, "--target-dir"])
            .arg(&folder)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .current_dir(workspace)
            .status()?;
        if !status.success() {
            return Err(format!("{package} cannot be built").into());
        }
    }
    let built = folder.join(TARGET).join("release");
    Ok(Programs { gasp: built.join("gasp"), rounds: built.join("disk-rounds") })
}
