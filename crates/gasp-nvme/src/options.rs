//! Options of a controller.

use gasp_disk::serial;

use super::error::NvmeError;

/// Options of a controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The block size: 512 or 4096 bytes.
    pub block_size: u32,
    /// The serial number: 1 to 20 printable ASCII characters. Controllers of one guest must differ
    /// in it (or in their model), or the guest takes them for one: the controller's other names are
    /// derived from these two. With `None` it is derived from the file's path, the same each time;
    /// a controller without a file gets a new one. [`Nvme::serial`](crate::Nvme::serial) returns
    /// it.
    pub serial: Option<String>,
    /// The model: 1 to 40 printable ASCII characters.
    pub model: String,
    /// The number of pairs of I/O queues that the guest can create, from 1 to 128. Each pair, and
    /// the admin queues, has an interrupt vector.
    pub queues: u16,
    /// The maximum number of entries of an I/O queue, from 2 to 65,536.
    pub entries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { block_size: 512, serial: None, model: "gasp".into(), queues: 8, entries: 1024 }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), NvmeError> {
        let printable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let fits = |text: &str, len| !text.is_empty() && text.len() <= len && printable(text);
        let fail = |what| Err(NvmeError::Option(what));
        if ![512, 4096].contains(&self.block_size) {
            return fail("the block size must be 512 or 4096 bytes");
        }
        let serial = self.serial.as_ref();
        if serial.is_some_and(|text| !fits(text, serial::LEN_MAX)) || !fits(&self.model, 40) {
            return fail("a serial must have 1 to 20, a model 1 to 40 printable ASCII characters");
        }
        if !(1..=128).contains(&self.queues) || !(2..=65_536).contains(&self.entries) {
            return fail("there must be 1 to 128 I/O queues, of 2 to 65536 entries");
        }
        Ok(())
    }
}
