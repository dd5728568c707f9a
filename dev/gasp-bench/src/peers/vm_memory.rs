//! vm-memory 0.18, as its own documentation suggests: `IommuMemory` over an `Iotlb` in an
//! `RwLock`, and `GuestMemoryMmap` without an IOMMU.

use std::hint::black_box;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use gasp::{GRANULE, Location, Operation, Reason};
use vm_memory::iommu::{Error, IotlbIterator};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, Iommu, IommuMemory,
    Iotlb, Permissions,
};

use super::setup::{Setup, target};

/// An IOTLB as vm-memory's documentation suggests it.
#[derive(Debug, Default)]
pub(crate) struct Locked(RwLock<Iotlb>);

impl Locked {
    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Iotlb> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Iommu for Locked {
    type IotlbGuard<'a> = RwLockReadGuard<'a, Iotlb>;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<Self::IotlbGuard<'_>>, Error> {
        let iotlb = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Iotlb::lookup(iotlb, iova, length, access).map_err(|_| Error::IommuMisconfigured {
            reason: "the benchmark accesses an address that it has not granted".into(),
        })
    }
}

pub(crate) struct VmMemory {
    pub(crate) plain: GuestMemoryMmap,
    pub(crate) iommu: IommuMemory<GuestMemoryMmap, Locked>,
}

impl VmMemory {
    pub(crate) fn without_iommu(setup: &Setup) -> gasp::Result<Self> {
        Self::with_grants(setup, 0)
    }

    /// The same grants as those of the guest of `setup`.
    pub(crate) fn with_grants(setup: &Setup, grants: u64) -> gasp::Result<Self> {
        let len = setup.memory.len();
        let fail = |what| {
            gasp::Error::new(
                Operation::CreateMemory,
                Location::Offset(0),
                len,
                Reason::Invalid(what),
            )
        };
        let ranges = [(GuestAddress(0), len as usize)];
        let plain = GuestMemoryMmap::<()>::from_ranges(&ranges)
            .map_err(|_| fail("vm-memory cannot map its memory"))?;
        let locked = Locked::default();
        for page in 0..grants {
            let (iova, to) = (GuestAddress(page * GRANULE), GuestAddress(target(page)));
            locked
                .write()
                .set_mapping(iova, to, GRANULE as usize, Permissions::ReadWrite)
                .map_err(|_| fail("vm-memory refuses a mapping"))?;
        }
        let iommu = IommuMemory::new(plain.clone(), locked, true, ());
        Ok(Self { plain, iommu })
    }

    pub(crate) fn get_slice(&self, addr: u64, len: u64) {
        let slice = GuestMemoryBackend::get_slice(&self.plain, GuestAddress(addr), len as usize);
        black_box(slice.is_ok());
    }

    pub(crate) fn get_slices(&self, addr: u64, len: u64) {
        let addr = GuestAddress(addr);
        if let Ok(slices) = self.iommu.get_slices(addr, len as usize, Permissions::ReadWrite) {
            slices.for_each(|slice| {
                black_box(slice.is_ok());
            });
        }
    }

    pub(crate) fn read(&self, addr: u64, into: &mut [u8]) {
        black_box(self.iommu.read_slice(into, GuestAddress(addr)).is_ok());
    }

    pub(crate) fn set_and_invalidate(&self, addr: u64) {
        let iova = GuestAddress(addr);
        let (to, len) = (GuestAddress(GRANULE), GRANULE as usize);
        let set = self.iommu.iommu().write().set_mapping(iova, to, len, Permissions::ReadWrite);
        self.iommu.iommu().write().invalidate_mapping(iova, len);
        black_box(set.is_ok());
    }
}
