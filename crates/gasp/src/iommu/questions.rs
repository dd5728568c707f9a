//! The questions that a domain has put to its translator and that are not answered yet.
//!
//! | a device's thread that misses | a thread that invalidates |
//! |---|---|
//! | list the question | change the page tables |
//! | ask the translator | lock; mark the questions listed; unlock |
//! | lock; drop an answer that is void; enter the others in the table; unlock | remove the range from the table |
//!
//! An answer that is entered in the table has been given after the last invalidation of its page:
//! one whose question was listed before the mark is void, one that was entered before the mark is
//! removed after it, and a question listed after the mark sees the changed page tables. (`mod
//! proof` checks every interleaving.)

use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use crate::access::Access;
use crate::addr::DeviceAddr;
use crate::error::Reason;
use crate::span::Span;
use crate::sync::{Condvar, Mutex, ThreadId, lock, this_thread, wait};

/// How often a question is asked whose answers are void.
const TRIES: u32 = 64;
/// The most ranges that are told apart for one question.
const RANGES: usize = 64;

/// The open questions of a domain, and the ranges whose translations are being fetched.
pub(super) struct Questions<A> {
    open: Mutex<Open<A>>,
    closed: Condvar,
}

struct Open<A> {
    next: u64,
    list: Vec<Question<A>>,
    fetching: Ranges,
}

/// The ranges of each [`Fetching`], with its number.
pub(super) type Ranges = Vec<(u64, Span<DeviceAddr>)>;

/// A question, from the first time it is asked until its answer is in the table.
struct Question<A> {
    number: u64,
    page: Span<DeviceAddr>,
    access: Access,
    asker: ThreadId,
    invalidated: Invalidated,
    /// Where threads that wait for the answer find it, if there are any.
    waiting: Option<Arc<OnceLock<A>>>,
}

/// The ranges that were invalidated since a question was asked.
#[derive(Default)]
pub(super) struct Invalidated(SmallVec<[Span<DeviceAddr>; 2]>);

/// A range whose translations a thread fetches: while it lives, none of them is evicted.
pub(super) struct Fetching<'a, A> {
    questions: &'a Questions<A>,
    number: u64,
}

impl<A: Clone> Questions<A> {
    pub(super) fn new() -> Self {
        let open = Open { next: 0, list: Vec::new(), fetching: Vec::new() };
        Self { open: Mutex::new(open), closed: Condvar::new() }
    }

