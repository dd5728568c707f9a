//! Queues as C sees them: `vq_t *`, and the array of `struct vio_queue_info`.
//!
//! A `vq_t *` is a number, which is looked up and never dereferenced. No two queues have one, so that
//! of before a reset is no queue any more.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use gasp_virtio::Broken;
use parking_lot::RwLock;

use super::abi::{QueueInfo, State};
use super::outside::Outside;
use super::queue::ActiveQueue;

/// The first number: no canonical address, so that a vdev that dereferences it faults at once.
const FIRST: usize = 0x7671 << 48;

static QUEUES: LazyLock<RwLock<HashMap<usize, Listed>>> = LazyLock::new(RwLock::default);
static NEXT: AtomicUsize = AtomicUsize::new(FIRST);

/// The device that a queue belongs to. What it is told of a start of the device before its last is
/// without effect.
pub(super) trait Owner: Send + Sync {
    /// The vdev that it is.
    fn outside(&self) -> &Arc<dyn Outside>;

    /// Interrupts the driver for a queue.
    fn interrupt_queue(&self, start: u64, index: usize);

    /// The driver has broken a queue: the device stops.
    fn fail(&self, start: u64, broken: &Broken);

    /// Warns of what the vdev does.
    fn warn(&self, what: &str);
}

/// A queue in use, and whose it is.
#[derive(Clone)]
pub(super) struct Listed {
    pub(super) owner: Arc<dyn Owner>,
    pub(super) index: usize,
    /// The start of the device that it belongs to.
    pub(super) start: u64,
    pub(super) queue: Arc<ActiveQueue>,
}

/// Lists a queue; its number. (2^48 starts are more than a process has time for.)
pub(super) fn insert(
    owner: Arc<dyn Owner>,
    index: usize,
    start: u64,
    queue: &Arc<ActiveQueue>,
) -> usize {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let queue = Arc::clone(queue);
    QUEUES.write().insert(number, Listed { owner, index, start, queue });
    number
}

pub(super) fn remove(number: usize) {
    QUEUES.write().remove(&number);
}

/// The queue of a number, if it is in use.
pub(super) fn find(number: usize) -> Option<Listed> {
    QUEUES.read().get(&number).cloned()
}

/// The array that `qinfo` points to. C reads it, and may write to it: nothing here reads it.
#[derive(Debug)]
pub(super) struct QueueInfos(Box<[QueueInfo]>);

impl QueueInfos {
    pub(super) fn new(count: usize) -> Self {
        let one = || QueueInfo {
            queue: AtomicPtr::default(),
            state: AtomicPtr::default(),
            places: [const { AtomicU64::new(0) }; 3],
            size: AtomicU32::new(0),
            reserved: 0,
            max_size: AtomicU32::new(0),
        };
        Self(core::iter::repeat_with(one).take(count).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What C gets: NULL if there are no queues.
    pub(super) fn pointer(&self) -> *mut QueueInfo {
        self.0.first().map_or(ptr::null_mut(), |first| ptr::from_ref(first).cast_mut())
    }

    pub(super) fn set_state(&self, state: *mut State) {
        self.0.iter().for_each(|info| info.state.store(state, Ordering::Relaxed));
    }

    pub(super) fn set_max(&self, index: usize, max: u32) {
        if let Some(info) = self.0.get(index) {
            info.max_size.store(max, Ordering::Relaxed);
        }
    }

    pub(super) fn set(&self, index: usize, number: usize, places: [u64; 3], size: u16) {
        let Some(info) = self.0.get(index) else { return };
        info.places.iter().zip(places).for_each(|(to, from)| to.store(from, Ordering::Relaxed));
        info.size.store(size.into(), Ordering::Relaxed);
        // What it points to is complete: see `insert`.
        let number: *mut c_void = ptr::without_provenance_mut(number);
        info.queue.store(number, Ordering::Release);
    }

    pub(super) fn clear(&self, index: usize) {
        let Some(info) = self.0.get(index) else { return };
        info.queue.store(ptr::null_mut(), Ordering::Release);
        info.size.store(0, Ordering::Relaxed);
        info.places.iter().for_each(|place| place.store(0, Ordering::Relaxed));
    }
}
