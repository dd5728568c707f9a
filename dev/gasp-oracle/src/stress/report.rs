//! The report of a run: pages that moved.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cause::{Cause, Outcome};
use super::group::{CONTROL, Group};

/// The pages that moved in one run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The number of rounds; each applies all causes.
    pub rounds: u32,
    /// The duration of the run, in seconds.
    pub seconds: f64,
    /// The part of that until all memory was allocated and mapped.
    pub prepared: f64,
    /// The number of mappings held during the run.
    pub mappings: usize,
    /// The number of those with a page that is not at the reported address.
    pub mappings_stale: usize,
    /// The result of the engine's own audit.
    pub audited: Audited,
    /// The groups of pages.
    pub groups: Vec<GroupReport>,
    /// Groups that could not be allocated, and why.
    pub missing: Vec<String>,
    /// The outcome of each cause in the last round.
    pub outcomes: Vec<Outcome>,
    /// Pages that moved, by cause and group, in all rounds.
    pub moved: Vec<Moved>,
}

/// The result of the engine's own audit at the end, in pages of 4 KiB.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Audited {
    /// The number of pages checked.
    pub pages: u64,
    /// The number of pages that are not at the reported address.
    pub changed: u64,
    /// The number of those that were promised not to move.
    pub broken: u64,
}

/// Pages of one class.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupReport {
    /// The name of the group.
    pub name: String,
    /// The engine's class of its addresses; `control` for the control group.
    pub stability: String,
    /// The number of pages of 4 KiB.
    pub pages: usize,
    /// The number of those that are not at the reported address at the end.
    pub stale: usize,
}

/// Moves of pages of one group by one cause; a page counts each time it moves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moved {
    /// The cause.
    pub cause: Cause,
    /// The name of the group.
    pub group: String,
    /// The number of moves.
    pub pages: usize,
}

/// The conclusion of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Pages moved, but none that was promised not to move.
    Held,
    /// A page moved that was promised not to move.
    Broken,
    /// No page of the control group moved: this proves nothing.
    Inconclusive,
}

impl Report {
    /// The conclusion of the run.
    pub fn verdict(&self) -> Verdict {
        let broken = [
            self.moved_of("pinned") > 0,
            self.stale_of("pinned") > 0,
            self.mappings_stale > 0,
            self.audited.broken > 0,
        ];
        match (broken.contains(&true), self.moved_of(CONTROL)) {
            (true, _) => Verdict::Broken,
            (false, 0) => Verdict::Inconclusive,
            (false, _) => Verdict::Held,
        }
    }

    /// The number of pages of this class of addresses; `control` for the control group.
    pub fn pages_of(&self, stability: &str) -> usize {
        self.class(stability).map(|group| group.pages).sum()
    }

    /// The number of moves of pages of this class.
    pub fn moved_of(&self, stability: &str) -> usize {
        let groups = self.class(stability);
        groups.flat_map(|group| Cause::ALL.map(|cause| self.moved_by(cause, &group.name))).sum()
    }

    /// The number of pages of this class that are not at the reported address at the end.
    pub fn stale_of(&self, stability: &str) -> usize {
        self.class(stability).map(|group| group.stale).sum()
    }

    /// The number of moves of pages of this group by this cause.
    pub fn moved_by(&self, cause: Cause, group: &str) -> usize {
        let of = self.moved.iter().filter(|moved| moved.cause == cause && moved.group == group);
        of.map(|moved| moved.pages).sum()
    }

    fn class<'a>(&'a self, stability: &'a str) -> impl Iterator<Item = &'a GroupReport> {
        self.groups.iter().filter(move |group| group.stability == stability)
    }

    pub(super) fn happened(&mut self, outcome: Outcome) {
        self.outcomes.retain(|other| other.cause != outcome.cause);
        self.outcomes.push(outcome);
    }

    pub(super) fn moved(&mut self, cause: Cause, group: &str, pages: usize) {
        let same = |moved: &&mut Moved| moved.cause == cause && moved.group == group;
        match self.moved.iter_mut().find(same) {
            Some(moved) => moved.pages += pages,
            None => self.moved.push(Moved { cause, group: group.into(), pages }),
        }
    }

    pub(super) fn count(&mut self, group: &Group, stale: usize) {
        self.groups.retain(|other| other.name != group.name());
        self.groups.push(GroupReport {
            name: group.name().into(),
            stability: group.stability().into(),
            pages: group.pages(),
            stale,
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, seconds, prepared, mappings, mappings_stale, .. } = self;
        writeln!(
            f,
            "{rounds} rounds in {seconds:.1} s, {prepared:.1} s of them to prepare; {mappings} \
             mappings held, {mappings_stale} of them not at the reported address"
        )?;
        write!(f, "{:<20}", "pages that moved")?;
        self.groups.iter().try_for_each(|group| write!(f, " {:>12}", group.name))?;
        for Outcome { cause, done, words, seconds } in &self.outcomes {
            write!(f, "\n{cause:<20}")?;
            for group in &self.groups {
                write!(f, " {:>12}", self.moved_by(*cause, &group.name))?;
            }
            write!(f, "  {seconds:.1} s: {words}")?;
            if *done && self.moved_by(*cause, CONTROL) == 0 {
                write!(f, " (inconclusive: no page of the control group moved)")?;
            }
        }
        write!(f, "\n{:<20}", "not where reported")?;
        self.groups.iter().try_for_each(|group| write!(f, " {:>12}", group.stale))?;
        write!(f, "\n{:<20}", "of pages")?;
        self.groups.iter().try_for_each(|group| write!(f, " {:>12}", group.pages))?;
        write!(f, "\n{:<20}", "class")?;
        self.groups.iter().try_for_each(|group| write!(f, " {:>12}", group.stability))?;
        let Audited { pages, changed, broken } = &self.audited;
        write!(f, "\nthe engine's audit of {pages} pages: {changed} changed, {broken} broken")?;
        self.missing.iter().try_for_each(|missing| write!(f, "\nmissing: {missing}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(pinned: usize, control: usize, stale: usize) -> Report {
        let group = |name: &str, stability: &str, stale| GroupReport {
            name: name.into(),
            stability: stability.into(),
            pages: 10,
            stale,
        };
        let groups = vec![group("ring 4K", "pinned", stale), group(CONTROL, CONTROL, 0)];
        let mut report = Report { groups, ..Report::default() };
        report.moved(Cause::Collapse, "ring 4K", pinned);
        report.moved(Cause::Compaction, CONTROL, control);
        report
    }

    #[test]
    fn a_run_in_which_nothing_moved_proves_nothing() {
        assert_eq!(report(0, 0, 0).verdict(), Verdict::Inconclusive);
        assert_eq!(report(0, 3, 0).verdict(), Verdict::Held);
    }

    #[test]
    fn one_pinned_page_that_moved_is_a_broken_promise() {
        assert_eq!(report(1, 3, 0).verdict(), Verdict::Broken);
        assert_eq!(report(0, 3, 1).verdict(), Verdict::Broken);
        assert_eq!(report(1, 0, 0).verdict(), Verdict::Broken, "whatever the control group did");
    }
}
