//! The output of the command, to any destination and at any width.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn gasp(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gasp"));
    command.args(args).env_remove("COLUMNS").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/guest");
    folder.join(name).to_str().unwrap().to_owned()
}

/// One of each command that ends by itself.
fn commands() -> Vec<Vec<String>> {
    let rom = example("rom.toml");
    let map = ["map", "--config", &rom, "--vdev", "disk", "--addr", "0", "--len", "8K"];
    let map = [&map[..], &["--access", "r"]].concat();
    let all: Vec<Vec<&str>> = vec![
        vec!["--help"],
        vec!["-h"],
        vec!["--version"],
        vec!["help", "map"],
        vec!["serve", "--help"],
        vec!["demo", "--ram", "32M"],
        vec!["demo", "--ram", "32M", "--json"],
        vec!["probe"],
        vec!["probe", "--json"],
        map.clone(),
        [&map[..], &["--json"]].concat(),
        [&map[..], &["--hold", "0"]].concat(),
        [&map[..], &["--hold", "0", "--json"]].concat(),
        vec!["layout", "--config", &rom, "--svg", "-"],
        vec!["completions", "bash"],
        vec!["man"],
    ];
    all.into_iter().map(|args| args.into_iter().map(String::from).collect()).collect()
}

#[test]
fn output_that_cannot_be_written_ends_every_command_with_a_message_and_status_1() {
    for args in commands() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = gasp(&args).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        let expected = "error: the output cannot be written: No space left on device\n";
        assert_eq!(said, expected, "{args:?}");
    }
}

#[test]
fn an_error_in_json_that_cannot_be_written_is_printed_as_text() {
    for args in [&["demo", "--ram", "1", "--json"] as &[_], &["audit", "--config", "/", "--json"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = gasp(args).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stderr.starts_with(b"error: "), "{args:?}");
    }
}

#[test]
fn a_closed_pipe_ends_every_command_quietly() {
    for args in commands() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = gasp(&args).stdout(writer).output().unwrap();
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?}");
    }
}

#[test]
fn no_line_is_too_wide_and_no_word_is_split() {
    const NAMES: [&str; 10] = [
        "demo",
        "probe",
        "map",
        "audit",
        "broker",
        "layout",
        "serve",
        "vdev",
        "completions",
        "man",
    ];
    let mut commands: Vec<Vec<String>> =
        NAMES.iter().map(|name| vec![(*name).into(), "--help".into()]).collect();
    commands.push(vec!["--help".into()]);
    commands.push(["vdev", "check", "--help"].map(String::from).into());
    commands.push(["demo", "--ram", "32M"].map(String::from).into());
    commands.push(vec!["probe".into()]);
    let demo = example("demo.toml");
    let map = ["map", "--config", &demo, "--vdev", "disk", "--addr", "0", "--len", "16M"];
    commands.push([&map[..], &["--access", "r"]].concat().into_iter().map(String::from).collect());
    for args in commands {
        for columns in [60, 80, 120] {
            let output =
                gasp(&[]).args(&args).env("COLUMNS", columns.to_string()).output().unwrap();
            assert!(output.status.success(), "{args:?}");
            let text = text(&output);
            // A word that is longer than the line is not split.
            let long = |line: &&str| {
                let words = line.split_whitespace().map(|word| word.chars().count()).max();
                line.chars().count() > columns && words.is_some_and(|word| word < columns / 2)
            };
            if let Some(line) = text.lines().find(long) {
                panic!("{args:?} at {columns} columns: {line:?}");
            }
            let ragged = text.lines().find(|line| line.ends_with(' '));
            assert_eq!(ragged, None, "{args:?} at {columns} columns ends with a space");
        }
    }
}

#[test]
fn the_demo_writes_the_same_words_at_any_width() {
    let addresses = |columns: &str| {
        let output = gasp(&["demo", "--ram", "32M"]).env("COLUMNS", columns).output().unwrap();
        let text = text(&output);
        for words in ["host-contiguous", "firmware", "0xfffff000", "held in a revoke"] {
            assert!(text.contains(words), "{words} is not in:\n{text}");
        }
        let words = text.split_whitespace().filter(|word| word.starts_with("0x"));
        let words: Vec<String> =
            words.map(|word| word.trim_end_matches(['.', ':', ',']).into()).collect();
        let zeros = words.iter().find(|word| word.len() > 3 && word.starts_with("0x0"));
        assert_eq!(zeros, None, "addresses are written in one way");
        words.len()
    };
    assert!(addresses("60") > 20 && addresses("120") > 20);
}

#[test]
fn a_manual_page_has_a_reproducible_date_and_its_sections() {
    let folder = tempfile::tempdir().unwrap();
    let write = |epoch: Option<&str>| {
        let mut command = gasp(&["man", "--out", folder.path().to_str().unwrap()]);
        command.env_remove("SOURCE_DATE_EPOCH");
        command.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
        command.output().unwrap()
    };
    assert!(write(Some("86400")).status.success());
    let read = |page: &str| std::fs::read_to_string(folder.path().join(page)).unwrap();
    assert!(read("gasp-map.1").contains(".TH gasp-map 1 1970-01-02 "));
    assert!(!write(Some("yesterday")).status.success());
    assert!(write(None).status.success());
    let mut pages = 0;
    for page in std::fs::read_dir(folder.path()).unwrap() {
        let page = page.unwrap().file_name().into_string().unwrap();
        let text = read(&page);
        let date = text.split_once(".TH ").unwrap().1.split(' ').nth(2).unwrap();
        assert!(date.len() == 10 && date.starts_with("20"), "{page}: {date}");
        let at = |section| text.find(section).unwrap_or_else(|| panic!("{page}: {section:?}"));
        let examples = at(".SH EXAMPLES\n.nf\n");
        assert!(at("\n.SH \"EXIT STATUS\"\n.TP\n0\n") < examples, "{page}");
        assert!(text[examples..].contains("\n.fi\n"), "{page}");
        pages += 1;
    }
    let has_vm = cfg!(all(target_arch = "x86_64", target_os = "linux"));
    assert_eq!(pages, if has_vm { 14 } else { 12 });
}
