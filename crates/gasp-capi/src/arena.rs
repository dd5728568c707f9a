//! The memory of vdevs: each is a page of its own in one reserved range of addresses.
//!
//! The number of a vdev in its registry is the address of its page, so C reads and writes the
//! members of a `vdev_t`, and the library, which trusts only the address, looks it up. The pages
//! that belong to no vdev are inaccessible: use of a vdev after it was destroyed faults at once.
//!
//! ```text
//! base                                   base + 1 GiB
//! | index 0 | index 1 | … | index 262143 | index 0 | …     a page each, 16 generations
//! |◄──────────── generation 0 ──────────►|◄── generation 1 …
//! ```
//!
//! The low 18 bits of a page's number are its place in the registry: different for any two indexes,
//! wherever the range begins, as a generation has at most 2^18 pages. New vdevs get indexes that
//! have never been used, then the one that has been unused for longest, in its next generation. So
//! an address is used again after 4,194,304 vdevs, or after 15 others of its index if there are
//! 262,144 at a time.
#![allow(unsafe_code, reason = "reserves addresses, and makes pages of them accessible")]

use core::ffi::c_void;
use core::ptr;

use gasp::Errno;
use parking_lot::Mutex;
use rustix::mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags};
use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

use crate::registry::{INDEX_BITS, Key, Names, OBJECTS_MAX};

const PAGE_SHIFT: u32 = 12;
/// The memory of a vdev, in bytes.
pub(crate) const PAGE: usize = 1 << PAGE_SHIFT;
/// The fewest indexes that a range is reserved for.
const INDEXES_MIN: usize = 64;
/// The range takes at most this part of the address space that the process may have.
const LIMIT_PART: u64 = 64;

/// A range of addresses, reserved with the first page that is taken from it.
pub(crate) struct Arena {
    /// What is reserved if the host allows it.
    wish: Shape,
    range: Mutex<Option<Range>>,
}

/// How many pages, and how they are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shape {
    indexes: usize,
    generations: u32,
}

/// A range that has been reserved, for good.
#[derive(Clone, Copy, Debug)]
struct Range {
    base: usize,
    shape: Shape,
    /// Whether its pages are protected one by one: not if the host's are larger. Then all of it is
    /// accessible, and use after destruction is not noticed by the processor.
    protected: bool,
}

impl Shape {
    fn bytes(self) -> usize {
        (self.indexes * self.generations as usize) << PAGE_SHIFT
    }

    /// Half of it: of the generations, as long as there are several.
    fn halved(self) -> Option<Self> {
        match self {
            Self { indexes, generations: 2.. } => {
                Some(Self { indexes, generations: self.generations / 2 })
            }
            Self { indexes, .. } if indexes > INDEXES_MIN => {
                Some(Self { indexes: indexes / 2, ..self })
            }
            _ => None,
        }
    }
}

impl Arena {
    /// Of `indexes` pages at a time, each at one of `generations` addresses.
    pub(crate) const fn new(indexes: usize, generations: u32) -> Self {
        // Otherwise two indexes could have one place in the registry.
        assert!(indexes == OBJECTS_MAX || indexes * generations as usize <= OBJECTS_MAX);
        assert!(indexes > 0 && generations > 0 && generations <= 1 << 8);
        Self { wish: Shape { indexes, generations }, range: Mutex::new(None) }
    }

    fn range(&self) -> Result<Range, Errno> {
        let mut range = self.range.lock();
        if let Some(range) = *range {
            return Ok(range);
        }
        let most = getrlimit(Resource::As).current.map_or(u64::MAX, |limit| limit / LIMIT_PART);
        let reserved = reserve(self.wish, most, page_size() <= PAGE)?;
        Ok(*range.insert(reserved))
    }

    fn generations(&self) -> u32 {
        self.range.lock().map_or(0, |range| range.shape.generations)
    }

