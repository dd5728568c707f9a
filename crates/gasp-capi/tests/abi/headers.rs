//! The headers: programs that include them, and the functions that they declare.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// Compiles a program of assertions; an error with the compiler's messages if it fails.
pub(crate) fn compile(edition: u32, text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let (source, object) = (folder.path().join("abi.c"), folder.path().join("abi.o"));
    let program = format!("#define QVM_EDITION {edition}\n#include <gasp/guest.h>\n{text}");
    std::fs::write(&source, program).unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-c"])
        .arg("-I")
        .arg(include())
        .arg("-o")
        .args([&object, &source])
        .output()
        .expect("a C compiler: cc, or $CC");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

pub(crate) fn check(edition: u32, text: &str) {
    compile(edition, text).unwrap_or_else(|errors| panic!("{errors}"));
}

/// The symbols of the functions that the headers declare.
pub(crate) fn declared() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for header in ["qvm/types.h", "qvm/gasp.h", "gasp/guest.h"] {
        let text = std::fs::read_to_string(include().join(header)).unwrap();
        let code: String =
            text.split("/*").map(|part| part.split_once("*/").map_or(part, |p| p.1)).collect();
        let code = code.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
        for statement in code.split(';') {
            let Some((head, _)) = statement.split_once('(') else { continue };
            let name = head.rsplit([' ', '*']).next().unwrap_or_default();
            if statement.contains("typedef")
                || !(name.starts_with("gasp_") || name.starts_with("gram_"))
            {
                continue;
            }
            let edition = if statement.contains("GASP_EDITION_710(") { "_710" } else { "" };
            names.insert(format!("{name}{edition}"));
        }
    }
    names
}
