//! The source of frame numbers: `/proc/self/pagemap`, opened once and kept.
//!
//! The kernel reports frame numbers through a descriptor whose *opener* had `CAP_SYS_ADMIN`,
//! whoever reads it. So a descriptor that was opened before privileges were dropped, or that a
//! [broker](crate::broker) has opened for this process, continues to report them. One that reports
//! none is not kept, in case the next one does.

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

/// A descriptor that reports frame numbers, and the process whose memory it is about.
struct Kept {
    file: Arc<File>,
    pid: u32,
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// Whether this process can read frame numbers (decision 19).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameAccess {
    /// It can.
    Allowed,
    /// It cannot: why, and what would help.
    Denied(&'static str),
}

/// Tries whether this process can read frame numbers, by reading one of its own.
///
/// If it can, the descriptor that they are read from is kept until the process ends: a program that
/// drops its privileges calls this first, and can read them afterwards. (A forked child is another
/// process: it needs the privilege itself.)
pub fn frame_access() -> FrameAccess {
    match open() {
        Err(why) => FrameAccess::Denied(why),
        Ok(file) if tells_frames(&file) => FrameAccess::Allowed,
        Ok(_) => FrameAccess::Denied(NO_PRIVILEGE),
    }
}

/// The descriptor that is kept, or else a new one, which may report no frame numbers.
pub(crate) fn open() -> Result<Arc<File>, &'static str> {
    let pid = std::process::id();
    let mut kept = KEPT.lock();
    // A forked child inherits its parent's descriptor, which is about the parent's memory.
    if let Some(kept) = kept.as_ref().filter(|kept| kept.pid == pid) {
        return Ok(Arc::clone(&kept.file));
    }
    let file = Arc::new(File::open(PAGEMAP).map_err(|_| NO_PAGEMAP)?);
    if tells_frames(&file) {
        *kept = Some(Kept { file: Arc::clone(&file), pid });
    }
    Ok(file)
}

/// Reads frame numbers from `file` from now on, if it reports them.
#[cfg(feature = "broker")]
pub(crate) fn keep(file: File) -> Result<(), &'static str> {
    if !tells_frames(&file) {
        return Err("the descriptor that was received reports no frame numbers of this process");
    }
    let mut kept = KEPT.lock();
    *kept = Some(Kept { file: Arc::new(file), pid: std::process::id() });
    Ok(())
}

/// Whether `file` reports frame numbers of this process: a page that is in memory has one, and one
/// that is not has none.
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
