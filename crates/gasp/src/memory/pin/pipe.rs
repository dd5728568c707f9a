//! A reference to each page, held by a pipe: the pin that needs no privilege.
//!
//! `vmsplice` puts a page into a pipe without copying it: the pipe holds a reference until
//! the byte is read, and nobody ever reads ours. A reference to one byte of a folio keeps
//! the whole folio, so one slot of a pipe is enough for a huge page. A page with a
//! reference that nobody can account for is neither moved, nor merged into a larger one,
//! nor split.
//!
//! Which pages are huge is seen before and after: what was huge behind the reference is
//! still, and is the folio that is held, because a held folio is not split and held small
//! pages are not gathered. So every byte of the window is in a folio that is held, or the
//! pin fails.
//!
//! A pipe has as many slots as `fs.pipe-max-size` allows (256 by default), and those of a
//! user without `CAP_SYS_RESOURCE` have together as many as `fs.pipe-user-pages-soft` says
//! (16,384 by default: 32 GiB of 2 MiB pages).
#![allow(unsafe_code, reason = "gives raw memory to a pipe")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::param::page_size;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::memory::host::scan;
use crate::memory::window::Window;
use crate::signal::without_signals;

/// The slots to ask for: what anybody may have, by default.
const SLOTS: usize = 256;
/// The most pages that are held, of whatever size.
const PAGES_MAX: usize = 1 << 16;
/// The most small ones, 16 MiB: what is taken here, other pipes of the user cannot have.
const SMALL_MAX: usize = 1 << 12;
/// The most pipes, each of which takes a descriptor.
const PIPES_MAX: usize = 512;
const HUGE: usize = 2 << 20;

const TOO_MANY: &str =
    "there are too many pages to hold each by a pipe: 4,096 small ones at most, 65,536 huge ones";
const NO_SLOTS: &str = "pipes with enough slots cannot be had; raise fs.pipe-user-pages-soft, \
                        fs.pipe-max-size or the limit of open files (ulimit -n)";
const NOT_TAKEN: &str = "the kernel does not give pages of this memory to a pipe";
const CHANGED: &str = "huge pages were split while they were being held";

/// References to all pages of one window, until dropped.
#[derive(Debug)]
pub(crate) struct PipePin {
    /// Only the ends to read from: a pipe lives, with what is in it, while one end does.
    _pipes: Vec<OwnedFd>,
}

impl PipePin {
    /// Holds all pages of `window`, which is of shared memory and in memory. `page` is the
    /// size of its pages that are certain to be whole.
    ///
    /// # Errors
    /// Why the kernel refuses, and what would help.
    pub(super) fn new(window: &Window, page: usize) -> Result<Self, &'static str> {
        if !pipes_hold_pages() {
            return Err("this kernel copies what is spliced into a pipe");
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

/// Where the pages begin. `huge` says of each 2 MiB whether they are one page.
fn starts(len: usize, page: usize, huge: Option<&[bool]>) -> Result<Vec<usize>, &'static str> {
    let mut starts = Vec::new();
    let (mut at, mut small) = (0, 0);
    while at < len {
        if starts.len() == PAGES_MAX || small == SMALL_MAX + 1 {
            return Err(TOO_MANY);
        }
        starts.push(at);
        let is_huge = huge.and_then(|huge| huge.get(at / HUGE)).is_some_and(|&huge| huge);
        at += if is_huge { HUGE } else { page };
        small += usize::from(!is_huge && page < HUGE);
    }
    if small > SMALL_MAX {
        return Err(TOO_MANY);
    }
    Ok(starts)
}

/// Puts the byte at each of `starts` into a pipe, as many pipes as it takes.
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
        let bytes: Vec<libc::iovec> = now.iter().map(|&at| byte(window, at)).collect();
        match splice(write.as_fd(), &bytes) {
            Ok(done) if done == now.len() => rest = later,
            Ok(0) | Err(Errno::AGAIN) => return Err(NO_SLOTS),
            // Fewer slots than were said: the rest goes into the next pipe.
            Ok(done) => rest = rest.get(done..).unwrap_or_default(),
            Err(_) => return Err(NOT_TAKEN),
        }
        pipes.push(read);
    }
    Ok(pipes)
}

/// How many slots the pipe has, after asking for `wanted`. A slot is a page of its size.
fn slots(pipe: BorrowedFd<'_>, wanted: usize) -> Result<usize, &'static str> {
    // Where more than there is cannot be had, what there is will do.
    let _ = fcntl_setpipe_size(pipe, wanted * page_size());
    let size = fcntl_getpipe_size(pipe).map_err(|_| NO_SLOTS)?;
    Ok((size / page_size()).clamp(1, SLOTS))
}

fn byte(window: &Window, at: usize) -> libc::iovec {
    // SAFETY: `starts` gives places inside the window only.
    let base = unsafe { window.base().add(at) };
    libc::iovec { iov_base: base.cast(), iov_len: 1 }
}

/// Gives one byte each to the pipe; says how many it took.
fn splice(pipe: BorrowedFd<'_>, bytes: &[libc::iovec]) -> Result<usize, Errno> {
    let flags = libc::SPLICE_F_NONBLOCK;
    // SAFETY: the list is valid for the call and names mapped memory, which the kernel
    // only refers to: it never writes to what is spliced into a pipe.
    let done = unsafe { libc::vmsplice(pipe.as_raw_fd(), bytes.as_ptr(), bytes.len(), flags) };
    usize::try_from(done)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// Whether the kernel refers to pages instead of copying them: a byte that is changed
/// after it was spliced comes out changed. Found out once.
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
