//! Conversions: a request's buffers, mapped, as an array of `iov_t`.
#![allow(unsafe_code, reason = "reads and writes structures of C, and maps as C does")]

use core::ptr;
use std::collections::HashMap;
use std::sync::LazyLock;

use gasp::{DeviceAddr, Errno, MapFlags, Reason};
use gasp_capi::map::{gasp_get_vaddr, gasp_map, gasp_map_host_contig, gasp_unmap_handle};
use gasp_capi::types::{GMF_READ, GMF_WRITE, MapHandle};
use parking_lot::Mutex;

use super::abi::{FLAGS, Iov, Iov800, PADDRS, Physical};
use super::chain::Descriptor;
use super::outside::Outside;

/// How often a buffer is mapped again because its memory was changed meanwhile.
const ATTEMPTS: usize = 8;

/// Mappings by the addresses of the vdev and of `vi_iov`.
type Kept = HashMap<(usize, usize), Vec<MapHandle>>;

/// The mappings of structures without an array for them.
static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

/// A `struct vio_iov` of either edition, with its members as they are now.
pub(super) struct Structure {
    place: *mut Iov,
    head: Iov,
    mappings: *mut MapHandle,
}

impl Structure {
    /// Checks a structure of 7.x.
    ///
    /// # Safety
    /// `place` is NULL; or it is valid for reads and writes of an initialized structure, and its
    /// arrays are for as many entries as it says, for as long as this is used: the pointer rule.
    pub(super) unsafe fn of_710(place: *mut Iov) -> Result<Self, Errno> {
        if place.is_null() {
            return Err(Errno::INVAL);
        }
        // SAFETY: it is not NULL, so it is valid for reads, as this function asks.
        let head = unsafe { place.read() };
        Self { place, head, mappings: ptr::null_mut() }.checked()
    }

    /// Checks a structure of 8.0.
    ///
    /// # Safety
    /// As for [`of_710`](Self::of_710).
    pub(super) unsafe fn of_800(place: *mut Iov800) -> Result<Self, Errno> {
        if place.is_null() {
            return Err(Errno::INVAL);
        }
        // SAFETY: it is not NULL, so it is valid for reads, as this function asks.
        let Iov800 { iov: head, mappings } = unsafe { place.read() };
        Self { place: place.cast(), head, mappings }.checked()
    }

    fn checked(self) -> Result<Self, Errno> {
        let Iov { iov, paddrs, len, reserved, flags, .. } = self.head;
        let fits = reserved >= 0 && reserved <= len;
        let known = flags & !FLAGS == 0 && (flags & PADDRS == 0 || !paddrs.is_null());
        if iov.is_null() || !fits || !known { Err(Errno::INVAL) } else { Ok(self) }
    }

    /// Begins a conversion: no entries but the vdev's own.
    pub(super) fn prepare(&mut self) {
        self.head.count = self.head.reserved;
        self.head.payload = self.head.reserved;
        self.write_back();
    }

    fn write_back(&self) {
        // SAFETY: the structure is valid for writes, as `of_710` and `of_800` ask.
        let count = unsafe { ptr::addr_of_mut!((*self.place).count) };
        // SAFETY: as above.
        unsafe { count.write(self.head.count) };
        // SAFETY: as above.
        let payload = unsafe { ptr::addr_of_mut!((*self.place).payload) };
        // SAFETY: as above.
        unsafe { payload.write(self.head.payload) };
    }

    /// The entries in use that are not the vdev's own; all of them are in the array.
    fn used(&self) -> core::ops::Range<usize> {
        let Iov { len, reserved, count, .. } = self.head;
        let index = |number: i32| usize::try_from(number).unwrap_or(0);
        index(reserved)..index(count.min(len).max(reserved))
    }

    fn entry_len(&self, index: usize) -> u64 {
        // SAFETY: `index` is one of `used`, so it is less than `len`, and the array has as many
        // entries, as `of_710` and `of_800` ask.
        let place = unsafe { self.head.iov.add(index) };
        // SAFETY: as above; those in use are initialized.
        let entry = unsafe { place.read() };
        entry.iov_len as u64
    }

