//! A device on its socket, and the thread that serves it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use core::sync::atomic::{AtomicU64, Ordering};

use gasp_nvme::{Backing, Nvme, NvmeError};
use gasp_qvm::{Loader, PciFailure, PciVdev};
use gasp_vdev::Shell;
use gasp_vdev::dma::DmaEngine;
use gasp_vfio_user::{Options, ServeError, Server, ServerEvent};
use gasp_virtio::VirtioPci;
use gasp_virtio::block::{self, Block, BlockError};
use gasp_virtio::entropy::Entropy;
use parking_lot::Mutex;

use super::device_error::DeviceError;
use super::event::{Counter, Event, FaultOf, Snapshot};
use super::id::Id;
use super::orders::Order;
use super::outbox::Outbox;
use super::plan::{self, Kind, Plan};
use super::sink::Intro;
use super::sockets::Sockets;

/// The least interval between reports that a file of guest memory was mapped.
const EVERY: Duration = Duration::from_secs(1);
/// How long the process waits for its reports to be written if a vdev ends it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A device's own counters, by name.
type Counters = Box<dyn Fn() -> Vec<Counter> + Send + Sync>;

/// A device with its socket.
pub(super) struct Served {
    pub(super) id: Id,
    pub(super) plan: Plan,
    pub(super) name: Arc<str>,
    kind: &'static str,
    /// The socket, absolute.
    path: PathBuf,
    server: Arc<Server>,
    task: Option<JoinHandle<Result<(), ServeError>>>,
    counters: Counters,
    /// Accesses that the guest's IOMMU refused, over all VMMs so far.
    faults: AtomicU64,
    /// Events that were dropped because there were too many.
    untold: Arc<AtomicU64>,
    sockets: Sockets,
    /// The serial number, by which a guest distinguishes controllers, without its padding.
    pub(super) serial: Option<String>,
    /// The vdev in C that it is.
    pub(super) vdev: Option<PciVdev>,
}

impl Served {
    /// Creates the device and its socket.
    pub(super) fn bind(
        id: Id,
        plan: &Plan,
        options: Options,
        loader: &Loader,
        outbox: &Outbox,
        sockets: &Sockets,
    ) -> Result<Self, DeviceError> {
        let Unbound { shell, kind, counters, serial, vdev } =
            Unbound::of(plan, loader, outbox, sockets)?;
        let bind = || Server::bind(&plan.socket, shell, options);
        let server = sockets.add(id, bind).map_err(|why| DeviceError::socket(plan, &why))?;
        let (name, untold) = (Arc::<str>::from(plan.name.as_str()), Arc::<AtomicU64>::default());
        let (device, outbox, lost) = (Arc::clone(&name), outbox.clone(), Arc::clone(&untold));
        // The observer is called on the server's thread and must not block.
        let adopted = Mutex::new(None::<Instant>);
        server.observe(move |event| {
            if matches!(event, ServerEvent::Adopted { .. }) && !is_due(&adopted) {
                return;
            }
            let Some(event) = Event::of(event) else { return };
            if !outbox.offer(&device, event) {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self {
            id,
            plan: plan.clone(),
            name,
            kind,
            path: std::path::absolute(&plan.socket).unwrap_or_else(|_| plan.socket.clone()),
            server: Arc::new(server),
            task: None,
            counters,
            faults: AtomicU64::new(0),
            untold,
            sockets: sockets.clone(),
            serial,
            vdev,
        })
    }

    /// Serves the device on a thread of its own, until [`stop`](Self::stop) or a failure.
    /// `orders` is then sent [`Order::Ended`].
    pub(super) fn start(&mut self, orders: &Sender<Order>) -> Result<(), DeviceError> {
        let (server, ending) = (Arc::clone(&self.server), Ending(self.id, orders.clone()));
        let task = move || {
            // Dropped at the end, also by a panic.
            let _ending = ending;
            server.run()
        };
        let thread = std::thread::Builder::new().name(format!("{} socket", self.name));
        let task = thread.spawn(task).map_err(|error| DeviceError::system(&self.plan, &error))?;
        self.task = Some(task);
        Ok(())
    }

    /// Requests that the thread stops.
    pub(super) fn stop(&self) {
        self.server.stopper().stop();
    }

    /// Joins the thread, which has stopped, and removes the socket. Returns the last state, and
    /// the error if it has failed.
    pub(super) fn end(mut self) -> (Snapshot, Option<String>) {
        let failed = match self.task.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => None,
            Some(Ok(Err(error))) => Some(error.to_string()),
            Some(Err(_)) => Some("its thread panicked".into()),
        };
        (self.snapshot(), failed)
    }

    /// Whether a VMM is attached.
    pub(super) fn is_attached(&self) -> bool {
        self.server.status().attached
    }

    /// The device's first report.
    pub(super) fn intro(&self) -> Intro {
        Intro { name: Arc::clone(&self.name), kind: self.kind, socket: self.path.clone() }
    }

    /// The faults since the last call.
    ///
    /// The guest's IOMMU keeps them until they are read, and they are lost with it: those in
    /// the last moment of a VMM may not be counted.
    pub(super) fn take_faults(&self) -> Option<Event> {
        let faults = self.server.guest()?.take_faults();
        let count = faults.records.len() as u64 + faults.dropped;
        self.faults.fetch_add(count, Ordering::Relaxed);
        let first = faults.records.first().map(|fault| FaultOf {
            addr: fault.addr.0,
            access: fault.access.to_string(),
            reason: fault.refusal.to_string(),
        });
        (count > 0).then_some(Event::Faults { count, first })
    }

    /// The current state.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            status: self.server.status(),
            faults: self.faults.load(Ordering::Relaxed),
            untold: self.untold.load(Ordering::Relaxed),
            failed: self.vdev.as_ref().is_some_and(PciVdev::has_failed),
            counters: (self.counters)(),
        }
    }
}

