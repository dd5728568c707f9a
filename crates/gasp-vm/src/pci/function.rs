//! A device on the bus: its configuration space, its BARs, its interrupts.

use std::sync::Arc;

use gasp_vdev::{Bar, BarKind, Shell, WriteEvents};

use super::address::Bdf;
use super::interrupts::Wiring;
use super::rings::{Place, Rings};

const COMMAND: u64 = 0x04;
const COMMAND_PORTS: u16 = 1 << 0;
const COMMAND_MEMORY: u16 = 1 << 1;
const BARS: u64 = 0x10;

pub(super) struct Function {
    bdf: Bdf,
    shell: Arc<Shell>,
    rings: Arc<Rings>,
    wiring: Wiring,
    /// The address that each BAR has before the guest starts.
    addresses: Vec<(u8, BarKind, u64)>,
}

impl Function {
    pub(super) fn new(
        bdf: Bdf,
        shell: Arc<Shell>,
        rings: Rings,
        wiring: Wiring,
        addresses: Vec<(u8, BarKind, u64)>,
    ) -> Self {
        Self { bdf, shell, rings: Arc::new(rings), wiring, addresses }
    }

    pub(super) fn bdf(&self) -> Bdf {
        self.bdf
    }

    pub(super) fn shell(&self) -> &Arc<Shell> {
        &self.shell
    }

    pub(super) fn rings(&self) -> &Rings {
        &self.rings
    }

    pub(super) fn events(&self) -> Arc<dyn WriteEvents> {
        Arc::clone(&self.rings) as Arc<dyn WriteEvents>
    }

    pub(super) fn addresses(&self) -> &[(u8, BarKind, u64)] {
        &self.addresses
    }

    /// Sets the BARs to their addresses, as firmware does after a reset.
    pub(super) fn set_addresses(&self) {
        for &(bar, kind, addr) in &self.addresses {
            let bytes = addr.to_le_bytes();
            let len = if kind == BarKind::Memory64 { 8 } else { 4 };
            self.config_write(BARS + 4 * u64::from(bar), bytes.get(..len).unwrap_or_default());
        }
    }

    /// Reads configuration space; the range lies inside it.
    pub(super) fn config_read(&self, offset: u64, data: &mut [u8]) {
        // What cannot be read stays as it is: ones.
        let _ = self.shell.config_read(offset, data);
    }

    /// Writes configuration space. [`follow`](Self::follow) and the decoder come next.
    pub(super) fn config_write(&self, offset: u64, data: &[u8]) {
        let _ = self.shell.config_write(offset, data);
    }

    /// Follows the registers that choose the kind of interrupts, and the messages.
    pub(super) fn follow(&self) {
        self.wiring.follow(&self.shell);
    }

    /// Takes the interrupts' eventfds away from the kernel.
    pub(super) fn disconnect(&self) {
        self.wiring.disconnect(&self.shell);
    }

    pub(super) fn bar_read(&self, bar: u32, offset: u64, data: &mut [u8]) {
        // Of a device that is being detached: ones.
        let _ = self.shell.bar_read(bar, offset, data);
    }

    pub(super) fn bar_write(&self, bar: u32, offset: u64, data: &[u8]) {
        let _ = self.shell.bar_write(bar, offset, data);
        self.wiring.written(&self.shell, bar, offset, data.len() as u64);
    }

    /// Where a BAR is decoded, according to its register and the command register.
    pub(super) fn decoded_at(&self, bar: &Bar) -> Option<Place> {
        let mut command = [0; 2];
        self.config_read(COMMAND, &mut command);
        let enabled = match bar.kind {
            BarKind::Io => COMMAND_PORTS,
            BarKind::Memory32 | BarKind::Memory64 => COMMAND_MEMORY,
        };
        let mut register = [0; 8];
        let len = if bar.kind == BarKind::Memory64 { 8 } else { 4 };
        let bytes = register.get_mut(..len).unwrap_or_default();
        self.config_read(BARS + 4 * u64::from(bar.index), bytes);
        let place = Place::of(bar.kind, u64::from_le_bytes(register));
        (u16::from_le_bytes(command) & enabled != 0).then_some(place)
    }
}
