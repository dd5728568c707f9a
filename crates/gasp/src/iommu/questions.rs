//! The questions that a domain has put to its translator and that are not answered yet.
//!
//! | a device's thread that misses | a thread that invalidates |
//! |---|---|
//! | list the question | change the page tables |
//! | wait while its page is being invalidated | list the range; mark the questions that are listed |
//! | ask the translator | lock the table; remove the range; unlock |
//! | lock the table; unless the question is marked, enter the answer; unlock | scan for mappings; take the range off its list |
//!
//! An answer that is entered in the table has been given after the last invalidation of its page:
//! if the question was marked before it was looked at, the answer is void; if after, the answer is
//! in the table before the range is removed from it; and a question that is listed after the mark
//! is answered from the changed page tables. And it is answered after the scan, which so finds no
//! mapping of a newer answer. (`mod proof` checks every interleaving.)

use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use super::inside::Inside;
use crate::access::Access;
use crate::addr::{DeviceAddr, GRANULE};
use crate::error::Reason;
use crate::span::Span;
use crate::sync::{AtomicU64, Condvar, Mutex, Ordering, ThreadId, lock, this_thread, wait};

/// How often a question is asked whose answers are void.
const TRIES: u32 = 64;
/// The most invalidations that are told apart for one question.
const INVALIDATIONS: usize = 64;

/// The number of parts of the list of questions, each with a lock of its own, so that threads that
/// miss different pages do not wait for one another.
#[cfg(not(loom))]
const PARTS: usize = 16;
#[cfg(loom)]
const PARTS: usize = 1;

/// The bytes of addresses that are in the same part, so that a thread which walks a buffer writes the
/// cache lines of few parts, and seldom those that another thread has just written.
const NEAR: u64 = 64 * GRANULE;

/// The open questions of a domain, and the ranges whose translations are being fetched.
pub(super) struct Questions<A> {
    parts: [Part<A>; PARTS],
    /// The invalidations that have begun and not ended, and their number.
    invalidations: Mutex<Vec<Ranges>>,
    invalidating: AtomicU64,
    ended: Condvar,
}

/// The questions about some of the pages.
#[repr(align(128))]
struct Part<A> {
    open: Mutex<Open<A>>,
    closed: Condvar,
}

struct Open<A> {
    next: u64,
    /// How often the translator was called.
    asked: u64,
    list: Vec<Question<A>>,
    /// The range of each [`Fetching`], with its number.
    fetching: Vec<(u64, Span<DeviceAddr>)>,
}

/// A question, from the first time that it is asked until its answer has been used.
struct Question<A> {
    number: u64,
    page: Span<DeviceAddr>,
    access: Access,
    asker: ThreadId,
    invalidated: Invalidated,
    /// Where threads that wait for the answer find it, if there are any.
    waiting: Option<Arc<OnceLock<A>>>,
}

/// Ranges that are invalidated together, in order and apart.
type Ranges = Arc<[Span<DeviceAddr>]>;

/// The ranges that were invalidated since a question was asked.
#[derive(Clone, Default)]
pub(super) struct Invalidated(SmallVec<[Ranges; 2]>);

/// A range whose translations a thread fetches: while it lives, none of them is evicted.
pub(crate) struct Fetching<'a, A> {
    part: &'a Part<A>,
    number: u64,
}

/// A question that this thread asks, until it is dropped. Threads that ask the same wait for that,
/// and meanwhile the translation of its page is not evicted.
pub(crate) struct Asked<'a, A> {
    part: &'a Part<A>,
    number: u64,
    /// The answer, for those threads, when it is in the table; and the page that it is about.
    answer: Option<(A, Span<DeviceAddr>)>,
}

/// What has become of a question.
pub(super) enum Settled<'a, A> {
    /// There was nothing to ask: the map tries again.
    Nothing,
    /// Each answer was void.
    Void,
    /// Another thread has asked.
    Answered(A),
    /// This thread has asked, and the answer is in the table.
    Entered(A, Asked<'a, A>),
}

