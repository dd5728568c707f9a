//! The command, run as people and scripts run it.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn gasp(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gasp")).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(args: &[&str]) -> Value {
    let output = gasp(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A guest in a file of its own: RAM at 0, `disk` with its first MiB, `net` translated.
struct Guest {
    folder: tempfile::TempDir,
}

impl Guest {
    fn new() -> Self {
        let text = r#"
[guest]
name = "test"
[iommu]
unattached = "deny"
[[ram]]
start = 0
size = "8M"
[[domain]]
name = "disk"
kind = "identity"
grant-identity = [{ start = 0x0, size = "1M", access = "rw" }, { start = 0x100000, size = "1M", access = "r" }]
[[domain]]
name = "net"
kind = "translate"
grant = [{ device = 0x80000000, guest = 0x400000, size = "64K", access = "r" }]
[[vdev]]
name = "disk"
domain = "disk"
[[vdev]]
name = "net"
domain = "net"
"#;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("guest.toml"), text).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("guest.toml")
    }

    fn map(&self, vdev: &str, addr: &str, len: &str, rest: &[&str]) -> Output {
        let path = self.path();
        let mut args = vec!["map", "--config", path.to_str().unwrap(), "--vdev", vdev];
        args.extend(["--addr", addr, "--len", len]);
        args.extend(rest);
        gasp(&args)
    }
}

fn numbers(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} in {value}"))
}

#[test]
fn demo_verifies_every_map_and_its_runs_tile_all_of_ram_in_order() {
    let demo = json(&["demo", "--json", "--ram", "64M"]);
    assert_eq!(demo["verified"], true, "{demo}");
    assert_eq!(numbers(&demo, "ram_bytes"), 64 << 20);
    let mut next = 0;
    for run in demo["runs"].as_array().unwrap() {
        assert_eq!(numbers(run, "guest"), next);
        assert!(run["host"].is_null() || run["host"].as_u64().is_some_and(|host| host != 0));
        next += numbers(run, "len");
    }
    assert_eq!(next, 64 << 20);
    assert!(demo["maps"].as_array().unwrap().iter().all(|map| map["verified"] == true));
}

#[test]
fn demo_reports_every_documented_field() {
    let demo = json(&["demo", "--json", "--ram", "32M"]);
    let help = stdout(&gasp(&["demo", "--help"]));
    for (field, value) in demo.as_object().unwrap() {
        assert!(help.contains(field.as_str()), "{field} is not documented");
        let may_be_null = ["not_pinned_because", "backing_note"].contains(&field.as_str());
        assert!(!value.is_null() || may_be_null, "{field} is null");
    }
    for field in [
        "ram_bytes",
        "backing",
        "backing_note",
        "passed_over",
        "stability",
        "not_pinned_because",
        "runs",
        "maps",
        "refused",
        "faults",
        "rom_write",
        "shortened",
        "drain",
        "verified",
        "notes",
    ] {
        assert!(demo.get(field).is_some(), "{field} is missing");
    }
}

#[test]
fn demo_is_refused_what_the_guest_forbids_and_its_revoke_waits_for_the_holder() {
    let demo = json(&["demo", "--json", "--ram", "32M"]);
    assert_eq!(demo["refused"]["errno"], "EFAULT");
    assert_eq!(demo["faults"][0]["device"], "net");
    assert_eq!(demo["rom_write"]["errno"], "EACCES");
    let drain = &demo["drain"];
    assert_eq!(drain["completed"], true);
    assert_eq!(numbers(drain, "holders"), 1);
    assert_eq!(drain["meanwhile"]["errno"], "EFAULT");
    assert!(numbers(drain, "waited_ns") >= 10_000_000, "{drain}");
    assert!(numbers(&drain["meanwhile"], "took_ns") < numbers(drain, "waited_ns"));
    let shortened = &demo["shortened"];
    if let Some(got) = shortened["got"].as_u64() {
        assert!(got > 0 && got <= numbers(shortened, "asked"));
    }
}

