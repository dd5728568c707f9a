//! RAM in the order of its frames, so that it is host-contiguous for as long as possible.
//!
//! Huge pages come out of their pool in whatever order they went in, and neighbours in the
//! file are rarely neighbours in memory. But the frames of many of them are consecutive, in
//! some order. So their frame numbers are read, and the chunks of 2 MiB (or a larger page)
//! are mapped in that order over the window that was mapped in the file's order.
//!
//! Where that is not enough and the pool has more pages, some of those are taken as well,
//! the longest runs are picked from all of them, and the rest is given back.
//!
//! What the guest sees at an offset is then elsewhere in the file: the object remembers the
//! [pieces](super::FilePiece), and whoever maps the file by itself has to ask for them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FallocateFlags;

use super::file::FilePiece;
use super::frames::{self, Run};
use super::object::MemoryObject;
use super::phys::PhysTable;
use super::ram::Attempt;
use super::supply;
use super::window::Window;
use crate::access::Access;
use crate::error::{Errno, Reason};
use crate::signal::without_signals;

const HUGE: usize = 2 << 20;
/// The most pieces that a window is mapped in: a process can have 65,530 mappings.
const PIECES_MAX: usize = 1 << 14;

/// How host-contiguous RAM is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contiguity {
    /// Every host-physical run of it must be at least so many bytes (or all of it, where
    /// that is less): a demand.
    AtLeast(u64),
    /// The same as a wish: the memory is placed as well as it can be.
    IfPossible(u64),
}

/// The host-physical runs that memory consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Runs {
    /// How many.
    pub count: u64,
    /// The length of the shortest, in bytes.
    pub shortest: u64,
    /// The length of the longest, in bytes.
    pub longest: u64,
}

/// How memory lay as it came, and how it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// As the kernel gave it, in the order of the file.
    pub before: Runs,
    /// As it is mapped.
    pub after: Runs,
    /// How many further pages of the pool were looked at, and given back.
    pub spare_pages: u64,
}

/// Memory that was placed, and which part of its file is where.
pub(super) struct Placed {
    pub(super) pieces: Vec<FilePiece>,
    pub(super) placement: Option<Placement>,
}

impl Placed {
    pub(super) fn as_it_is(len: u64) -> Self {
        Self { pieces: vec![FilePiece { offset: 0, len, file_offset: 0 }], placement: None }
    }
}

impl Contiguity {
    /// How long every run should be, in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::AtLeast(len) | Self::IfPossible(len) => len,
        }
    }

    /// Whether finished memory meets the demand.
    pub(super) fn check(self, object: &MemoryObject) -> Result<(), Reason> {
        let wanted = self.bytes().min(object.len());
        let had = match object.backing().placement {
            Some(placement) => placement.after.shortest,
            None => object.page_size() as u64,
        };
        match self {
            Self::AtLeast(_) if had < wanted => Err(Reason::Fragmented { wanted, had }),
            _ => Ok(()),
        }
    }
}

impl Runs {
    fn of(lens: impl Iterator<Item = u64>) -> Self {
        let mut runs = Self { shortest: u64::MAX, ..Self::default() };
        for len in lens {
            runs.count += 1;
            runs.shortest = runs.shortest.min(len);
            runs.longest = runs.longest.max(len);
        }
        runs
    }

    pub(super) fn of_table(table: &PhysTable, len: u64) -> Self {
        let mut at = 0;
        Self::of(core::iter::from_fn(|| {
            let run = table.run_at(at, len - at).filter(|_| at < len)?;
            at += run.len;
            Some(run.len)
        }))
    }
}