    /// Appends buffers, at most `cap` bytes of them. Returns the bytes; on failure nothing has
    /// changed, and nothing is mapped.
    pub(super) fn append(
        &mut self,
        outside: &dyn Outside,
        descriptors: &[Descriptor],
        cap: u64,
    ) -> Result<u64, Errno> {
        let used = self.used();
        let header = match self.head.hdr_len {
            0 => 0,
            len => {
                let before = used.clone().map(|index| self.entry_len(index));
                u64::from(len).saturating_sub(before.fold(0, u64::saturating_add))
            }
        };
        let payload = if header > 0 { None } else { Some(self.head.payload) };
        let mut conversion = Conversion {
            structure: self,
            outside,
            next: used.end,
            header,
            payload: None,
            handles: Vec::new(),
        };
        let mut left = cap;
        let mut all = || {
            for descriptor in descriptors {
                let len = left.min(descriptor.len.into());
                conversion.buffer(descriptor.addr, len, descriptor.writable)?;
                left -= len;
            }
            Ok(())
        };
        if let Err(errno) = all() {
            conversion.handles.into_iter().for_each(unmap);
            return Err(errno);
        }
        let Conversion { next, payload: found, handles, .. } = conversion;
        // Not more than `len`.
        self.head.count = next as i32;
        self.head.payload = payload.or(found.map(|at| at as i32)).unwrap_or(self.head.count);
        self.write_back();
        if self.mappings.is_null() && !handles.is_empty() {
            KEPT.lock().entry(self.key(outside)).or_default().extend(handles);
        }
        Ok(cap - left)
    }

    fn key(&self, outside: &dyn Outside) -> (usize, usize) {
        (outside.pointer().addr(), self.head.iov.addr())
    }

    /// Ends a conversion.
    pub(super) fn put(&mut self, outside: &dyn Outside) {
        if self.mappings.is_null() {
            let kept = KEPT.lock().remove(&self.key(outside));
            kept.into_iter().flatten().for_each(unmap);
        } else {
            for index in self.used() {
                // SAFETY: `index` is less than `len`, and the array has as many entries, as
                // `of_800` asks.
                let place = unsafe { self.mappings.add(index) };
                // SAFETY: as above; `append` has initialized those in use.
                let handle = unsafe { place.read() };
                // SAFETY: as above.
                unsafe { place.write(MapHandle::default()) };
                unmap(handle);
            }
        }
        self.head.count = self.head.reserved;
        self.write_back();
    }
}

/// Unmaps what a vdev has not put back: it is at its end.
pub(super) fn forget(vdev: usize) {
    let mut kept = KEPT.lock();
    let ended: Vec<_> = kept.extract_if(|(of, _), _| *of == vdev).collect();
    drop(kept);
    ended.into_iter().flat_map(|(_, handles)| handles).for_each(unmap);
}

fn unmap(mut handle: MapHandle) {
    // SAFETY: the handle is valid for reads, and nobody else accesses it.
    unsafe { gasp_unmap_handle(&raw mut handle) };
}

/// A conversion in progress.
struct Conversion<'a> {
    structure: &'a Structure,
    outside: &'a dyn Outside,
    /// The next entry.
    next: usize,
    /// How many bytes of the header are still to come.
    header: u64,
    /// The first entry after the header.
    payload: Option<usize>,
    /// What was mapped.
    handles: Vec<MapHandle>,
}

/// A consecutive part of a buffer.
struct Piece {
    pointer: *mut u8,
    len: u64,
    physical: u64,
}

