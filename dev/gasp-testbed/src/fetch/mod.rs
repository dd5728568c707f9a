//! Fetches the testbed from Debian's packages into one folder, completely or not at all.
//!
//! Everything is prepared in a separate folder, which is renamed when it is complete. A lock file
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

/// The suite of QEMU: bookworm's own has no vfio-user client.
const QEMU_SUITE: &str = "trixie-backports";
const QEMU_PACKAGES: &[&str] = &["qemu-system-x86", "qemu-utils", "lz4", "xz-utils", "zstd"];
/// The suite of the guest.
const GUEST_SUITE: &str = "bookworm";
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// The folder of the complete testbed. Its number changes with the contents.
const WHOLE: &str = "v2";
const UNFINISHED: &str = "unfinished-";
const OUTDATED: &str = "outdated";

/// Whether to fetch a testbed that exists already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refresh {
    IfMissing,
    Always,
}

impl Testbed {
    /// Opens the testbed that an earlier run has fetched, or fetches it: some 90 MB, in about
    /// 20 s. Waits while another process does so. Progress is reported on standard error.
    ///
    /// The folder is `target/testbed` in the workspace, or the one that `GASP_TESTBED` names.
    /// With `GASP_TESTBED=off` there is no testbed.
    ///
    /// # Errors
    /// The reason why there is no testbed on this machine, for a test that is skipped visibly.
    pub fn obtain() -> Result<Self, Unavailable> {
        obtain(Refresh::IfMissing)
    }

    /// As [`Testbed::obtain`], but always fetches the present versions of the mirror.
    ///
    /// # Errors
    /// As [`Testbed::obtain`]. An earlier testbed remains if the new one cannot be fetched.
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
    // A name of its own: a program that a killed process has started may still be running.
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

/// Takes the lock, which is held until the file is dropped; the kernel releases it if the process
/// dies.
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

/// Creates a complete testbed in `root`, which does not exist yet.
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
    clear_set_id_bits(&qemu)?;
    let guest = root.join("guest");
    let release = kernel.trim_start_matches("linux-image-");
    let image = format!("boot/vmlinuz-{release}");
    kernel::extract(&guest.join(&image), root)?;
    for (from, to) in [
        (format!("lib/modules/{release}"), "modules"),
        ("bin/busybox".into(), "busybox"),
        (image, "vmlinuz"),
    ] {
        // Packages may use the paths from before the merge of /usr.
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

/// Clears the set-user-ID and set-group-ID bits of unpacked files: nothing here may run as another
/// user, and root may have unpacked them.
fn clear_set_id_bits(folder: &Path) -> Result<(), Unavailable> {
    let entries = fs::read_dir(folder).map_err(Unavailable::file(folder))?;
    for entry in entries {
        let entry = entry.map_err(Unavailable::file(folder))?;
        let path = entry.path();
        let metadata = entry.metadata().map_err(Unavailable::file(&path))?;
        let mode = metadata.permissions().mode();
        if metadata.is_dir() {
            clear_set_id_bits(&path)?;
        } else if metadata.is_file() && mode & 0o6000 != 0 {
            let plain = fs::Permissions::from_mode(mode & 0o777);
            fs::set_permissions(&path, plain).map_err(Unavailable::file(&path))?;
        }
    }
    Ok(())
}

/// Removes folders of unfinished runs. A failure is ignored: they do no harm.
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
