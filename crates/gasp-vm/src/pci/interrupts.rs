//! A function's interrupts: which kind the guest has chosen, and each vector's way into the kernel.
//!
//! An MSI-X vector is connected when the guest first unmasks it; until then, and while it is
//! masked, the function holds its interrupts back as pending. It is let through only after its
//! route leads to the message that the table has by then.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gasp_vdev::{IrqKind, Msix, Shell};
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use vmm_sys_util::eventfd::EventFd;

use super::pins::Pins;
use crate::error::MachineError;
use crate::eventfd::{create, for_kvm};
use crate::routes::{Message, Route, Routes};

const CAPABILITIES: u64 = 0x34;
/// As many capabilities as fit into the first 256 bytes.
const MOST_CAPABILITIES: usize = 48;
const MSI: u8 = 0x05;
const MSI_ENABLE: u16 = 1 << 0;
const MSIX: u8 = 0x11;
const MSIX_ENABLE: u16 = 1 << 15;
const ENTRY: u64 = 16;
const ENTRY_MASKED: u32 = 1;

/// The interrupts of one function.
pub(super) struct Wiring {
    vm: Arc<VmFd>,
    routes: Option<Arc<Routes>>,
    pins: Option<Arc<Pins>>,
    line: u32,
    /// Where the capabilities are.
    msi: Option<u64>,
    msix: Option<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connected: Connected,
    closed: bool,
    /// A failure was logged.
    warned: bool,
}

#[derive(Default)]
enum Connected {
    #[default]
    Nothing,
    Pin,
    Msi(Vec<Wire>),
    Msix(BTreeMap<u16, Wire>),
}

/// A vector's eventfd, and where KVM leads it.
struct Wire {
    vm: Arc<VmFd>,
    event: EventFd,
    route: Route,
    message: Message,
}

impl Wiring {
    pub(super) fn new(
        vm: &Arc<VmFd>,
        routes: Option<&Arc<Routes>>,
        pins: Option<&Arc<Pins>>,
        line: u32,
        shell: &Shell,
    ) -> Self {
        let [msi, msix] = [MSI, MSIX].map(|id| find_capability(shell, id));
        let (routes, pins) = (routes.cloned(), pins.cloned());
        Self { vm: Arc::clone(vm), routes, pins, line, msi, msix, state: Mutex::default() }
    }

