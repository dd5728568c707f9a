//! QEMU as a program of a guest: its executable, its libraries, and the firmware of a PC.

use std::fs;
use std::path::Path;

use super::source::Source;
use crate::error::{Error, Result};
use crate::testbed::{LIBRARIES, LOADER, Testbed};

/// Where QEMU's root is in the guest.
const ROOT: &str = "/qemu";
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// The files, by their paths in the guest.
pub(super) fn files(testbed: &Testbed) -> Result<Vec<(String, Source)>> {
    let root = testbed.qemu_root();
    let mut found = vec![(format!("{ROOT}/{PROGRAM}"), Source::Host(root.join(PROGRAM)))];
    let mut loader = None;
    for folder in LIBRARIES.into_iter().filter(|folder| root.join(folder).exists()) {
        found.extend(below(&root, folder, |name| name.contains(".so"))?);
        if loader.is_none() && root.join(folder).join(LOADER).exists() {
            loader = Some(format!("{ROOT}/{folder}/{LOADER}"));
        }
    }
    for folder in FIRMWARE {
        let wanted = |name: &str| name.ends_with(".bin") || name.ends_with(".rom");
        found.extend(below(&root, folder, wanted)?);
    }
    let start = format!(
        "#!/bin/busybox sh\nexec {} --library-path {} --argv0 qemu {ROOT}/{PROGRAM} {} \"$@\"\n",
        loader.as_deref().unwrap_or(LOADER),
        LIBRARIES.map(|folder| format!("{ROOT}/{folder}")).join(":"),
        FIRMWARE.map(|folder| format!("-L {ROOT}/{folder}")).join(" "),
    );
    found.push(("/bin/qemu".into(), Source::Bytes(start.into_bytes())));
    Ok(found)
}

/// The files of a folder whose names are wanted; links are followed.
fn below(
    root: &Path,
    folder: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Source)>> {
    let path = root.join(folder);
    let failed = |source| Error::File { path: path.clone(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if wanted(&name) && path.is_file() {
            found.push((format!("{ROOT}/{folder}/{name}"), Source::Host(path)));
        }
    }
    Ok(found)
}
