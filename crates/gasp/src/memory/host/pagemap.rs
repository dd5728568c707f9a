//! Where frame numbers come from: `/proc/self/pagemap`, opened once and kept.
//!
//! The kernel tells frame numbers to whoever reads a descriptor whose *opener* had
//! `CAP_SYS_ADMIN`. So a descriptor that was opened before privileges were dropped, or
//! that a [broker](super::broker) has opened for us, keeps telling them; and one that
//! does not tell them is not kept, in case the next one does.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::param::page_size;

pub(crate) const ENTRY: usize = size_of::<u64>();
pub(crate) const PRESENT: u64 = 1 << 63;
pub(crate) const FRAME: u64 = (1 << 55) - 1;

pub(crate) const NO_PRIVILEGE: &str = "frame numbers need CAP_SYS_ADMIN in the first user \
     namespace: run as root, grant it, or let a `gasp broker` open them";
pub(crate) const NO_PAGEMAP: &str = "/proc/self/pagemap cannot be read; mount /proc";

const PAGEMAP: &str = "/proc/self/pagemap";

/// A descriptor that tells frame numbers, and the process whose memory it is about.
struct Kept {
    file: Arc<File>,
    pid: u32,
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// Whether this process is told frame numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameAccess {
    /// It is.
    Allowed,
    /// It is not, and what would change that.
    Denied(&'static str),
}

/// Finds out whether this process is told frame numbers, by reading one of its own.
///
/// Where it is, the descriptor that they are read from is kept until the process ends: a
/// program that drops its privileges calls this first, and is told them ever after. (A
/// forked child is another process: it has to be privileged itself.)
pub fn frame_access() -> FrameAccess {
    match open() {
        Err(why) => FrameAccess::Denied(why),
        Ok(file) if tells_frames(&file) => FrameAccess::Allowed,
        Ok(_) => FrameAccess::Denied(NO_PRIVILEGE),
    }
}

/// The descriptor that is kept; or a new one, which may tell no frame numbers.
pub(crate) fn open() -> Result<Arc<File>, &'static str> {
    let pid = std::process::id();
    let mut kept = KEPT.lock();
    // A child that was forked has its parent's descriptor, which tells of its parent.
    if let Some(kept) = kept.as_ref().filter(|kept| kept.pid == pid) {
        return Ok(Arc::clone(&kept.file));
    }
    let file = Arc::new(File::open(PAGEMAP).map_err(|_| NO_PAGEMAP)?);
    if tells_frames(&file) {
        *kept = Some(Kept { file: Arc::clone(&file), pid });
    }
    Ok(file)
}

/// Reads frame numbers from `file` from now on, if it tells them.
#[cfg(feature = "broker")]
pub(crate) fn keep(file: File) -> Result<(), &'static str> {
    if !tells_frames(&file) {
        return Err("the descriptor that was handed over tells no frame numbers of this process");
    }
    let mut kept = KEPT.lock();
    *kept = Some(Kept { file: Arc::new(file), pid: std::process::id() });
    Ok(())
}

/// Whether `file` tells frame numbers, of this process: a page that is there has one, and
/// one that is not has none.
fn tells_frames(file: &File) -> bool {
    let there = Box::new(1_u8);
    let entry = |addr: usize| {
        let mut entry = [0; ENTRY];
        let offset = (addr / page_size() * ENTRY) as u64;
        file.read_exact_at(&mut entry, offset).ok().map(|()| u64::from_ne_bytes(entry))
    };
    let seen = entry(core::ptr::from_ref(core::hint::black_box(&*there)).addr());
    let Ok(absent) = crate::memory::window::Window::reserve(page_size(), page_size()) else {
        return false;
    };
    let unseen = entry(absent.base().addr());
    seen.is_some_and(|entry| entry & PRESENT != 0 && entry & FRAME != 0)
        && unseen.is_some_and(|entry| entry & PRESENT == 0)
}
