//! Chunks of a file in the order of their frames, so that their runs are few and long.

use super::frames::Run;
use crate::memory::file::FileExtent;

/// A host-contiguous chunk: its host-physical address, and its offset in the file.
pub(crate) type Chunk = (u64, u64);

/// The chunks of `chunk` bytes that lie in one run each, of a window of the file from `file_offset`
/// on.
pub(crate) fn chunks(runs: &[Run], chunk: usize, file_offset: u64) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for &(offset, len, addr) in runs {
        let first = offset.next_multiple_of(chunk);
        let end = offset + len;
        for start in (first..end).step_by(chunk).filter(|start| start + chunk <= end) {
            chunks.push((addr + (start - offset) as u64, file_offset + start as u64));
        }
    }
    chunks
}

/// Chooses `need` of the chunks, in the order of their addresses: those of the longest runs, such
/// that no run has fewer than `least` if possible.
pub(crate) fn choose(
    mut chunks: Vec<Chunk>,
    chunk: usize,
    need: usize,
    least: usize,
) -> Vec<Chunk> {
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
        // The next run would be too short: take fewer chunks of this one.
        if (1..least).contains(&rest) && next >= least && take >= 2 * least - rest {
            take -= least - rest;
        }
        chosen.extend(run.iter().take(take));
        left -= take;
    }
    chosen.sort_unstable();
    chosen
}

/// The length of the shortest run, in chunks of `chunk` bytes; 0 if there is none.
pub(crate) fn shortest(chosen: &[Chunk], chunk: usize) -> usize {
    let follows = |a: &Chunk, b: &Chunk| a.0 + chunk as u64 == b.0;
    chosen.chunk_by(follows).map(<[Chunk]>::len).min().unwrap_or(0)
}

/// The pieces of the file that the chunks are, in their order: chunks that are neighbours in the
/// file as well are one piece.
pub(crate) fn pieces(chosen: &[Chunk], chunk: usize) -> Vec<FileExtent> {
    let len = chunk as u64;
    let mut pieces: Vec<FileExtent> = Vec::new();
    for (offset, &(_, file_offset)) in (0..).step_by(chunk).zip(chosen) {
        match pieces.last_mut() {
            Some(last) if last.file_offset + last.len == file_offset => last.len += len,
            _ => pieces.push(FileExtent { offset, len, file_offset }),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUGE: usize = 2 << 20;
    const LEN: u64 = HUGE as u64;

    /// Chunks at these addresses, in units of a chunk, and in this order in the file.
    fn chunks_at(addrs: &[u64]) -> Vec<Chunk> {
        addrs.iter().zip(0..).map(|(addr, index)| (addr * LEN, index * LEN)).collect()
    }

    fn addrs(chosen: &[Chunk]) -> Vec<u64> {
        chosen.iter().map(|chunk| chunk.0 / LEN).collect()
    }

    #[test]
    fn all_chunks_come_in_the_order_of_their_frames() {
        let chosen = choose(chunks_at(&[9, 3, 8, 2]), HUGE, 4, 1);
        assert_eq!(addrs(&chosen), [2, 3, 8, 9]);
        let pieces = pieces(&chosen, HUGE);
        let starts: Vec<_> =
            pieces.iter().map(|it| (it.offset / LEN, it.file_offset / LEN)).collect();
        assert_eq!(starts, [(0, 3), (1, 1), (3, 0)], "two are neighbours in the file, too");
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
