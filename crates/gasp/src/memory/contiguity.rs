//! RAM mapped in the order of its frames, so that its host-physical runs are as long as possible.
//!
//! Huge pages leave their pool in no particular order, and neighbours in the file are rarely
//! neighbours in host memory. But the frames of many of them are consecutive, in some order. So
//! their frame numbers are read, and the chunks of 2 MiB (or of a larger page) are mapped in that
//! order over the window, which was mapped in the order of the file.
//!
//! If that is not enough and the pool has more pages, some of those are taken as well, the longest
//! runs of all are chosen, and the rest is released.
//!
//! What the guest sees at an offset is then elsewhere in the file: the object keeps the
//! [pieces](super::FileExtent), and whoever maps the file has to ask for them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FallocateFlags;

use super::file::FileExtent;
use super::host::order::{Chunk, choose, chunks, pieces, shortest};
use super::report::{Placement, Runs};
use super::supply::{self, Unavailable};
use super::window::Window;
use crate::access::Access;
use crate::error::{Errno, Reason};
use crate::memory::host::frames;
use crate::signal::without_signals;

const HUGE: usize = 2 << 20;
/// The maximum number of pieces in which a window is mapped: a process can have 65,530 mappings.
const PIECES_MAX: usize = 1 << 14;

/// The requested length of host-physical runs of RAM, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contiguity {
    /// Every run must have at least this length, or all of the RAM if that is less.
    AtLeast(u64),
    /// Every run should have this length; the memory is used if they are shorter, too.
    IfPossible(u64),
}

/// Which part of a file is where in its window, and what the order of frames has achieved.
pub(super) struct FileLayout {
    pub(super) pieces: Vec<FileExtent>,
    pub(super) placement: Option<Placement>,
}

impl FileLayout {
    pub(super) fn in_file_order(len: u64) -> Self {
        Self { pieces: vec![FileExtent { offset: 0, len, file_offset: 0 }], placement: None }
    }
}

impl Contiguity {
    /// The requested length, in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::AtLeast(len) | Self::IfPossible(len) => len,
        }
    }

    /// Checks the demand against completed memory of `len` bytes, of pages of `page` bytes.
    pub(super) fn check(
        self,
        placement: Option<Placement>,
        len: u64,
        page: usize,
    ) -> Result<(), Reason> {
        let least = self.bytes().min(len);
        let shortest = placement.map_or(page as u64, |placement| placement.after.shortest);
        match self {
            Self::AtLeast(_) if shortest < least => {
                Err(Reason::Fragmented { required: least, shortest })
            }
            _ => Ok(()),
        }
    }
}

/// Maps `window`, which is all of `fd` and populated, in the order of its frames. The file may be
/// longer afterwards, with holes in it.
pub(super) fn map_in_frame_order(
    fd: &OwnedFd,
    window: &mut Window,
    page: usize,
    requested: Contiguity,
) -> Result<FileLayout, Unavailable> {
    let len = window.len();
    let least = requested.bytes().min(len as u64);
    let before = match frames::runs(window, page) {
        Ok(runs) => runs,
        // A page is contiguous even if its address is not known.
        Err(_) if least <= page as u64 => return Ok(FileLayout::in_file_order(len as u64)),
        Err(why) => match requested {
            Contiguity::AtLeast(_) => return Err(Reason::HostUnknown(why).into()),
            Contiguity::IfPossible(_) => return Ok(FileLayout::in_file_order(len as u64)),
        },
    };
    let lens = Runs::of(before.iter().map(|run| run.1 as u64));
    let mut placement = Placement { before: lens, after: lens, spare_pages: 0 };
    let unchanged = |placement| {
        let placement = Some(placement);
        Ok(FileLayout { placement, ..FileLayout::in_file_order(len as u64) })
    };
    let chunk = page.max(HUGE);
    if lens.shortest >= least || !len.is_multiple_of(chunk) {
        return unchanged(placement);
    }
    let mut chunks = chunks(&before, chunk, 0);
    let need = len / chunk;
    if chunks.len() < need {
        // Some chunks are not contiguous themselves, and no order of chunks changes that.
        return unchanged(placement);
    }
    let least = least.div_ceil(chunk as u64) as usize;
    let mut chosen = choose(chunks.clone(), chunk, need, least);
    if page > rustix::param::page_size() && shortest(&chosen, chunk) < least {
        let more = spares(fd, len, page)?;
        placement.spare_pages = more.len() as u64;
        chunks.extend(&more);
        chosen = choose(chunks.clone(), chunk, need, least);
        release_spares(fd, &chunks, &chosen, chunk)?;
    }
    let pieces = pieces(&chosen, chunk);
    if pieces.len() > PIECES_MAX && placement.spare_pages == 0 {
        return unchanged(placement);
    }
    for piece in &pieces {
        let (offset, len) = (piece.offset as usize, piece.len as usize);
        window.map_part(offset, fd.as_fd(), piece.file_offset, len, Access::RW)?;
    }
    // The pages are in memory; this only enters them into the page table.
    window.populate(0, len, Access::RW).map_err(Reason::os("populating memory"))?;
    Ok(FileLayout { pieces, placement: Some(placement) })
}

/// Takes spare pages of the pool, at most as many as the RAM has, past the end of the file.
fn spares(fd: &OwnedFd, len: usize, page: usize) -> Result<Vec<Chunk>, Unavailable> {
    let count = supply::pool_spare(page).min((len / page) as u64) as usize;
    let more = count * page;
    if more == 0 {
        return Ok(Vec::new());
    }
    let start = len as u64;
    match supply::set_len(fd, start + more as u64) {
        Ok(()) => {}
        // The file-size limit has room for the RAM, but not for spare pages.
        Err(Reason::Os { errno: Errno::FBIG, .. }) => return Ok(Vec::new()),
        Err(reason) => return Err(reason.into()),
    }
    let taken = Window::map(fd.as_fd(), start, more, Access::RW, page).and_then(|window| {
        window.populate(0, more, Access::RW).map_err(Reason::os("populating memory"))?;
        frames::runs(&window, page).map_err(Reason::HostUnknown)
    });
    match taken {
        Ok(runs) => Ok(chunks(&runs, page, start)),
        // Others have taken pages of the pool meanwhile: do without spare ones.
        Err(_) => {
            punch(fd, start, more as u64)?;
            Ok(Vec::new())
        }
    }
}

fn punch(fd: &OwnedFd, file_offset: u64, len: u64) -> Result<(), Reason> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let what = "releasing huge pages";
    without_signals(|| rustix::fs::fallocate(fd, flags, file_offset, len)).map_err(Reason::os(what))
}

/// Punches the chunks that were not chosen out of the file.
fn release_spares(
    fd: &OwnedFd,
    all: &[Chunk],
    chosen: &[Chunk],
    chunk: usize,
) -> Result<(), Reason> {
    let mut spare = all.iter().filter(|spare| chosen.binary_search(spare).is_err());
    spare.try_for_each(|spare| punch(fd, spare.1, chunk as u64))
}
