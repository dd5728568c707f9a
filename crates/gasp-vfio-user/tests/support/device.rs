//! Devices whose transfers a test controls.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use gasp::{DeviceAddr, MapFlags, Mapping, Span};
use gasp_vdev::{Bar, Class, Device, DeviceContext, Identity, Model, Msix, Register, Shared};

/// Holds a mapping of the page whose address is written to register 0, until 0 is written.
/// Register 8 reads the number of spans that were revoked meanwhile.
#[derive(Clone, Default)]
pub struct Holder {
    pub held: Arc<Mutex<Option<Mapping>>>,
    pub revoked: Arc<Mutex<Vec<Span<DeviceAddr>>>>,
    pub lets_go: bool,
    pub shared: Option<Shared>,
}

pub const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 0x0001,
    subsystem_vendor: 0,
    subsystem: 0,
    revision: 0,
    class: Class { base: 0xff, sub: 0, interface: 0 },
};

impl Device for Holder {
    fn model(&self) -> Model {
        let bar = Bar { shared: self.shared.clone(), ..Bar::memory(0, 0x4000) };
        Model::new(IDENTITY).bar(bar).bar(Bar::memory64(2, 0x1000)).pin().msi(2).msix(Msix {
            vectors: 8,
            bar: 2,
            table: 0,
            pending: 0x800,
        })
    }

    fn read(&self, _: &DeviceContext, at: Register) -> u64 {
        match at.offset {
            8 => self.revoked.lock().unwrap().len() as u64,
            16 => u64::from(self.held.lock().unwrap().is_some()),
            _ => 0x1122_3344_5566_7788,
        }
    }

    fn write(&self, context: &DeviceContext, at: Register, value: u64) {
        match (at.offset, value) {
            (0, 0) => *self.held.lock().unwrap() = None,
            (0, addr) => {
                let mapping = context.map(DeviceAddr(addr), 4096, MapFlags::RW);
                *self.held.lock().unwrap() = mapping.ok();
            }
            (24, vector) => context.signal(vector as u16),
            (32, _) => context.lower(),
            _ => {}
        }
    }

    fn revoked(&self, _: &DeviceContext, span: Span<DeviceAddr>) {
        self.revoked.lock().unwrap().push(span);
        if self.lets_go {
            *self.held.lock().unwrap() = None;
        }
    }

    fn reset(&self) {
        *self.held.lock().unwrap() = None;
    }

    fn detached(&self) {
        *self.held.lock().unwrap() = None;
    }
}

/// Writes an increasing number to the page at the address in register 0, as often as it can
/// and may, from the first write to that register.
#[derive(Default)]
pub struct Scribbler {
    addr: AtomicU64,
    pub written: Arc<AtomicU64>,
}

impl Device for Scribbler {
    fn model(&self) -> Model {
        Model::new(IDENTITY).bar(Bar::memory(0, 4096))
    }

    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn write(&self, context: &DeviceContext, _: Register, value: u64) {
        self.addr.store(value, Ordering::Relaxed);
        context.ring();
    }

    fn work(&self, context: &DeviceContext) {
        while !context.should_stop() {
            let addr = DeviceAddr(self.addr.load(Ordering::Relaxed));
            let Ok(page) = context.map(addr, 4096, MapFlags::WRITE) else {
                std::thread::yield_now();
                continue;
            };
            for slot in (0..512).cycle().take(20_000) {
                let number = self.written.fetch_add(1, Ordering::Relaxed);
                page.write_at(8 * slot, &number.to_ne_bytes()).unwrap();
            }
        }
    }

    fn reset(&self) {}
}

/// Works until the test lets it end, and ignores stop requests. Its registers read 1 once
/// it works.
#[derive(Default)]
pub struct Stubborn {
    pub may_end: Arc<AtomicBool>,
    works: AtomicBool,
}

impl Device for Stubborn {
    fn model(&self) -> Model {
        Model::new(IDENTITY).bar(Bar::memory(0, 4096))
    }

    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        self.works.load(Ordering::Relaxed).into()
    }

    fn write(&self, context: &DeviceContext, _: Register, _: u64) {
        context.ring();
    }

    fn work(&self, _: &DeviceContext) {
        self.works.store(true, Ordering::Relaxed);
        while !self.may_end.load(Ordering::Relaxed) {
            std::thread::sleep(core::time::Duration::from_millis(1));
        }
    }

    fn reset(&self) {}
}
