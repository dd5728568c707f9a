//! A device on its socket, and the thread that serves it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::JoinHandle;

use core::sync::atomic::{AtomicU64, Ordering};

use gasp_vdev::Shell;
use gasp_vdev::devices::dma::DmaEngine;
use gasp_vdev::devices::nvme::{self, Backing, Nvme, NvmeError};
use gasp_vfio_user::{Options, Server};

use super::Notice;
use super::event::{Counter, Event, Snapshot};
use super::plan::{self, Kind, Plan};
use crate::failure::Failure;

/// A thread that serves.
pub(super) type Task = JoinHandle<()>;

/// What a device counts by itself, by name.
type Counters = Box<dyn Fn() -> Vec<Counter>>;

/// A device whose socket is there.
pub(super) struct Served {
    index: usize,
    pub(super) name: String,
    pub(super) kind: &'static str,
    /// The socket, absolute.
    pub(super) path: PathBuf,
    pub(super) server: Arc<Server>,
    counters: Counters,
    /// Accesses that the guest's IOMMU refused, of all VMMs so far.
    pub(super) faults: AtomicU64,
    /// Events that could not be told, because there were too many.
    pub(super) untold: Arc<AtomicU64>,
}

impl Served {
    /// Makes the device, and listens.
    pub(super) fn bind(
        index: usize,
        plan: &Plan,
        options: Options,
        sender: &SyncSender<Notice>,
    ) -> Result<Self, Failure> {
        let (shell, kind, counters) = make(plan)?;
        let server = Server::bind(&plan.socket, shell, options).map_err(Failure::Socket)?;
        let untold = Arc::new(AtomicU64::new(0));
        let (sender, lost) = (sender.clone(), Arc::clone(&untold));
        // Called on the server's thread: nothing that waits.
        server.observe(move |happened| {
            let Some(event) = Event::of(happened) else { return };
            if let Err(TrySendError::Full(_)) = sender.try_send(Notice::Event(index, event)) {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self {
            index,
            name: plan.name.clone(),
            kind,
            path: std::path::absolute(&plan.socket)?,
            server: Arc::new(server),
            counters,
            faults: AtomicU64::new(0),
            untold,
        })
    }

    /// Serves, on a thread of its own, until it is told to stop.
    pub(super) fn start(&self, sender: &SyncSender<Notice>) -> io::Result<Task> {
        let (server, sender, index) = (Arc::clone(&self.server), sender.clone(), self.index);
        let name = format!("{} socket", self.name);
        std::thread::Builder::new().name(name).spawn(move || {
            if let Err(error) = server.run() {
                tracing::error!(device = index, %error, "a server ends");
                // Where nobody listens any longer, all end.
                let _ = sender.send(Notice::Ended(error));
            }
        })
    }

    /// How it stands.
    pub(super) fn snapshot(&self) -> Snapshot {
        let (status, faults) = (self.server.status(), self.faults.load(Ordering::Relaxed));
        Snapshot::new(&status, faults, (self.counters)(), self.untold.load(Ordering::Relaxed))
    }
}

fn make(plan: &Plan) -> Result<(Shell, &'static str, Counters), Failure> {
    let (shell, kind, counters): (_, _, Counters) = match &plan.kind {
        Kind::Dma => (Shell::new(&plan.name, DmaEngine::new()), "dma", Box::new(Vec::new)),
        Kind::Nvme(wanted) => {
            let nvme = nvme(plan, wanted).map_err(Failure::Disk)?;
            let counters = nvme.counters();
            let shell = Shell::new(&plan.name, nvme);
            (shell, "nvme", Box::new(move || counted(counters.snapshot())))
        }
    };
    // Every model here is that of a PCI function.
    Ok((shell.map_err(io::Error::other)?, kind, counters))
}

fn nvme(plan: &Plan, wanted: &plan::Nvme) -> Result<Nvme, NvmeError> {
    let backing = match &wanted.backing {
        plan::Backing::Null(size) => Backing::null(*size),
        plan::Backing::Memory(size) => Backing::memory(*size),
        plan::Backing::File(path) => Backing::file(path),
    };
    let own = nvme::Options::default();
    // A disk in a file is told by the file, another by its socket.
    let by_socket = || match wanted.backing {
        plan::Backing::File(_) => None,
        _ => Some(serial(&plan.socket)),
    };
    let options = nvme::Options {
        block_size: wanted.block_size.unwrap_or(own.block_size),
        queues: wanted.queues.unwrap_or(own.queues),
        serial: wanted.serial.clone().or_else(by_socket),
        ..own
    };
    Nvme::new(&backing, options)
}

/// A serial that stays, and that no other disk of the same guest has: it is made of the
/// socket's path (with FNV-1a).
fn serial(socket: &Path) -> String {
    let path = std::path::absolute(socket).unwrap_or_else(|_| socket.into());
    let bytes = path.as_os_str().as_bytes().iter();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("gasp{hash:016x}")
}

fn counted(now: nvme::Snapshot) -> Vec<Counter> {
    vec![
        ("reads", now.reads),
        ("read_bytes", now.read_bytes),
        ("writes", now.writes),
        ("written_bytes", now.written_bytes),
        ("flushes", now.flushes),
        ("zeroes", now.zeroes),
        ("admin", now.admin),
        ("errors", now.errors),
        ("interrupts", now.interrupts),
        ("starts", now.starts),
    ]
}