    /// Follows the registers that choose a kind of interrupts, and the message of MSI.
    pub(super) fn follow(&self, shell: &Arc<Shell>) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let chosen = self.chosen(shell);
        let as_before = match &state.connected {
            Connected::Nothing => chosen.is_none(),
            Connected::Pin => chosen == Some(IrqKind::Pin),
            Connected::Msi(wires) => {
                chosen == Some(IrqKind::Msi) && wires.len() == self.msi_messages(shell).len()
            }
            Connected::Msix(_) => chosen == Some(IrqKind::Msix),
        };
        if as_before {
            return self.follow_messages(&mut state, shell);
        }
        // The new kind is there before the old one goes: there is always one that an interrupt of
        // the device can use.
        if matches!(state.connected, Connected::Msi(_)) && chosen == Some(IrqKind::Msi) {
            disconnect(&mut state.connected, shell);
        }
        let mut before = core::mem::take(&mut state.connected);
        state.connected = match chosen {
            None => Connected::Nothing,
            Some(IrqKind::Msix) => self.begin_msix(shell),
            Some(IrqKind::Msi) => self.begin_msi(shell, &mut state.warned),
            Some(_) => {
                if let Some(pins) = &self.pins {
                    // It has a pin.
                    let _ = shell.interrupts().connect_pin(pins.pin(self.line));
                }
                Connected::Pin
            }
        };
        self.follow_messages(&mut state, shell);
        disconnect(&mut before, shell);
    }

    /// Follows the messages of the kind that is connected. Those of MSI-X can be written through
    /// configuration space, too, if the function has a window on its BARs.
    fn follow_messages(&self, state: &mut State, shell: &Shell) {
        match &mut state.connected {
            Connected::Nothing | Connected::Pin => {}
            Connected::Msi(wires) => {
                let messages = self.msi_messages(shell);
                wires.iter_mut().zip(messages).for_each(|(wire, message)| {
                    warn_once(&mut state.warned, shell, wire.lead_to(message));
                });
            }
            Connected::Msix(_) => {
                let vectors = shell.model().msix.map_or(0, |msix| msix.vectors);
                (0..vectors).for_each(|vector| self.follow_vector(state, shell, vector));
            }
        }
    }

    /// A BAR was written: follows the entries of the MSI-X table that have changed.
    pub(super) fn written(&self, shell: &Arc<Shell>, bar: u32, offset: u64, len: u64) {
        let Some(Msix { vectors, bar: table_bar, table, .. }) = shell.model().msix else { return };
        let end = (offset.saturating_add(len)).saturating_sub(u64::from(table));
        let start = offset.saturating_sub(u64::from(table));
        if bar != u32::from(table_bar) || start >= ENTRY * u64::from(vectors) {
            return;
        }
        let mut state = self.state.lock();
        if state.closed || !matches!(state.connected, Connected::Msix(_)) {
            return;
        }
        for vector in start / ENTRY..end.div_ceil(ENTRY).min(vectors.into()) {
            if let Ok(vector) = u16::try_from(vector) {
                self.follow_vector(&mut state, shell, vector);
            }
        }
    }

    /// Takes everything away from the kernel, for good.
    pub(super) fn disconnect(&self, shell: &Shell) {
        let mut state = self.state.lock();
        state.closed = true;
        disconnect(&mut state.connected, shell);
    }

    /// The kind of interrupts that the guest has chosen.
    fn chosen(&self, shell: &Shell) -> Option<IrqKind> {
        let enabled = |capability: Option<u64>, bit: u16| {
            capability.is_some_and(|at| read16(shell, at + 2) & bit != 0)
        };
        if enabled(self.msix, MSIX_ENABLE) {
            Some(IrqKind::Msix)
        } else if enabled(self.msi, MSI_ENABLE) {
            Some(IrqKind::Msi)
        } else {
            shell.model().pin.then_some(IrqKind::Pin)
        }
    }

    /// The messages of the MSI vectors that the guest has granted.
    fn msi_messages(&self, shell: &Shell) -> Vec<Message> {
        let Some(at) = self.msi else { return Vec::new() };
        let granted = 1 << (read16(shell, at + 2) >> 4 & 7).min(5);
        let count = granted.min(u32::from(shell.model().msi).max(1));
        let mut addr = [0; 8];
        let _ = shell.config_read(at + 4, &mut addr);
        let (addr, data) = (u64::from_le_bytes(addr), u32::from(read16(shell, at + 0xc)));
        // The low bits of the data are the vector's.
        (0..count).map(|vector| Message { addr, data: data & !(count - 1) | vector }).collect()
    }

    fn begin_msi(&self, shell: &Shell, warned: &mut bool) -> Connected {
        let mut wires = Vec::new();
        for (vector, message) in (0..).zip(self.msi_messages(shell)) {
            let connected = self.wire(message).and_then(|(wire, event)| {
                connect(shell, IrqKind::Msi, vector, event)?;
                Ok(wire)
            });
            match warn_once(warned, shell, connected) {
                Some(wire) => wires.push(wire),
                None => break,
            }
        }
        Connected::Msi(wires)
    }

    /// Has the function keep as pending what comes until a vector is connected.
    fn begin_msix(&self, shell: &Shell) -> Connected {
        let interrupts = shell.interrupts();
        // One eventfd, and the kind is in use. Nothing is to go there: the vector is masked first.
        let _ = interrupts.set_masked(IrqKind::Msix, 0, &[true], true);
        if let Ok(event) = create() {
            let _ = interrupts.connect(IrqKind::Msix, 0, event);
        }
        Connected::Msix(BTreeMap::new())
    }

    /// Follows an entry of the MSI-X table.
    fn follow_vector(&self, state: &mut State, shell: &Shell, vector: u16) {
        let State { connected: Connected::Msix(wires), warned, .. } = state else { return };
        let Some(entry) = read_entry(shell, vector) else { return };
        let set_masked = |masked| {
            let interrupts = shell.interrupts();
            let _ = interrupts.set_masked(IrqKind::Msix, vector.into(), &[true], masked);
        };
        let Some(message) = entry else { return set_masked(true) };
        let led = match wires.get_mut(&vector) {
            Some(wire) => wire.lead_to(message),
            None => self.wire(message).and_then(|(wire, event)| {
                connect(shell, IrqKind::Msix, vector.into(), event)?;
                wires.insert(vector, wire);
                Ok(())
            }),
        };
        if warn_once(warned, shell, led).is_some() {
            set_masked(false);
        }
    }

    /// A connection to a message, and the eventfd that the device signals.
    fn wire(&self, message: Message) -> Result<(Wire, OwnedFd), MachineError> {
        let none = || MachineError::Kvm { what: "KVM_IRQFD", errno: gasp::Errno::NODEV };
        let route = self.routes.as_ref().ok_or_else(none)?.reserve()?;
        route.set(message)?;
        let host = MachineError::host("an eventfd");
        let event = create().map_err(&host)?;
        let given = event.try_clone().map_err(&host)?;
        let event = for_kvm(event);
        let done = self.vm.register_irqfd(&event, route.gsi());
        done.map_err(MachineError::call("KVM_IRQFD"))?;
        Ok((Wire { vm: Arc::clone(&self.vm), event, route, message }, given))
    }
}

