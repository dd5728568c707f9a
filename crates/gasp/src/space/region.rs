//! Regions: ranges of guest-physical addresses with a kind, an access and memory.

use core::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::access::Access;
use crate::addr::GuestPhys;
use crate::error::Reason;
use crate::memory::MemoryObject;
use crate::span::Span;

/// The error if a region's memory does not begin with a page of its object.
pub(super) const ODD_OFFSET: Reason = Reason::Invalid("the offset must be a multiple of 4 KiB");

/// Kind of a region.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RegionKind {
    /// System RAM, which every map accepts.
    Ram,
    /// Memory that neither the guest nor its devices may write. Mapped only with
    /// [`MapFlags::any`](crate::MapFlags::any) (decision 5).
    Rom,
    /// A window to memory that is not the guest's own: passed-through hardware, or
    /// memory shared with others. Mapped only with [`MapFlags::any`](crate::MapFlags::any)
    /// (decision 5).
    PassThrough,
    /// A range that is kept free, without memory.
    Reserved,
    /// The registers of a virtual device, without memory that could be mapped.
    Device,
}

impl RegionKind {
    /// The kind's name in reports: `"ram"`, `"pass-through"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Rom => "rom",
            Self::PassThrough => "pass-through",
            Self::Reserved => "reserved",
            Self::Device => "device",
        }
    }

    /// Whether a region of this kind has memory.
    pub fn is_memory(self) -> bool {
        matches!(self, Self::Ram | Self::Rom | Self::PassThrough)
    }
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A range of guest-physical addresses with a kind, an access and, depending on the kind,
/// memory.
///
/// ```
/// use gasp::{GuestPhys, MemoryObject, Region};
/// let ram = MemoryObject::ram(2 << 20).create()?;
/// let region = Region::ram(GuestPhys(0), &ram).map_err(|reason| reason.to_string()).unwrap();
/// assert_eq!(region.span().len(), 2 << 20);
/// # Ok::<(), gasp::Error>(())
/// ```
#[derive(Clone)]
pub struct Region {
    span: Span<GuestPhys>,
    kind: RegionKind,
    access: Access,
    memory: Option<(MemoryObject, u64)>,
    owner: Option<Arc<str>>,
    tag: u64,
}

impl Region {
    /// System RAM: all of `object`, from `start` on.
    ///
    /// # Errors
    /// [`Reason::Wraps`] if it would extend past 2^64.
    pub fn ram(start: GuestPhys, object: &MemoryObject) -> Result<Self, Reason> {
        Self::memory(RegionKind::Ram, Span::new(start, object.len())?, object, 0)
    }

    /// Read-only memory: all of `object`, from `start` on.
    ///
    /// # Errors
    /// [`Reason::Wraps`] if it would extend past 2^64.
    pub fn rom(start: GuestPhys, object: &MemoryObject) -> Result<Self, Reason> {
        Self::memory(RegionKind::Rom, Span::new(start, object.len())?, object, 0)
    }

    /// A pass-through window: all of `object`, from `start` on.
    ///
    /// # Errors
    /// [`Reason::Wraps`] if it would extend past 2^64.
    pub fn pass_through(start: GuestPhys, object: &MemoryObject) -> Result<Self, Reason> {
        Self::memory(RegionKind::PassThrough, Span::new(start, object.len())?, object, 0)
    }

    /// A range that is kept free, of any start and length.
    pub fn reserved(span: Span<GuestPhys>) -> Self {
        Self {
            span,
            kind: RegionKind::Reserved,
            access: Access::empty(),
            memory: None,
            owner: None,
            tag: 0,
        }
    }

    /// The registers of the device named `owner`, of any start and length.
    pub fn device(span: Span<GuestPhys>, owner: &str) -> Self {
        let owner = Some(Arc::from(owner));
        Self {
            span,
            kind: RegionKind::Device,
            access: Access::empty(),
            memory: None,
            owner,
            tag: 0,
        }
    }

    /// Part of an object: `span.len()` bytes of it, from byte `offset` on.
    ///
    /// # Errors
    /// [`Reason::Invalid`] if `kind` has no memory or `offset` is not a multiple of 4 KiB;
    /// [`Reason::OutOfBounds`] if the part extends past the end of the object.
    pub fn memory(
        kind: RegionKind,
        span: Span<GuestPhys>,
        object: &MemoryObject,
        offset: u64,
    ) -> Result<Self, Reason> {
        if !kind.is_memory() {
            return Err(Reason::Invalid("reserved and device regions have no memory"));
        }
        if !offset.is_multiple_of(crate::addr::GRANULE) {
            return Err(ODD_OFFSET);
        }
        if offset.checked_add(span.len()).is_none_or(|end| end > object.len()) {
            return Err(Reason::OutOfBounds { size: object.len() });
        }
        let offered = match kind {
            RegionKind::Rom => Access::READ | Access::EXEC,
            _ => Access::RWX,
        };
        let access = offered & readable_is_executable(object.access());
        Ok(Self { span, kind, access, memory: Some((object.clone(), offset)), owner: None, tag: 0 })
    }

