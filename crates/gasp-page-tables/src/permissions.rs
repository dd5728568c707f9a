//! The permissions in an entry.

use gasp::Access;

/// The bits of an entry that allow to read and to write. A fetch of instructions is a read.
pub(crate) struct Permissions {
    pub(crate) read: u64,
    pub(crate) write: u64,
}

impl Permissions {
    /// The bits that an access asks for.
    #[inline]
    pub(crate) fn bits_of(&self, access: Access) -> u64 {
        let read = if access.intersects(Access::READ | Access::EXEC) { self.read } else { 0 };
        let write = if access.contains(Access::WRITE) { self.write } else { 0 };
        read | write
    }

    /// The access that the bits allow.
    #[inline]
    pub(crate) fn access_of(&self, bits: u64) -> Access {
        let mut access = Access::empty();
        access.set(Access::READ | Access::EXEC, bits & self.read != 0);
        access.set(Access::WRITE, bits & self.write != 0);
        access
    }
}
