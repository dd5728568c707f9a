//! The kinds of devices, and how they are created.

use core::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use gasp::Errno;
use gasp_nvme::{Counters, DiskError, Nvme, NvmeError};
use gasp_vdev::{Device, Shell};
use gasp_virtio::block::{self, Block, BlockError};
use gasp_virtio::entropy::Entropy;
use gasp_virtio::net::{Net, Port};
use gasp_virtio::{Backing, Console, VirtioDevice, VirtioPci};
use rustix::fs::OFlags;

use super::vdevs::function::Function;
use super::vdevs::plan::VdevPlan;
use crate::disk_error;
use crate::output::system_words;
use crate::quantity::parse_some_length;

/// A kind of device, with its options.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Nvme { backing: Backing, options: gasp_nvme::Options },
    Block { backing: Backing, options: block::Options },
    Net { port: PortPlan, mac: Option<[u8; 6]> },
    Console(PathBuf),
    Entropy,
    Vdev(Box<VdevPlan>),
}

/// The other end of a network device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PortPlan {
    Tap(String),
    Unix { own: PathBuf, peer: PathBuf },
}

/// A device, with the counters of an NVMe controller, the socket of a network device, or what a vdev
/// in C has of its machine.
pub(super) struct Created {
    pub(super) shell: Shell,
    pub(super) counters: Option<Counters>,
    pub(super) socket: Option<SocketFile>,
    pub(super) function: Option<Function>,
}

/// The file of a socket, which is removed with this, if it is still the same.
pub(super) struct SocketFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), inode: inode(path) }
    }
}

/// Device and inode number of the file at a path.
fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|there| (there.dev(), there.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it, and created another.
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why a device cannot be created.
pub(super) struct Unavailable {
    pub(super) errno: Errno,
    pub(super) message: String,
}

impl Unavailable {
    fn new(errno: Errno, message: impl Display) -> Self {
        Self { errno, message: message.to_string() }
    }

    fn io(error: &io::Error, message: impl Display) -> Self {
        Self::new(Errno::from_io_error(error).unwrap_or(Errno::IO), message)
    }

    fn disk(error: &DiskError) -> Self {
        Self::new(error.errno(), disk_error::words(error))
    }
}

impl Kind {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Nvme { .. } => "nvme",
            Self::Block { .. } => "virtio-blk",
            Self::Net { .. } => "virtio-net",
            Self::Console(_) => "virtio-console",
            Self::Entropy => "virtio-entropy",
            Self::Vdev(plan) => &plan.kind,
        }
    }

    /// Creates the device.
    pub(super) fn create(&self, name: &str, iommu: bool) -> Result<Created, Unavailable> {
        match self {
            Self::Nvme { backing, options } => {
                let nvme = Nvme::new(backing, options.clone()).map_err(|error| match error {
                    NvmeError::Disk(error) => Unavailable::disk(&error),
                    error => Unavailable::new(error.errno(), error),
                })?;
                let counters = Some(nvme.counters());
                Ok(Created { counters, ..created(name, nvme)? })
            }
            Self::Block { backing, options } => {
                let block = Block::new(backing, options.clone()).map_err(|error| match error {
                    BlockError::Disk(error) => Unavailable::disk(&error),
                    error => Unavailable::new(Errno::INVAL, error),
                })?;
                virtio(name, block, iommu)
            }
            Self::Net { port, mac } => {
                let mac = mac.unwrap_or_else(|| address_of(port));
                let (port, socket) = open_port(port)?;
                Ok(Created { socket, ..virtio(name, Net::new(port, mac), iommu)? })
            }
            Self::Console(path) => {
                let file = open_terminal(path)?;
                let input = file.try_clone().map_err(|error| no_file(path, &error))?;
                virtio(name, Console::new(Some(input), file), iommu)
            }
            Self::Entropy => virtio(name, Entropy::new(), iommu),
            Self::Vdev(plan) => {
                let function = Function::create(plan)
                    .map_err(|error| Unavailable::new(error.errno(), error))?;
                let device = function.vdev.clone();
                Ok(Created { function: Some(function), ..created(name, device)? })
            }
        }
    }
}

fn created(name: &str, device: impl Device) -> Result<Created, Unavailable> {
    let shell = Shell::new(name, device);
    let shell = shell.map_err(|error| Unavailable::new(Errno::INVAL, error))?;
    Ok(Created { shell, counters: None, socket: None, function: None })
}

/// A driver that would not use the IOMMU is refused if there is one.
fn virtio(name: &str, device: impl VirtioDevice, iommu: bool) -> Result<Created, Unavailable> {
    match iommu {
        true => created(name, VirtioPci::behind_iommu(device)),
        false => created(name, VirtioPci::new(device)),
    }
}

fn no_file(path: &Path, error: &io::Error) -> Unavailable {
    let words = format!("{}: {}; check the path", path.display(), system_words(error));
    Unavailable::io(error, words)
}

