//! `disk-rounds`: the time of a read and of a write of a disk, from inside a guest.
//!
//! It has no dependencies, and is linked statically: the first program of a small guest. It prints
//! `rounds: read 4096 NANOSECONDS` for reads and writes of 4 KiB and 1 MiB: of one transfer at a
//! time, without the page cache; the minimum of many rounds.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `O_DIRECT` of x86-64.
const DIRECT: i32 = 0o40000;
/// The part of the disk that is used.
const PART: u64 = 32 << 20;
/// How long the rounds of one kind go on. They are short: a busy machine does not disturb all of them.
const LONG: Duration = Duration::from_secs(4);
/// The alignment that every disk is content with.
const ALIGNED: usize = 4096;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: disk-rounds DISK");
        return ExitCode::FAILURE;
    };
    match run(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("disk-rounds: {}: {error}", path.to_string_lossy());
            ExitCode::FAILURE
        }
    }
}

fn run(path: &std::ffi::OsStr) -> io::Result<()> {
    let disk = OpenOptions::new().read(true).write(true).custom_flags(DIRECT).open(path)?;
    let mut room = vec![0x5a_u8; (1 << 20) + ALIGNED];
    let skipped = room.as_ptr().align_offset(ALIGNED);
    let aligned = room.get_mut(skipped..skipped + (1 << 20)).unwrap_or_default();
    for (len, count) in [(4096, 20), (1 << 20, 2)] {
        let bytes = aligned.get_mut(..len).unwrap_or_default();
        let read = rounds(&disk, len, count, |disk, at| disk.read_exact_at(bytes, at))?;
        println!("rounds: read {len} {read}");
        let bytes = &*bytes;
        let write = rounds(&disk, len, count, |disk, at| disk.write_all_at(bytes, at))?;
        println!("rounds: write {len} {write}");
    }
    Ok(())
}

/// Nanoseconds of one transfer: the least of all rounds of `count`.
fn rounds(
    disk: &File,
    len: usize,
    count: u32,
    mut transfer: impl FnMut(&File, u64) -> io::Result<()>,
) -> io::Result<u128> {
    let started = Instant::now();
    let (mut least, mut at) = (u128::MAX, 0);
    while started.elapsed() < LONG {
        let round = Instant::now();
        for _ in 0..count {
            transfer(disk, at)?;
            at = (at + len as u64) % PART;
        }
        least = least.min(round.elapsed().as_nanos() / u128::from(count));
    }
    Ok(least)
}