#[test]
fn demo_prints_text_and_succeeds_whatever_the_machine_permits() {
    let output = gasp(&["demo", "--ram", "32M"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for words in ["EFAULT", "EACCES", "the revoke waits", "verified"] {
        assert!(text.contains(words), "{words} is missing in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours without a terminal");
}

#[test]
fn probe_gives_a_verdict_and_a_detail_for_each_thing() {
    let probe = json(&["probe", "--json"]);
    let checks = probe["checks"].as_array().unwrap();
    assert!(checks.len() > 10);
    for check in checks {
        assert!(["yes", "limited", "no"].contains(&check["verdict"].as_str().unwrap()), "{check}");
        assert!(!check["detail"].as_str().unwrap().is_empty(), "{check}");
    }
    assert_eq!(gasp(&["probe"]).status.code(), Some(0));
}

#[test]
fn map_reports_runs_that_tile_the_range_with_their_guest_addresses() {
    let guest = Guest::new();
    let output = guest.map("net", "0x80001000", "8K", &["--access", "r", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let map: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut next = 0x8000_1000;
    for run in map["runs"].as_array().unwrap() {
        assert_eq!(numbers(run, "device"), next);
        assert_eq!(numbers(run, "guest"), next - 0x8000_0000 + 0x40_0000);
        next += numbers(run, "len");
    }
    assert_eq!(next, 0x8000_3000);
}

#[test]
fn a_refused_map_ends_with_status_1_and_names_the_errno() {
    let guest = Guest::new();
    let output = guest.map("disk", "1M", "4K", &["--access", "rw", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["error"]["errno"], "EFAULT");
    assert!(error["error"]["message"].as_str().unwrap().contains("disk"));
    assert!(!error["error"]["reason"].as_str().unwrap().is_empty());
    let output = guest.map("disk", "1M", "4K", &["--access", "rw"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("EFAULT"));
}

#[test]
fn wrong_usage_and_wrong_configuration_end_with_status_2() {
    let guest = Guest::new();
    let map = |vdev, addr, len, access| guest.map(vdev, addr, len, &["--access", access]);
    for output in [
        gasp(&[]),
        gasp(&["no-such-command"]),
        gasp(&["demo", "--ram", "1"]),
        gasp(&["demo", "--ram", "lots"]),
        gasp(&["layout", "--config", "/no/such/file.toml", "--svg", "-"]),
        map("disk", "0", "4K", "rq"),
        map("disk", "-1", "4K", "r"),
        map("disk", "0", "99999999999999999999", "r"),
        map("nobody", "0", "4K", "r"),
    ] {
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
    std::fs::write(guest.path(), "[[ram]]\nsize = \"lots\"\n").unwrap();
    let output = map("disk", "0", "4K", "r");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("guest.toml:2"), "{text}");
}

#[test]
fn layout_writes_a_well_formed_picture_to_a_file_and_to_stdout() {
    let guest = Guest::new();
    let config = guest.path();
    let out = guest.folder.path().join("guest.svg");
    let layout = |svg: &Path| {
        gasp(&["layout", "--config", config.to_str().unwrap(), "--svg", svg.to_str().unwrap()])
    };
    assert_eq!(layout(&out).status.code(), Some(0));
    for text in [std::fs::read_to_string(&out).unwrap(), stdout(&layout(Path::new("-")))] {
        let tree = roxmltree::Document::parse(&text).unwrap();
        assert_eq!(tree.root_element().tag_name().name(), "svg");
        assert!(text.contains("8 MiB") && text.contains("denied") && text.contains("net"));
    }
    let nowhere = layout(Path::new("/no/such/folder/guest.svg"));
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn every_subcommand_has_help_with_an_example_and_its_exit_status() {
    for command in ["demo", "probe", "map", "layout", "vm", "status", "vdev", "completions", "man"]
    {
        let help = stdout(&gasp(&[command, "--help"]));
        assert!(help.contains("Example") && help.contains(&format!("gasp {command}")), "{command}");
        assert!(help.contains("Exit status"), "{command}");
    }
}

#[test]
fn the_file_that_the_help_shows_describes_a_guest() {
    for command in ["map", "audit", "layout"] {
        let help = stdout(&gasp(&[command, "--help"]));
        let forms =
            [("The file describes a guest", "toml"), ("language of qvm, in a file", "qvmconf")];
        for (before, extension) in forms {
            let (_, file) = help.split_once(before).unwrap();
            let lines = file.lines().skip(1).take_while(|line| line.starts_with("  "));
            let text = lines.collect::<Vec<_>>().join("\n").replace("1G", "16M");
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("guest").with_extension(extension);
            std::fs::write(&path, text).unwrap();
            let config = path.to_str().unwrap();
            let map = ["map", "--vdev", "disk", "--addr", "1M", "--len", "64K", "--access", "r"];
            let mapped = gasp(&[&map[..], &["--config", config]].concat());
            let errors = String::from_utf8_lossy(&mapped.stderr);
            assert!(mapped.status.success(), "{command}: {errors}");
        }
    }
}

#[test]
fn a_guest_in_the_language_of_qvm_is_mapped_as_the_same_one_in_toml() {
    let map = |file: &str| {
        let config = format!("{}/../../examples/guest/{file}", env!("CARGO_MANIFEST_DIR"));
        let range = ["--vdev", "disk0", "--addr", "0x100000", "--len", "64M", "--access", "rw"];
        let map = json(&[&["map", "--json", "--config", &config][..], &range].concat());
        // Where its pages are on the host differs from one guest to the next.
        let runs = map["runs"].as_array().unwrap();
        let bytes: u64 = runs.iter().map(|run| run["len"].as_u64().unwrap()).sum();
        let keys = ["vdev", "addr", "len", "access", "stability"];
        (keys.map(|key| map[key].clone()), runs[0]["guest"].clone(), bytes)
    };
    let found = map("machine.qvmconf");
    assert_eq!(found, map("machine.toml"));
    assert_eq!((found.1, found.2), (0x100000.into(), 64 << 20));
}

#[test]
fn an_option_that_is_not_supported_is_an_error_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.qvmconf");
    std::fs::write(&path, "ram 16M\ncpu\n  sched 10\nvdev disk\n").unwrap();
    let named = format!("@{}", path.display());
    for config in [path.to_str().unwrap(), &named] {
        let range = ["--vdev", "disk", "--addr", "0", "--len", "4K", "--access", "r", "--json"];
        let output = gasp(&[&["map", "--config", config][..], &range].concat());
        assert_eq!(output.status.code(), Some(2));
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(error["error"]["errno"], "ENOTSUP", "{error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("guest.qvmconf:3: sched: ") && message.contains("; leave it out"));
        let layout = gasp(&["layout", "--config", config, "--svg", "-"]);
        assert_eq!(layout.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&layout.stderr).contains("guest.qvmconf:3: sched: "));
    }
}

#[test]
fn completions_and_man_pages_exist_for_every_subcommand() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(&gasp(&["completions", shell])).contains("layout"), "{shell}");
    }
    assert!(stdout(&gasp(&["man"])).contains(".TH gasp"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(gasp(&["man", "--out", pages.to_str().unwrap()]).status.success());
    for page in ["gasp.1", "gasp-demo.1", "gasp-map.1", "gasp-layout.1", "gasp-vdev-check.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
}

#[test]
fn a_pipe_that_is_closed_ends_the_command_quietly() {
    let guest = Guest::new();
    let config = guest.path();
    let config = config.to_str().unwrap();
    for args in [
        vec!["demo", "--ram", "32M"],
        vec!["demo", "--ram", "32M", "--json"],
        vec!["probe"],
        vec!["layout", "--config", config, "--svg", "-"],
        vec!["completions", "bash"],
        vec!["man"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gasp"))
            .args(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.is_empty() && output.status.success(), "{args:?}: {said}");
    }
}
