//! A request of the driver: its chain of descriptors, read and checked once.

use gasp_virtio::Broken;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::abi::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE};

/// The bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// The most bytes of a request (virtio 1.2, 2.7.5.2).
const BYTES_MAX: u64 = 1 << 32;

/// One buffer of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    /// The device writes to it.
    pub(super) writable: bool,
    /// Its index in the queue's table; `None` in an indirect table.
    pub(super) index: Option<u16>,
}

/// A request. What the guest writes to its descriptors afterwards changes nothing.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// At least one.
    pub(super) descriptors: Box<[Descriptor]>,
}

impl Chain {
    /// Reads the descriptors from `head` on, of a queue of `size` entries with its table at `table`.
    pub(super) fn read(
        memory: &impl GuestMemory,
        table: u64,
        size: u16,
        head: u16,
    ) -> Result<Self, Broken> {
        let wrong = || Broken::Chain { head };
        let (mut table, mut entries, mut index) = (table, u64::from(size), head);
        let (mut indirect, mut writes, mut bytes) = (false, false, 0_u64);
        let mut descriptors = Vec::new();
        // Each round adds a descriptor, but the one that enters an indirect table.
        loop {
            // No chain is longer than its queue, wherever its descriptors are (2.7.5.2, 2.7.5.3.1).
            if descriptors.len() >= usize::from(size) || u64::from(index) >= entries {
                return Err(wrong());
            }
            let at = table.checked_add(u64::from(index) * DESCRIPTOR).ok_or_else(wrong)?;
            let [addr, rest] = memory.read_obj::<[u64; 2]>(GuestAddress(at)).map_err(rings)?;
            let (addr, rest) = (u64::from_le(addr), u64::from_le(rest));
            let (len, flags, next) = (rest as u32, (rest >> 32) as u16, (rest >> 48) as u16);
            let flags = u32::from(flags);
            if flags & DESC_INDIRECT != 0 {
                // Neither nested, nor in the middle (2.7.5.3.1).
                let whole = len > 0 && u64::from(len) % DESCRIPTOR == 0;
                if indirect || flags & DESC_NEXT != 0 || !whole {
                    return Err(wrong());
                }
                (table, entries, index) = (addr, u64::from(len) / DESCRIPTOR, 0);
                indirect = true;
                continue;
            }
            let writable = flags & DESC_WRITE != 0;
            if writes && !writable {
                return Err(Broken::Order { head });
            }
            writes = writable;
            bytes += u64::from(len);
            if bytes > BYTES_MAX {
                return Err(wrong());
            }
            let index_in_queue = (!indirect).then_some(index);
            descriptors.push(Descriptor { addr, len, writable, index: index_in_queue });
            if flags & DESC_NEXT == 0 {
                return Ok(Self { descriptors: descriptors.into() });
            }
            index = next;
        }
    }
}

/// An error of the rings, with its cause.
#[cold]
pub(super) fn rings(error: impl std::error::Error) -> Broken {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    Broken::Rings(format!("{error}{cause}"))
}
