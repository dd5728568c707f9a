//! Keeping pages where they are: which ways there are, and in which order they are tried.
//!
//! Locked, populated or KVM-mapped pages still move when the kernel compacts memory. Only
//! somebody who holds a reference to a page keeps it, and two ways to be that somebody
//! need no device:
//!
//! | | [`IoUring`](PinMethod::IoUring) | [`Pipe`](PinMethod::Pipe) |
//! |---|---|---|
//! | what holds the page | a long-term pin: a registered buffer | a plain reference: a byte of the page waits in a pipe |
//! | needs | `CAP_IPC_LOCK`, or RLIMIT_MEMLOCK above guest RAM; io_uring not disabled | nothing, within `fs.pipe-user-pages-soft` |
//! | memory | any that the kernel pins | shared memory: memfd, tmpfs, hugetlbfs |
//! | costs | one buffer a GiB | one slot for each page, huge or not; one descriptor for 256 slots |
//!
//! This is also the order of preference, because the kernel is told by a long-term pin that
//! it is one: it moves the page out of areas that have to stay movable first. Where neither
//! is had, pages from a huge page pool are `Reserved` and all others `Unpinned`.

mod pipe;
mod ring;

use super::window::Window;

/// A way to keep pages where they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PinMethod {
    /// A buffer registered with io_uring: a long-term pin.
    IoUring,
    /// A reference held by a pipe that one byte of each page was spliced into. It needs no
    /// privilege, but huge pages to be worth it: it holds at most 4,096 small pages, and
    /// 65,536 huge ones.
    Pipe,
}

impl PinMethod {
    /// Best first: what is tried when nothing else is said.
    pub const PREFERENCE: [Self; 2] = [Self::IoUring, Self::Pipe];

    /// The name in configuration files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io-uring",
            Self::Pipe => "pipe",
        }
    }
}

impl core::fmt::Display for PinMethod {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// A hold on all pages of one window, until dropped.
#[derive(Debug)]
pub(crate) enum Pin {
    Ring(#[expect(dead_code, reason = "let go when dropped")] Box<ring::RingPin>),
    Pipe(#[expect(dead_code, reason = "let go when dropped")] pipe::PipePin),
}

impl Pin {
    /// Holds all pages of `window`, by the first of `methods` that can. `page` is the size
    /// of its pages that are certain to be whole; `shared` whether it is shared memory.
    ///
    /// # Errors
    /// Why the first of them could not, and what would help.
    pub(crate) fn new(
        window: &Window,
        methods: &[PinMethod],
        page: usize,
        shared: bool,
    ) -> Result<Self, &'static str> {
        let mut first = None;
        for &method in methods {
            let held = match method {
                PinMethod::IoUring => {
                    ring::RingPin::new(window).map(|pin| Self::Ring(Box::new(pin)))
                }
                PinMethod::Pipe if !shared => Err("only shared memory can be held by a pipe"),
                PinMethod::Pipe => pipe::PipePin::new(window, page).map(Self::Pipe),
            };
            match held {
                Ok(pin) => return Ok(pin),
                Err(why) => {
                    tracing::debug!(%method, why, "pages are not pinned in this way");
                    first.get_or_insert(why);
                }
            }
        }
        Err(first.unwrap_or("no way to pin was named"))
    }

    /// How the pages are held.
    pub(crate) fn method(&self) -> PinMethod {
        match self {
            Self::Ring(_) => PinMethod::IoUring,
            Self::Pipe(_) => PinMethod::Pipe,
        }
    }
}
