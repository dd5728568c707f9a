//! The samples' own Makefile, as their README has it.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::tools::{is_under_one, trial};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/vdev");

/// A trial for each way to build; none under a tool, to which compilers are of no interest.
pub(crate) fn trials() -> Vec<Trial> {
    if is_under_one() {
        return Vec::new();
    }
    let works = |tool: &str| {
        Command::new(tool).arg("--version").output().is_ok_and(|it| it.status.success())
    };
    let lack = ["make", "pkg-config"].into_iter().find(|tool| !works(tool));
    let lack = lack.map(|tool| format!("{tool} is not installed"));
    let ways: [&'static [&'static str]; 3] = [&[], &["EDITION=710"], &["SANITIZE=1"]];
    let one = |way: &'static [&str]| {
        let name = format!("make {}: each sample, without a warning", way.join(" "));
        trial(name, lack.as_ref(), move || builds(way))
    };
    ways.into_iter().map(one).collect()
}

fn builds(way: &[&str]) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gasp-capi/include");
    let package =
        format!("Name: gasp\nDescription: -\nVersion: 0\nCflags: -I{}\n", include.display());
    std::fs::write(folder.path().join("gasp.pc"), package)?;
    let output = Command::new("make")
        .args(["-C", FOLDER, "--silent"])
        .arg(format!("OUT={}", folder.path().display()))
        .args(way)
        .env_remove("MAKEFLAGS")
        .env("PKG_CONFIG_PATH", folder.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !said.is_empty() {
        return Err(said.into_owned().into());
    }
    for entry in std::fs::read_dir(FOLDER)? {
        let source = entry?.path();
        if source.extension().is_some_and(|extension| extension == "c") {
            let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let built = folder.path().join(format!("{stem}.so"));
            assert!(built.exists(), "{}", built.display());
        }
    }
    Ok(())
}
