//! Counts of results, which show whether the sequences are varied.

use std::collections::BTreeMap;

use gasp::Reason;

/// Number of results of each kind.
#[derive(Default, Debug)]
pub(crate) struct Seen {
    pub(crate) mapped: u32,
    pub(crate) shortened: u32,
    pub(crate) pieces: u32,
    pub(crate) drained: u32,
    /// Invalidations of a part of a larger answer.
    pub(crate) widened: u32,
    refused: BTreeMap<String, u32>,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.mapped += other.mapped;
        self.shortened += other.shortened;
        self.pieces += other.pieces;
        self.drained += other.drained;
        self.widened += other.widened;
        for (name, count) in &other.refused {
            *self.refused.entry(name.clone()).or_default() += count;
        }
    }

    /// Counts a refusal, by the name of its reason.
    pub(crate) fn refused(&mut self, reason: Reason) {
        let text = format!("{reason:?}");
        let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        *self.refused.entry(name.to_owned()).or_default() += 1;
    }

    /// Whether every result has occurred, and the most important ones often enough.
    pub(crate) fn is_varied(&self, asks: bool) -> bool {
        let widened = if asks { self.widened } else { u32::MAX };
        let enough = [self.mapped, self.shortened, self.pieces, self.drained, widened];
        let reasons =
            ["Refused", "NoMemory", "NotRam", "Forbidden", "NotConsecutive", "HostUnknown"];
        enough.iter().all(|&count| count >= 20)
            && reasons.into_iter().all(|name| self.refused.contains_key(name))
    }
}
