//! What moved.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cause::{Cause, Outcome};
use super::group::{CONTROL, Group};

/// What moved, in one run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// How many times all causes happened.
    pub rounds: u32,
    /// How long it took.
    pub seconds: f64,
    /// How much of that until all memory was made and mapped.
    pub prepared: f64,
    /// How many mappings were held all the while.
    pub mappings: usize,
    /// How many of them have a page that is not where they say.
    pub mappings_stale: usize,
    /// What the engine says about all of this.
    pub audited: Audited,
    /// The groups of pages.
    pub groups: Vec<GroupReport>,
    /// Groups that were not to be had, and why.
    pub missing: Vec<String>,
    /// What came of each cause, the last time.
    pub outcomes: Vec<Outcome>,
    /// Pages that moved, by cause and group, in all rounds.
    pub moved: Vec<Moved>,
}

/// What the engine's own audit found in the end, in pages of 4 KiB.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Audited {
    /// How many were looked at.
    pub pages: u64,
    /// How many are not where the engine said.
    pub changed: u64,
    /// How many of those were promised not to move.
    pub broken: u64,
}

/// Pages of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// What the engine says about its addresses; `control` for what is not the engine's.
    pub stability: String,
    /// How many pages of 4 KiB.
    pub pages: usize,
    /// How many of them are not where the engine said, in the end.
    pub stale: usize,
}

/// Pages of one group that moved for one cause, each counted every time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moved {
    /// Why.
    pub cause: Cause,
    /// Which.
    pub group: String,
    /// How many.
    pub pages: usize,
}

/// What a run shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Pages moved, but none that was promised not to.
    Held,
    /// A page moved that was promised not to.
    Broken,
    /// No page of the control group moved: this proves nothing.
    Inconclusive,
}

impl Report {
    /// What the run shows.
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

    /// How many pages there are of what the engine calls this; `control` for the control
    /// group.
    pub fn pages_of(&self, stability: &str) -> usize {
        self.class(stability).map(|group| group.pages).sum()
    }

    /// How many pages of this class moved, each counted every time.
    pub fn moved_of(&self, stability: &str) -> usize {
        let groups = self.class(stability);
        groups.flat_map(|group| Cause::ALL.map(|cause| self.moved_by(cause, &group.name))).sum()
    }

    /// How many pages of this class are not where the engine said, in the end.
    pub fn stale_of(&self, stability: &str) -> usize {
        self.class(stability).map(|group| group.stale).sum()
    }

    /// How many pages of this group moved for this cause.
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
             mappings held, {mappings_stale} of them not where they say"
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
        write!(f, "\n{:<20}", "not where told")?;
        self.groups.iter().try_for_each(|group| write!(f, " {:>12}", group.stale))?;
        write!(f, "\n{:<20}", "of pages")?;
        self.groups.iter().try_for_each(|group| write!(f, " {:>12}", group.pages))?;
        write!(f, "\n{:<20}", "the engine says")?;
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