impl Conversion<'_> {
    /// Maps a buffer.
    fn buffer(&mut self, addr: u64, len: u64, writable: bool) -> Result<(), Errno> {
        let (mut addr, mut len) = (addr, len);
        while len > 0 {
            if self.next >= usize::try_from(self.structure.head.len).unwrap_or(0) {
                return Err(Errno::TOOBIG);
            }
            let piece = self.map(addr, len, writable)?;
            // The engine maps nothing that wraps, and no more than was requested.
            addr = addr.wrapping_add(piece.len);
            len = len.saturating_sub(piece.len);
            self.piece(piece)?;
        }
        Ok(())
    }

    /// Maps the beginning of a range, as far as it is consecutive.
    fn map(&mut self, addr: u64, len: u64, writable: bool) -> Result<Piece, Errno> {
        let prot = if writable { GMF_WRITE } else { GMF_READ };
        let vdev = self.outside.pointer();
        let mut handle = MapHandle::default();
        let (mut physical, mut mapped) = (addr, len);
        if self.structure.head.flags & PADDRS != 0 {
            let mut length = usize::try_from(len).map_err(|_| Errno::INVAL)?;
            // SAFETY: the pointers are valid for reads and writes, and nobody else accesses what
            // they point to.
            let code = unsafe {
                gasp_map_host_contig(
                    vdev,
                    &raw mut physical,
                    &raw mut length,
                    prot,
                    &raw mut handle,
                )
            };
            of_code(code)?;
            mapped = length as u64;
        } else {
            mapped = self.map_consecutive(addr, mapped, prot, &mut handle)?;
        }
        self.handles.push(handle);
        // SAFETY: the handle is valid for reads, and nobody else accesses it.
        let pointer = unsafe { gasp_get_vaddr(&raw const handle) };
        Ok(Piece { pointer: pointer.cast(), len: mapped, physical })
    }

    /// Maps all of a range, or as much of its beginning as is consecutive in this process; how
    /// much.
    fn map_consecutive(
        &self,
        addr: u64,
        len: u64,
        prot: u32,
        handle: &mut MapHandle,
    ) -> Result<u64, Errno> {
        let vdev = self.outside.pointer();
        let mut want = len;
        for _ in 0..ATTEMPTS {
            let length = usize::try_from(want).map_err(|_| Errno::INVAL)?;
            // SAFETY: `handle` is valid for writes, and nobody else accesses it.
            match unsafe { gasp_map(vdev, addr, length, prot, handle) } {
                0 => return Ok(want),
                libc::ENXIO => {}
                code => of_code(code)?,
            }
            // The engine says how much is consecutive.
            let flags = MapFlags::from_bits(prot).map_err(|_| Errno::INVAL)?;
            want = match self.outside.vdev().map(DeviceAddr(addr), want, flags) {
                Err(error) => match error.reason() {
                    Reason::NotConsecutive { prefix } => prefix,
                    _ => return Err(error.errno()),
                },
                // It has changed.
                Ok(_) => len,
            };
        }
        Err(Errno::NXIO)
    }

    /// Enters a piece: in two entries, if the header ends in it.
    fn piece(&mut self, piece: Piece) -> Result<(), Errno> {
        let Piece { pointer, len, physical } = piece;
        let handle = self.handles.last().copied().unwrap_or_default();
        if self.header == 0 || self.header > len {
            if self.header == 0 && self.structure.head.hdr_len > 0 {
                self.payload.get_or_insert(self.next);
            }
            self.header = self.header.saturating_sub(len);
            return self.enter(pointer, len, physical, handle);
        }
        let header = core::mem::take(&mut self.header);
        self.enter(pointer, header, physical, handle)?;
        if len > header {
            self.payload = Some(self.next);
            let rest = pointer.wrapping_add(header as usize);
            let physical = physical.wrapping_add(header);
            // The first entry has the mapping of both.
            self.enter(rest, len - header, physical, MapHandle::default())?;
        }
        Ok(())
    }

    fn enter(
        &mut self,
        pointer: *mut u8,
        len: u64,
        physical: u64,
        handle: MapHandle,
    ) -> Result<(), Errno> {
        let Structure { head, mappings, .. } = self.structure;
        if self.next >= usize::try_from(head.len).unwrap_or(0) {
            return Err(Errno::TOOBIG);
        }
        let entry = libc::iovec { iov_base: pointer.cast(), iov_len: len as usize };
        // SAFETY: `next` is less than `len`, and the array has as many entries, as `of_710` and
        // `of_800` ask.
        let place = unsafe { head.iov.add(self.next) };
        // SAFETY: as above.
        unsafe { place.write(entry) };
        if head.flags & PADDRS != 0 {
            // SAFETY: as above: with this flag `paddrs` is not NULL, and has as many entries.
            let place = unsafe { head.paddrs.add(self.next) };
            // SAFETY: as above.
            unsafe { place.write(Physical { base: physical, len }) };
        }
        if !mappings.is_null() {
            // SAFETY: as above: it is not NULL, so it has as many entries.
            let place = unsafe { mappings.add(self.next) };
            // SAFETY: as above.
            unsafe { place.write(handle) };
        }
        self.next += 1;
        Ok(())
    }
}

fn of_code(code: i32) -> Result<(), Errno> {
    match code {
        0 => Ok(()),
        code => Err(Errno::from_raw_os_error(code)),
    }
}
