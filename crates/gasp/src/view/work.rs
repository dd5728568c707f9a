//! The bound on the work that is done under one hold of a table's locks.
//!
//! A guest can request a change of a million entries at once. Such a change is processed in
//! chunks, and the locks are released between them, so that other domains, other guests and
//! the host's own changes wait for one chunk and not for the whole request (decision 23).
//! The unit of work is a word of a node, because the words take the time.

/// Words after which a chunk ends: some ten microseconds.
const CHUNK: u64 = 1 << 13;

/// The most words of a single step: a leaf of 1 GiB replaces 512 full nodes of 512 words
/// and the node above them, and the node below it is allocated.
#[cfg(debug_assertions)]
const STEP_MAX: u64 = 512 * 512 + 4 * 512;

/// The words processed in the current chunk.
#[derive(Debug, Default)]
pub(crate) struct Work {
    spent: u64,
}

impl Work {
    /// Begins a chunk, with no words processed.
    pub(crate) fn begin(&mut self) {
        self.check();
        self.spent = 0;
    }

    /// Ends the chunk early: it counts as spent from here on.
    pub(crate) fn end(&mut self) {
        self.spent = self.spent.max(CHUNK);
    }

    /// Counts `words` that were read, written, allocated or freed.
    #[inline]
    pub(crate) fn spend(&mut self, words: u64) {
        self.spent = self.spent.saturating_add(words);
    }

    /// Whether the chunk must end at the next address at which it can.
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.spent >= CHUNK
    }

    /// Asserts the bound in debug builds, and so in every test.
    #[inline]
    fn check(&self) {
        #[cfg(debug_assertions)]
        assert!(self.spent < CHUNK + STEP_MAX, "a chunk processed {} words", self.spent);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
    }
}
