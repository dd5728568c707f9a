//! Devices: the context of `vdev`, and the names of those that have none.

use std::collections::{HashMap, HashSet};

use toml::Spanned;

use super::lex::Token;
use crate::config::file::{LogTable, VdevTable};

/// A device whose options are being read.
pub(super) struct VdevDraft {
    kind: Token,
    pub(super) name: Option<Spanned<String>>,
    pub(super) loc: Vec<Spanned<String>>,
    pub(super) intr: Option<Spanned<String>>,
    pub(super) log: Option<Spanned<LogTable>>,
    words: Vec<(Spanned<String>, bool)>,
}

impl VdevDraft {
    pub(super) fn new(kind: Token) -> Self {
        Self { kind, name: None, loc: Vec::new(), intr: None, log: None, words: Vec::new() }
    }

    /// Adds an option of the device's type, or an argument of one.
    pub(super) fn word(&mut self, word: Token) {
        let quoted = word.quoted;
        self.words.push((word.spanned(), quoted));
    }
}

/// The tables of devices. Those without a name get that of their type, with a number from the
/// second one on.
pub(super) fn tables(drafts: Vec<VdevDraft>) -> Vec<Spanned<VdevTable>> {
    let names = drafts.iter().filter_map(|draft| Some(draft.name.as_ref()?.get_ref().clone()));
    let mut names: HashSet<String> = names.collect();
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut name = |kind: &str| {
        let count = counts.entry(kind.into()).or_default();
        loop {
            *count = count.saturating_add(1);
            let name = if *count == 1 { kind.into() } else { format!("{kind}-{count}") };
            if names.insert(name.clone()) {
                return name;
            }
        }
    };
    let table = |draft: VdevDraft| {
        let range = draft.kind.offset..draft.kind.offset;
        let mut default = |kind: &Token| Spanned::new(range.clone(), name(&kind.text));
        let table = VdevTable {
            name: draft.name.unwrap_or_else(|| default(&draft.kind)),
            domain: None,
            r#type: Some(draft.kind.spanned()),
            loc: draft.loc,
            intr: draft.intr,
            log: draft.log.into_iter().collect(),
            options: Vec::new(),
            words: draft.words,
        };
        Spanned::new(range, table)
    };
    drafts.into_iter().map(table).collect()
}