/// Maps `window`, which is all of `fd` with its pages in place, in the order of its frames.
/// The file may be longer afterwards, with holes in it.
pub(super) fn in_frame_order(
    fd: &OwnedFd,
    window: &mut Window,
    page: usize,
    wanted: Contiguity,
) -> Result<Placed, Attempt> {
    let len = window.len();
    let least = wanted.bytes().min(len as u64);
    let before = match frames::runs(window, page) {
        Ok(runs) => runs,
        // A page is contiguous even if nobody says where it is.
        Err(_) if least <= page as u64 => return Ok(Placed::as_it_is(len as u64)),
        Err(why) => match wanted {
            Contiguity::AtLeast(_) => return Err(Reason::HostUnknown(why).into()),
            Contiguity::IfPossible(_) => return Ok(Placed::as_it_is(len as u64)),
        },
    };
    let lens = Runs::of(before.iter().map(|run| run.1 as u64));
    let mut placement = Placement { before: lens, after: lens, spare_pages: 0 };
    let as_it_is = |placement| {
        let placement = Some(placement);
        Ok(Placed { placement, ..Placed::as_it_is(len as u64) })
    };
    let chunk = page.max(HUGE);
    if lens.shortest >= least || !len.is_multiple_of(chunk) {
        return as_it_is(placement);
    }
    let mut chunks = chunks(&before, chunk, 0);
    let need = len / chunk;
    if chunks.len() < need {
        // Some 2 MiB are small pages: an order of chunks would not mend that.
        return as_it_is(placement);
    }
    let least = least.div_ceil(chunk as u64) as usize;
    let mut chosen = choose(chunks.clone(), chunk, need, least);
    if page > rustix::param::page_size() && shortest(&chosen, chunk) < least {
        let more = spares(fd, len, page)?;
        placement.spare_pages = more.len() as u64;
        chunks.extend(&more);
        chosen = choose(chunks.clone(), chunk, need, least);
        give_back(fd, &chunks, &chosen, chunk)?;
    }
    let pieces = pieces(&chosen, chunk);
    if pieces.len() > PIECES_MAX && placement.spare_pages == 0 {
        return as_it_is(placement);
    }
    for piece in &pieces {
        let (at, len) = (piece.offset as usize, piece.len as usize);
        window.map_piece(at, fd.as_fd(), piece.file_offset, len, Access::RW)?;
    }
    // The pages are there; this only enters them into the page table.
    window.populate(0, len, Access::RW).map_err(Reason::os("populating memory"))?;
    Ok(Placed { pieces, placement: Some(placement) })
}

/// A chunk: its address, and where it is in the file.
type Chunk = (u64, u64);

/// The chunks of a part of the file from `start` on that lie in one run each.
fn chunks(runs: &[Run], chunk: usize, start: u64) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for &(offset, len, addr) in runs {
        let first = offset.next_multiple_of(chunk);
        for at in (first..offset + len).step_by(chunk).filter(|at| at + chunk <= offset + len) {
            chunks.push((addr + (at - offset) as u64, start + at as u64));
        }
    }
    chunks
}

/// Picks `need` of the chunks, in the order of their addresses: those of the longest runs,
/// and so that no run has fewer than `least`, if that can be.
fn choose(mut chunks: Vec<Chunk>, chunk: usize, need: usize, least: usize) -> Vec<Chunk> {
    chunks.sort_unstable();
    let follows = |a: &Chunk, b: &Chunk| a.0 + chunk as u64 == b.0;
    let mut runs: Vec<&[Chunk]> = chunks.chunk_by(follows).collect();
    runs.sort_by_key(|run| core::cmp::Reverse(run.len()));
    let mut left = need;
    let mut chosen = Vec::with_capacity(need);
    for (index, run) in runs.iter().enumerate() {
        let next = runs.get(index + 1).map_or(0, |run| run.len());
        let mut take = run.len().min(left);
        let rest = left - take;
        // What is left over for the next run would be too short: leave it some of this one.
        if (1..least).contains(&rest) && next >= least && take >= 2 * least - rest {
            take -= least - rest;
        }
        chosen.extend(run.iter().take(take));
        left -= take;
    }
    chosen.sort_unstable();
    chosen
}

/// The length of the shortest run, in chunks.
fn shortest(chosen: &[Chunk], chunk: usize) -> usize {
    let follows = |a: &Chunk, b: &Chunk| a.0 + chunk as u64 == b.0;
    chosen.chunk_by(follows).map(<[Chunk]>::len).min().unwrap_or(0)
}

