//! Compiling for vdevs, and what the results need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The warnings that the headers and the samples must be free of.
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

pub(crate) fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files of a folder with this extension, in order.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(here(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no .{extension} files");
    files
}

/// The edition of a source file: its name says so.
pub(crate) fn edition(source: &Path) -> u32 {
    if source.file_stem().unwrap().to_string_lossy().ends_with("_710") { 710 } else { 800 }
}

/// A compiled file, in a folder of its own.
pub(crate) struct Compiled {
    pub(crate) file: PathBuf,
    _folder: TempDir,
}

/// Compiles a source file; an error with the compiler's messages if that fails.
pub(crate) fn compile(source: &Path, edition: u32, options: &[&str]) -> Result<Compiled, String> {
    let cxx = source.extension().is_some_and(|extension| extension == "cpp");
    let (variable, usual) = if cxx { ("CXX", "c++") } else { ("CC", "cc") };
    let compiler = std::env::var(variable).unwrap_or_else(|_| usual.into());
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("compiled");
    let output = Command::new(compiler)
        .args(STRICT)
        .args(options)
        .arg(format!("-DQVM_EDITION={edition}"))
        .arg("-I")
        .arg(here("include"))
        .arg("-o")
        .args([&file, source])
        .output()
        .expect("a C compiler: cc or $CC, and for C++ c++ or $CXX");
    match output.status.success() {
        true => Ok(Compiled { file, _folder: folder }),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Compiles a text as C.
pub(crate) fn compile_text(text: &str, edition: u32, options: &[&str]) -> Result<Compiled, String> {
    let folder = TempDir::new().unwrap();
    let source = folder.path().join("text.c");
    fs::write(&source, text).unwrap();
    compile(&source, edition, options)
}

impl Compiled {
    /// The symbols that it needs and does not have, of the C library excepted.
    pub(crate) fn undefined(&self, shared: bool) -> BTreeSet<String> {
        let mut nm = Command::new("nm");
        if shared {
            nm.arg("-D");
        }
        let output = nm.arg("--undefined-only").arg(&self.file).output().expect("nm, of binutils");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("U "))
            // Symbols of shared libraries have a version.
            .filter(|name| !name.contains('@'))
            .map(str::to_owned)
            .collect()
    }
}
