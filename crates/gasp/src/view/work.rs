//! How much of a table one hold of its locks goes through.
//!
//! A guest can ask for a change of a million entries with one request. Such a change is
//! made in chunks, and the locks are released between them, so that other domains, other
//! guests and the host's own changes wait for one chunk and not for the request
//! (decision 23). What is counted is words of nodes, because they are what takes the time.

/// Words that a hold of the locks goes through before it ends: some ten microseconds.
const CHUNK: u64 = 1 << 13;

/// The most that a single step goes through: a leaf of 1 GiB replaces 512 full nodes of
/// 512 words and the node above them, and the node below it is allocated.
#[cfg(debug_assertions)]
const STEP_MAX: u64 = 512 * 512 + 4 * 512;

/// The words gone through since the locks were taken.
#[derive(Debug, Default)]
pub(crate) struct Work {
    spent: u64,
}

impl Work {
    /// Begins a chunk.
    pub(crate) fn begin(&mut self) {
        self.check();
        self.spent = 0;
    }

    /// Ends the chunk: it is spent, whatever it went through.
    pub(crate) fn end(&mut self) {
        self.spent = self.spent.max(CHUNK);
    }

    /// Counts `words` that were read, written, allocated or freed.
    #[inline]
    pub(crate) fn spend(&mut self, words: u64) {
        self.spent = self.spent.saturating_add(words);
    }

    /// Whether the chunk is to end at the next address that allows it.
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.spent >= CHUNK
    }

    /// Every test of a debug build shows the bound.
    #[inline]
    fn check(&self) {
        #[cfg(debug_assertions)]
        assert!(self.spent < CHUNK + STEP_MAX, "a chunk went through {} words", self.spent);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
    }
}
