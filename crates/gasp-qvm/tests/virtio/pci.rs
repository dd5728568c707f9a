//! The device as a PCI function.

use std::sync::atomic::Ordering;

use gasp_qvm::Space;
use gasp_qvm::vio::exports::{vio_ctrl_pci_bars, vio_ctrl_pci_bars_710, vio_setup_queues};

use crate::driver::{DATA, Driver, Event, WRITE, rings};
use crate::vdev::{Converted, INVALID, PLAIN};

/// The parts of the BAR, and fields of the common configuration.
const ISR: u64 = 0x1000;
const CONFIG: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const DRIVER_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;

fn started() -> Driver {
    let driver = Driver::new(&PLAIN, "loc pci:0:5", false);
    driver.write::<1>(STATUS, 3);
    driver.write::<4>(DRIVER_SELECT, 1);
    driver.write::<4>(DRIVER_FEATURE, 1);
    driver.write::<1>(STATUS, 11);
    driver.write::<2>(CONFIG_VECTOR, 2);
    for queue in 0..2 {
        driver.write::<2>(QUEUE_SELECT, queue);
        for (at, place) in [0x20, 0x28, 0x30].into_iter().zip(rings(queue as u16)) {
            driver.write::<8>(at, place);
        }
        driver.write::<2>(QUEUE_VECTOR, queue);
        driver.write::<2>(QUEUE_ENABLE, 1);
        assert_eq!(class(&driver), 0x20000 | queue as u32, "VIOREF_CLASS_ENABLED");
    }
    driver.write::<1>(STATUS, 15);
    driver
}

fn class(driver: &Driver) -> u32 {
    driver.read::<4>(CONFIG + 16) as u32
}

#[test]
fn a_function_says_what_it_is() {
    let driver = Driver::new(&PLAIN, "loc pci:0:5", false);
    let placed = driver.device.placed().unwrap();
    assert_eq!((placed.space, placed.len), (Space::Pci, 0x8000));
    let model = driver.device.virtio_function().unwrap();
    assert_eq!((model.identity.vendor, model.identity.device), (0x1af4, 0x1040 + 20));
    assert_eq!(model.identity.subsystem_vendor, 0x1c05);
    let class = model.identity.class;
    assert_eq!((class.base, class.sub, class.interface), (0x10, 0x80, 0));
    assert!(Driver::mmio(&PLAIN).device.virtio_function().is_none());
}

#[test]
fn its_bars_are_an_array_of_six() {
    let driver = Driver::new(&PLAIN, "loc pci:0:5", false);
    let vdev = driver.in_c_at(CONFIG);
    let mut array: *const u8 = std::ptr::null();
    let place = (&raw mut array).cast();
    // `vb_mapping.guest.length`, in each edition.
    // SAFETY: `place` is valid for writes of a pointer.
    assert_eq!(unsafe { vio_ctrl_pci_bars(vdev.vsp, place) }, -6);
    // SAFETY: the array has six structures of 64 bytes.
    let bytes = unsafe { std::slice::from_raw_parts(array, 6 * 64) };
    assert_eq!(bytes[32..40], 0x8000_u64.to_le_bytes());
    assert_eq!(
        (bytes[48], bytes[64 + 32..64 + 40].iter().max()),
        (4, Some(&0)),
        "64 bits of memory"
    );
    // SAFETY: as above.
    assert_eq!(unsafe { vio_ctrl_pci_bars_710(vdev.vsp, place) }, -6);
    // SAFETY: the array has six structures of 56 bytes.
    let bytes = unsafe { std::slice::from_raw_parts(array, 6 * 56) };
    assert_eq!((&bytes[32..36], bytes[40]), (&0x8000_u32.to_le_bytes()[..], 4));
    // SAFETY: as above.
    assert_eq!(unsafe { vio_ctrl_pci_bars(vdev.vsp, std::ptr::null()) }, libc::EINVAL);
    let mmio = Driver::mmio(&PLAIN);
    // SAFETY: as above.
    assert_eq!(unsafe { vio_ctrl_pci_bars(mmio.in_c().vsp, place) }, 0);
}

