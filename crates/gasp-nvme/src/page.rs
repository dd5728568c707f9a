//! Pages of data that the controller fills in field by field, at the offsets that the
//! specification gives.

/// Bytes that are zero where nothing is put.
pub(super) struct Page<const LEN: usize>([u8; LEN]);

impl<const LEN: usize> Page<LEN> {
    pub(super) fn new() -> Self {
        Self([0; LEN])
    }

    /// Puts bytes at an offset; what passes the end is cut off.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) -> &mut Self {
        let place = self.0.iter_mut().skip(offset);
        place.zip(bytes).for_each(|(place, byte)| *place = *byte);
        self
    }

    /// Puts text, padded with spaces to `len` bytes.
    pub(super) fn put_text(&mut self, offset: usize, len: usize, text: &str) -> &mut Self {
        let padded = text.bytes().chain(core::iter::repeat(b' ')).take(len);
        let place = self.0.iter_mut().skip(offset);
        place.zip(padded).for_each(|(place, byte)| *place = byte);
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
