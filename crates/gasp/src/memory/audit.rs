//! Audits: frame numbers read once more, to check the promises about them.

use core::fmt;

use super::object::MemoryObject;
use super::report::Stability;
use crate::addr::HostPhys;
use crate::error::{Error, Location, Operation, Reason, Result};
use crate::memory::host::frames;
use crate::memory::host::frames::PageLocation;
use crate::memory::host::runs::PhysMap;

/// The result of an audit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// Bytes whose addresses were read again and compared.
    pub checked: u64,
    /// Bytes whose addresses are not known, or were declared: memory on demand, pass-through
    /// windows, all memory without the privilege.
    pub unchecked: u64,
    /// The memory that has moved, in order; neighbours that moved together are one change.
    pub changes: Vec<Change>,
}

/// Memory that is not at the host-physical address that was reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The object's name.
    pub object: Box<str>,
    /// Bytes from the start of the object.
    pub offset: u64,
    /// Bytes; never 0.
    pub len: u64,
    /// The class that was promised.
    pub class: Stability,
    /// The host-physical address that was reported.
    pub was: HostPhys,
    /// The host-physical address now; `None` if it is no longer in memory.
    pub is: Option<HostPhys>,
}

impl Change {
    /// Whether it breaks a promise: memory of the class `Unpinned` may move at any time.
    pub fn is_broken_promise(&self) -> bool {
        self.class > Stability::Unpinned
    }

    /// Extends this change by `next`, if that continues it. Returns whether it did.
    fn join(&mut self, next: &Self) -> bool {
        let past = |addr: HostPhys| HostPhys(addr.0 + self.len);
        let joined = self.offset + self.len == next.offset
            && past(self.was) == next.was
            && self.is.map(past) == next.is;
        self.len += if joined { next.len } else { 0 };
        joined
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, offset, len, class, was, is } = self;
        write!(f, "`{object}` at {offset:#x}: {len:#x} bytes, {class}, were at {was} and are ")?;
        match is {
            Some(is) => write!(f, "at {is}"),
            None => f.write_str("not in memory"),
        }
    }
}

impl Audit {
    /// The changes that break a promise.
    pub fn broken(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_broken_promise())
    }

    /// Adds the result of another audit.
    pub fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.unchecked += other.unchecked;
        self.changes.extend(other.changes);
    }
}

impl MemoryObject {
    /// Reads all frame numbers again, and compares them with those that were reported.
    ///
    /// It takes about half a millisecond for each GiB of huge pages and ten for base pages, and
    /// slows down `mmap` and `munmap` of the process meanwhile. A page that is not in memory, for
    /// example because it was swapped out, is brought back first.
    ///
    /// # Errors
    /// `EPERM` if frame numbers can no longer be read (decision 19).
    pub fn audit(&self) -> Result<Audit> {
        let PhysMap::Table(table) = self.phys() else {
            return Ok(Audit { unchecked: self.len(), ..Audit::default() });
        };
        let mut audit = Audit { checked: self.len(), ..Audit::default() };
        let class = self.stability();
        let differs = |found: PageLocation| {
            let (offset, len) = (found.offset as u64, found.len as u64);
            let was = table.run_at(offset, len)?;
            let same = was.len == len && found.addr == Some(was.addr.0);
            (!same).then_some(was.addr)
        };
        let mut note = |found: PageLocation, was| {
            let change = Change {
                object: self.name().into(),
                offset: found.offset as u64,
                len: found.len as u64,
                class,
                was,
                is: found.addr.map(HostPhys),
            };
            if !audit.changes.last_mut().is_some_and(|last| last.join(&change)) {
                audit.changes.push(change);
            }
        };
        let read = frames::locate_pages(self.window(), self.page_size(), |found| {
            if let Some(was) = differs(found) {
                note(found, was);
            }
        });
        read.map_err(|why| {
            let reason = Reason::HostUnknown(why);
            Error::new(Operation::Audit, Location::Offset(0), self.len(), reason)
        })?;
        Ok(audit)
    }
}