impl<A: Clone> Questions<A> {
    pub(super) fn new() -> Self {
        let part = |_| Part {
            open: Mutex::new(Open { next: 0, asked: 0, list: Vec::new(), fetching: Vec::new() }),
            closed: Condvar::new(),
        };
        Self {
            parts: core::array::from_fn(part),
            invalidations: Mutex::new(Vec::new()),
            invalidating: AtomicU64::new(0),
            ended: Condvar::new(),
        }
    }

    /// The part for the page of `addr`.
    fn part(&self, addr: DeviceAddr) -> &Part<A> {
        let hash = (addr.0 / NEAR).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let [first, ..] = &self.parts;
        self.parts.get(hash as usize % PARTS).unwrap_or(first)
    }

    /// Keeps the translations of `span` from being evicted.
    pub(super) fn fetching(&self, span: Span<DeviceAddr>) -> Fetching<'_, A> {
        let part = self.part(span.start());
        let mut open = lock(&part.open);
        let number = open.number();
        open.fetching.push((number, span));
        Fetching { part, number }
    }

    /// The answer to the question whether `access` to `page` is allowed: by `ask`, or by another
    /// thread's `ask` to the same question.
    ///
    /// `is_known` is called before, under the lock of the question, and returns `true` if there is
    /// nothing to ask. `about` is the page that an answer is about, which can be larger. `enter`
    /// enters the answer in the table: it takes the table's lock, calls the function that it is
    /// given, and leaves the table as it is if that returns `None`, because a part of that page was
    /// invalidated; or else enters it, and returns `true`. What it enters besides must not be in the
    /// ranges that it has got. It may release the lock and begin anew.
    ///
    /// # Errors
    /// `Deadlock` if this thread is asking the same already; the error of `enter`.
    pub(super) fn answer(
        &self,
        page: Span<DeviceAddr>,
        access: Access,
        is_known: impl Fn() -> bool,
        ask: impl Fn() -> A,
        about: impl Fn(&A) -> Span<DeviceAddr>,
        mut enter: impl FnMut(&A, &dyn Fn() -> Option<Invalidated>) -> Result<bool, Reason>,
    ) -> Result<Settled<'_, A>, Reason> {
        let mut asked = match self.part(page.start()).begin(page, access, is_known)? {
            Begun::Known => return Ok(Settled::Nothing),
            Begun::Answered(answer) => return Ok(Settled::Answered(answer)),
            Begun::Mine(asked) => asked,
        };
        let mut whole = page;
        for again in 0..TRIES {
            if again > 0 {
                lock(&asked.part.open).asked += 1;
            }
            self.wait_for_invalidations(whole);
            let answer = {
                let _inside = Inside::begin();
                ask()
            };
            whole = about(&answer);

            if enter(&answer, &|| self.valid(&asked, whole))? {
                asked.answer = Some((answer.clone(), whole));
                return Ok(Settled::Entered(answer, asked));
            }
        }
        Ok(Settled::Void)
    }

    /// Makes void the answers that are on their way for `spans`, and lets none be entered until the
    /// result is dropped, after the scan for the mappings of what was removed: the scan would take
    /// those of newer answers for them. The spans are in order and apart.
    pub(super) fn invalidate(&self, spans: &[Span<DeviceAddr>]) -> Invalidating<'_, A> {
        debug_assert!(spans.is_sorted_by(|span, next| span.last() < next.start()));
        let spans: Ranges = spans.into();
        lock(&self.invalidations).push(Arc::clone(&spans));
        // Whoever lists a question after it was looked for below sees this, by the part's lock.
        self.invalidating.fetch_add(1, Ordering::Relaxed);
        for part in &self.parts {
            for question in &mut lock(&part.open).list {
                question.invalidated.add(&spans);
            }
        }
        Invalidating { questions: self, spans }
    }

    /// What has been or is being invalidated since a question was asked, if that does not make the
    /// answer about `whole` void. If it does, the question is as if it had not been asked yet.
    fn valid(&self, asked: &Asked<'_, A>, whole: Span<DeviceAddr>) -> Option<Invalidated> {
        let mut open = lock(&asked.part.open);
        let question = open.question(asked.number);
        let is_any = self.invalidating.load(Ordering::Relaxed) > 0;
        if !is_any && question.invalidated.0.is_empty() {
            return Some(Invalidated::default());
        }
        let mut invalidated = question.invalidated.clone();
        if is_any {
            lock(&self.invalidations).iter().for_each(|spans| invalidated.add(spans));
        }
        if invalidated.overlaps(whole) {
            question.invalidated = Invalidated::default();
            return None;
        }
        Some(invalidated)
    }

    /// Waits for the invalidations of `page` that have begun before its question was listed; those
    /// that begin later make its answer void.
    fn wait_for_invalidations(&self, page: Span<DeviceAddr>) {
        if self.invalidating.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut invalidations = lock(&self.invalidations);
        while invalidations.iter().any(|spans| overlap(spans, page)) {
            invalidations = wait(&self.ended, invalidations);
        }
    }

    /// How often the translator was called.
    pub(super) fn asked(&self) -> u64 {
        self.parts.iter().map(|part| lock(&part.open).asked).sum()
    }

    /// The ranges that must not be evicted.
    pub(super) fn in_use(&self) -> Vec<Span<DeviceAddr>> {
        let mut ranges = Vec::new();
        for part in &self.parts {
            let open = lock(&part.open);
            ranges.extend(open.list.iter().map(|question| question.page));
            ranges.extend(open.fetching.iter().map(|&(_, span)| span));
        }
        ranges
    }
}

