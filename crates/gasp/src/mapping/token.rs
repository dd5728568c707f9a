//! Mappings as plain data: for C, where handles are copied, kept in tables, and used after they
//! are stale.

use super::handle::Mapping;
use super::hold::after_release;
use crate::protocol::{Lane, Slot, lane_of, slot_by_id};

/// A mapping as three numbers, which may be copied and passed on freely; see
/// [`Mapping::into_token`].
///
/// A token is valid until [`unmap`](Self::unmap) is called with it or with a copy. A token that
/// was unmapped before, is zeroed or made up is harmless: it has no address, and
/// unmapping it does nothing (decisions 17 and 18). The numbers are the id of the mapping's slot,
/// the mapping's stamp, which no other mapping in that slot ever has, and its address; a token is
/// valid only if all three agree with the slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Token([u64; 3]);

impl Mapping {
    /// Turns the mapping into plain data. It lives until [`Token::unmap`]; if that is never
    /// called, it lives for ever, and a drain of its range with [`Deadline::Wait`] never ends.
    ///
    /// [`Deadline::Wait`]: crate::Deadline::Wait
    #[inline]
    pub fn into_token(self) -> Token {
        let pointer = self.as_ptr();
        self.into_token_at(pointer)
    }

    /// [`into_token`](Self::into_token) with another address.
    #[inline]
    pub(super) fn into_token_at(self, pointer: *const u8) -> Token {
        let pointer = pointer.expose_provenance() as u64;
        let (slot, stamp) = self.into_hold().into_token(pointer);
        Token([slot, stamp, pointer])
    }
}

impl Token {
    /// A token from its numbers; any are accepted.
    #[inline]
    pub fn from_words(words: [u64; 3]) -> Self {
        Self(words)
    }

    /// The numbers.
    #[inline]
    pub fn words(self) -> [u64; 3] {
        self.0
    }

    /// The address of the mapping's first byte; `None` if the token is not valid (decision 18).
    /// Another thread can unmap it at any time.
    #[inline]
    pub fn pointer(self) -> Option<*mut u8> {
        let [_, stamp, pointer] = self.0;
        let found = self.slot()?.token_pointer(stamp)?;
        (found == pointer).then(|| core::ptr::with_exposed_provenance_mut(pointer as usize))
    }

    /// Ends the mapping, on any thread, and returns whether there was one (decision 17). (If the
    /// thread that has mapped and another one unmap at the same moment, it may return `true` to
    /// both.)
    #[inline]
    pub fn unmap(self) -> bool {
        let [_, stamp, pointer] = self.0;
        let Some(slot) = self.slot() else { return false };
        if !slot.is_token(stamp, pointer) {
            return false;
        }
        let released = match Lane::is_current_index(lane_of(slot.id())) {
            true => {
                slot.release();
                true
            }
            false => slot.release_token(stamp),
        };
        if released {
            after_release(slot, stamp);
        }
        released
    }

    /// Whether a drain of the range has ended without the mapping, as [`Mapping::is_revoked`];
    /// `None` if the token is not valid.
    pub fn is_revoked(self) -> Option<bool> {
        let [_, stamp, _] = self.0;
        self.pointer()?;
        Some(self.slot()?.is_revoked(stamp))
    }

    #[inline]
    fn slot(self) -> Option<&'static Slot> {
        slot_by_id(self.0[0])
    }
}
