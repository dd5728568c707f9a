//! A reference to each page, held by a pipe: the pin that needs no privilege.
//!
//! vmsplice(2) puts a page into a pipe without copying it: the pipe holds a reference until the
//! byte is read, and ours are never read. A reference to one byte of a folio holds the whole folio,
//! so one slot of a pipe is enough for a huge page. The kernel neither moves a page with a
//! reference that it cannot account for, nor collapses it into a larger one, nor splits it.
//!
//! Which pages are huge is read before and after. A page that is huge both times is the folio that
//! is held, because a held folio is not split and held small pages are not collapsed. So every byte
//! of the window is in a folio that is held, or the pin fails.
//!
//! A pipe has as many slots as `fs.pipe-max-size` allows (256 by default), and all pipes of a user
//! without `CAP_SYS_RESOURCE` together as many as `fs.pipe-user-pages-soft` says (16,384 by
//! default: 32 GiB of 2 MiB pages).
#![allow(unsafe_code, reason = "splices raw memory into a pipe")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::param::page_size;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::memory::host::scan;
use crate::memory::window::Window;
use crate::signal::without_signals;

/// The maximum number of slots requested for a pipe: the default limit of `fs.pipe-max-size`.
const SLOTS: usize = 256;
/// The maximum number of pages held for one window, of whatever size.
const PAGES_MAX: usize = 1 << 16;
/// The maximum number of small ones, 16 MiB: slots used here are not available to other pipes of
/// the user.
const SMALL_MAX: usize = 1 << 12;
/// The maximum number of pipes for one window; each takes a descriptor.
const PIPES_MAX: usize = 512;
/// The size of a transparent huge page, in bytes.
const HUGE: usize = 2 << 20;

const TOO_MANY: &str =
    "too many pages to hold each in a pipe: at most 4,096 small ones, and 65,536 with huge ones";
const NO_SLOTS: &str = "pipes with enough slots are not available; raise fs.pipe-user-pages-soft, \
                        fs.pipe-max-size or the limit of open files (ulimit -n)";
const NOT_TAKEN: &str = "the kernel cannot splice pages of this memory into a pipe";
const CHANGED: &str = "pages became huge, or were split, while they were being pinned";

/// References to all pages of one window, until dropped.
#[derive(Debug)]
pub(crate) struct PipePin {
    /// Only the read ends: a pipe keeps its contents while one of its ends is open.
    _pipes: Vec<OwnedFd>,
}

impl PipePin {
    /// Pins all pages of `window`, which is shared memory and populated. `page` is the page size in
    /// bytes that is certain.
    ///
    /// # Errors
    /// Why the kernel refuses, and what would help.
    pub(super) fn new(window: &Window, page: usize) -> Result<Self, &'static str> {
        if !pipes_hold_pages() {
            return Err("this kernel copies pages that are spliced into a pipe");
        }
        let huge = match page > page_size() {
            true => None,
            false => scan::huge_chunks(window),
        };
        let starts = starts(window.len(), page, huge.as_deref())?;
        let pipes = fill(window, &starts)?;
        if huge.is_some() && scan::huge_chunks(window) != huge {
            return Err(CHANGED);
        }
        Ok(Self { _pipes: pipes })
    }
}

/// The offsets at which pages begin. `huge` says of each 2 MiB whether it is one page.
fn starts(len: usize, page: usize, huge: Option<&[bool]>) -> Result<Vec<usize>, &'static str> {
    let mut starts = Vec::new();
    let (mut offset, mut small) = (0, 0);
    while offset < len {
        if starts.len() == PAGES_MAX || small == SMALL_MAX + 1 {
            return Err(TOO_MANY);
        }
        starts.push(offset);
        let is_huge = huge.and_then(|huge| huge.get(offset / HUGE)).is_some_and(|&huge| huge);
        offset += if is_huge { HUGE } else { page };
        small += usize::from(!is_huge && page < HUGE);
    }
    if small > SMALL_MAX {
        return Err(TOO_MANY);
    }
    Ok(starts)
}