impl Wire {
    fn lead_to(&mut self, message: Message) -> Result<(), MachineError> {
        if self.message != message {
            self.route.set(message)?;
            self.message = message;
        }
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Err(error) = self.vm.unregister_irqfd(&self.event, self.route.gsi()) {
            tracing::error!(%error, "an interrupt stays connected");
        }
    }
}

/// Takes the eventfds away from the device, and then from the kernel.
fn disconnect(connected: &mut Connected, shell: &Shell) {
    let kind = match connected {
        Connected::Nothing => return,
        Connected::Pin => IrqKind::Pin,
        Connected::Msi(_) => IrqKind::Msi,
        Connected::Msix(_) => IrqKind::Msix,
    };
    shell.interrupts().disable(kind);
    *connected = Connected::Nothing;
}

fn connect(shell: &Shell, kind: IrqKind, vector: u32, event: OwnedFd) -> Result<(), MachineError> {
    let done = shell.interrupts().connect(kind, vector, event);
    done.map_err(|error| MachineError::Kvm { what: "a vector", errno: error.errno() })
}

/// Logs the first failure of a function: a guest can cause more.
fn warn_once<T>(warned: &mut bool, shell: &Shell, done: Result<T, MachineError>) -> Option<T> {
    match done {
        Ok(value) => Some(value),
        Err(error) => {
            if !core::mem::replace(warned, true) {
                tracing::warn!(%error, device = shell.name(), "an interrupt cannot be delivered");
            }
            None
        }
    }
}

/// The message of an entry of the MSI-X table; none while it is masked.
fn read_entry(shell: &Shell, vector: u16) -> Option<Option<Message>> {
    let Msix { bar, table, .. } = shell.model().msix?;
    let mut bytes = [0; ENTRY as usize];
    let offset = u64::from(table) + ENTRY * u64::from(vector);
    shell.bar_read(bar.into(), offset, &mut bytes).ok()?;
    let [addr, rest] = *bytes.as_chunks::<8>().0 else { return None };
    let (addr, rest) = (u64::from_le_bytes(addr), u64::from_le_bytes(rest));
    let (data, control) = (rest as u32, (rest >> 32) as u32);
    Some((control & ENTRY_MASKED == 0).then_some(Message { addr, data }))
}

fn read16(shell: &Shell, offset: u64) -> u16 {
    let mut bytes = [0; 2];
    let _ = shell.config_read(offset, &mut bytes);
    u16::from_le_bytes(bytes)
}

/// Where a capability is in configuration space.
fn find_capability(shell: &Shell, id: u8) -> Option<u64> {
    let mut pointer = [0];
    let _ = shell.config_read(CAPABILITIES, &mut pointer);
    for _ in 0..MOST_CAPABILITIES {
        let at = u64::from(pointer[0] & !3);
        let mut header = [0; 2];
        let _ = shell.config_read(at, &mut header);
        match header {
            _ if at == 0 => return None,
            [found, _] if found == id => return Some(at),
            [_, next] => pointer = [next],
        }
    }
    None
}
