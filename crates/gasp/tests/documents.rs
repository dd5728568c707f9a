//! The documents of the tree lead to files that exist.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// The folders that paths in the documents begin at.
const FOLDERS: [&str; 6] =
    ["", "crates", "crates/gasp", "crates/gasp/src", "crates/gasp-vfio-user", "dev"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The documents, each with its text outside of blocks of code.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    paths.push(root().join("examples/c/README.md"));
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        paths.push(entry.unwrap().path());
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    let prose = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let outside = text.split("```").step_by(2).collect::<String>();
        (path, outside)
    };
    paths.into_iter().map(prose).collect()
}

/// What stands between `start` and `end`, wherever it does on one line.
fn between<'a>(text: &'a str, start: &'a str, end: char) -> impl Iterator<Item = &'a str> {
    let parts = text.lines().flat_map(move |line| line.split(start).skip(1));
    parts.filter_map(move |part| part.split_once(end).map(|(inner, _)| inner))
}

/// The pieces of `code` in backquotes.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.into()] };
    let (names, after) = rest.split_once('}').unwrap();
    names.split(',').map(|name| format!("{before}{name}{after}")).collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    for (document, text) in documents() {
        for link in between(&text, "](", ')').filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let file = if path.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(path)
            };
            assert!(file.exists(), "{}: {link}", document.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                let found =
                    text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
                assert!(found, "{}: {link}", document.display());
            }
        }
    }
}

/// Whether code in a document is a path in the tree.
fn is_path(code: &str) -> bool {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || "/._-{},".contains(letter);
    code.contains('/') && code.chars().all(letter) && !code.starts_with('/') && code != "target/"
}

#[test]
fn every_path_exists() {
    let mut checked = 0;
    for (document, text) in documents() {
        for path in code(&text).filter(|code| is_path(code)).flat_map(expanded) {
            let found = FOLDERS.iter().any(|folder| root().join(folder).join(&path).exists());
            assert!(found, "{}: `{path}`", document.display());
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} paths were recognized");
}

#[test]
fn guarantees_are_numbered_from_one_on_each_number_once() {
    let text = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let number = |line: &str| line.strip_prefix("| ")?.split_once(" |")?.0.parse::<usize>().ok();
    let numbers = text.lines().filter_map(number).collect::<Vec<_>>();
    assert!(!numbers.is_empty());
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}