    fn address(&self, Key { index, generation }: Key) -> usize {
        let pages = |range: Range| generation as usize * range.shape.indexes + index;
        // 0 is no page: nothing is taken from a range before it is reserved.
        self.range.lock().map_or(0, |range| range.base + (pages(range) << PAGE_SHIFT))
    }

    /// Whether the page at this address is protected by itself; `None` if it is none of the pages.
    fn is_protected(&self, address: usize) -> Option<bool> {
        let range = (*self.range.lock())?;
        let offset = address.wrapping_sub(range.base);
        let is_page = offset < range.shape.bytes() && offset.is_multiple_of(PAGE);
        is_page.then_some(range.protected)
    }
}

/// Reserves a range for the largest of the shapes, from `wish` downward, that the host allows; of
/// at most `most` bytes, if the smallest is not larger.
fn reserve(wish: Shape, most: u64, protected: bool) -> Result<Range, Errno> {
    let mut shape = wish;
    loop {
        let smaller = shape.halved();
        let outcome = match smaller {
            Some(_) if shape.bytes() as u64 > most => Err(Errno::NOMEM),
            _ => map(shape.bytes(), protected),
        };
        match (outcome, smaller) {
            (Ok(base), _) => return Ok(Range { base, shape, protected }),
            (Err(_), Some(smaller)) => shape = smaller,
            (Err(errno), None) => return Err(errno),
        }
    }
}

/// Addresses that take no memory, inaccessible if they are `protected`.
fn map(bytes: usize, protected: bool) -> Result<usize, Errno> {
    let access = match protected {
        true => ProtFlags::empty(),
        false => ProtFlags::READ | ProtFlags::WRITE,
    };
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: without MAP_FIXED the kernel chooses addresses that nothing uses.
    let base = unsafe { mm::mmap_anonymous(ptr::null_mut(), bytes, access, flags) }?;
    Ok(base.expose_provenance())
}

/// The pointer to a page that has been taken from an arena.
pub(crate) fn pointer<T>(address: usize) -> *mut T {
    ptr::with_exposed_provenance_mut(address)
}

/// A kind of objects that are pages of an arena.
pub(crate) trait Home {
    fn arena() -> &'static Arena;
}

impl<H: Home> Names for H {
    const FRESH_FIRST: bool = true;

    #[inline(always)]
    fn place(number: usize) -> Option<usize> {
        Some(number >> PAGE_SHIFT & ((1 << INDEX_BITS) - 1))
    }

    fn indexes() -> Result<usize, Errno> {
        Ok(H::arena().range()?.shape.indexes)
    }

    fn number(key: Key) -> usize {
        H::arena().address(key)
    }

    fn next_generation(generation: u32) -> Option<u32> {
        // Beyond the last one: the first address again.
        (generation + 1).checked_rem(H::arena().generations())
    }

    /// Makes a page accessible, zeroed.
    fn open(number: usize) -> Result<(), Errno> {
        let page = pointer::<c_void>(number);
        if H::arena().is_protected(number).ok_or(Errno::FAULT)? {
            let access = MprotectFlags::READ | MprotectFlags::WRITE;
            // SAFETY: the page is in the range that `map` has reserved and that is never unmapped,
            // as `is_protected` says. No object has it, so nothing relies on its being inaccessible
            // but programs that use what they have destroyed.
            unsafe { mm::mprotect(page, PAGE, access) }?;
        }
        // SAFETY: the page is aligned, and valid for writes of its 4 KiB, as it is accessible. No
        // object has it, so nobody else accesses it.
        unsafe { page.cast::<u8>().write_bytes(0, PAGE) };
        Ok(())
    }

