//! A device as the user requests it, before any check.

/// A requested device, with the keys of the file.
#[derive(Clone, Default, Debug)]
pub(super) struct Requested {
    pub(super) kind: String,
    pub(super) name: Option<String>,
    pub(super) socket: String,
    pub(super) backing: Option<String>,
    pub(super) block_size: Option<u64>,
    pub(super) queues: Option<u64>,
    pub(super) serial: Option<String>,
    pub(super) vdev: Option<String>,
    pub(super) path: Option<String>,
    pub(super) loc: Option<String>,
    pub(super) options: Option<Vec<String>>,
    pub(super) mode: Option<u64>,
    pub(super) unsealed: Option<String>,
    pub(super) max_memory: Option<String>,
    pub(super) max_dma_maps: Option<u64>,
    pub(super) max_descriptors: Option<u64>,
    pub(super) max_drains: Option<u64>,
}

impl Requested {
    /// The name, or by default the kind and a number.
    pub(super) fn label(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("{}{index}", self.kind))
    }
}

/// Which key of a requested device is wrong, and why.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Wrong {
    pub(super) key: &'static str,
    pub(super) message: String,
}

pub(super) fn wrong<T>(key: &'static str, message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { key, message: message.into() })
}
