//! Virtio devices in C: `<qvm/vio.h>` and `<qvm/vq.h>`.
//!
//! A vdev calls [`vio_init`](exports::vio_init), and from then on its registers, negotiation, queues
//! and interrupts are a `Virtio` behind its `struct vio_state`. The common
//! configuration is that of `gasp-virtio`, whichever transport there is; rings are those of
//! `virtio-queue`, each access to them a burst of the vdev's own memory; buffers are mapped as C maps.
//!
//! | | |
//! |---|---|
//! | `abi` | the structures of the headers |
//! | `outside` | what a device needs of its vdev |
//! | `device` | a device: its state, status, start, reset |
//! | `registers`, `mmio`, `transport` | what an access reaches, on PCI and MMIO |
//! | `interrupt` | the interrupt status and the line, or MSI-X |
//! | `queues` | queues as C sees them |
//! | `memory` | the memory that rings are in |
//! | `queue`, `chain` | requests, on their way to the vdev and back |
//! | `iov` | their buffers, mapped |
//! | `bars` | `struct vpci_bar` |
//! | `exports`, `requests` | the functions that C calls |
//!
//! # Trust
//!
//! A `struct vio_state` and a `vq_t` are looked up by address and never dereferenced for what they
//! say; a guest reaches the registers and the rings only, and the vdev sees of an access what is
//! within its own bounds.
//!
//! # Locks
//!
//! In this order, each held for a moment: a device's state, the rings of one of its queues (by a
//! reset, which waits for them), its interrupt status, the lists. A call of the rings ends before it
//! takes the state.

pub mod abi;
mod bars;
mod chain;
pub(crate) mod device;
pub mod exports;
mod interrupt;
mod iov;
mod memory;
mod mmio;
mod outside;
mod queue;
mod queues;
pub(crate) mod registers;
pub mod requests;
mod transport;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use gasp_capi::types::Vdev;
use parking_lot::RwLock;

use self::abi::State;
use self::device::Virtio;

/// The devices, by the address of their `struct vio_state`.
static STATES: LazyLock<RwLock<HashMap<usize, Arc<Virtio>>>> = LazyLock::new(RwLock::default);

/// The device of a `struct vio_state`, if it has been set up.
fn find(state: *const State) -> Option<Arc<Virtio>> {
    STATES.read().get(&state.addr()).cloned()
}

/// Lists a device; one of the same address is no more.
fn enlist(state: *const State, virtio: Arc<Virtio>) {
    let before = STATES.write().insert(state.addr(), virtio);
    if let Some(before) = before {
        before.reset();
    }
}

/// The device that a vdev is, if it is one.
pub(crate) fn of_vdev(vdev: *const Vdev) -> Option<Arc<Virtio>> {
    let states = STATES.read();
    states.values().find(|virtio| virtio.outside().pointer() == vdev).cloned()
}

/// What a vdev has had of virtio: dropped when no code of it runs any more, as it has seen the
/// addresses of arrays.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ended(#[expect(dead_code, reason = "kept for its arrays")] Vec<Arc<Virtio>>);

/// Ends what a vdev has of virtio, after it has returned from `TERMINATE`: its queues and its
/// mappings.
pub(crate) fn forget(vdev: *const Vdev) -> Ended {
    let mut states = STATES.write();
    let ended = states.extract_if(|_, virtio| virtio.outside().pointer() == vdev);
    let ended: Vec<_> = ended.map(|(_, virtio)| virtio).collect();
    drop(states);
    ended.iter().for_each(|virtio| virtio.reset());
    iov::forget(vdev.addr());
    Ended(ended)
}
