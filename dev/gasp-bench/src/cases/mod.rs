//! The cases: an operation, by gasp and by each peer that has it.

mod ask;
mod c;
mod copy;
mod map;
mod queue;
mod recipe;
mod refuse;
mod revoke;

use core::time::Duration;

pub use recipe::{Case, Contestant, Recipe, Work};

/// How long to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Some seconds for all cases: for a sanity check.
    Quick,
    /// About a minute for all cases: for numbers to be quoted.
    Full,
}

impl Effort {
    pub(crate) fn rounds(self) -> u32 {
        match self {
            Self::Quick => 8,
            Self::Full => 60,
        }
    }

    pub(crate) fn round_time(self) -> Duration {
        match self {
            Self::Quick => Duration::from_micros(500),
            Self::Full => Duration::from_millis(2),
        }
    }
}

/// All cases whose name contains `filter`, in order; spaces, the case of letters and commas
/// (`1,024 grants`) are ignored. Each holds memory only while it is set up and run.
pub fn cases(filter: &str) -> Vec<Recipe> {
    let mut all = map::recipes();
    all.extend(c::recipes());
    all.extend(copy::recipes());
    all.extend(queue::recipes());
    all.extend(refuse::recipes());
    all.extend(revoke::recipes());
    all.extend(ask::recipes());
    let filter = essence(filter);
    all.retain(|(name, _)| essence(name).contains(&filter));
    all
}

/// A name without what the filter ignores.
fn essence(name: &str) -> String {
    name.to_lowercase().chars().filter(|letter| !matches!(letter, ' ' | ',')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_found_in_the_spelling_of_the_readme() {
        let count = |filter| cases(filter).len();
        assert!(count("1024 grants") > 0);
        assert_eq!(count("1,024 grants"), count("1024 grants"));
        assert_eq!(count("map + unmap"), count("map+unmap"));
        assert_eq!(count("c: Map"), count("C: map"));
        assert!(count("") > count("map+unmap") && count("no such case") == 0);
    }
}
