//! Server options.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use gasp::{DrainPolicy, Residency};
use thiserror::Error;

/// Policy for a file of guest memory that its owner can truncate.
///
/// If the owner truncates it while the device copies, the access ends in SIGBUS, which ends
/// the process and all devices in it. The server seals a memory file against that
/// (`F_SEAL_SHRINK`) if it can, unless its owner is trusted; the policy does not apply to
/// sealed files. Huge pages can be removed even from a sealed file: copies of those are
/// guarded, and fail, unless the owner is trusted.
///
/// In configuration files: `"message"`, `"trust"`, `"refuse"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unsealed {
    /// Treat it as if it had come without a descriptor: each copy is a message. Safe and
    /// slow, and the device cannot map it.
    #[default]
    ByMessage,
    /// Trust its owner, also not to punch holes into huge pages, and not to pass a file
    /// whose file system does not answer.
    Trust,
    /// Refuse it (`EPERM`), and also memory that the VMM maps privately (`EINVAL`).
    Refuse,
}

/// A string that names no [`Unsealed`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("unsealed memory: expected \"message\", \"trust\" or \"refuse\"")]
pub struct UnknownUnsealed;

impl Unsealed {
    const ALL: [(&str, Self); 3] =
        [("message", Self::ByMessage), ("trust", Self::Trust), ("refuse", Self::Refuse)];
}

impl FromStr for Unsealed {
    type Err = UnknownUnsealed;

    fn from_str(text: &str) -> Result<Self, UnknownUnsealed> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, unsealed)| unsealed).ok_or(UnknownUnsealed)
    }
}

impl fmt::Display for Unsealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.into_iter().find(|(_, unsealed)| unsealed == self);
        f.pad(name.map_or("", |(name, _)| name))
    }
}

/// Options of a [`Server`](crate::Server).
///
/// ```
/// use gasp_vfio_user::{Options, Unsealed};
/// let options = Options { unsealed: Unsealed::Refuse, ..Options::default() };
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Mode of the socket file, which says who may connect.
    pub mode: u32,
    /// Maximum number of DMA windows of a client.
    pub max_dma_maps: u32,
    /// Maximum size of all memory files that a client has mapped, in bytes. A file is
    /// mapped whole, however small the window, and all clients of a process share its
    /// address space of 128 TiB.
    pub max_memory: u64,
    /// Maximum number of a client's descriptors that are held at a time: its memory files,
    /// and the eventfds of its interrupts. Further ones are refused (`EMFILE`). A process
    /// needs as many for each of its servers, and some for itself: see `RLIMIT_NOFILE`.
    pub max_descriptors: u32,
    /// Maximum number of a client's unmaps that wait for the device at a time; further ones
    /// are refused (`EBUSY`).
    pub max_drains: u32,
    /// Maximum size of the data in one message, in bytes, at least 4 KiB. A client that
    /// accepts less is sent less; one that accepts less than 4 KiB is refused.
    pub max_data_xfer_size: u32,
    /// Policy for memory files that can be truncated and cannot be sealed.
    pub unsealed: Unsealed,
    /// Residency of guest memory. On demand costs nothing, but host-physical addresses are
    /// then unknown; pinned allocates and pins all of the guest's memory when its first
    /// page is mapped. A client can replace pinned pages with others: a device that asks
    /// for addresses receives them only for the memory of a trusted client
    /// ([`Unsealed::Trust`]), and `EAGAIN` otherwise (decision 20).
    pub residency: Residency,
    /// Policy for unmaps that wait for mappings that the device holds.
    pub drain: DrainPolicy,
    /// Width of device addresses in bits, from 33 to 52. Each further bit doubles the
    /// address space that a connection's tables reserve.
    pub address_width: u32,
    /// Timeout for the rest of a message, for the client to read one, and for the first
    /// message.
    pub patience: Duration,
    /// Timeout for the client's reply to a DMA_READ or DMA_WRITE.
    pub reply_deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: 0o600,
            max_dma_maps: 65_535,
            max_memory: 4 << 40,
            max_descriptors: 512,
            max_drains: 1024,
            max_data_xfer_size: 1 << 20,
            unsealed: Unsealed::default(),
            residency: Residency::OnDemand,
            drain: DrainPolicy::default(),
            address_width: 48,
            patience: Duration::from_secs(10),
            reply_deadline: Duration::from_secs(5),
        }
    }
}