/// Splices the byte at each of `starts` into pipes, as many as that takes.
fn fill(window: &Window, starts: &[usize]) -> Result<Vec<OwnedFd>, &'static str> {
    let mut pipes = Vec::new();
    let mut rest = starts;
    while !rest.is_empty() {
        if pipes.len() == PIPES_MAX {
            return Err(NO_SLOTS);
        }
        let (read, write) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|_| NO_SLOTS)?;
        let slots = slots(write.as_fd(), rest.len().min(SLOTS))?;
        let (now, later) = rest.split_at(slots.min(rest.len()));
        let bytes: Vec<libc::iovec> = now.iter().map(|&offset| byte(window, offset)).collect();
        match splice(write.as_fd(), &bytes) {
            Ok(done) if done == now.len() => rest = later,
            Ok(0) | Err(Errno::AGAIN) => return Err(NO_SLOTS),
            // Fewer slots than reported: the rest goes into the next pipe.
            Ok(done) => rest = rest.get(done..).unwrap_or_default(),
            Err(_) => return Err(NOT_TAKEN),
        }
        pipes.push(read);
    }
    Ok(pipes)
}

/// Resizes a pipe to `count` slots, if allowed; returns how many it has, at most [`SLOTS`]. A slot
/// is a page of the pipe's size.
fn slots(pipe: BorrowedFd<'_>, count: usize) -> Result<usize, &'static str> {
    // If it cannot grow, the slots that it has will do.
    let _ = fcntl_setpipe_size(pipe, count * page_size());
    let size = fcntl_getpipe_size(pipe).map_err(|_| NO_SLOTS)?;
    Ok((size / page_size()).clamp(1, SLOTS))
}

fn byte(window: &Window, offset: usize) -> libc::iovec {
    // SAFETY: `offset < window.len()`: `starts` returns only such offsets, and `try_one_page`
    // passes 0. So the sum is inside the window, which is no longer than `isize::MAX`.
    let base = unsafe { window.base().add(offset) };
    libc::iovec { iov_base: base.cast(), iov_len: 1 }
}

/// Splices bytes into the pipe, of one page each; returns how many.
fn splice(pipe: BorrowedFd<'_>, bytes: &[libc::iovec]) -> Result<usize, Errno> {
    let flags = libc::SPLICE_F_NONBLOCK;
    // SAFETY: vmsplice(2) reads `bytes.len()` entries from the list, a slice that is valid for the
    // call. Each entry is a byte of a window, which is mapped. The kernel only refers to its page,
    // and never writes to what is spliced into a pipe; nobody reads the bytes later, except
    // `try_one_page`, which expects them to change.
    let done = unsafe { libc::vmsplice(pipe.as_raw_fd(), bytes.as_ptr(), bytes.len(), flags) };
    usize::try_from(done)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// Whether the kernel refers to pages that are spliced, and does not copy them: a byte that is
/// changed after it was spliced is read changed. Tried once.
fn pipes_hold_pages() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| without_signals(try_one_page).unwrap_or(false))
}

fn try_one_page() -> Option<bool> {
    use rustix::fs::MemfdFlags;
    let fd = rustix::fs::memfd_create("gasp-probe", MemfdFlags::CLOEXEC).ok()?;
    rustix::fs::ftruncate(&fd, page_size() as u64).ok()?;
    let access = crate::access::Access::RW;
    let window = Window::map(fd.as_fd(), 0, page_size(), access, page_size()).ok()?;
    window.populate(0, page_size(), access).ok()?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    let done = splice(write.as_fd(), &[byte(&window, 0)]).ok()?;
    rustix::io::pwrite(&fd, &[1], 0).ok()?;
    let mut seen = [0];
    rustix::io::read(&read, &mut seen).ok()?;
    Some(done == 1 && seen == [1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_page_is_held_once_and_a_small_one_each() {
        let huge = [true, false];
        let starts = starts(2 * HUGE, 4096, Some(&huge)).unwrap();
        assert_eq!(starts.len(), 1 + 512);
        assert_eq!(starts.get(..3), Some(&[0, HUGE, HUGE + 4096][..]));
        assert_eq!(super::starts(2 << 30, 1 << 30, None).unwrap(), [0, 1 << 30]);
        assert_eq!(super::starts(SMALL_MAX * 4096, 4096, None).map(|it| it.len()), Ok(SMALL_MAX));
        assert_eq!(super::starts((SMALL_MAX + 1) * 4096, 4096, None), Err(TOO_MANY));
        assert_eq!(super::starts((PAGES_MAX + 1) * HUGE, HUGE, None), Err(TOO_MANY));
    }
}
