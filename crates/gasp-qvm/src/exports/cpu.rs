//! `<qvm/guest.h>`: the data of accesses, and guest memory as processors see it.
#![allow(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_int, c_uint, c_void};
use core::slice;

use gasp::{Errno, GuestPhys};
use gasp_capi::embed;
use gasp_capi::types::{StateBlock, StateBlock710};
use smallvec::SmallVec;

use crate::abi::*;
use crate::cpu::GuestCpu;
use crate::doing::Doing;
use crate::live::Live;

/// The most blocks of one call.
const BLOCKS_MAX: usize = 1024;

/// The flags that are known; what they ask for is so in any case here.
const FLAGS: u32 = GXF_PAUSE | GXF_UNPAUSE | GXF_ASYNC | GXF_GDB | GXF_FLUSH;

/// What a block refers to.
enum Place<'a> {
    /// The register of the access that this thread answers.
    Register(&'a GuestCpu),
    /// Guest-physical memory.
    Memory(gasp::Guest, GuestPhys),
    /// The value itself.
    Immediate(u64),
}

/// Calls `each` with the place of each block, and the range of the data that belongs to it.
fn divided(
    gcp: *mut c_void,
    flags: u32,
    blocks: &[Block],
    len: usize,
    mut each: impl FnMut(Place<'_>, core::ops::Range<usize>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    if flags & !FLAGS != 0 {
        return Err(Errno::INVAL);
    }
    Doing::with(|doing| {
        let cpu = doing.and_then(|doing| doing.cpu);
        // A processor is valid in the call that it was passed to.
        if !gcp.is_null() && cpu.is_none_or(|cpu| cpu.pointer() != gcp) {
            return Err(Errno::INVAL);
        }
        let mut at = 0_usize;
        for block in blocks {
            let Block { location, length, kind } = *block;
            let end = usize::try_from(length).map_or(len, |more| at.saturating_add(more)).min(len);
            let place = match kind {
                QST_CPUREGS => Place::Register(cpu.filter(|_| !gcp.is_null()).ok_or(Errno::INVAL)?),
                QST_MEMORY => {
                    let own = Live::current().map(|live| live.guest.engine().clone());
                    let chosen = || embed::engine_of(None).map_err(|error| error.errno());
                    let guest = own.map_or_else(chosen, Ok)?;
                    Place::Memory(guest, GuestPhys(location))
                }
                QST_IMMEDIATE => Place::Immediate(location),
                QST_VIRTUAL => return Err(Errno::NOTSUP),
                _ => return Err(Errno::INVAL),
            };
            each(place, at..end)?;
            at = end;
        }
        Ok(())
    })
}

fn read(gcp: *mut c_void, flags: u32, blocks: &[Block], into: &mut [u8]) -> Result<(), Errno> {
    let len = into.len();
    divided(gcp, flags, blocks, len, |place, range| {
        let part = into.get_mut(range).unwrap_or_default();
        match place {
            Place::Register(cpu) => cpu.take(part),
            Place::Memory(guest, at) if !part.is_empty() => {
                guest.read_firmware(at, part).map_err(|error| error.errno())
            }
            Place::Memory(..) => Ok(()),
            Place::Immediate(value) => {
                let bytes = value.to_ne_bytes().into_iter().chain(core::iter::repeat(0));
                part.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
                Ok(())
            }
        }
    })
}

fn write(gcp: *mut c_void, flags: u32, blocks: &[Block], from: &[u8]) -> Result<(), Errno> {
    divided(gcp, flags, blocks, from.len(), |place, range| {
        let part = from.get(range).unwrap_or_default();
        match place {
            Place::Register(cpu) => cpu.supply(part),
            Place::Memory(guest, at) if !part.is_empty() => {
                guest.write_firmware(at, part).map_err(|error| error.errno())
            }
            Place::Memory(..) => Ok(()),
            Place::Immediate(_) => Err(Errno::INVAL),
        }
    })
}

/// Blocks, of which most accesses have one: it is not allocated.
type Blocks = SmallVec<[Block; 2]>;

/// The blocks of C.
///
/// # Safety
/// `first` is NULL or valid for reads of `count` blocks, by the pointer rule.
unsafe fn blocks<B: Copy + Into<Block>>(first: *const B, count: c_uint) -> Result<Blocks, Errno> {
    let count = count as usize;
    if first.is_null() || count == 0 || count > BLOCKS_MAX {
        return Err(Errno::INVAL);
    }
    // SAFETY: it is not NULL, so it is aligned and valid for reads of `count` initialized blocks,
    // which nobody changes meanwhile, as this function asks; 1,024 blocks are less than `isize::MAX`
    // bytes.
    let all = unsafe { slice::from_raw_parts(first, count) };
    Ok(all.iter().map(|&block| block.into()).collect())
}

