//! Which BAR is where on the buses: as the guest has set them, except where they overlap.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::address::Bdf;
use super::function::Function;
use super::rings::Place;
use crate::bus::{Bus, BusDevice};

/// The BARs of all functions, on the buses of a VM.
///
/// It does not keep the buses, which have the BARs, which keep their functions.
pub(super) struct Decoder {
    ports: Weak<Bus>,
    memory: Weak<Bus>,
    bars: Mutex<Vec<Decoded>>,
}

/// A BAR that is to be decoded.
struct Decoded {
    function: Arc<Function>,
    bar: u8,
    len: u64,
    place: Place,
    /// Whether it is on its bus; otherwise something else is there.
    on_bus: bool,
}

/// The registers behind a BAR.
struct Registers {
    function: Arc<Function>,
    bar: u32,
}

impl BusDevice for Registers {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.function.bar_read(self.bar, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.function.bar_write(self.bar, offset, data);
    }
}

impl Decoder {
    pub(super) fn new(ports: &Arc<Bus>, memory: &Arc<Bus>) -> Self {
        let bars = Mutex::default();
        Self { ports: Arc::downgrade(ports), memory: Arc::downgrade(memory), bars }
    }

    /// Follows the BARs and the command register of a function.
    pub(super) fn update(&self, function: &Arc<Function>) {
        let mut bars = self.bars.lock();
        // Read under the lock: of two threads that have written, the last one sees both writes.
        let mut changed = false;
        for bar in &function.shell().model().bars {
            let wanted = function.decoded_at(bar);
            let index = bars.iter().position(|it| it.is(function.bdf(), bar.index));
            if index.and_then(|index| bars.get(index)).map(|it| it.place) == wanted {
                continue;
            }
            changed = true;
            if let Some(index) = index {
                self.take_off(&bars.swap_remove(index));
            }
            if let Some(place) = wanted {
                let (function, len) = (Arc::clone(function), bar.size);
                bars.push(Decoded { function, bar: bar.index, len, place, on_bus: false });
            }
        }
        if changed {
            self.put_on(&mut bars);
        }
    }

    /// Takes a function off the buses.
    pub(super) fn remove(&self, bdf: Bdf) {
        let mut bars = self.bars.lock();
        for gone in bars.extract_if(.., |it| it.function.bdf() == bdf) {
            self.take_off(&gone);
        }
        self.put_on(&mut bars);
    }

    /// Puts on the buses what is not there and now fits.
    fn put_on(&self, bars: &mut [Decoded]) {
        for it in bars.iter_mut().filter(|it| !it.on_bus) {
            let registers =
                Registers { function: Arc::clone(&it.function), bar: u32::from(it.bar) };
            let (bus, start) = self.bus_of(it.place);
            let Some(bus) = bus else { return };
            match bus.add(start, it.len, Arc::new(registers)) {
                Ok(()) => {
                    it.on_bus = true;
                    it.function.rings().moved(it.bar, Some(it.place));
                }
                Err(why) => tracing::debug!(%why, at = %it.function.bdf(), bar = it.bar, "hidden"),
            }
        }
    }

    fn take_off(&self, it: &Decoded) {
        it.function.rings().moved(it.bar, None);
        if let (Some(bus), start) = self.bus_of(it.place)
            && it.on_bus
        {
            bus.remove(start);
        }
    }

    fn bus_of(&self, place: Place) -> (Option<Arc<Bus>>, u64) {
        match place {
            Place::Port(start) => (self.ports.upgrade(), start),
            Place::Memory(start) => (self.memory.upgrade(), start),
        }
    }
}

impl Decoded {
    fn is(&self, bdf: Bdf, bar: u8) -> bool {
        self.function.bdf() == bdf && self.bar == bar
    }
}