/// Whether the last report was long enough ago; if so, it is now. A VMM that has one DMA window
/// at a time causes files to be adopted and released without end; the totals have their number.
fn is_due(last: &Mutex<Option<Instant>>) -> bool {
    let mut last = last.lock();
    let due = last.is_none_or(|last| last.elapsed() >= EVERY);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// Sends the order that a device's thread has ended, when it is dropped there.
struct Ending(Id, Sender<Order>);

impl Drop for Ending {
    fn drop(&mut self) {
        // An error means that the service has ended, and all devices with it.
        let _ = self.1.send(Order::Ended(self.0));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Removes the socket file first, if the device was not stopped before.
        self.stop();
        self.sockets.forget(self.id);
    }
}

/// A device before it has a socket.
struct Unbound {
    shell: Shell,
    kind: &'static str,
    counters: Counters,
    serial: Option<String>,
    vdev: Option<PciVdev>,
}

impl Unbound {
    fn of(
        plan: &Plan,
        loader: &Loader,
        outbox: &Outbox,
        sockets: &Sockets,
    ) -> Result<Self, DeviceError> {
        let mut own = None;
        let (shell, kind, counters, serial): (_, _, Counters, _) = match &plan.kind {
            Kind::Dma => {
                (Shell::new(&plan.name, DmaEngine::new()), "dma", Box::new(Vec::new), None)
            }
            Kind::Nvme(options) => {
                let nvme = nvme(plan, options).map_err(|error| DeviceError::disk(plan, &error))?;
                let (counters, serial) = (nvme.counters(), nvme.serial().trim_end().to_owned());
                let counted = Box::new(move || counted(counters.snapshot()));
                (Shell::new(&plan.name, nvme), "nvme", counted, Some(serial))
            }
            Kind::VirtioBlk(options) => {
                let block =
                    virtio_blk(plan, options).map_err(|error| DeviceError::block(plan, &error))?;
                let serial = block.serial().trim_end().to_owned();
                let shell = Shell::new(&plan.name, VirtioPci::new(block));
                (shell, "virtio-blk", Box::new(Vec::new), Some(serial))
            }
            Kind::VirtioRng => {
                let shell = Shell::new(&plan.name, VirtioPci::new(Entropy::new()));
                (shell, "virtio-rng", Box::new(Vec::new), None)
            }
            Kind::Vdev(vdev) => {
                let (outbox, name) = (outbox.clone(), Arc::<str>::from(plan.name.as_str()));
                let sockets = sockets.clone();
                let told = move |failure: &PciFailure| {
                    if let PciFailure::Stuck(_) = failure {
                        // The process ends when this returns.
                        sockets.remove_all();
                        std::thread::sleep(LAST_WORDS);
                        return;
                    }
                    // One that is dropped is in the log all the same.
                    outbox.offer(&name, Event::VdevFailed { why: failure.to_string() });
                };
                let vdev = vdev.create(plan, loader, told)?;
                let shell = Shell::new(&plan.name, vdev.clone());
                own = Some(vdev);
                (shell, "vdev", Box::new(Vec::new), None)
            }
        };
        // Every device model here is a PCI function, which a shell accepts.
        let shell = shell.map_err(|error| DeviceError::system(plan, &io::Error::other(error)))?;
        Ok(Self { shell, kind, counters, serial, vdev: own })
    }
}

/// What a disk is stored in, and its serial if it is not derived from the file: given, or derived
/// from the socket.
fn backing(plan: &Plan, options: &plan::Disk) -> (Backing, Option<String>) {
    let by_socket = || Some(serial(&plan.socket));
    let (backing, derived) = match &options.backing {
        plan::Backing::Null(size) => (Backing::null(*size), by_socket()),
        plan::Backing::Memory(size) => (Backing::memory(*size), by_socket()),
        plan::Backing::File(path) => (Backing::file(path), None),
    };
    (backing, options.serial.clone().or(derived))
}

fn virtio_blk(plan: &Plan, options: &plan::Disk) -> Result<Block, BlockError> {
    let own = block::Options::default();
    let (backing, serial) = backing(plan, options);
    let block_size = options.block_size.unwrap_or(own.block_size);
    Block::new(&backing, block::Options { block_size, serial, ..own })
}

fn nvme(plan: &Plan, options: &plan::Disk) -> Result<Nvme, NvmeError> {
    let own = gasp_nvme::Options::default();
    let (backing, serial) = backing(plan, options);
    let options = gasp_nvme::Options {
        block_size: options.block_size.unwrap_or(own.block_size),
        queues: options.queues.unwrap_or(own.queues),
        serial,
        ..own
    };
    Nvme::new(&backing, options)
}

/// A serial number that is stable and unique among the disks of a guest: the FNV-1a hash of the
/// socket's path.
fn serial(socket: &Path) -> String {
    let path = std::path::absolute(socket).unwrap_or_else(|_| socket.into());
    let bytes = path.as_os_str().as_bytes().iter();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("gasp{hash:016x}")
}

fn counted(now: gasp_nvme::Snapshot) -> Vec<Counter> {
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
