//! Vendor-specific capabilities, and the window that one of them can be.

/// A vendor-specific capability (PCI Local Bus 3.0, appendix H: capability ID 09h).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VendorCapability {
    /// Its bytes after ID, pointer to the next capability and length.
    pub contents: Vec<u8>,
    /// The bits of [`contents`](Self::contents) that the guest can write; bytes past the end of this
    /// cannot be written.
    pub writable: Vec<u8>,
    /// Whether it is a window on the BARs.
    pub window: Option<Window>,
}

/// A window on the BARs, for a guest that cannot map them: an access to its data register is an
/// access to the BAR, offset and length that its other registers select
/// (virtio 1.2, 4.1.4.9: `VIRTIO_PCI_CAP_PCI_CFG`).
///
/// Each field is where a register is in [`contents`](VendorCapability::contents). An access is made
/// if the length is 1, 2 or 4, and the offset a multiple of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// The index of the BAR: 1 byte.
    pub bar: u8,
    /// The offset in the BAR: 4 bytes.
    pub offset: u8,
    /// The length of an access: 4 bytes.
    pub len: u8,
    /// The data: 4 bytes.
    pub data: u8,
}

/// ID, pointer to the next capability, length.
pub(super) const HEADER: usize = 3;

/// An access to a BAR through a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WindowAccess {
    pub(crate) bar: u32,
    pub(crate) offset: u64,
    /// 1, 2 or 4.
    pub(crate) len: usize,
}

impl VendorCapability {
    /// A capability that cannot be written.
    pub const fn new(contents: Vec<u8>) -> Self {
        Self { contents, writable: Vec::new(), window: None }
    }

    /// Its length in configuration space, in bytes.
    pub(super) fn len(&self) -> usize {
        HEADER + self.contents.len()
    }

    /// Whether the registers of the window are inside.
    pub(super) fn is_window_inside(&self) -> bool {
        let ends = self.window.map(|window| {
            let Window { bar, offset, len, data } = window;
            [bar.into(), usize::from(offset) + 3, usize::from(len) + 3, usize::from(data) + 3]
        });
        ends.iter().flatten().all(|&end| end < self.contents.len())
    }
}