    /// Keeps the translations of `span` from being evicted.
    pub(super) fn fetching(&self, span: Span<DeviceAddr>) -> Fetching<'_, A> {
        let mut open = lock(&self.open);
        let number = open.number();
        open.fetching.push((number, span));
        Fetching { questions: self, number }
    }

    /// The answer to the question whether `access` to `page` is allowed: by `ask`, or by another
    /// thread's `ask` to the same question.
    ///
    /// `is_known` is called before: if it returns `true` there is nothing to ask, and the result
    /// is `None`. `enter` enters the answer in the table, except for what was invalidated
    /// meanwhile; it has the ranges that must not be evicted. Both are called under the lock of
    /// the questions. The result is `None` as well if each answer was void.
    ///
    /// # Errors
    /// `Deadlock` if this thread is asking the same already; the error of `enter`.
    pub(super) fn answer(
        &self,
        page: Span<DeviceAddr>,
        access: Access,
        is_known: impl Fn() -> bool,
        ask: impl Fn() -> A,
        mut enter: impl FnMut(&A, &Invalidated, &Ranges) -> Result<(), Reason>,
    ) -> Result<Option<A>, Reason> {
        let asking = match self.begin(page, access, is_known)? {
            Asking::Known => return Ok(None),
            Asking::Answered(answer) => return Ok(Some(answer)),
            Asking::Mine(number) => Closing { questions: self, number },
        };
        for _ in 0..TRIES {
            let answer = ask();
            let mut open = lock(&self.open);
            let Open { list, fetching, .. } = &mut *open;
            let Some(question) = list.iter_mut().find(|q| q.number == asking.number) else {
                unreachable!("a question is listed until it is closed");
            };
            if question.invalidated.overlaps(page) {
                question.invalidated = Invalidated::default();
                continue;
            }
            enter(&answer, &question.invalidated, fetching)?;
            if let Some(waiting) = &question.waiting {
                let _: Result<(), A> = waiting.set(answer.clone());
            }
            asking.close(&mut open);
            return Ok(Some(answer));
        }
        Ok(None)
    }

    /// Makes void the answers that are on their way for `spans`.
    pub(super) fn invalidate(&self, spans: &[Span<DeviceAddr>]) {
        let mut open = lock(&self.open);
        for question in &mut open.list {
            spans.iter().for_each(|&span| question.invalidated.add(span));
        }
    }

    /// Lists a question, or waits for the answer if another thread has listed the same.
    fn begin(
        &self,
        page: Span<DeviceAddr>,
        access: Access,
        is_known: impl Fn() -> bool,
    ) -> Result<Asking<A>, Reason> {
        let asker = this_thread();
        let mut open = lock(&self.open);
        loop {
            if is_known() {
                return Ok(Asking::Known);
            }
            let same = |q: &&mut Question<A>| q.page == page && q.access == access;
            let Some(question) = open.list.iter_mut().find(same) else { break };
            if question.asker == asker {
                return Err(Reason::Deadlock("the translator maps the page that it translates"));
            }
            let number = question.number;
            let answer = Arc::clone(question.waiting.get_or_insert_default());
            while open.list.iter().any(|question| question.number == number) {
                open = wait(&self.closed, open);
            }
            if let Some(answer) = answer.get() {
                return Ok(Asking::Answered(answer.clone()));
            }
        }
        let number = open.number();
        let (invalidated, waiting) = Default::default();
        open.list.push(Question { number, page, access, asker, invalidated, waiting });
        Ok(Asking::Mine(number))
    }
}

impl<A> Open<A> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// What [`Questions::begin`] has found.
enum Asking<A> {
    /// There is nothing to ask.
    Known,
    /// Another thread has asked.
    Answered(A),
    /// This thread is to ask the question of this number.
    Mine(u64),
}

/// Closes a question, also if the translator panics.
struct Closing<'a, A> {
    questions: &'a Questions<A>,
    number: u64,
}

impl<A> Closing<'_, A> {
    /// Closes the question under the lock that the caller has.
    fn close(self, open: &mut Open<A>) {
        core::mem::ManuallyDrop::new(self).remove_from(open);
    }

    fn remove_from(&self, open: &mut Open<A>) {
        let at = open.list.iter().position(|question| question.number == self.number);
        let question = at.map(|at| open.list.swap_remove(at));
        if question.is_some_and(|question| question.waiting.is_some()) {
            self.questions.closed.notify_all();
        }
    }
}

impl<A> Drop for Closing<'_, A> {
    fn drop(&mut self) {
        self.remove_from(&mut lock(&self.questions.open));
    }
}

impl<A> Drop for Fetching<'_, A> {
    fn drop(&mut self) {
        lock(&self.questions.open).fetching.retain(|&(number, _)| number != self.number);
    }
}

impl Invalidated {
    /// Whether a part of `span` was invalidated.
    pub(super) fn overlaps(&self, span: Span<DeviceAddr>) -> bool {
        self.0.iter().any(|range| range.overlaps(&span))
    }

    fn add(&mut self, span: Span<DeviceAddr>) {
        let count = self.0.len();
        match self.0.last_mut() {
            // Too many to tell apart: the last one grows over those that follow.
            Some(last) if count >= RANGES => *last = last.hull(&span),
            _ => self.0.push(span),
        }
    }
}

#[cfg(all(test, loom))]
#[path = "questions_proof.rs"]
mod proof;
