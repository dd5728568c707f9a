//! The payloads of commands and of their replies.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::fields::Fields;
use super::refused::Refused;

const _: () = assert!(size_of::<DmaMap>() == 32);
const _: () = assert!(size_of::<DmaUnmap>() == 24);
const _: () = assert!(size_of::<Bitmap>() == 16);
const _: () = assert!(size_of::<RegionAccess>() == 16);
const _: () = assert!(size_of::<IrqSet>() == 20);
const _: () = assert!(size_of::<DeviceInfo>() == 16);
const _: () = assert!(size_of::<RegionInfo>() == 32);
const _: () = assert!(size_of::<SparseMmap>() == 16);
const _: () = assert!(size_of::<IrqInfo>() == 16);

/// DMA_MAP: a window of client memory that the device may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct DmaMap {
    argsz: u32,
    pub(crate) flags: u32,
    /// Offset of the window in the file.
    pub(crate) offset: u64,
    pub(crate) addr: u64,
    pub(crate) size: u64,
}

impl DmaMap {
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Refused> {
        let mut fields = Fields::new(payload);
        let map: Self = fields.read()?;
        fields.end()?;
        check_argsz(map.argsz, size_of::<Self>())?;
        Ok(map)
    }
}

/// DMA_UNMAP: the windows of a range, which the device may no longer use. The reply begins
/// with the same structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct DmaUnmap {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) size: u64,
}

/// The requested format of a bitmap of dirty pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Bitmap {
    /// Number of bytes that one bit stands for.
    pub(crate) page_size: u64,
    /// Size of the bitmap in bytes.
    pub(crate) size: u64,
}

impl DmaUnmap {
    /// Size in bytes without a bitmap.
    pub(crate) const SIZE: u32 = size_of::<Self>() as u32;
    /// A bitmap is requested, and follows in the reply.
    pub(crate) const DIRTY_BITMAP: u32 =
        vfio_bindings::bindings::vfio::VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
    /// All windows.
    pub(crate) const ALL: u32 = vfio_bindings::bindings::vfio::VFIO_DMA_UNMAP_FLAG_ALL;

    /// The command, and the bitmap if one is requested.
    pub(crate) fn decode(payload: &[u8]) -> Result<(Self, Option<Bitmap>), Refused> {
        let mut fields = Fields::new(payload);
        let unmap: Self = fields.read()?;
        if unmap.flags & !(Self::DIRTY_BITMAP | Self::ALL) != 0 {
            return Err(Refused::invalid(format!("unknown flags {:#x}", unmap.flags)));
        }
        let requested = unmap.flags & Self::DIRTY_BITMAP != 0;
        let bitmap = if requested { Some(fields.read()?) } else { None };
        fields.end()?;
        check_argsz(unmap.argsz, size_of::<Self>())?;
        Ok((unmap, bitmap))
    }

    /// Size in bytes of a reply that ends with `bitmap`, which may be more than `argsz` can
    /// say.
    pub(crate) fn reply_size(bitmap: Bitmap) -> u64 {
        (size_of::<Self>() as u64 + size_of::<Bitmap>() as u64).saturating_add(bitmap.size)
    }
}

/// REGION_READ and REGION_WRITE; the data of a write follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct RegionAccess {
    pub(crate) offset: u64,
    pub(crate) region: u32,
    pub(crate) count: u32,
}

/// Size of one write of REGION_WRITE_MULTI: an access, and 8 bytes of data.
pub(crate) const WRITE_MULTI_ENTRY: usize = size_of::<RegionAccess>() + 8;

/// DEVICE_SET_IRQS; the data of `DATA_BOOL` follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes)]
#[repr(C)]
pub(crate) struct IrqSet {
    argsz: u32,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) start: u32,
    pub(crate) count: u32,
}

impl IrqSet {
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Refused> {
        let set: Self = fields.read()?;
        check_argsz(set.argsz, size_of::<Self>())?;
        Ok(set)
    }
}

/// The reply to DEVICE_GET_INFO.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct DeviceInfo {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) regions: u32,
    pub(crate) irqs: u32,
}

/// The reply to DEVICE_GET_REGION_INFO; capabilities may follow.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct RegionInfo {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    /// Offset of the first capability in the reply; 0 if there is none.
    pub(crate) capabilities: u32,
    pub(crate) size: u64,
    /// Offset of the region in its descriptor.
    pub(crate) offset: u64,
}

/// The capability of a region of which only some areas may be mapped; the offset and length
/// of each area follow.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct SparseMmap {
    pub(crate) id: u16,
    pub(crate) version: u16,
    /// Offset of the next capability in the reply; 0 if there is none.
    pub(crate) next: u32,
    pub(crate) areas: u32,
    pub(crate) reserved: u32,
}

/// The reply to DEVICE_GET_IRQ_INFO.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct IrqInfo {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) count: u32,
}

fn check_argsz(argsz: u32, least: usize) -> Result<(), Refused> {
    match argsz as usize >= least {
        true => Ok(()),
        false => Err(Refused::invalid(format!("argsz is {argsz}, and at least {least} is needed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reply;
    use super::*;
    use proptest::prelude::*;

    fn payload(reply: Reply) -> Vec<u8> {
        reply.command(0, 0).split_off(16)
    }

    #[test]
    fn a_map_of_every_wrong_length_is_refused() {
        let bytes = payload(Reply::new().put(&[32, 3_u32]).put(&[0x1000, 0x2000, 0x3000_u64]));
        let map = DmaMap { argsz: 32, flags: 3, offset: 0x1000, addr: 0x2000, size: 0x3000 };
        assert_eq!(DmaMap::decode(&bytes), Ok(map));
        for len in (0..bytes.len()).chain([bytes.len() + 1]) {
            let mut wrong = bytes.clone();
            wrong.resize(len, 0);
            assert!(DmaMap::decode(&wrong).is_err(), "{len}");
        }
        let small = payload(Reply::new().put(&DmaMap { argsz: 31, ..map }));
        assert!(DmaMap::decode(&small).is_err());
    }

    #[test]
    fn an_unmap_has_a_bitmap_exactly_when_its_flag_says_so() {
        let plain = |flags: u32| Reply::new().put(&[24, flags]).put(&[0x1000, 0x1000_u64]);
        assert!(DmaUnmap::decode(&payload(plain(0))).unwrap().1.is_none());
        assert!(DmaUnmap::decode(&payload(plain(1))).is_err());
        assert!(DmaUnmap::decode(&payload(plain(4))).is_err());
        let with = DmaUnmap::decode(&payload(plain(1).put(&[4096, 8_u64]))).unwrap();
        assert_eq!(with.1, Some(Bitmap { page_size: 4096, size: 8 }));
        assert!(DmaUnmap::decode(&payload(plain(0).put(&[4096, 8_u64]))).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = DmaMap::decode(&bytes);
            let _ = DmaUnmap::decode(&bytes);
            let _ = IrqSet::decode(&mut Fields::new(&bytes));
        }
    }
}
