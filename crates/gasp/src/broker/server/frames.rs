//! Another process's page map, and the host-physical runs of its memory.
//!
//! An open page map belongs to the address space that the process had when it was opened: after the
//! process has ended or run another program, it reports nothing more, whichever process has the
//! number then.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::param::page_size;

use crate::broker::wire::RANGE_MAX;
use crate::error::Errno;

const ENTRY: usize = size_of::<u64>();
const PRESENT: u64 = 1 << 63;
/// The page is a file's, or shared memory.
const OF_FILE: u64 = 1 << 61;
/// Nobody else has it in its page table.
const EXCLUSIVE: u64 = 1 << 56;
const FRAME: u64 = (1 << 55) - 1;
/// The number of entries read with one system call: 512 KiB.
const BATCH: u64 = 1 << 16;

const FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NOCTTY);

/// The memory of a process.
pub(super) struct Memory {
    /// Its folder under `/proc`.
    process: OwnedFd,
    page_map: File,
}

/// A host-physical run of a process's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    /// The first host-virtual address, in the process.
    pub(super) addr: u64,
    pub(super) len: u64,
    /// The first host-physical address.
    pub(super) host: u64,
}

/// A mapping of a process, as in its `maps`.
#[derive(PartialEq, Eq)]
struct Area {
    start: u64,
    end: u64,
    writable: bool,
    shared: bool,
}

impl Memory {
    /// Opens the memory of a process, which must belong to `user`.
    ///
    /// # Errors
    /// Why it is refused, for the client.
    pub(super) fn open(pid: Option<i32>, user: u32) -> Result<Self, String> {
        let pid = pid.ok_or("the process is in another PID namespace, where it cannot be found")?;
        let fail = |error: Errno| format!("process {pid}: {error}");
        let folder = format!("/proc/{pid}");
        let kind = FLAGS | OFlags::PATH | OFlags::DIRECTORY;
        let process = open(folder, kind, Mode::empty()).map_err(fail)?;
        let page_map = read(&process, "pagemap").map_err(fail)?;
        // Read after the page map was opened, so that it is about the same program or a later one:
        // a program with other privileges is then refused, or the page map is not of it.
        let mut status = String::new();
        let mut file = read(&process, "status").map_err(fail)?;
        file.read_to_string(&mut status).map_err(|error| error.to_string())?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        // The real, effective, saved and file-system user: unless all are this user, the process is
        // somebody else's, too.
        let mut ids = field("Uid:").unwrap_or_default().split_whitespace();
        let all = ids.clone().next().is_some() && ids.all(|id| id.parse() == Ok(user));
        // A process with privileges of its own is not the user's to look into. The folder of such a
        // process, and of one that is not dumpable, belongs to root.
        let privileges = field("CapPrm:").unwrap_or_default().trim();
        let plain = !privileges.is_empty() && privileges.bytes().all(|digit| digit == b'0');
        let owner = rustix::fs::fstat(&process).map_err(fail)?.st_uid;
        if !all || user != 0 && (!plain || owner != user) {
            return Err(format!("process {pid} is not, or not only, user {user}'s"));
        }
        Ok(Self { process, page_map })
    }

    /// Keeps only the page map.
    pub(super) fn into_page_map(self) -> OwnedFd {
        self.page_map.into()
    }

    /// The present host-physical runs of the `len` bytes from `addr`, at most `most`.
    ///
    /// Only memory that the process could have written itself is reported, so that nobody is led to
    /// write to a program or a library that others run: all of a shared mapping that is writable,
    /// and pages of a private one that are this process's alone. (A mapping that is replaced for a
    /// moment meanwhile goes unnoticed.)
    ///
    /// # Errors
    /// `EINVAL` if the length is 0 or more than [`RANGE_MAX`], or the range extends past 2^63;
    /// `ESRCH` if the process is gone; `ENXIO` if a part is not mapped; `EACCES` if a part is not
    /// the process's to write; `EAGAIN` if a page is not in memory, or the mappings have changed
    /// meanwhile; `ENOSPC` if there are more runs.
    pub(super) fn runs(&self, addr: u64, len: u64, most: usize) -> Result<Vec<Run>, Errno> {
        let end = addr.checked_add(len).filter(|_| (1..=RANGE_MAX).contains(&len));
        let end = end.filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::INVAL)?;
        self.entries(0, &mut [0; ENTRY])?;
        let areas = self.areas(addr, end)?;
        let page = page_size() as u64;
        let (mut next, last) = (addr / page, end.div_ceil(page));
        let mut runs: Vec<Run> = Vec::new();
        let mut rest = areas.iter().peekable();
        let mut bytes = Vec::new();
        while next < last {
            let count = BATCH.min(last - next);
            bytes.resize(count as usize * ENTRY, 0);
            self.entries(next, &mut bytes)?;
            for (entry, number) in bytes.chunks_exact(ENTRY).zip(next..) {
                let start = (number * page).max(addr);
                while rest.next_if(|area| area.end <= start).is_some() {}
                let entry = u64::from_ne_bytes(entry.try_into().map_err(|_| Errno::IO)?);
                let frame = entry & FRAME;
                if entry & PRESENT == 0 || frame == 0 {
                    return Err(Errno::AGAIN);
                }
                let shared = rest.peek().is_some_and(|area| area.shared);
                if !shared && entry & (OF_FILE | EXCLUSIVE) != EXCLUSIVE {
                    return Err(Errno::ACCESS);
                }
                let host = frame * page + start % page;
                let len = ((number + 1) * page).min(end) - start;
                let full = runs.len() == most;
                match runs.last_mut() {
                    Some(run) if run.host + run.len == host => run.len += len,
                    _ if full => return Err(Errno::NOSPC),
                    _ => runs.push(Run { addr: start, len, host }),
                }
            }
            next += count;
        }
        let same = self.areas(addr, end)? == areas;
        if same { Ok(runs) } else { Err(Errno::AGAIN) }
    }

    /// Reads the entries of the pages from number `page` on.
    fn entries(&self, page: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let gone = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::SRCH);
        self.page_map.read_exact_at(bytes, page * ENTRY as u64).map_err(gone)
    }

    /// The mappings of a range, which must have no holes and be writable.
    fn areas(&self, addr: u64, end: u64) -> Result<Vec<Area>, Errno> {
        let maps = BufReader::new(read(&self.process, "maps")?);
        let mut areas = Vec::new();
        let mut mapped = addr;
        for line in maps.split(b'\n') {
            let line = line.map_err(|_| Errno::SRCH)?;
            let area = Area::parse(&line).ok_or(Errno::IO)?;
            if area.end <= addr {
                continue;
            }
            if area.start > mapped || mapped >= end {
                break;
            }
            if !area.writable {
                return Err(Errno::ACCESS);
            }
            mapped = area.end;
            areas.push(area);
        }
        if mapped < end { Err(Errno::NXIO) } else { Ok(areas) }
    }
}

impl Area {
    /// Parses a line of `maps`: `7f00-7f01 rw-s 0000 …`.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|&byte| byte == b' ');
        let (range, mode) = (words.next()?, words.next()?);
        let (start, end) = str::from_utf8(range).ok()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self {
            start: number(start)?,
            end: number(end)?,
            writable: mode.get(1) == Some(&b'w'),
            shared: mode.get(3) == Some(&b's'),
        })
    }
}

fn read(process: &OwnedFd, name: &str) -> Result<File, Errno> {
    Ok(openat(process, name, FLAGS | OFlags::RDONLY, Mode::empty())?.into())
}
