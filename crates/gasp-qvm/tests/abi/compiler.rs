//! The C and C++ compilers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder of the headers.
pub(crate) fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../gasp-capi/include")
}

/// A program that includes all headers for vdevs.
fn program(text: &str) -> String {
    let mut names: Vec<_> = fs::read_dir(include().join("qvm"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".h"))
        .collect();
    names.sort();
    assert!(names.len() >= 14, "{names:?}");
    let includes: String = names.iter().map(|name| format!("#include <qvm/{name}>\n")).collect();
    format!("#include <qvm/posix.h>\n{includes}{text}")
}

fn run(compiler: &str, language: &str, edition: u32, options: &[&str], text: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let (source, object) = (folder.path().join("abi.txt"), folder.path().join("abi.o"));
    fs::write(&source, program(text)).unwrap();
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Werror", "-x", language]).args(options);
    command.arg(format!("-DQVM_EDITION={edition}")).arg("-I").arg(include()).arg(&source);
    if !options.contains(&"-E") {
        command.arg("-c").arg("-o").arg(&object);
    }
    command.output().expect("a C compiler: cc or $CC, and for C++ c++ or $CXX")
}

fn c() -> String {
    std::env::var("CC").unwrap_or_else(|_| "cc".into())
}

fn errors(output: &Output) -> Result<(), String> {
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Compiles assertions as C; the compiler's messages if one is wrong.
pub(crate) fn check_c(edition: u32, text: &str) -> Result<(), String> {
    errors(&run(&c(), "c", edition, &["-std=gnu11"], text))
}

/// Compiles assertions as C++.
pub(crate) fn check_cxx(edition: u32, text: &str) -> Result<(), String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    errors(&run(&compiler, "c++", edition, &["-std=c++17"], text))
}

/// The headers as the compiler sees them, without comments and directives.
pub(crate) fn preprocessed(edition: u32) -> String {
    let output = run(&c(), "c", edition, &["-std=gnu11", "-E", "-P"], "");
    errors(&output).unwrap_or_else(|why| panic!("{why}"));
    String::from_utf8(output.stdout).unwrap()
}