/// Takes further pages of the pool, as many again at most, behind the end of the file.
fn spares(fd: &OwnedFd, len: usize, page: usize) -> Result<Vec<Chunk>, Attempt> {
    let count = supply::pool_spare(page).min((len / page) as u64) as usize;
    let more = count * page;
    if more == 0 {
        return Ok(Vec::new());
    }
    let start = len as u64;
    match supply::set_len(fd, start + more as u64) {
        Ok(()) => {}
        // There is room for what was asked for, and not for spares.
        Err(Reason::Os { errno: Errno::FBIG, .. }) => return Ok(Vec::new()),
        Err(reason) => return Err(reason.into()),
    }
    let taken = Window::map(fd.as_fd(), start, more, Access::RW, page).and_then(|window| {
        window.populate(0, more, Access::RW).map_err(Reason::os("populating memory"))?;
        frames::runs(&window, page).map_err(Reason::HostUnknown)
    });
    match taken {
        Ok(runs) => Ok(chunks(&runs, page, start)),
        // Somebody was faster, and the pool has not so many: then there are none.
        Err(_) => {
            punch(fd, start, more as u64)?;
            Ok(Vec::new())
        }
    }
}

fn punch(fd: &OwnedFd, at: u64, len: u64) -> Result<(), Reason> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let what = "giving huge pages back";
    without_signals(|| rustix::fs::fallocate(fd, flags, at, len)).map_err(Reason::os(what))
}

/// Punches out of the file what was not chosen.
fn give_back(fd: &OwnedFd, all: &[Chunk], chosen: &[Chunk], chunk: usize) -> Result<(), Reason> {
    let mut spare = all.iter().filter(|spare| chosen.binary_search(spare).is_err());
    spare.try_for_each(|spare| punch(fd, spare.1, chunk as u64))
}

/// Chunks that follow each other in the file as well, joined.
fn pieces(chosen: &[Chunk], chunk: usize) -> Vec<FilePiece> {
    let len = chunk as u64;
    let mut pieces: Vec<FilePiece> = Vec::new();
    for (offset, &(_, file_offset)) in (0..).step_by(chunk).zip(chosen) {
        match pieces.last_mut() {
            Some(last) if last.file_offset + last.len == file_offset => last.len += len,
            _ => pieces.push(FilePiece { offset, len, file_offset }),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = HUGE as u64;

    /// Chunks at these addresses, in units of a chunk, in the file in this order.
    fn chunks_at(addrs: &[u64]) -> Vec<Chunk> {
        addrs.iter().zip(0..).map(|(addr, at)| (addr * LEN, at * LEN)).collect()
    }

    fn addrs(chosen: &[Chunk]) -> Vec<u64> {
        chosen.iter().map(|chunk| chunk.0 / LEN).collect()
    }

    #[test]
    fn all_chunks_come_in_the_order_of_their_frames() {
        let chosen = choose(chunks_at(&[9, 3, 8, 2]), HUGE, 4, 1);
        assert_eq!(addrs(&chosen), [2, 3, 8, 9]);
        let pieces = pieces(&chosen, HUGE);
        let told: Vec<_> =
            pieces.iter().map(|it| (it.offset / LEN, it.file_offset / LEN)).collect();
        assert_eq!(told, [(0, 3), (1, 1), (3, 0)], "two follow each other in the file, too");
    }

    #[test]
    fn chunks_that_follow_each_other_in_the_file_are_one_piece() {
        let pieces = pieces(&choose(chunks_at(&[5, 6, 7, 1]), HUGE, 4, 1), HUGE);
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces.last().map(|it| (it.offset, it.len)), Some((LEN, 3 * LEN)));
    }

    #[test]
    fn the_longest_runs_are_picked_and_no_rest_is_too_short() {
        let scattered = [1, 3, 10, 11, 12, 13, 14, 20, 21, 22];
        assert_eq!(addrs(&choose(chunks_at(&scattered), HUGE, 5, 2)), [10, 11, 12, 13, 14]);
        // Six: five and one would leave a single one.
        let six = choose(chunks_at(&scattered), HUGE, 6, 2);
        assert_eq!(addrs(&six), [10, 11, 12, 13, 20, 21]);
        assert_eq!(shortest(&six, HUGE), 2);
        // All of them: there is no choice.
        assert_eq!(choose(chunks_at(&scattered), HUGE, 10, 2).len(), 10);
    }

    #[test]
    fn a_chunk_must_lie_in_one_run() {
        let runs = [(0, HUGE + 4096, 1 << 30), (HUGE + 4096, 2 * HUGE - 4096, 4 << 30)];
        let found: Vec<u64> = chunks(&runs, HUGE, 0).iter().map(|it| it.1 / LEN).collect();
        assert_eq!(found, [0, 2], "the one in the middle is in two runs");
    }
}
