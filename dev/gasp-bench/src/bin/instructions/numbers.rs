//! The numbers in the tree, and the comparison of new counts with them.

use std::collections::BTreeMap;
use std::process::Command;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};

pub(crate) type Result<T> = core::result::Result<T, Box<dyn std::error::Error>>;

/// In the crate's folder of the tree that this was built in.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml");
const HEADER: &str = "\
# Instructions per operation of each hot case, including its loop, as counted by callgrind.
# Compare:  cargo run --release -p gasp-bench --bin instructions -- --check
# Update:   cargo run --release -p gasp-bench --bin instructions -- --write
# The copy counts each byte of its `rep movsb`; grant+revoke includes the C library's malloc.
# An update that increases a number needs a reason in the commit message.

";

/// The numbers, and the compiler and target that they depend on.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Numbers {
    pub(crate) rustc: String,
    pub(crate) target: String,
    pub(crate) instructions: BTreeMap<String, u64>,
}

/// The result of one case.
pub(crate) struct Outcome {
    pub(crate) case: &'static str,
    pub(crate) was: Option<u64>,
    /// The new number, or why the case was skipped.
    pub(crate) now: core::result::Result<u64, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Same,
    Better,
    Worse,
    /// Counted, but without a number in the tree.
    New,
    Skipped,
}

impl Numbers {
    /// An empty set of numbers of the present compiler: the one that `cargo run` has used.
    pub(crate) fn here() -> Result<Self> {
        let output = Command::new("rustc").arg("-vV").output();
        let output = output.map_err(|error| format!("rustc -vV: {error}"))?;
        let said = String::from_utf8(output.stdout)?;
        let rustc = said.lines().next().unwrap_or_default().to_owned();
        let target = said.lines().find_map(|line| line.strip_prefix("host: "));
        let target = target.ok_or("rustc -vV prints no host")?.to_owned();
        Ok(Self { rustc, target, ..Self::default() })
    }

    pub(crate) fn load() -> Result<Self> {
        let text = std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
        Ok(toml::from_str(&text).map_err(|error| format!("{FILE}: {error}"))?)
    }

    pub(crate) fn is_of_the_same_compiler(&self, other: &Self) -> bool {
        (&self.rustc, &self.target) == (&other.rustc, &other.target)
    }

    pub(crate) fn compiler(&self) -> String {
        format!("{} for {}", self.rustc, self.target)
    }

    /// Writes the new numbers. A case that was not counted keeps its number, if that is of the same
    /// compiler.
    pub(crate) fn update(mut self, kept: &Self, outcomes: &[Outcome], some: bool) -> Result<()> {
        let holds = kept.is_of_the_same_compiler(&self);
        if some && !holds {
            return Err(
                "the other numbers are of another compiler; write all of them without a filter"
                    .into(),
            );
        }
        if some {
            self.instructions = kept.instructions.clone();
        }
        for outcome in outcomes {
            let number = outcome.now.as_ref().ok().copied();
            if let Some(number) = number.or(outcome.was.filter(|_| holds)) {
                self.instructions.insert(outcome.case.into(), number);
            }
        }
        let text = HEADER.to_owned() + &toml::to_string(&self)?;
        Ok(std::fs::write(FILE, text).map_err(|error| format!("{FILE}: {error}"))?)
    }
}

impl Outcome {
    /// A change of up to 3 % plus 2 instructions counts as none.
    pub(crate) fn verdict(&self) -> Verdict {
        let Ok(now) = self.now else { return Verdict::Skipped };
        let Some(was) = self.was else { return Verdict::New };
        let (was, now) = (was as f64, now as f64);
        let room = was * 0.03 + 2.0;
        match now - was {
            more if more > room => Verdict::Worse,
            more if more < -room => Verdict::Better,
            _ => Verdict::Same,
        }
    }

    fn row(&self) -> [String; 5] {
        let number = |number: Option<u64>| number.map_or("–".into(), |number| number.to_string());
        let now = self.now.as_ref().ok().copied();
        let change = self.was.zip(now).map(|(was, now)| (now as f64 / was as f64 - 1.0) * 100.0);
        let word = match self.verdict() {
            Verdict::Same => "",
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::New => "new",
            Verdict::Skipped => "skipped",
        };
        let change = change.map_or(String::new(), |change| format!("{change:+.1} %"));
        [self.case.into(), number(self.was), number(now), change, word.into()]
    }
}

pub(crate) fn table<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["case", "was", "now", "change", ""]);
    table.add_rows(outcomes.map(Outcome::row));
    for column in table.column_iter_mut().skip(1).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_percent_and_two_instructions_are_no_change() {
        let verdict = |now| Outcome { case: "", was: Some(200), now: Ok(now) }.verdict();
        assert_eq!(verdict(208), Verdict::Same);
        assert_eq!(verdict(209), Verdict::Worse);
        assert_eq!(verdict(192), Verdict::Same);
        assert_eq!(verdict(191), Verdict::Better);
    }
}
