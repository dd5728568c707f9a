//! Brings the testbed: from Debian's packages into one folder, whole or not at all.
//!
//! Everything is made in a folder of its own and renamed when it is whole. A lock file
//! keeps two processes from doing so at once.

mod apt;
mod kernel;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::testbed::{PACKAGES, Testbed};
use crate::unavailable::Unavailable;
use apt::Apt;

/// Where QEMU comes from: bookworm's own has no vfio-user client.
const QEMU_SUITE: &str = "trixie-backports";
const QEMU_PACKAGES: &[&str] = &["qemu-system-x86", "qemu-utils", "lz4", "xz-utils", "zstd"];
/// Where the guest comes from.
const GUEST_SUITE: &str = "bookworm";
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// The whole testbed. Another number when what is in it changes.
const WHOLE: &str = "v1";
const UNFINISHED: &str = "unfinished-";
const OUTDATED: &str = "outdated";

/// Whether to fetch what is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refresh {
    IfMissing,
    Always,
}

impl Testbed {
    /// Finds what an earlier run has fetched, or fetches it: some 90 MB, which takes about
    /// 20 s. Waits while another process does so. Progress is told on standard error.
    ///
    /// The folder is `target/testbed` in the workspace, or what `GASP_TESTBED` names.
    /// `GASP_TESTBED=off` refuses.
    ///
    /// # Errors
    /// Why there is no testbed on this machine: a reason to skip a test, visibly.
    pub fn obtain() -> Result<Self, Unavailable> {
        obtain(Refresh::IfMissing)
    }

    /// As [`Testbed::obtain`], but fetches the versions that the mirror has now.
    ///
    /// # Errors
    /// As [`Testbed::obtain`]. What was there before stays if the new cannot be had.
    pub fn refresh() -> Result<Self, Unavailable> {
        obtain(Refresh::Always)
    }
}

fn obtain(refresh: Refresh) -> Result<Testbed, Unavailable> {
    let folder = folder()?;
    let whole = folder.join(WHOLE);
    let there = || Testbed::open(whole.clone());
    if let (Refresh::IfMissing, Ok(testbed)) = (refresh, there()) {
        return Ok(testbed);
    }
    if !cfg!(target_arch = "x86_64") {
        return Err(Unavailable::Architecture);
    }
    let codename = apt::debian_codename()?;
    fs::create_dir_all(&folder).map_err(Unavailable::file(&folder))?;
    let _lock = lock(&folder.join("lock"))?;
    if let (Refresh::IfMissing, Ok(testbed)) = (refresh, there()) {
        return Ok(testbed); // Another process has just fetched it.
    }
    remove_unfinished(&folder);
    // A name of its own: a program that a killed process has started may still run.
    let unfinished = folder.join(format!("{UNFINISHED}{}", std::process::id()));
    if let Err(why) = make(&unfinished, &codename) {
        remove_unfinished(&folder);
        return Err(why);
    }
    let outdated = folder.join(OUTDATED);
    if whole.exists() {
        remove(&outdated)?;
        fs::rename(&whole, &outdated).map_err(Unavailable::file(&whole))?;
    }
    fs::rename(&unfinished, &whole).map_err(Unavailable::file(&whole))?;
    remove(&outdated)?;
    let testbed = there().map_err(Unavailable::file(&whole))?;
    progress(&format!("{} in {}", testbed.versions(), whole.display()));
    Ok(testbed)
}

fn folder() -> Result<PathBuf, Unavailable> {
    match std::env::var_os("GASP_TESTBED") {
        Some(value) if value == "off" => Err(Unavailable::TurnedOff),
        Some(value) => std::path::absolute(&value).map_err(Unavailable::file(value)),
        None => {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
            Ok(workspace.unwrap_or(Path::new("/")).join("target/testbed"))
        }
    }
}

/// Holds the lock until the file is dropped; the kernel lets go of it if we die.
fn lock(path: &Path) -> Result<File, Unavailable> {
    let file = File::create(path).map_err(Unavailable::file(path))?;
    let lock = |operation| rustix::fs::flock(&file, operation);
    if lock(FlockOperation::NonBlockingLockExclusive).is_err() {
        progress("another process is fetching; waiting for it");
        let result = lock(FlockOperation::LockExclusive);
        result.map_err(|errno| Unavailable::file(path)(errno.into()))?;
    }
    Ok(file)
}

/// Makes a whole testbed in `root`, which does not exist.
fn make(root: &Path, codename: &str) -> Result<(), Unavailable> {
    let apt = Apt::new(&root.join("apt"), codename)?;
    progress("package lists");
    apt.update(&["trixie", QEMU_SUITE, GUEST_SUITE])?;
    progress("QEMU");
    let qemu = apt.download_with_dependencies(QEMU_SUITE, QEMU_PACKAGES)?;
    progress("a Linux kernel and busybox");
    let kernel = apt.dependency(GUEST_SUITE, KERNEL_PACKAGE, "linux-image-")?;
    let guest = apt.download(GUEST_SUITE, &[&kernel, BUSYBOX_PACKAGE])?;

    progress("unpacking");
    let mut packages = String::new();
    for (folder, archives) in [("qemu", &qemu), ("guest", &guest)] {
        for archive in archives {
            packages.push_str(&apt::name_and_version(archive)?);
            packages.push('\n');
            apt::unpack(archive, &root.join(folder))?;
        }
    }
    let qemu = root.join("qemu");
    take_away_privilege(&qemu)?;
    let guest = root.join("guest");
    let release = kernel.trim_start_matches("linux-image-");
    kernel::extract(&guest.join("boot").join(format!("vmlinuz-{release}")), root)?;
    for (from, to) in
        [(format!("lib/modules/{release}"), "modules"), ("bin/busybox".into(), "busybox")]
    {
        // Where Debian's folders are merged, packages still come as they were before.
        let from = [guest.join(&from), guest.join("usr").join(&from)];
        let from = from.iter().find(|path| path.exists()).ok_or_else(|| {
            Unavailable::package(&kernel, format!("{to} is not where it was expected"))
        })?;
        fs::rename(from, root.join(to)).map_err(Unavailable::file(from))?;
    }
    remove(&guest)?;
    remove(&root.join("apt"))?;
    let path = root.join(PACKAGES);
    fs::write(&path, packages).map_err(Unavailable::file(path))
}

/// Clears the set-user-ID bits of what was unpacked: nothing here is to run as somebody
/// else, and root may have unpacked it.
fn take_away_privilege(folder: &Path) -> Result<(), Unavailable> {
    let entries = fs::read_dir(folder).map_err(Unavailable::file(folder))?;
    for entry in entries {
        let entry = entry.map_err(Unavailable::file(folder))?;
        let path = entry.path();
        let metadata = entry.metadata().map_err(Unavailable::file(&path))?;
        let mode = metadata.permissions().mode();
        if metadata.is_dir() {
            take_away_privilege(&path)?;
        } else if metadata.is_file() && mode & 0o6000 != 0 {
            let plain = fs::Permissions::from_mode(mode & 0o777);
            fs::set_permissions(&path, plain).map_err(Unavailable::file(&path))?;
        }
    }
    Ok(())
}

/// Removes what was left in the middle. It is in nobody's way if that fails.
fn remove_unfinished(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn remove(folder: &Path) -> Result<(), Unavailable> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Unavailable::file(folder)(error))
        }
        _ => Ok(()),
    }
}

fn progress(text: &str) {
    eprintln!("testbed: {text}");
}
