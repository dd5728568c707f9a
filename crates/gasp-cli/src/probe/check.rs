//! A check, its outcome, and what checks read.

use std::fs;

use serde::Serialize;

/// The outcome of a check.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Yes,
    Limited,
    No,
}

/// One check and its outcome.
#[derive(Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) detail: String,
    pub(super) remedy: Option<String>,
}

impl Check {
    pub(super) fn new(name: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { name, verdict, detail: detail.into(), remedy: None }
    }

    /// Adds what would help.
    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// The text of a small file of the kernel, without the newline.
pub(super) fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

/// The number in a small file of the kernel.
pub(super) fn read_number(path: &str) -> Option<u64> {
    read(path)?.parse().ok()
}