    /// Makes a page inaccessible, and gives its memory back to the host.
    fn close(number: usize) {
        if H::arena().is_protected(number) != Some(true) {
            return;
        }
        let page = pointer::<c_void>(number);
        // SAFETY: the page is in the range that `map` has reserved and that is never unmapped, as
        // `is_protected` says. Its object is gone, so only a program that uses what it has
        // destroyed accesses it.
        let closed = unsafe { mm::mprotect(page, PAGE, MprotectFlags::empty()) };
        // Memory that is locked (mlockall) is given back by the second of the two only.
        let advices = [Advice::LinuxDontNeed, Advice::LinuxDontneedLocked];
        // SAFETY: the page is in the range, as above; its content is not needed any more, as its
        // object is gone, and `open` does not rely on its being zero.
        let given = |advice| unsafe { mm::madvise(page, PAGE, advice) }.is_ok();
        let _ = advices.into_iter().any(given);
        if let Err(errno) = closed {
            // The limit of the process's mappings: a page between two others is a mapping more.
            tracing::warn!(
                "the memory of a destroyed vdev at {page:p} remains accessible (mprotect: {}); \
                 vm.max_map_count may be too low",
                gasp::errno_name(errno)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Lack, Registry};

    /// A registry of pages in an arena of its own.
    macro_rules! registry {
        ($indexes:literal * $generations:literal) => {{
            struct Pages;
            impl Home for Pages {
                fn arena() -> &'static Arena {
                    static ARENA: Arena = Arena::new($indexes, $generations);
                    &ARENA
                }
            }
            static LIST: Registry<u32, Pages> = Registry::new();
            (&LIST, Pages::arena())
        }};
    }

    fn is_accessible(address: usize) -> bool {
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        // SAFETY: not needed: the kernel refuses what cannot be read.
        let written =
            unsafe { libc::write(std::os::fd::AsRawFd::as_raw_fd(&writer), pointer(address), 1) };
        written == 1
    }

    fn has_memory(address: usize) -> bool {
        let mut present = 0;
        // SAFETY: the call writes one byte for the one page.
        assert_eq!(unsafe { libc::mincore(pointer(address), PAGE, &raw mut present) }, 0);
        present & 1 != 0
    }

    #[test]
    fn an_address_is_used_again_after_all_others() {
        let (list, _) = registry!(2 * 3);
        let mut seen = Vec::new();
        for object in 0..6 {
            let number = list.insert(|_| object).unwrap();
            assert!(!seen.contains(&number), "{number:#x} again, after {object}");
            assert_eq!(list.get(number), Some(object));
            assert!(seen.iter().all(|&stale| list.get(stale).is_none()), "{object}");
            assert_eq!(list.remove(number), Some(object));
            seen.push(number);
        }
        assert_eq!(list.insert(|_| 6), Ok(seen[0]));
        assert_eq!(list.get(seen[0]), Some(6));
    }

    #[test]
    fn an_index_has_as_many_addresses_as_generations_while_the_others_are_in_use() {
        let (list, _) = registry!(3 * 4);
        let [one, other, two] = [0, 1, 2].map(|object| list.insert(|_| object).unwrap());
        assert_eq!(list.insert(|_| 3), Err(Lack::Limit(3)));
        let mut last = other;
        for object in 0..4 {
            assert_eq!(last == other, object == 0);
            list.remove(last).unwrap();
            last = list.insert(|_| object).unwrap();
        }
        assert_eq!((last, list.get(one), list.get(two)), (other, Some(0), Some(2)));
    }

    #[test]
    fn whatever_never_was_a_page_in_use_is_refused() {
        let (list, arena) = registry!(4 * 2);
        for wild in [0, 1, PAGE, 1 << 63, usize::MAX] {
            assert_eq!((list.get(wild), list.remove(wild)), (None, None), "{wild:#x}");
        }
        let number = list.insert(|_| 7).unwrap();
        let bytes = arena.range().unwrap().shape.bytes();
        let beside = (1..8).map(|page| number + page * PAGE).chain([number - PAGE, number + bytes]);
        // The same place in the registry, in another range.
        let alike = [number + OBJECTS_MAX * PAGE, number ^ 1 << 63, number ^ 1 << 47];
        for wild in beside.chain((1..PAGE).map(|byte| number + byte)).chain(alike) {
            assert_eq!((list.get(wild), list.remove(wild)), (None, None), "{wild:#x}");
        }
        assert_eq!(list.remove(number), Some(7));
    }

    #[test]
    fn a_page_is_accessible_and_has_memory_as_long_as_its_object_is_there() {
        let (list, arena) = registry!(2 * 1);
        let number = list.insert(|_| 1).unwrap();
        let page = pointer::<[u8; PAGE]>(number);
        // SAFETY: the page of a listed number is valid for reads and writes.
        assert_eq!(unsafe { page.read() }, [0; PAGE]);
        // SAFETY: the page of a listed number is valid for reads and writes.
        unsafe { page.write([0xff; PAGE]) };
        assert!(is_accessible(number) && has_memory(number));
        assert!(!is_accessible(number + PAGE), "an index that has not been used");
        list.remove(number).unwrap();
        assert!(!is_accessible(number) && !has_memory(number));
        // A number that is given back has the same page next, after the other index.
        let room = list.reserve().unwrap();
        assert!(is_accessible(room.number()));
        let unused = room.number();
        drop(room);
        assert!(!is_accessible(unused) && !has_memory(unused));
        assert_eq!(list.insert(|_| 2), Ok(number));
        // SAFETY: the page of a listed number is valid for reads and writes.
        assert_eq!(unsafe { page.read() }, [0; PAGE], "nothing of the previous object");
        assert_eq!(arena.is_protected(number), Some(true));
        assert_eq!(arena.is_protected(number + 1), None);
        assert_eq!(arena.is_protected(number + 2 * PAGE), None);
    }

    #[test]
    fn the_mappings_of_the_process_do_not_grow_with_vdevs_that_come_and_go() {
        let (list, arena) = registry!(512 * 8);
        list.insert(|_| 0).unwrap();
        let range = arena.range().unwrap();
        let mappings = || {
            let text = std::fs::read_to_string("/proc/self/maps").unwrap();
            let start = |line: &str| usize::from_str_radix(line.split('-').next()?, 16).ok();
            let inside = |&at: &usize| at.wrapping_sub(range.base) < range.shape.bytes();
            text.lines().filter_map(start).filter(inside).count()
        };
        let mut kept = std::collections::VecDeque::new();
        for object in 0..5000 {
            kept.push_back(list.insert(|_| object).unwrap());
            if kept.len() > 8 {
                list.remove(kept.pop_front().unwrap()).unwrap();
            }
        }
        assert!(mappings() < 40, "{}", mappings());
    }

    #[test]
    fn less_is_reserved_if_the_host_allows_no_more() {
        let wish = Shape { indexes: OBJECTS_MAX, generations: 16 };
        let gib = 1 << 30;
        let shape = |most| reserve(wish, most, true).unwrap().shape;
        assert_eq!(shape(u64::MAX), wish);
        assert_eq!(shape(16 * gib - 1), Shape { generations: 8, ..wish });
        assert_eq!(shape(gib), Shape { generations: 1, ..wish });
        assert_eq!(shape(gib - 1), Shape { indexes: OBJECTS_MAX / 2, generations: 1 });
        assert_eq!(shape(0), Shape { indexes: INDEXES_MIN, generations: 1 });
        // More than any host has addresses for.
        let huge = Shape { indexes: 1 << 40, generations: 1 };
        let less = reserve(huge, u64::MAX, true).unwrap();
        assert!(less.shape.indexes < huge.indexes && less.shape.indexes.is_power_of_two());
        // SAFETY: nothing uses the range, which no arena has.
        unsafe { mm::munmap(pointer(less.base), less.shape.bytes()) }.unwrap();
    }

    #[test]
    fn pages_that_are_smaller_than_the_host_s_are_not_protected() {
        let wish = Shape { indexes: 64, generations: 1 };
        let range = reserve(wish, u64::MAX, false).unwrap();
        assert!(is_accessible(range.base));
        assert!(!is_accessible(reserve(wish, u64::MAX, true).unwrap().base));
    }
}
