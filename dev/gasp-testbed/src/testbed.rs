//! The fetched packages, and commands that run their programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// The folders of libraries below QEMU's root. The loader is in the first that has one.
pub(crate) const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
pub(crate) const LOADER: &str = "ld-linux-x86-64.so.2";
/// The file with the name and version of every package, one per line.
pub(crate) const PACKAGES: &str = "packages";

/// A QEMU, a Linux kernel with its modules, and busybox, ready to run.
#[derive(Clone, Debug)]
pub struct Testbed {
    root: PathBuf,
    versions: Versions,
}

/// The versions of the Debian packages of a testbed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Versions {
    /// QEMU's package version.
    pub qemu: String,
    /// The guest kernel's package version.
    pub kernel: String,
    /// Busybox's package version.
    pub busybox: String,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { qemu, kernel, busybox } = self;
        write!(f, "QEMU {qemu}, Linux {kernel}, busybox {busybox}")
    }
}

impl Testbed {
    /// Opens a complete testbed in `root`.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        let text = fs::read_to_string(root.join(PACKAGES))?;
        let packages: BTreeMap<_, _> =
            text.lines().filter_map(|line| line.split_once(' ')).collect();
        let version = |prefix: &str| {
            let found = packages.iter().find(|(name, _)| name.starts_with(prefix));
            found.map_or("unknown", |(_, version)| version).to_string()
        };
        let versions = Versions {
            qemu: version("qemu-system-x86"),
            kernel: version("linux-image-"),
            busybox: version("busybox"),
        };
        Ok(Self { root, versions })
    }

    /// The versions of the packages. They change with Debian, so tests print them.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The folder of the testbed.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The guest's kernel, uncompressed.
    pub fn vmlinux(&self) -> PathBuf {
        self.root.join("vmlinux")
    }

    /// The guest's kernel as a bzImage.
    pub fn vmlinuz(&self) -> PathBuf {
        self.root.join("vmlinuz")
    }

    /// The folder of the guest kernel's modules.
    pub fn modules(&self) -> PathBuf {
        self.root.join("modules")
    }

    /// Busybox, statically linked.
    pub fn busybox(&self) -> PathBuf {
        self.root.join("busybox")
    }

    /// A command that runs `qemu-system-x86_64` with the paths of its firmware and modules.
    pub fn qemu(&self) -> Command {
        let root = self.qemu_root();
        let mut command = program(&root, "qemu-system-x86_64");
        for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(root.join(data));
        }
        command.env("QEMU_MODULE_DIR", root.join(LIBRARIES[0]).join("qemu"));
        command
    }

    /// A command that runs another program of QEMU's packages, such as `qemu-img`.
    pub fn tool(&self, name: &str) -> Command {
        program(&self.qemu_root(), name)
    }

    /// The folder that QEMU's packages are unpacked in.
    pub(crate) fn qemu_root(&self) -> PathBuf {
        self.root.join("qemu")
    }
}

/// A command that runs a program unpacked below `root` with the libraries unpacked there,
/// through their own loader: this machine's C library may be older.
pub(crate) fn program(root: &Path, name: &str) -> Command {
    let folders = LIBRARIES.map(|folder| root.join(folder));
    let loader = folders.iter().map(|folder| folder.join(LOADER)).find(|path| path.exists());
    let mut path = std::ffi::OsString::new();
    for folder in &folders {
        if !path.is_empty() {
            path.push(":");
        }
        path.push(folder);
    }
    let mut command = Command::new(loader.unwrap_or_else(|| LOADER.into()));
    command.arg("--library-path").arg(path).arg("--argv0").arg(name);
    command.arg(root.join("usr/bin").join(name));
    command
}
