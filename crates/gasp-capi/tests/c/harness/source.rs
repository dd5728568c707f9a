//! The programs to build: their source files and expected output.

use std::fs;
use std::path::{Path, PathBuf};

/// A program.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) files: Vec<PathBuf>,
    /// Of an example: texts that lines of its output contain, in this order.
    pub(crate) expected: Option<String>,
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The folder of the headers.
pub(crate) fn include() -> PathBuf {
    here("include")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

fn is_code(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "c" || extension == "cpp")
}

pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// All programs.
pub(crate) fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for path in entries(&here("tests/c")) {
        let files: Vec<PathBuf> = match path.is_dir() {
            true => entries(&path).into_iter().filter(|path| is_code(path)).collect(),
            false => Some(path.clone()).filter(|path| is_code(path)).into_iter().collect(),
        };
        if !files.is_empty() {
            sources.push(Source { name: stem(&path), files, expected: None });
        }
    }
    for path in entries(&here("../../examples/c")).into_iter().filter(|path| is_code(path)) {
        let stem = stem(&path);
        let expected = here("tests/c/expected").join(format!("{stem}.txt"));
        let expected = fs::read_to_string(&expected)
            .unwrap_or_else(|why| panic!("{}: {why}", expected.display()));
        let name = format!("examples/{stem}");
        sources.push(Source { name, files: vec![path], expected: Some(expected) });
    }
    sources
}

/// The names of the headers, as they are included.
pub(crate) fn headers() -> Vec<String> {
    let mut headers = Vec::new();
    for folder in entries(&include()).into_iter().filter(|path| path.is_dir()) {
        for header in entries(&folder) {
            let header = header.strip_prefix(include()).unwrap().to_string_lossy().into_owned();
            headers.push(header);
        }
    }
    headers
}
