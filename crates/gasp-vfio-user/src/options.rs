//! Server options.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use gasp::{DrainPolicy, Residency};
use thiserror::Error;

/// What to do with a file of guest memory whose owner can make it shorter.
///
/// If it does while the device copies, the access ends in SIGBUS, and with it the process
/// and all devices in it. A memory file that can be sealed against that (`F_SEAL_SHRINK`) is
/// sealed by the server unless its owner is trusted, and is no such file. Huge pages can be
/// taken out of a sealed file, too: copies of those are guarded, and fail, unless the owner
/// is trusted.
///
/// As text, in configurations: `"message"`, `"trust"`, `"refuse"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unsealed {
    /// Use it as if it had come without a descriptor: each copy is a message. Safe, slow,
    /// and the device cannot map it.
    #[default]
    ByMessage,
    /// Trust its owner, also not to punch holes into huge pages, and to hand over no file
    /// whose file system does not answer.
    Trust,
    /// Refuse it (`EPERM`), and memory that the VMM maps privately (`EINVAL`).
    Refuse,
}

/// A name that is none of [`Unsealed`]'s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("unsealed memory: \"message\", \"trust\" or \"refuse\" is needed")]
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

/// How a device is served.
///
/// ```
/// use gasp_vfio_user::{Options, Unsealed};
/// let options = Options { unsealed: Unsealed::Refuse, ..Options::default() };
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may connect: the mode of the socket file.
    pub mode: u32,
    /// The most windows of memory that a client may have at a time.
    pub max_dma_maps: u32,
    /// The most bytes of memory files that a client may have mapped at a time. A file is
    /// mapped whole, however small the window, and all clients of a process share its
    /// address space of 128 TiB.
    pub max_memory: u64,
    /// The most descriptors of a client that are held at a time: its memory files, and the
    /// eventfds of its interrupts. More are refused (`EMFILE`). A process needs as many for
    /// each of its servers, and some for itself: see `RLIMIT_NOFILE`.
    pub max_descriptors: u32,
    /// The most unmaps of a client that wait for the device at a time; more are refused
    /// (`EBUSY`).
    pub max_drains: u32,
    /// The most bytes of data in one message, from 4 KiB up; clients that say less are
    /// sent less, and those that say less than 4 KiB are sent away.
    pub max_data_xfer_size: u32,
    /// What to do with memory that can be cut off, and cannot be sealed here.
    pub unsealed: Unsealed,
    /// How firmly to hold the pages of guest memory. On demand costs nothing, but
    /// host-physical addresses are then not known; pinned puts all of the guest's memory
    /// in place when its first page is mapped. A client can put other pages in the place of
    /// pinned ones: a device that asks for addresses has them only of a client that is
    /// trusted ([`Unsealed::Trust`]), and `EAGAIN` of others (decision 20).
    pub residency: Residency,
    /// How long an unmap waits for mappings that the device holds.
    pub drain: DrainPolicy,
    /// How many bits device addresses have, from 33 to 52. Each bit more doubles the room
    /// that a connection's tables reserve.
    pub address_width: u32,
    /// How long to wait for the rest of a message, for the client to take one, and for
    /// the first one.
    pub patience: Duration,
    /// How long a copy by message waits for the client.
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
