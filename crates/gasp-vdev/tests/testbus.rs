//! The test bus itself: interrupts of each kind, life, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use gasp::{DeviceAddr, Span};
use gasp_vdev::testbus::{Options, TestBus, TestBusError};
use gasp_vdev::{Bar, Class, Device, DeviceContext, Identity, Model, Msix, Register};

/// Signals the vector that is written to register 0, and lowers its pin at register 4.
struct Bell(Model);

impl Device for Bell {
    fn model(&self) -> Model {
        self.0.clone()
    }

    fn read(&self, _: &DeviceContext, _: Register) -> u64 {
        0x1_2345_6789
    }

    fn write(&self, context: &DeviceContext, at: Register, value: u64) {
        match at.offset {
            0 => context.signal(value as u16),
            _ => context.lower(),
        }
    }

    fn reset(&self) {}
}

fn model() -> Model {
    let class = Class { base: 0xff, sub: 0, interface: 0 };
    let (vendor, device, subsystem_vendor, subsystem, revision) = (1, 2, 3, 4, 5);
    let identity = Identity { vendor, device, subsystem_vendor, subsystem, revision, class };
    Model::new(identity).bar(Bar::memory(0, 64)).bar(Bar::memory(1, 4096)).pin()
}

#[test]
fn interrupts_of_every_kind_are_heard_on_their_vector() {
    let msix = Msix { vectors: 4, bar: 1, table: 0, pending: 0x800 };
    for (model, vectors) in [(model().msix(msix), 4), (model().msi(2), 2)] {
        let mut bus = TestBus::new(Bell(model)).unwrap();
        for round in 0..2 {
            for vector in (0..vectors).rev() {
                bus.write32(0, 0, vector).unwrap();
                assert!(bus.interrupt(vector as u16).unwrap(), "round {round}");
            }
            assert!(matches!(bus.interrupt(vectors as u16), Err(TestBusError::Interrupt(_))));
            bus.detach();
            assert!(matches!(bus.read32(0, 0), Err(TestBusError::Register(_))));
            bus.attach().unwrap();
        }
        assert!(matches!(bus.attach(), Err(TestBusError::Attach(_))));
    }
}

#[test]
fn a_pin_comes_again_until_it_is_lowered() {
    let bus = TestBus::new(Bell(model())).unwrap();
    bus.write32(0, 0, 0).unwrap();
    assert!(bus.interrupt(0).unwrap());
    assert!(bus.interrupt(0).unwrap(), "it is still up");
    bus.write32(0, 4, 0).unwrap();
    assert!(!bus.shell().interrupts().is_raised());
}

#[test]
fn registers_are_read_at_their_width_and_none_is_found_past_the_end() {
    let bus = TestBus::new(Bell(model())).unwrap();
    assert_eq!(bus.read32(0, 0).unwrap(), 0x2345_6789);
    assert_eq!(bus.read64(0, 8).unwrap(), 0x1_2345_6789);
    for (bar, offset) in [(0, 64), (0, 61), (5, 0), (0, u64::MAX)] {
        assert!(matches!(bus.read32(bar, offset), Err(TestBusError::Register(_))));
        assert!(matches!(bus.write64(bar, offset, 0), Err(TestBusError::Register(_))));
    }
    assert!(matches!(bus.load(1 << 40, &mut [0]), Err(TestBusError::Engine(_))));
}

#[test]
fn the_bus_says_which_range_and_which_vector_it_does_not_have() {
    let span = Span::new(DeviceAddr(1 << 30), 4096).unwrap();
    let bus = Options::default().messages(span).attach(Bell(model().msi(2))).unwrap();
    let past = "2 bytes at 0x40000fff extend past the memory that is reached by messages";
    let text = |result: Result<(), TestBusError>| result.unwrap_err().to_string();
    assert_eq!(text(bus.load(0x4000_0fff, &mut [0; 2])), past);
    assert_eq!(text(bus.store(0x4000_0fff, &[0; 2])), past);
    assert_eq!(text(bus.interrupt(2).map(|_| ())), "MSI vectors 2 to 2+1: the device has 2");
}