/// Opens a terminal without waiting for a carrier, and not as the one that controls this process.
fn open_terminal(path: &Path) -> Result<OwnedFd, Unavailable> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| no_file(path, &error))?;
    if file.is_terminal() {
        return Ok(file.into());
    }
    let kind = file.metadata().map_err(|error| no_file(path, &error))?.file_type();
    let what = match kind.is_fifo() {
        true => "a FIFO, from which a console would read its own output",
        false => "no terminal",
    };
    let path = path.display();
    let message = format!(
        "{path} is {what}; give a terminal, such as `socat PTY,link=PATH STDIO` creates at PATH"
    );
    Err(Unavailable::new(Errno::NOTTY, message))
}

fn open_port(port: &PortPlan) -> Result<(Port, Option<SocketFile>), Unavailable> {
    match port {
        PortPlan::Tap(name) => Port::tap(name).map(|port| (port, None)).map_err(|error| {
            let advice = match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => "load the module tun",
                Some(Errno::PERM | Errno::ACCESS) => {
                    "run as root, or have it created for you (`ip tuntap add NAME mode tap user`)"
                }
                Some(Errno::BUSY) => "another program has it; use another name",
                _ => "use the name of a tap interface, of 1 to 15 bytes",
            };
            let words = system_words(&error);
            Unavailable::io(&error, format!("tap interface `{name}`: {words}; {advice}"))
        }),
        PortPlan::Unix { own, peer } => {
            let socket = UnixDatagram::bind(own).map_err(|error| {
                let advice = match error.kind() {
                    io::ErrorKind::AddrInUse => "remove it, or choose another path",
                    _ => "choose another path",
                };
                let words = system_words(&error);
                Unavailable::io(&error, format!("{}: {words}; {advice}", own.display()))
            })?;
            let file = SocketFile::new(own);
            socket.connect(peer).map_err(|error| {
                let words = system_words(&error);
                Unavailable::io(
                    &error,
                    format!("{}: {words}; start the other end first", peer.display()),
                )
            })?;
            Ok((Port::datagrams(socket), Some(file)))
        }
    }
}

/// A locally administered address that is the same for the same port.
fn address_of(port: &PortPlan) -> [u8; 6] {
    let text = match port {
        PortPlan::Tap(name) => name.as_bytes(),
        PortPlan::Unix { own, .. } => own.as_os_str().as_encoded_bytes(),
    };
    // FNV-1a.
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    [2, a, b, c, d, e]
}

/// A disk as `--disk` has it.
pub(super) fn disk(text: &str) -> Result<Kind, String> {
    let (text, read_only) = match text.strip_suffix(",readonly") {
        Some(text) => (text, true),
        None => (text, false),
    };
    if let Some(text) = text.strip_prefix("virtio-blk:") {
        let options = block::Options { read_only, ..block::Options::default() };
        return Ok(Kind::Block { backing: backing(text, Path::new(""))?, options });
    }
    if read_only {
        return Err("an nvme disk cannot be read-only; use virtio-blk:PATH,readonly".into());
    }
    let text = text.strip_prefix("nvme:").unwrap_or(text);
    let options = gasp_nvme::Options::default();
    Ok(Kind::Nvme { backing: backing(text, Path::new(""))?, options })
}

/// A network device as `--net` has it.
pub(super) fn net(text: &str) -> Result<Kind, String> {
    let port = match text.split_once(':') {
        Some(("tap", name)) if !name.is_empty() => PortPlan::Tap(name.into()),
        Some(("unix", paths)) => sockets(paths, Path::new(""))?,
        _ => return Err("expected tap:NAME or unix:OWN:PEER".into()),
    };
    Ok(Kind::Net { port, mac: None })
}

/// Two paths, separated by a colon.
pub(super) fn sockets(paths: &str, folder: &Path) -> Result<PortPlan, String> {
    match paths.split_once(':') {
        Some((own, peer)) if own == peer && !own.is_empty() => {
            Err("the device would receive its own frames; use two different sockets".into())
        }
        Some((own, peer)) if !own.is_empty() && !peer.is_empty() => {
            Ok(PortPlan::Unix { own: folder.join(own), peer: folder.join(peer) })
        }
        _ => Err("expected two sockets, OWN:PEER".into()),
    }
}

/// A backing: `null:SIZE`, `mem:SIZE`, `file:PATH` or a path.
pub(super) fn backing(text: &str, folder: &Path) -> Result<Backing, String> {
    match text.split_once(':') {
        Some(("null", size)) => Ok(Backing::null(parse_some_length(size)?)),
        Some(("mem", size)) => Ok(Backing::memory(parse_some_length(size)?)),
        Some(("file", path)) if !path.is_empty() => Ok(Backing::file(folder.join(path))),
        _ if text.is_empty() => Err("expected the path of an image".into()),
        _ => Ok(Backing::file(folder.join(text))),
    }
}