    /// The same region, with its access restricted to `access`, never widened.
    #[must_use]
    pub fn restricted(mut self, access: Access) -> Self {
        self.access &= access;
        self
    }

    /// The same region with a number of the caller's choice, which each part keeps when the
    /// region is split. Neighbours with different tags are not merged. The default is 0; the
    /// number has no meaning to this crate.
    #[must_use]
    #[doc(hidden)]
    pub fn tagged(self, tag: u64) -> Self {
        Self { tag, ..self }
    }

    /// The same region, with the name of the device that it belongs to, or without one.
    #[must_use]
    pub fn owned_by(self, owner: Option<&str>) -> Self {
        Self { owner: owner.map(Arc::from), ..self }
    }

    /// The [tag](Self::tagged).
    #[doc(hidden)]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The guest-physical range.
    pub fn span(&self) -> Span<GuestPhys> {
        self.span
    }

    /// The kind.
    pub fn kind(&self) -> RegionKind {
        self.kind
    }

    /// The kinds of access that it offers; none without memory.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The memory object, if the region has memory.
    pub fn object(&self) -> Option<&MemoryObject> {
        self.memory.as_ref().map(|(object, _)| object)
    }

    /// The region's offset in [`object`](Self::object), in bytes; 0 without memory.
    pub fn object_offset(&self) -> u64 {
        self.memory.as_ref().map_or(0, |&(_, offset)| offset)
    }

    /// The address of its first byte in this process, if it has memory:
    /// [`MemoryObject::as_ptr`] of the object, and the offset. Valid while a clone of the region
    /// exists.
    pub fn as_ptr(&self) -> Option<*mut u8> {
        // The offset and the region's length are inside the object.
        let (object, offset) = self.memory.as_ref()?;
        Some(object.as_ptr().wrapping_add(*offset as usize))
    }

    /// The file of its memory and the offset of its first byte there, for a memory table of
    /// vhost-user. `None` if it has no memory, the memory has no file, or the region is not one
    /// piece of it: see [`MemoryObject::file_extents`], which also says what handing the file out
    /// changes.
    pub fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        let (object, offset) = self.memory.as_ref()?;
        let (fd, extents) = object.file_extents()?;
        extents.iter().find_map(|extent| {
            let before = offset.checked_sub(extent.offset)?;
            let end = before.checked_add(self.span.len())?;
            (end <= extent.len).then_some((fd, extent.file_offset + before))
        })
    }

    /// The name of the device that it belongs to, if any.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// The most that the region can offer: what its kind and memory allow.
    pub(super) fn limit(&self) -> Access {
        match (&self.memory, self.kind) {
            (None, _) => Access::empty(),
            (Some((object, _)), RegionKind::Rom) => {
                (Access::READ | Access::EXEC) & readable_is_executable(object.access())
            }
            (Some((object, _)), _) => readable_is_executable(object.access()),
        }
    }

    pub(super) fn with_access(&self, access: Access) -> Self {
        Self { access, ..self.clone() }
    }

    /// The part of the region inside `span`; `None` if they do not overlap. It can be added to a
    /// guest if it is whole pages, also of its object.
    #[must_use]
    pub fn part(&self, span: Span<GuestPhys>) -> Option<Self> {
        let span = self.span.intersection(&span)?;
        let skip = span.start().0 - self.span.start().0;
        let memory = self.memory.as_ref().map(|(object, offset)| (object.clone(), offset + skip));
        Some(Self { span, memory, ..self.clone() })
    }

    /// This region merged with the next, if they are adjacent, consecutive in their memory
    /// object, and alike otherwise.
    pub(super) fn joined(&self, next: &Self) -> Option<Self> {
        let adjacent = self.span.last().checked_add(1) == Some(next.span.start());
        let same_memory = match (&self.memory, &next.memory) {
            (None, None) => true,
            (Some((a, offset)), Some((b, next_offset))) => {
                a.same(b) && offset + self.span.len() == *next_offset
            }
            _ => false,
        };
        let alike = self.kind == next.kind && self.access == next.access && self.tag == next.tag;
        if !(adjacent && same_memory && alike && self.owner == next.owner) {
            return None;
        }
        let span = Span::inclusive(self.span.start(), next.span.last())?;
        Some(Self { span, ..self.clone() })
    }
}

/// Adds execute access to readable memory: memory that can be read can be executed.
fn readable_is_executable(access: Access) -> Access {
    match access.contains(Access::READ) {
        true => access | Access::EXEC,
        false => access,
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} {} {}", self.kind, self.span, self.access)?;
        if let Some((object, offset)) = &self.memory {
            write!(f, " {}+{offset:#x}", object.name())?;
        }
        if let Some(owner) = &self.owner {
            write!(f, " of {owner}")?;
        }
        f.write_str(")")
    }
}
