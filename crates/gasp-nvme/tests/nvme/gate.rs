//! Memory that is reached by messages, whose VMM answers when the test allows it: a command whose
//! data is there stays in progress until then.

use std::sync::{Arc, Condvar, Mutex};

use gasp::{Access, DeviceAddr, DomainKind, DomainOptions, Errno, Guest, GuestPhys, Unattached};
use gasp_nvme::{Backing, Options};
use gasp_vdev::MessageMemory;

use crate::driver::{Pair, RAM, Rig};

/// The address of the memory.
pub(crate) const BASE: u64 = 1 << 32;
const LEN: u64 = 4096;

pub(crate) struct Gate {
    bytes: Mutex<Vec<u8>>,
    state: Mutex<State>,
    changed: Condvar,
    /// Run on the device's thread at its next message.
    task: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// How many messages may pass although the gate is closed.
    permits: u32,
    /// The number of messages so far.
    count: u32,
    /// The device is to stop, so no message may wait.
    paused: bool,
}

/// An enabled device with a pair of I/O queues, and a gate in its guest's memory.
pub(crate) fn gated(backing: &Backing) -> (Rig, Pair, Arc<Gate>) {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let mut rig = Rig::of(guest, backing, Options::default());
    let domain = rig.guest.domain("disk", DomainOptions::new(DomainKind::Translate)).unwrap();
    let vdev = rig.guest.vdev("disk").unwrap();
    assert!(vdev.attach(&domain).unwrap().wait().completed());
    domain.grant_identity(GuestPhys(0), RAM, Access::RW).unwrap();
    domain.grant_identity(GuestPhys(BASE), LEN, Access::RW).unwrap();
    let gate = Arc::new(Gate {
        bytes: Mutex::new(vec![0x47; LEN as usize]),
        state: Mutex::default(),
        changed: Condvar::new(),
        task: Mutex::default(),
    });
    rig.shell.attach(vdev, Some(Arc::clone(&gate) as _), None).unwrap();
    rig.shell.config_write(4, &[6, 0]).unwrap();
    rig.enable();
    let pair = rig.make_pair(1, 64);
    (rig, pair, gate)
}

impl Gate {
    pub(crate) fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().closed = closed;
        self.changed.notify_all();
    }

    pub(crate) fn let_one_pass(&self) {
        self.state.lock().unwrap().permits += 1;
        self.changed.notify_all();
    }

    /// The number of messages so far.
    pub(crate) fn count(&self) -> u32 {
        self.state.lock().unwrap().count
    }

    /// Writes at `BASE`.
    pub(crate) fn put(&self, bytes: &[u8]) {
        self.bytes.lock().unwrap()[..bytes.len()].copy_from_slice(bytes);
    }

    /// Runs `task` on the device's thread at its next message.
    pub(crate) fn set_task(&self, task: impl FnOnce() + Send + 'static) {
        *self.task.lock().unwrap() = Some(Box::new(task));
    }

    fn pass(&self) -> Result<(), Errno> {
        if let Some(task) = self.task.lock().unwrap().take() {
            task();
        }
        let mut state = self.state.lock().unwrap();
        state.count += 1;
        let waits = |state: &mut State| state.closed && state.permits == 0 && !state.paused;
        let mut state = self.changed.wait_while(state, waits).unwrap();
        state.permits = state.permits.saturating_sub(1);
        if state.paused { Err(Errno::CANCELED) } else { Ok(()) }
    }
}

impl MessageMemory for Gate {
    fn extent(&self, addr: DeviceAddr) -> Option<u64> {
        (BASE..BASE + LEN).contains(&addr.0).then(|| BASE + LEN - addr.0)
    }

    fn read(&self, addr: DeviceAddr, into: &mut [u8]) -> Result<(), Errno> {
        self.pass()?;
        let at = (addr.0 - BASE) as usize;
        into.copy_from_slice(&self.bytes.lock().unwrap()[at..at + into.len()]);
        Ok(())
    }

    fn write(&self, addr: DeviceAddr, from: &[u8]) -> Result<(), Errno> {
        self.pass()?;
        let at = (addr.0 - BASE) as usize;
        self.bytes.lock().unwrap()[at..at + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn pause(&self, paused: bool) {
        self.state.lock().unwrap().paused = paused;
        self.changed.notify_all();
    }
}
