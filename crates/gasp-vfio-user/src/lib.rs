//! Serves gasp's virtual devices to VMMs over vfio-user.
//!
//! vfio-user is VFIO over a Unix socket: the VMM is the client, a device process the
//! server. A [`Server`] serves one device ([`gasp_vdev::Shell`]) on one socket, to one VMM
//! at a time; a process may have any number of servers. VMMs may connect and disconnect;
//! the device's data stays.
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
//! # Supported commands
//!
//! All commands of the protocol except those of migration, over one socket or with a *twin
//! socket* for the commands that the server sends. [`protocol`] lists each command, the
//! deviations and the limits. A malformed command is answered with an errno; a header that
//! leaves the start of the next message unknown also ends the connection.
//!
//! # Migration
//!
//! Not supported: a device's state (registers, queues, commands in flight) stays in this
//! process. The protocol has DEVICE_FEATURE for a client to query it, which is answered as
//! the kernel answers for devices that cannot migrate (`ENOTTY`). **QEMU does not query
//! it** (11.1): its `migrate` completes, and the guest finds its device reset. Neither
//! `-only-migratable` nor a property of `vfio-user-pci` changes that, and no answer of a
//! server can. A second device that QEMU refuses to migrate does:
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
//! The server of the `vfio_user` crate sends no DMA_READ and DMA_WRITE, answers every error
//! with errno 0, blocks while it executes a command, so that an unmap could not wait for a
//! device that waits for the client, and serves a single connection in its lifetime. All of
//! these are in the middle of its loop, so this crate implements the protocol itself.
//!
//! # Modules
//!
//! | | |
//! |---|---|
//! | `wire` | encoding and decoding of messages |
//! | `socket` | the socket file; whole messages; which thread reads when several wait |
//! | `dma` | the DMA map as an IOMMU domain, memory files, memory reached by messages |
//! | `connection` | one client: handshake, commands, pending unmaps |
//! | `acceptor` | accepts connections, and answers those that arrive while a client is served |
//! | `server` | clients one after another |
//! | `service` | state shared by the threads of a server |
//! | `stop` | the stop request, which ends every wait |
//! | `rate_limit` | rate limit for reports that a peer can cause |

mod acceptor;
mod connection;
mod dma;
mod error;
mod options;
mod rate_limit;
mod report;
mod server;
mod service;
mod socket;
mod stop;
mod wire;

#[doc = include_str!("protocol.md")]
pub mod protocol {}

pub use error::{BindError, ServeError};
pub use options::{Options, UnknownUnsealed, Unsealed};
pub use report::{ServerEvent, Status};
pub use server::{Server, Stopper};
pub use socket::Listener;
