//! Serves gasp's virtual devices to VMMs over vfio-user.
//!
//! vfio-user is VFIO, spoken over a Unix socket: the VMM is the client, a device process
//! the server. A [`Server`] puts one device ([`gasp_vdev::Shell`]) on one socket, for one
//! VMM at a time; a process may have as many as it likes. VMMs may come and go, and the
//! device's data stays.
//!
//! ```no_run
//! use gasp_vdev::{Shell, devices::dma::DmaEngine};
//! use gasp_vfio_user::{Options, Server};
//!
//! let shell = Shell::new("dma0", DmaEngine::new())?;
//! let server = Server::bind("/run/dma0.sock", shell, Options::default())?;
//! // qemu-system-x86_64 … -device '{"driver":"vfio-user-pci",
//! //     "socket":{"type":"unix","path":"/run/dma0.sock"}}'
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a VMM gets
//!
//! | command | |
//! |---|---|
//! | VERSION | 0.0; `max_msg_fds`, `max_data_xfer_size`, `max_dma_maps`, `pgsizes`, `write_multiple` |
//! | DMA_MAP | read, write or both; with a descriptor, or by message |
//! | DMA_UNMAP | the whole windows in a range, or all; answered when no mapping is left; dirty bitmap |
//! | DEVICE_GET_INFO, GET_REGION_INFO, GET_IRQ_INFO | BARs, configuration space; sparse mmap areas |
//! | DEVICE_SET_IRQS | INTx, MSI, MSI-X, error, request; eventfds, trigger, mask, unmask |
//! | REGION_READ, REGION_WRITE, REGION_WRITE_MULTI | |
//! | DMA_READ, DMA_WRITE (sent by the server) | for memory without a descriptor |
//! | DEVICE_RESET | |
//! | DEVICE_GET_REGION_IO_FDS | `EOPNOTSUPP`: devices see every access |
//! | DEVICE_FEATURE | `ENOTTY`: no migration |
//! | MIG_DATA_READ, MIG_DATA_WRITE | `EOPNOTSUPP` |
//!
//! A command that is malformed is answered with an errno; a header that leaves open where the
//! next message begins also ends the connection. Commands take effect in the order they come
//! in; an unmap whose answer waits for the device does not hold up those behind it.
//!
//! Where this departs from the protocol's text: a device is reset when a VMM attaches,
//! because a VMM that comes is another virtual machine than the one that went. An unmap takes
//! whatever windows lie in its range, also none, as VFIO in the kernel does: VMMs rely on it.
//! A bitmap of dirty pages says *dirty* of every page in a window that the device could
//! write, which is never too little.
//!
//! # Migration
//!
//! There is none: what a device keeps for its guest (registers, queues, commands under way)
//! stays in this process. The protocol has DEVICE_FEATURE for a client to ask, and it is
//! answered as the kernel answers for devices that cannot (`ENOTTY`). **QEMU does not ask**
//! (11.1): its `migrate` ends as completed, and the guest finds its device reset. Neither
//! `-only-migratable` nor a property of `vfio-user-pci` changes that, and no answer of a
//! server can. What does is a device beside it that QEMU refuses to migrate:
//!
//! ```text
//! -object memory-backend-memfd,id=stay,size=1M,share=on
//! -device ivshmem-plain,memdev=stay,master=off
//! ```
//!
//! `migrate` then fails with "Migration is disabled when using feature 'peer mode' in device
//! 'ivshmem'", and the guest goes on.
//!
//! # Why not an existing crate
//!
//! The `vfio_user` crate has a server that sends no DMA_READ and DMA_WRITE, answers every
//! error with errno 0, blocks while it carries out a command, so that an unmap could not
//! wait for a device that waits for the client, and serves one connection in its life. All
//! of these are in the middle of its loop; so the protocol is spoken here.
//!
//! # Modules
//!
//! | | |
//! |---|---|
//! | `wire` | bytes ↔ messages |
//! | `socket` | the socket file; whole messages; who reads when several threads wait |
//! | `dma` | the DMA map as domain, files while windows show them, memory by message |
//! | `connection` | one client: handshake, commands, unmaps that wait |
//! | `door` | who comes in: connections are taken, and answered if another is served |
//! | `server` | clients one after another |
//! | `stop` | the order to end, which every wait also waits for |

mod connection;
mod dma;
mod door;
mod error;
mod options;
mod report;
mod seldom;
mod server;
mod socket;
mod stop;
mod wire;

pub use error::{BindError, ServeError};
pub use options::{Options, UnknownUnsealed, Unsealed};
pub use report::{Happened, Status};
pub use server::Server;
pub use stop::Stopper;
