//! Serves gasp's virtual devices to VMMs over vfio-user.
//!
//! vfio-user is VFIO, spoken over a Unix socket: the VMM is the client, a device process
//! the server. A [`Server`] puts one device ([`gasp_vdev::Shell`]) on one socket, for one
//! VMM at a time; a process may have as many as it likes. VMMs may come and go, and the
//! device's data stays.
//!
//! ```no_run
//! use gasp_vdev::{Shell, dma::DmaEngine};
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
//! The commands of the protocol but those of migration, by one socket or with a *twin socket*
//! for the commands that a server sends; [`protocol`] has each of them, what is answered
//! otherwise, and the limits. A command that is malformed is answered with an errno; a header
//! that leaves open where the next message begins also ends the connection.
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
//! | `service` | what its threads share |
//! | `stop` | the order to end, which every wait also waits for |
//! | `seldom` | a limit on how often a peer's errors are reported |

mod connection;
mod dma;
mod door;
mod error;
mod options;
mod report;
mod seldom;
mod server;
mod service;
mod socket;
mod stop;
mod wire;

#[doc = include_str!("protocol.md")]
pub mod protocol {}

pub use error::{BindError, ServeError};
pub use options::{Options, UnknownUnsealed, Unsealed};
pub use report::{Happened, Status};
pub use server::{Server, Stopper};
