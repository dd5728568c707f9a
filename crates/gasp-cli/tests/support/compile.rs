//! Compiles vdevs and programs in C.
#![allow(clippy::expect_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

/// Compiles a source with further arguments.
pub(crate) fn compile(source: &Path, into: &Path, more: &[&str]) {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(compiler)
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g"])
        .args(["-I", concat!(env!("CARGO_MANIFEST_DIR"), "/../gasp-capi/include")])
        .args(more)
        .arg("-o")
        .args([into, source])
        .output()
        .expect("a C compiler: cc, or $CC");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Compiles a vdev.
pub(crate) fn vdev(source: &str, into: &Path, more: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    compile(&source, into, &[&["-shared", "-fPIC"], more].concat());
}
