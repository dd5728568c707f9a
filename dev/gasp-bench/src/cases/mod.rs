//! The cases: an operation, by gasp and by each peer that has it.

mod c;
mod copy;
mod map;
mod queue;
mod refuse;
mod revoke;

use core::time::Duration;

/// Runs an operation this many times; returns how long that took.
pub type Work = Box<dyn FnMut(u32) -> Duration>;

/// One implementation of a case.
pub struct Contestant {
    /// The implementation.
    pub name: &'static str,
    /// Its operation.
    pub work: Work,
}

impl core::fmt::Debug for Contestant {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}

/// One operation to be measured. The first contestant is gasp.
#[derive(Debug)]
pub struct Case {
    /// Operation, number of grants, order of addresses, threads.
    pub name: String,
    /// The implementations that are compared.
    pub contestants: Vec<Contestant>,
}

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

/// A case to be set up: its name is known before its memory is allocated.
pub type Recipe = (String, Box<dyn FnOnce() -> gasp::Result<Case>>);

/// All cases whose name contains `filter`, in order; spaces, the case of letters and commas
/// (`1,024 grants`) are ignored. Each holds memory only while it is set up and run.
pub fn cases(filter: &str) -> Vec<Recipe> {
    let mut all = map::recipes();
    all.extend(c::recipes());
    all.extend(copy::recipes());
    all.extend(queue::recipes());
    all.extend(refuse::recipes());
    all.extend(revoke::recipes());
    let filter = essence(filter);
    all.retain(|(name, _)| essence(name).contains(&filter));
    all
}

/// A name without what the filter ignores.
fn essence(name: &str) -> String {
    name.to_lowercase().chars().filter(|letter| !matches!(letter, ' ' | ',')).collect()
}

fn recipe(name: String, make: impl FnOnce() -> gasp::Result<Vec<Contestant>> + 'static) -> Recipe {
    let title = name.clone();
    (name, Box::new(move || Ok(Case { name: title, contestants: make()? })))
}

/// A contestant whose operation is called with a running number.
fn contestant(name: &'static str, mut operation: impl FnMut(usize) + 'static) -> Contestant {
    let mut next = 0_usize;
    let work = move |count: u32| {
        let start = std::time::Instant::now();
        for _ in 0..count {
            operation(next);
            next = next.wrapping_add(1);
        }
        start.elapsed()
    };
    Contestant { name, work: Box::new(work) }
}

/// A contestant whose operation two threads run at once; the slower one counts.
fn pair<F: FnMut(usize)>(
    name: &'static str,
    operation: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Contestant {
    let work = move |count: u32| {
        let ready = std::sync::Barrier::new(2);
        let one = |thread: usize| {
            let mut operation = operation(thread);
            operation(thread);
            ready.wait();
            let start = std::time::Instant::now();
            for next in 0..count as usize {
                operation(next);
            }
            start.elapsed()
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| one(1));
            let mine = one(0);
            other.join().map_or(mine, |theirs| theirs.max(mine))
        })
    };
    Contestant { name, work: Box::new(work) }
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
