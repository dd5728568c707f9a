//! Vdevs that are compiled for a test, and checked.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The fault of a vdev that has none else.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fault<'a> {
    pub(crate) before: &'a str,
    pub(crate) control: &'a str,
    pub(crate) read: &'a str,
    pub(crate) write: &'a str,
    pub(crate) members: &'a str,
}

/// The compiled file of a vdev, in a folder of its own.
pub(crate) struct Vdev {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Vdev {
    /// Compiles the skeleton with a fault.
    pub(crate) fn new(fault: &Fault<'_>) -> Self {
        Self::of_edition(fault, 800)
    }

    pub(crate) fn of_edition(fault: &Fault<'_>, edition: u32) -> Self {
        let skeleton = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vdev_check/skeleton.c");
        let members = match fault.members {
            "" => String::new(),
            members => format!(", {members}"),
        };
        let defines = [
            format!("-DBEFORE={}", fault.before),
            format!("-DCONTROL={}", fault.control),
            format!("-DREAD={}", fault.read),
            format!("-DWRITE={}", fault.write),
            format!("-DMEMBERS={members}"),
            format!("-DQVM_EDITION={edition}"),
        ];
        Self::compiled(Path::new(skeleton), "vdev-odd.so", &defines)
    }

    /// Compiles a text.
    pub(crate) fn of_text(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("odd.c");
        std::fs::write(&source, format!("#include <parts.h>\n{text}\n")).unwrap();
        Self::compiled(&source, "vdev-odd.so", &[])
    }

    /// Compiles an example of the tree.
    pub(crate) fn example(name: &str, edition: u32) -> Self {
        let source = Path::new(ROOT).join(format!("examples/vdev/{name}.c"));
        Self::compiled(&source, &format!("{name}.so"), &[format!("-DQVM_EDITION={edition}")])
    }

    fn compiled(source: &Path, name: &str, defines: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let output = Command::new(compiler)
            // The faults are what a compiler would warn of.
            .args(["-std=gnu11", "-w", "-g", "-shared", "-fPIC"])
            .args(defines)
            .args(["-I", &format!("{ROOT}/crates/gasp-capi/include")])
            .args(["-I", &format!("{ROOT}/crates/gasp-qvm/tests/support"), "-o"])
            .args([&path, source])
            .output()
            .expect("a C compiler: cc, or $CC");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { folder, path }
    }

    /// Checks it with these arguments.
    pub(crate) fn check(&self, args: &[&str]) -> Output {
        let all = [&["vdev", "check", self.path.to_str().unwrap()], args].concat();
        gasp(&all)
    }

    /// The result in JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.check(&[&["--json"], args].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The findings but notes, and whether the exit status is as they say.
    pub(crate) fn findings(&self, args: &[&str]) -> Vec<Value> {
        let output = self.check(&[&["--json"], args].concat());
        let record: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let all = record["findings"].as_array().unwrap().iter();
        let all: Vec<Value> = all.filter(|one| one["severity"] != "note").cloned().collect();
        let expected = if all.is_empty() { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(expected), "{record:#}");
        all
    }
}

pub(crate) fn gasp(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gasp"))
        .args(args)
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Checks that a vdev has these findings and no others: the kind, a part of the call, and a part of
/// the message.
pub(crate) fn expect(fault: &Fault<'_>, args: &[&str], expected: &[(&str, &str, &str)]) {
    expect_of(&Vdev::new(fault), args, expected);
}

pub(crate) fn expect_of(vdev: &Vdev, args: &[&str], expected: &[(&str, &str, &str)]) {
    let found = vdev.findings(args);
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let kinds: Vec<String> = found.iter().map(|one| text(&one["kind"])).collect();
    let wanted: Vec<&str> = expected.iter().map(|one| one.0).collect();
    assert_eq!(kinds, wanted, "{found:#?}");
    for (one, (_, call, message)) in found.iter().zip(expected) {
        assert!(text(&one["call"]).contains(call), "{call}: {one:#}");
        assert!(text(&one["message"]).contains(message), "{message}: {one:#}");
    }
}
