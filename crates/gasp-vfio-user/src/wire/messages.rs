//! The payloads of commands.

use super::{Fields, Refused};

/// A window of client memory that the device may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DmaMap {
    pub(crate) flags: u32,
    /// Where in the file the window begins.
    pub(crate) offset: u64,
    pub(crate) addr: u64,
    pub(crate) size: u64,
}

impl DmaMap {
    pub(crate) const SIZE: u32 = 32;
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Refused> {
        let mut fields = Fields::new(payload);
        let argsz = fields.u32()?;
        let map = Self {
            flags: fields.u32()?,
            offset: fields.u64()?,
            addr: fields.u64()?,
            size: fields.u64()?,
        };
        fields.end()?;
        check_argsz(argsz, Self::SIZE)?;
        Ok(map)
    }
}

/// A window, or several, that the device may no longer use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DmaUnmap {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) addr: u64,
    pub(crate) size: u64,
    /// The bitmap asked for.
    pub(crate) bitmap: Option<Bitmap>,
}

/// What a bitmap of dirty pages is to look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bitmap {
    /// The bytes that one bit stands for.
    pub(crate) page_size: u64,
    /// How many bytes the bitmap has.
    pub(crate) size: u64,
}

impl DmaUnmap {
    pub(crate) const SIZE: u32 = 24;
    /// A bitmap follows in the reply.
    pub(crate) const DIRTY_BITMAP: u32 =
        vfio_bindings::bindings::vfio::VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
    /// All windows.
    pub(crate) const ALL: u32 = vfio_bindings::bindings::vfio::VFIO_DMA_UNMAP_FLAG_ALL;

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Refused> {
        let mut fields = Fields::new(payload);
        let mut unmap = Self {
            argsz: fields.u32()?,
            flags: fields.u32()?,
            addr: fields.u64()?,
            size: fields.u64()?,
            bitmap: None,
        };
        if unmap.flags & !(Self::DIRTY_BITMAP | Self::ALL) != 0 {
            return Err(Refused::invalid(format!("unknown flags {:#x}", unmap.flags)));
        }
        if unmap.flags & Self::DIRTY_BITMAP != 0 {
            unmap.bitmap = Some(Bitmap { page_size: fields.u64()?, size: fields.u64()? });
        }
        fields.end()?;
        check_argsz(unmap.argsz, Self::SIZE)?;
        Ok(unmap)
    }
}

/// A read or write of a region; the data of a write follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RegionAccess {
    pub(crate) offset: u64,
    pub(crate) region: u32,
    pub(crate) count: u32,
}

/// The bytes of one write among several: an access, and 8 bytes of data.
pub(crate) const WRITE_MULTI_ENTRY: usize = 24;

impl RegionAccess {
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Refused> {
        Ok(Self { offset: fields.u64()?, region: fields.u32()?, count: fields.u32()? })
    }
}

/// What is to be done about interrupts; the data of `DATA_BOOL` follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IrqSet {
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) start: u32,
    pub(crate) count: u32,
}

impl IrqSet {
    const SIZE: u32 = 20;

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Refused> {
        let argsz = fields.u32()?;
        let set = Self {
            flags: fields.u32()?,
            index: fields.u32()?,
            start: fields.u32()?,
            count: fields.u32()?,
        };
        check_argsz(argsz, Self::SIZE)?;
        Ok(set)
    }
}

fn check_argsz(argsz: u32, least: u32) -> Result<(), Refused> {
    match argsz >= least {
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
        let bytes = payload(Reply::new().u32(32).u32(3).u64(0x1000).u64(0x2000).u64(0x3000));
        let map = DmaMap { flags: 3, offset: 0x1000, addr: 0x2000, size: 0x3000 };
        assert_eq!(DmaMap::decode(&bytes), Ok(map));
        for len in (0..bytes.len()).chain([bytes.len() + 1]) {
            let mut wrong = bytes.clone();
            wrong.resize(len, 0);
            assert!(DmaMap::decode(&wrong).is_err(), "{len}");
        }
        let small = payload(Reply::new().u32(31).u32(3).u64(0).u64(0).u64(0));
        assert!(DmaMap::decode(&small).is_err());
    }

    #[test]
    fn an_unmap_has_a_bitmap_exactly_when_its_flag_says_so() {
        let plain = |flags| Reply::new().u32(24).u32(flags).u64(0x1000).u64(0x1000);
        assert!(DmaUnmap::decode(&payload(plain(0))).unwrap().bitmap.is_none());
        assert!(DmaUnmap::decode(&payload(plain(1))).is_err());
        assert!(DmaUnmap::decode(&payload(plain(4))).is_err());
        let with = DmaUnmap::decode(&payload(plain(1).u64(4096).u64(8))).unwrap();
        assert_eq!(with.bitmap, Some(Bitmap { page_size: 4096, size: 8 }));
        assert!(DmaUnmap::decode(&payload(plain(0).u64(4096).u64(8))).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = DmaMap::decode(&bytes);
            let _ = DmaUnmap::decode(&bytes);
            let _ = IrqSet::decode(&mut Fields::new(&bytes));
            let _ = RegionAccess::decode(&mut Fields::new(&bytes));
        }
    }
}
