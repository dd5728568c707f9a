//! The guest's initial file system: busybox, modules, the test's files and script.

mod cpio;
mod modules;
mod qemu;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::testbed::Testbed;
use source::{Source, contents};

/// The guest prints this with the script's exit status, and powers off.
pub(crate) const END_MARKER: &str = "testbed: the script ended with ";

/// The contents of a guest's first file system.
///
/// The guest mounts `/proc`, `/sys` and `/dev`, loads the modules, and runs the script with
/// busybox's shell and all of its commands on the serial console. Then it powers off.
#[derive(Clone, Debug)]
#[must_use]
pub struct Initramfs {
    testbed: Testbed,
    modules: Vec<String>,
    files: BTreeMap<String, Source>,
    programs: Vec<PathBuf>,
    qemu: bool,
    script: String,
}

impl Initramfs {
    /// A file system with busybox and an empty script.
    pub fn new(testbed: &Testbed) -> Self {
        Self {
            testbed: testbed.clone(),
            modules: Vec::new(),
            files: BTreeMap::new(),
            programs: Vec::new(),
            qemu: false,
            script: String::new(),
        }
    }

    /// Adds a module of the guest's kernel, to be loaded after its dependencies. A built-in one
    /// needs no loading.
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.into());
        self
    }

    /// Adds an executable file with the contents `bytes` at `path`.
    pub fn file(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), Source::Bytes(bytes.into()));
        self
    }

    /// Adds a program of this machine to `/bin`, with the libraries that it is linked with at their
    /// paths.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.programs.push(program.into());
        self
    }

    /// Adds QEMU itself, which `/bin/qemu` runs, for a guest inside the guest: some 100 MB.
    pub fn qemu(self) -> Self {
        Self { qemu: true, ..self }
    }

    /// Sets the script: lines for a shell that stops at the first command that fails.
    pub fn script(self, script: &str) -> Self {
        Self { script: script.into(), ..self }
    }

    /// Builds the cpio archive, for a guest inside the guest.
    ///
    /// # Errors
    /// A module, a program, one of its libraries or a file is missing.
    pub fn build(&self) -> Result<Vec<u8>> {
        let mut files = self.files.clone();
        let mut add = |path: String, host: PathBuf| files.insert(path, Source::Host(host));
        add("/bin/busybox".into(), self.testbed.busybox());
        let mut load = String::new();
        for path in modules::in_order(&self.testbed.modules(), &self.modules)? {
            let name = file_name(&path);
            load.push_str(&format!("insmod /modules/{name}\n"));
            add(format!("/modules/{name}"), path);
        }
        for program in &self.programs {
            for library in libraries(program)? {
                add(library.to_string_lossy().into_owned(), library);
            }
            add(format!("/bin/{}", file_name(program)), program.clone());
        }
        if self.qemu {
            files.extend(qemu::files(&self.testbed)?);
        }
        files.insert("/script".into(), Source::Bytes(self.script.clone().into_bytes()));
        files.insert("/init".into(), Source::Bytes(init(&load).into_bytes()));

        let mut archive = cpio::Archive::default();
        for folder in ["/proc", "/sys", "/dev", "/tmp", "/mnt"] {
            archive.folder(folder);
        }
        for (path, source) in &files {
            match source {
                Source::Bytes(bytes) => archive.file(path, bytes),
                Source::Host(host) => archive.file(path, &contents(host)?),
            }
        }
        Ok(archive.finish())
    }
}

fn init(load: &str) -> String {
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin HOME=/tmp\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sys /sys\n\
         mount -t devtmpfs dev /dev\n\
         mount -t tmpfs tmp /tmp\n\
         exec < /dev/console > /dev/console 2>&1\n\
         stty -echo\n\
         {load}\
         sh -e /script\n\
         echo \"{END_MARKER}$?\"\n\
         sync\n\
         poweroff -f\n"
    )
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The libraries that a program is linked with, and its loader; none for a statically linked one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let failed = |why: String| Error::Libraries { program: program.into(), why };
    let output = Command::new("ldd").env("LC_ALL", "C").arg(program).output();
    let output = output.map_err(|error| failed(format!("ldd: {error}")))?;
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() && !errors.contains("not a dynamic executable") {
        return Err(failed(errors.trim().into()));
    }
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        return Err(failed(missing.trim().into()));
    }
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(Into::into);
    Ok(text.lines().filter_map(path).collect())
}