/// An invalidation, from the mark of the questions until its scan.
pub(super) struct Invalidating<'a, A> {
    questions: &'a Questions<A>,
    spans: Arc<[Span<DeviceAddr>]>,
}

impl<A> Drop for Invalidating<'_, A> {
    fn drop(&mut self) {
        let mut invalidations = lock(&self.questions.invalidations);
        let at = invalidations.iter().position(|spans| Arc::ptr_eq(spans, &self.spans));
        at.map(|at| invalidations.swap_remove(at));
        self.questions.invalidating.fetch_sub(1, Ordering::Relaxed);
        self.questions.ended.notify_all();
    }
}

/// What [`Part::begin`] has found.
enum Begun<'a, A> {
    Known,
    Answered(A),
    Mine(Asked<'a, A>),
}

impl<A: Clone> Part<A> {
    /// Lists a question, or waits for the answer if another thread has listed the same.
    fn begin(
        &self,
        page: Span<DeviceAddr>,
        access: Access,
        is_known: impl Fn() -> bool,
    ) -> Result<Begun<'_, A>, Reason> {
        let asker = this_thread();
        let mut open = lock(&self.open);
        loop {
            if is_known() {
                return Ok(Begun::Known);
            }
            let same = |q: &Question<A>| q.page == page && q.access == access;
            if open.list.iter().any(|q| same(q) && q.asker == asker) {
                return Err(Reason::Deadlock("the translator maps the page that it translates"));
            }
            // Inside a translator it is asked once more: the other thread may be inside one as well,
            // and wait for what this thread asks.
            let other = open.list.iter_mut().find(|q| same(q) && !Inside::is_inside());
            let Some(question) = other else { break };
            let number = question.number;
            let answer = Arc::clone(question.waiting.get_or_insert_default());
            while open.list.iter().any(|question| question.number == number) {
                open = wait(&self.closed, open);
            }
            if let Some(answer) = answer.get() {
                return Ok(Begun::Answered(answer.clone()));
            }
        }
        let number = open.number();
        let (invalidated, waiting) = Default::default();
        open.asked += 1;
        open.list.push(Question { number, page, access, asker, invalidated, waiting });
        Ok(Begun::Mine(Asked { part: self, number, answer: None }))
    }
}

impl<A> Open<A> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn question(&mut self, number: u64) -> &mut Question<A> {
        let question = self.list.iter_mut().find(|question| question.number == number);
        question.unwrap_or_else(|| unreachable!("a question is listed until `Asked` is dropped"))
    }
}

