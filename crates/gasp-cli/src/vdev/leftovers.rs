//! What a vdev has left behind: threads and descriptors of the process.

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use super::report::{Finding, Kind};

/// How long threads may take until they are gone.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// The threads and the open descriptors of this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Leftovers {
    /// Names by number.
    threads: BTreeMap<u32, String>,
    /// What they are open to, by number.
    descriptors: BTreeMap<u32, String>,
}

impl Leftovers {
    /// Those of now.
    pub(super) fn now() -> Self {
        let thread = |number: u32| fs::read_to_string(format!("/proc/self/task/{number}/comm"));
        let threads = numbers("/proc/self/task");
        let threads =
            threads.into_iter().filter_map(|it| Some((it, thread(it).ok()?.trim().to_owned())));
        let target = |number: u32| fs::read_link(format!("/proc/self/fd/{number}"));
        let descriptors = numbers("/proc/self/fd");
        // That of the folder itself is gone by now.
        let descriptors = descriptors
            .into_iter()
            .filter_map(|it| Some((it, target(it).ok()?.display().to_string())));
        Self { threads: threads.collect(), descriptors: descriptors.collect() }
    }

    /// The names of the threads, and what the descriptors are open to, that are new since
    /// `before`, once those that are about to end have had time for it.
    pub(super) fn since(before: &Self) -> (Vec<String>, Vec<String>) {
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            let new = Self::now().without(before);
            if new == (Vec::new(), Vec::new()) || Instant::now() >= deadline {
                return new;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn without(&self, before: &Self) -> (Vec<String>, Vec<String>) {
        let threads =
            self.threads.iter().filter(|(number, _)| !before.threads.contains_key(number));
        let new =
            |(number, target): &(&u32, &String)| before.descriptors.get(*number) != Some(*target);
        let descriptors = self.descriptors.iter().filter(new);
        (
            threads.map(|(_, name)| name.clone()).collect(),
            descriptors.map(|(_, target)| target.clone()).collect(),
        )
    }
}

/// The names in a folder that are numbers.
fn numbers(folder: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// A thread that outlives its vdev.
pub(super) fn left_thread(name: &str) -> Finding {
    Finding::new(Kind::Thread, format!("the thread `{name}` goes on"))
        .in_call("control(TERMINATE)")
        .advice("end it and join it there: what it maps from then on is refused")
}