#[test]
fn a_request_goes_through_its_bar_and_its_pin() {
    let mut driver = started();
    let vdev = driver.in_c_at(CONFIG);
    assert_eq!((driver.read::<1>(STATUS), vdev.features()), (15, [0, 1, 0, 0]));
    // SAFETY: the device lives.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    driver.chain(1, 0, &[(DATA, 4, WRITE)]);
    driver.write::<2>(NOTIFY + 4, 1);
    assert_eq!(class(&driver), 0x10000 | 1, "VIOREF_CLASS_NOTIFY");
    driver.write::<2>(NOTIFY + 8, 2);
    assert_eq!(class(&driver), 0, "there is no such queue");
    let (id, _) = vdev.take(1);
    assert_ne!(id, INVALID);
    vdev.put(1, id, 4, true);
    assert_eq!((driver.used(1, 0), driver.events()), ((1, 0, 4), vec![Event::Line(true)]));
    // A read clears it.
    assert_eq!((driver.read::<1>(ISR), driver.read::<1>(ISR)), (1, 0));
    assert_eq!(driver.events(), [Event::Line(false)]);
    driver.write::<1>(STATUS, 0);
    assert_eq!(class(&driver), 0x30000);
}

#[test]
fn a_vector_is_that_of_the_queue() {
    let mut driver = started();
    driver.host.msix.store(true, Ordering::Relaxed);
    let vdev = driver.in_c_at(CONFIG);
    // SAFETY: the device lives.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    driver.chain(1, 0, &[(DATA, 4, WRITE)]);
    vdev.put(1, vdev.take(1).0, 4, true);
    assert_eq!(driver.events(), [Event::Vector(1)]);
    // SAFETY: as above.
    unsafe { gasp_qvm::vio::exports::vio_config_update(vdev.vsp) };
    assert_eq!(driver.events(), [Event::Vector(2)]);
    driver.write::<2>(QUEUE_SELECT, 1);
    driver.write::<2>(QUEUE_VECTOR, 0xffff);
    driver.chain(1, 0, &[(DATA, 4, WRITE)]);
    vdev.put(1, vdev.take(1).0, 4, true);
    assert_eq!((driver.used(1, 0).0, driver.events()), (2, vec![]));
}

#[test]
fn the_configuration_is_as_long_as_the_vdev_says() {
    let driver = Driver::new(&PLAIN, "loc pci:0:5", false);
    driver.write::<4>(CONFIG + 28, 7);
    assert_eq!(driver.read::<4>(CONFIG + 28), 7);
    let reads = driver.read::<4>(CONFIG + 20);
    assert_eq!((driver.read::<8>(CONFIG + 28), driver.read::<1>(CONFIG + 32)), (0, 0));
    assert_eq!((driver.read::<4>(0x7ffc), driver.read::<8>(0xf_0000)), (0, 0));
    driver.write::<8>(CONFIG + 28, 9);
    assert_eq!(driver.read::<4>(CONFIG + 20), reads + 1);
}

#[test]
fn a_function_that_is_not_bus_master_reaches_nothing() {
    let mut driver = started();
    let vdev = driver.in_c_at(CONFIG);
    // SAFETY: the device lives.
    assert_eq!(unsafe { vio_setup_queues(vdev.vsp) }, 0);
    driver.chain(1, 0, &[(DATA, 4, WRITE)]);
    driver.chain(1, 1, &[(DATA, 4, WRITE)]);
    let (id, first) = vdev.take(1);
    driver.device.hold_back(true);
    let mut request = Converted::new(1);
    assert_eq!(vdev.get_iov(1, first, &mut request), -libc::EPERM as isize);
    vdev.put(1, id, 4, true);
    assert_eq!(driver.used(1, 0).0, 0);
    driver.device.hold_back(false);
    // What it was to do and could not is lost.
    assert_eq!((vdev.take(1).0, driver.read::<1>(STATUS)), (INVALID, 15 | 64));
}
