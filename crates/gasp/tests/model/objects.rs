//! The memory of both sides, with a tag in every word.
#![allow(unsafe_code, reason = "reads the memory behind the raw pointers of mappings")]

use gasp::MemoryObject;
use proptest::prelude::*;

use crate::engine::Checked;
use crate::naive::Extent;
use crate::steps::{LENS, OBJECTS};
use crate::support::{PAGE, ram, window};

/// Declared host-physical bases of the windows, which are not adjacent.
pub(crate) const BASES: [Option<u64>; OBJECTS] =
    [None, None, None, Some(0x10_0000_0000), Some(0x20_0000_0000)];

/// The memory objects, created once: no step writes to them.
pub(crate) struct Objects(pub(crate) [MemoryObject; OBJECTS]);

impl Objects {
    pub(crate) fn new() -> Self {
        let lens = LENS.map(|pages| pages as u64 * PAGE);
        Self(std::array::from_fn(|index| {
            let object = BASES[index].map_or_else(|| ram(lens[index]), |b| window(lens[index], b));
            let words =
                (0..lens[index]).step_by(8).flat_map(|offset| tag(index, offset).to_le_bytes());
            object.write_at(0, &words.collect::<Vec<u8>>()).unwrap();
            object
        }))
    }
}

/// The content of an object's word at `offset`.
fn tag(object: usize, offset: u64) -> u64 {
    (object as u64 + 1) << 56 | offset
}

fn byte(object: usize, offset: u64) -> u8 {
    tag(object, offset & !7).to_le_bytes()[(offset & 7) as usize]
}

/// Compares the bytes from `pointer` on with the extents, one after the other: the first and
/// the last byte of each, and one in each page.
pub(crate) fn check_bytes(pointer: *const u8, extents: &[Extent]) -> Checked {
    let mut done = 0;
    for &(object, offset, len) in extents {
        for at in (0..len).step_by(PAGE as usize).chain([1.min(len - 1), len - 1]) {
            // SAFETY: `done + at` is less than the length of the extents together, and each caller
            // holds a mapping that is as long, from `pointer` on: it has compared the lengths, or
            // the map was stitched, which maps all that was asked for or nothing.
            let byte_at = unsafe { pointer.add((done + at) as usize) };
            // SAFETY: `byte_at` is inside that mapping, so it is valid for reads; nobody writes to
            // an object after it was created.
            let got = unsafe { byte_at.read_volatile() };
            prop_assert_eq!(got, byte(object, offset + at));
        }
        done += len;
    }
    Ok(())
}
