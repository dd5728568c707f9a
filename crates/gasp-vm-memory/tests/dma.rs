//! Other implementations of `Dma`: they may translate addresses, and are not trusted to map what
//! was requested.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::num::NonZeroUsize;

use gasp::{Access, DeviceAddr, Dma, Error, MapFlags, Mapping, Result, Scatter, Vdev};
use gasp_vm_memory::{DeviceMemory, Refused};
use support::{PAGE, PAGES, guest, scattered};
use vm_memory::bitmap::{AtomicBitmap, Bitmap};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError, Permissions};

/// A device's memory, of which another range is mapped than requested.
struct Other {
    vdev: Vdev,
    shift: u64,
    most: u64,
    flags: Option<MapFlags>,
}

impl Other {
    fn new(vdev: Vdev) -> Self {
        Self { vdev, shift: 0, most: u64::MAX, flags: None }
    }

    fn at(&self, addr: DeviceAddr) -> DeviceAddr {
        DeviceAddr(addr.0 + self.shift)
    }
}

impl Dma for Other {
    type Error = Error;

    fn map(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Mapping> {
        self.vdev.map(self.at(addr), len.min(self.most), self.flags.unwrap_or(flags))
    }

    fn map_scatter(&self, addr: DeviceAddr, len: u64, flags: MapFlags) -> Result<Scatter> {
        self.vdev.map_scatter(self.at(addr), len.min(self.most), self.flags.unwrap_or(flags))
    }

    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<()> {
        self.vdev.read(self.at(addr), into)
    }

    fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<()> {
        self.vdev.write(self.at(addr), from)
    }
}

#[test]
fn ranges_and_dirty_pages_are_those_of_the_request_if_dma_translates() {
    let guest = guest();
    let vdev = scattered(&guest).0;
    for page in 0..PAGES {
        vdev.write(DeviceAddr(page * PAGE), &[page as u8; PAGE as usize]).unwrap();
    }
    let bitmap = AtomicBitmap::new((PAGES * PAGE) as usize, NonZeroUsize::new(4096).unwrap());
    let dma = Other { shift: 2 * PAGE, ..Other::new(vdev) };
    let memory = DeviceMemory::with_bitmap(dma, bitmap);
    let burst = memory.burst();
    let mut two = [0; 2 * PAGE as usize];
    for page in [0, 2, 4, 2] {
        burst.read_slice(&mut two, GuestAddress(page * PAGE)).unwrap();
        assert_eq!([two[0], two[PAGE as usize]], [page as u8 + 2, page as u8 + 3]);
    }
    burst.write_obj(1_u8, GuestAddress(10 * PAGE)).unwrap();
    burst.write_slice(&[1; 3 * PAGE as usize], GuestAddress(19 * PAGE + 1)).unwrap();
    let dirty = (0..PAGES).filter(|page| memory.bitmap().dirty_at((page * PAGE) as usize));
    assert_eq!(dirty.collect::<Vec<_>>(), [10, 19, 20, 21, 22]);
}

#[test]
fn a_mapping_of_another_length_or_with_less_access_is_not_lent() {
    let guest = guest();
    let vdev = scattered(&guest).0;
    let refused = |dma: Other, len: u64, permissions| {
        let burst = DeviceMemory::new(dma).burst();
        let Err(error) = burst.get_slices(GuestAddress(PAGE), len as usize, permissions) else {
            panic!("{len} bytes are lent");
        };
        assert_eq!(burst.held(), 0);
        let GuestMemoryError::IOError(error) = error else { panic!("{error}") };
        error.get_ref().unwrap().downcast_ref::<Refused>().unwrap().clone()
    };
    // A range in a page is a map of the page.
    for (len, requested_len) in [(8, PAGE), (2 * PAGE, 2 * PAGE)] {
        let short = Other { most: 8, ..Other::new(vdev.clone()) };
        let wrong = |requested_access, len| {
            let access = Access::READ;
            Refused::WrongMapping { addr: PAGE, requested_len, requested_access, len, access }
        };
        let expected = wrong(Access::READ, 8);
        assert_eq!(refused(short, len, Permissions::Read), expected);
        let read_only = Other { flags: Some(MapFlags::READ), ..Other::new(vdev.clone()) };
        let expected = wrong(Access::RW, requested_len);
        assert_eq!(refused(read_only, len, Permissions::ReadWrite), expected);
    }
}
