//! A call of a queue that found it before a reset, and goes on after it.

use super::*;
use gasp::{Guest, GuestPhys, MemoryObject};
use gasp_capi::types::Vdev;

#[derive(Debug)]
struct Alone(gasp::Vdev);

impl Outside for Alone {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn pointer(&self) -> *const Vdev {
        core::ptr::null()
    }
    fn location(&self) -> u64 {
        0
    }
    fn vdev(&self) -> &gasp::Vdev {
        &self.0
    }
    fn is_held_back(&self) -> bool {
        false
    }
    fn line(&self, _: bool) {}
    fn uses_msix(&self) -> bool {
        false
    }
    fn vector(&self, _: u16) {}
}

#[test]
fn a_call_that_found_a_queue_before_its_end_does_nothing_after_it() {
    let guest = Guest::builder().build().unwrap();
    let ram = MemoryObject::ram(1 << 20).create().unwrap();
    guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
    let outside = Arc::new(Alone(guest.vdev("alone").unwrap()));
    let description = Description {
        device_type: 4,
        vendor_id: 0,
        pci_class: 0,
        num_queues: 1,
        device_config_size: 0,
        device_features: [0; 4],
    };
    // By a reset, and by QueueReady.
    for register in [0x70, 0x44] {
        let poke = |at, bytes: &[u8]| guest.write_firmware(GuestPhys(at), bytes).unwrap();
        let device = Virtio::new(outside.clone(), Transport::Mmio, &description).unwrap();
        let device = Arc::new(device);
        device.init_queue(0, 8).unwrap();
        let set = |at, value: u32| device.write(at, &value.to_le_bytes());
        for (at, value) in [(0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11)] {
            set(at, value);
        }
        for (at, value) in [(0x80, 0x1000), (0x90, 0x2000), (0xa0, 0x3000), (0x44, 1), (0x70, 15)] {
            set(at, value);
        }
        // Two requests of one byte.
        poke(0x1000, &[0, 0x40, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        poke(0x1010, &[0, 0x40, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        poke(0x2000, &[0, 0, 2, 0, 0, 0, 1, 0]);
        poke(0x3000, &[0; 80]);
        device.set_up_queues().unwrap();
        let (_, queue) = device.shared.lock().queues[0].clone().unwrap();
        assert_eq!(queue.take().unwrap(), Some(0));
        set(register, 0);
        if register == 0x70 {
            device.reset();
        }
        assert_eq!(queue.take().unwrap(), None);
        assert_eq!(queue.put(0, 1, true).unwrap(), Some(false));
        assert!(queue.find(0).is_none());
        let mut used = [7; 80];
        guest.read_firmware(GuestPhys(0x3000), &mut used).unwrap();
        assert_eq!(used, [0; 80]);
        device.reset();
    }
}
