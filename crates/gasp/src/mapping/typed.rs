//! Reads and writes of values of a fixed layout.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::handle::Mapping;
use super::scatter::Scatter;
use crate::error::Result;

macro_rules! typed {
    ($($handle:ident),*) => {$(
        impl $handle {
            /// Copies a value of a fixed layout out of the mapping, from `offset` in bytes. The
            /// guest may write the memory meanwhile, so parts of the value can be of different
            /// moments.
            ///
            /// # Errors
            /// As [`read_at`](Self::read_at).
            pub fn read_obj<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
                let mut value = T::new_zeroed();
                self.read_at(offset, value.as_mut_bytes())?;
                Ok(value)
            }

            /// Copies a value of a fixed layout into the mapping, to `offset` in bytes.
            ///
            /// # Errors
            /// As [`write_at`](Self::write_at).
            pub fn write_obj<T: IntoBytes + Immutable + ?Sized>(
                &self,
                offset: usize,
                value: &T,
            ) -> Result<()> {
                self.write_at(offset, value.as_bytes())
            }
        }
    )*};
}
typed!(Mapping, Scatter);
