//! Pins: methods to keep pages where they are, and the order in which they are tried.
//!
//! Locked, populated or KVM-mapped pages still move when the kernel compacts memory. Only a
//! reference to a page keeps it where it is, and two methods to hold one need no device:
//!
//! | | [`IoUring`](PinMethod::IoUring) | [`Pipe`](PinMethod::Pipe) |
//! |---|---|---|
//! | the page is held by | a long-term pin: a registered buffer | a plain reference: a byte of the page waits in a pipe |
//! | needs | `CAP_IPC_LOCK`, or RLIMIT_MEMLOCK above guest RAM; io_uring not disabled | nothing, within `fs.pipe-user-pages-soft` |
//! | memory | any that the kernel pins | shared memory: memfd, tmpfs, hugetlbfs |
//! | costs | one buffer a GiB | one slot for each page, huge or not; one descriptor for 256 slots |
//!
//! This is also the order of preference: the kernel knows that a long-term pin is one, and first
//! moves the page out of areas that have to stay movable; a pipe's reference it finds only when it
//! tries to move the page. With neither, pages of a huge page pool are `Reserved` and all others
//! `Unpinned`.

mod pipe;
mod ring;

use super::window::Window;

/// A method to keep pages where they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PinMethod {
    /// A buffer registered with io_uring: a long-term pin.
    IoUring,
    /// A reference held by a pipe into which one byte of each page was spliced. It needs no
    /// privilege, but is worth little without huge pages: one object can have at most 4,096 small
    /// pages, and 65,536 pages in all.
    Pipe,
}

impl PinMethod {
    /// The methods that are tried by default, best first.
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

/// A pin on all pages of one window, until dropped.
#[derive(Debug)]
pub(crate) enum Pin {
    Ring(#[expect(dead_code, reason = "released when dropped")] Box<ring::RingPin>),
    Pipe(#[expect(dead_code, reason = "released when dropped")] pipe::PipePin),
}

impl Pin {
    /// Pins all pages of `window` by the first of `methods` that can. `page` is the page size in
    /// bytes that is certain; `shared` is whether it is shared memory.
    ///
    /// # Errors
    /// Why the first method cannot, and what would help.
    pub(crate) fn new(
        window: &Window,
        methods: &[PinMethod],
        page: usize,
        shared: bool,
    ) -> Result<Self, &'static str> {
        let mut first = None;
        for &method in methods {
            let result = match method {
                PinMethod::IoUring => {
                    ring::RingPin::new(window).map(|pin| Self::Ring(Box::new(pin)))
                }
                PinMethod::Pipe if !shared => Err("a pipe can hold only shared memory"),
                PinMethod::Pipe => pipe::PipePin::new(window, page).map(Self::Pipe),
            };
            match result {
                Ok(pin) => return Ok(pin),
                Err(why) => {
                    tracing::debug!(%method, why, "cannot pin pages");
                    first.get_or_insert(why);
                }
            }
        }
        Err(first.unwrap_or("no pin method was given"))
    }

    /// The method by which the pages are held.
    pub(crate) fn method(&self) -> PinMethod {
        match self {
            Self::Ring(_) => PinMethod::IoUring,
            Self::Pipe(_) => PinMethod::Pipe,
        }
    }
}