impl<A> Drop for Asked<'_, A> {
    fn drop(&mut self) {
        let mut open = lock(&self.part.open);
        let at = open.list.iter().position(|question| question.number == self.number);
        let question = at.map(|at| open.list.swap_remove(at));
        if let Some(Question { invalidated, waiting: Some(waiting), .. }) = question {
            // Some may have begun to wait after the invalidation: the answer is older than that.
            let answer = self.answer.take().filter(|&(_, whole)| !invalidated.overlaps(whole));
            if let Some((answer, _)) = answer {
                let _: Result<(), A> = waiting.set(answer);
            }
            self.part.closed.notify_all();
        }
    }
}

impl<A> Fetching<'_, A> {
    /// Keeps what follows from being evicted as well, up to `last`.
    pub(super) fn extend(&self, last: DeviceAddr) {
        let mut open = lock(&self.part.open);
        let fetching = open.fetching.iter_mut().find(|(number, _)| *number == self.number);
        if let Some((_, span)) = fetching {
            *span = Span::inclusive(span.start(), last.max(span.last())).unwrap_or(*span);
        }
    }
}

impl<A> Drop for Fetching<'_, A> {
    fn drop(&mut self) {
        lock(&self.part.open).fetching.retain(|&(number, _)| number != self.number);
    }
}

impl Invalidated {
    /// Whether a part of `span` was invalidated.
    pub(super) fn overlaps(&self, span: Span<DeviceAddr>) -> bool {
        self.0.iter().any(|spans| overlap(spans, span))
    }

    fn add(&mut self, spans: &Ranges) {
        let count = self.0.len();
        match self.0.last_mut() {
            // Too many to tell apart: the last one grows over those that follow.
            Some(last) if count >= INVALIDATIONS => *last = hull(last, spans),
            _ => self.0.push(Arc::clone(spans)),
        }
    }
}

/// Whether one of `spans` has an address of `span`.
fn overlap(spans: &Ranges, span: Span<DeviceAddr>) -> bool {
    let next = spans.partition_point(|before| before.last() < span.start());
    spans.get(next).is_some_and(|next| next.overlaps(&span))
}

/// One range around all of both.
fn hull(spans: &Ranges, more: &Ranges) -> Ranges {
    let all = spans.iter().chain(&**more).copied();
    all.reduce(|all, span| all.hull(&span)).into_iter().collect()
}

#[cfg(all(test, loom))]
#[path = "questions_proof.rs"]
mod proof;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::cell::Cell;
    use core::sync::atomic::{AtomicBool, Ordering};
    use core::time::Duration;
    use std::thread;

    #[test]
    fn an_answer_that_is_invalidated_before_it_is_passed_on_is_asked_for_again() {
        let questions = Questions::new();
        let page = Span::new(DeviceAddr(0), GRANULE).unwrap();
        let other = Span::new(DeviceAddr(GRANULE), GRANULE).unwrap();
        let both = |_: &i32| page.hull(&other);
        let waits = AtomicBool::new(false);
        let second = || {
            let is_known = || {
                waits.store(true, Ordering::SeqCst);
                false
            };
            let answer =
                questions.answer(page, Access::READ, is_known, || 2, both, |_, _| Ok(true));
            match answer {
                Ok(Settled::Answered(answer) | Settled::Entered(answer, _)) => answer,
                _ => 0,
            }
        };
        thread::scope(|scope| {
            let waiting = Cell::new(None);
            let enter = |_: &i32, valid: &dyn Fn() -> Option<Invalidated>| {
                let is_valid = valid().is_some();
                questions.invalidate(&[other]);
                waiting.set(Some(scope.spawn(second)));
                while !waits.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(50));
                Ok(is_valid)
            };
            drop(questions.answer(page, Access::READ, || false, || 1, both, enter));
            let answer = waiting.take().map(|thread| thread.join().unwrap());
            assert_eq!(answer, Some(2), "asked after the invalidation, it gets a later answer");
        });
    }
}