/// # Safety
/// `data` is NULL or valid for writes of `len` bytes, and `blk` as [`blocks`] asks.
unsafe fn read_for_c<B: Copy + Into<Block>>(
    gcp: *mut c_void,
    flags: u32,
    blk: *const B,
    nblks: c_uint,
    data: *mut c_void,
    len: usize,
) -> c_int {
    let outcome = || {
        // SAFETY: `blk` is as this function asks.
        let blocks = unsafe { blocks(blk, nblks) }?;
        if data.is_null() || isize::try_from(len).is_err() {
            return Err(Errno::INVAL);
        }
        // SAFETY: every byte is written before it is read as a `u8`: zero is.
        unsafe { data.cast::<u8>().write_bytes(0, len) };
        // SAFETY: `data` is not NULL, so it is valid for writes of `len` bytes, which were
        // initialized above, and which nobody else accesses, as this function asks.
        let into = unsafe { slice::from_raw_parts_mut(data.cast::<u8>(), len) };
        read(gcp, flags, &blocks, into)
    };
    code(outcome())
}

/// # Safety
/// `data` is NULL or valid for reads of `len` bytes, and `blk` as [`blocks`] asks.
unsafe fn write_for_c<B: Copy + Into<Block>>(
    gcp: *mut c_void,
    flags: u32,
    blk: *const B,
    nblks: c_uint,
    data: *const c_void,
    len: usize,
) -> c_int {
    let outcome = || {
        // SAFETY: `blk` is as this function asks.
        let blocks = unsafe { blocks(blk, nblks) }?;
        if data.is_null() || isize::try_from(len).is_err() {
            return Err(Errno::INVAL);
        }
        // SAFETY: `data` is not NULL, so it is valid for reads of `len` initialized bytes, which
        // nobody changes, as this function asks.
        let from = unsafe { slice::from_raw_parts(data.cast::<u8>(), len) };
        write(gcp, flags, &blocks, from)
    };
    code(outcome())
}

pub(super) fn code(outcome: Result<(), Errno>) -> c_int {
    match outcome {
        Ok(()) => 0,
        Err(errno) => errno.raw_os_error(),
    }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_cpu_read(
    gcp: *mut c_void,
    flags: u32,
    blk: *const StateBlock,
    nblks: c_uint,
    data: *mut c_void,
    data_len: usize,
) -> c_int {
    // SAFETY: the pointer rule.
    unsafe { read_for_c(gcp, flags, blk, nblks, data, data_len) }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_cpu_read_710(
    gcp: *mut c_void,
    flags: u32,
    blk: *const StateBlock710,
    nblks: c_uint,
    data: *mut c_void,
    data_len: c_uint,
) -> c_int {
    // SAFETY: the pointer rule.
    unsafe { read_for_c(gcp, flags, blk, nblks, data, data_len as usize) }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_cpu_write(
    gcp: *mut c_void,
    flags: u32,
    blk: *const StateBlock,
    nblks: c_uint,
    data: *const c_void,
    data_len: usize,
) -> c_int {
    // SAFETY: the pointer rule.
    unsafe { write_for_c(gcp, flags, blk, nblks, data, data_len) }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_cpu_write_710(
    gcp: *mut c_void,
    flags: u32,
    blk: *const StateBlock710,
    nblks: c_uint,
    data: *const c_void,
    data_len: c_uint,
) -> c_int {
    // SAFETY: the pointer rule.
    unsafe { write_for_c(gcp, flags, blk, nblks, data, data_len as usize) }
}

fn all_ones(gcp: *mut c_void, flags: u32, block: Block) -> Result<(), Errno> {
    // As long as the longest register; memory is written in pieces.
    let ones = [0xff; 64];
    let mut rest = block;
    loop {
        let piece = rest.length.min(ones.len() as u64);
        let part = ones.get(..piece as usize).unwrap_or_default();
        write(gcp, flags, &[Block { length: piece, ..rest }], part)?;
        rest.length -= piece;
        rest.location = rest.location.checked_add(piece).ok_or(Errno::NXIO)?;
        if rest.length == 0 {
            return Ok(());
        }
    }
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_write_all_ones(
    gcp: *mut c_void,
    flags: u32,
    blk: *const StateBlock,
) -> c_int {
    // SAFETY: the pointer rule.
    let blocks = unsafe { blocks(blk, 1) };
    code(blocks.and_then(|blocks| blocks.iter().try_for_each(|&one| all_ones(gcp, flags, one))))
}

/// See `<qvm/guest.h>`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_write_all_ones_710(
    gcp: *mut c_void,
    flags: u32,
    blk: *const StateBlock710,
) -> c_int {
    // SAFETY: the pointer rule.
    let blocks = unsafe { blocks(blk, 1) };
    code(blocks.and_then(|blocks| blocks.iter().try_for_each(|&one| all_ones(gcp, flags, one))))
}
