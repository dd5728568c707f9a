//! The common configuration (virtio 1.2, 4.1.4.3) and the state of the device behind it.
//!
//! The guest may access it with any width: a read is cut out of the bytes of the whole, and a write
//! is merged into each field that it touches.

use super::layout::COMMON_LEN;
use super::status::{
    ACCESS_PLATFORM, DRIVER_OK, FEATURES_OK, NEEDS_RESET, OF_DRIVER, OF_TRANSPORT, VERSION_1,
};

/// The value of a vector register for "none".
pub(super) const NO_VECTOR: u16 = 0xffff;

/// The registers of one queue.
#[derive(Clone, Debug)]
pub(super) struct QueueRegisters {
    max: u16,
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    /// Descriptor table, driver area, device area.
    pub(super) places: [u64; 3],
}

/// What the device's thread is to do about the device status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Start,
    Reset,
}

#[derive(Debug)]
pub(super) struct Registers {
    offered: u64,
    /// The driver has to accept that its device is behind an IOMMU.
    needs_platform: bool,
    device_select: u32,
    driver_select: u32,
    accepted: u64,
    config_vector: u16,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueRegisters>,
    order: Option<Order>,
}

/// The fields, by offset.
const DEVICE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const QUEUES: u64 = 0x12;
const STATUS: u64 = 0x14;
const GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY: u64 = 0x1e;
const QUEUE_PLACES: [u64; 3] = [0x20, 0x28, 0x30];
/// Offset and length of each field that can be written, in the order in which a wide write reaches
/// them.
const WRITABLE: [(u64, usize); 12] = [
    (DEVICE_SELECT, 4),
    (DRIVER_SELECT, 4),
    (DRIVER_FEATURE, 4),
    (CONFIG_VECTOR, 2),
    (STATUS, 1),
    (QUEUE_SELECT, 2),
    (QUEUE_SIZE, 2),
    (QUEUE_VECTOR, 2),
    (QUEUE_ENABLE, 2),
    (QUEUE_PLACES[0], 8),
    (QUEUE_PLACES[1], 8),
    (QUEUE_PLACES[2], 8),
];

impl Registers {
    pub(super) fn new(features: u64, needs_platform: bool, sizes: &[u16]) -> Self {
        let queue = |&max: &u16| QueueRegisters {
            max,
            size: max,
            vector: NO_VECTOR,
            enabled: false,
            places: [0; 3],
        };
        Self {
            offered: features | OF_TRANSPORT,
            needs_platform,
            device_select: 0,
            driver_select: 0,
            accepted: 0,
            config_vector: NO_VECTOR,
            status: 0,
            queue_select: 0,
            queues: sizes.iter().map(queue).collect(),
            order: None,
        }
    }

    /// Resets to the state after power-on.
    pub(super) fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max).collect();
        *self = Self::new(self.offered, self.needs_platform, &sizes);
    }

    /// Reads from the common configuration; bytes past its end are 0.
    pub(super) fn read(&self, offset: u64, generation: u8, into: &mut [u8]) {
        let image = self.image(generation);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, byte) in into.iter_mut().zip(image.iter().skip(from).chain([&0; 8])) {
            *place = *byte;
        }
    }

    /// Writes to the common configuration. Returns whether the device's thread has something to do.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let end = offset.saturating_add(bytes.len() as u64);
        for (start, len) in WRITABLE {
            if start >= end || start + len as u64 <= offset {
                continue;
            }
            // Until a reset is complete, nothing else is accepted: the driver waits for it.
            if self.order == Some(Order::Reset) {
                break;
            }
            let mut whole = [0; 8];
            let field = whole.get_mut(..len).unwrap_or_default();
            self.read(start, 0, field);
            for (at, byte) in (offset..).zip(bytes) {
                let place = at.checked_sub(start).and_then(|at| field.get_mut(at as usize));
                if let Some(place) = place {
                    *place = *byte;
                }
            }
            self.set(start, u64::from_le_bytes(whole));
        }
        self.order.is_some()
    }

    fn image(&self, generation: u8) -> [u8; COMMON_LEN as usize] {
        let mut image = [0; COMMON_LEN as usize];
        let mut put = |at: u64, bytes: &[u8]| {
            let places = image.iter_mut().skip(at as usize);
            places.zip(bytes).for_each(|(place, byte)| *place = *byte);
        };
        put(DEVICE_SELECT, &self.device_select.to_le_bytes());
        put(DEVICE_FEATURE, &half(self.offered, self.device_select).to_le_bytes());
        put(DRIVER_SELECT, &self.driver_select.to_le_bytes());
        put(DRIVER_FEATURE, &half(self.accepted, self.driver_select).to_le_bytes());
        put(CONFIG_VECTOR, &self.config_vector.to_le_bytes());
        put(QUEUES, &(self.queues.len() as u16).to_le_bytes());
        put(STATUS, &[self.status]);
        put(GENERATION, &[generation]);
        put(QUEUE_SELECT, &self.queue_select.to_le_bytes());
        // A queue that is not there has size 0 (4.1.4.3.1).
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(QUEUE_SIZE, &queue.size.to_le_bytes());
            put(QUEUE_VECTOR, &queue.vector.to_le_bytes());
            put(QUEUE_ENABLE, &u16::from(queue.enabled).to_le_bytes());
            put(QUEUE_NOTIFY, &self.queue_select.to_le_bytes());
            for (at, place) in QUEUE_PLACES.into_iter().zip(queue.places) {
                put(at, &place.to_le_bytes());
            }
        }
        image
    }

    /// Sets one field to its whole new value.
    fn set(&mut self, field: u64, value: u64) {
        match field {
            DEVICE_SELECT => self.device_select = value as u32,
            DRIVER_SELECT => self.driver_select = value as u32,
            DRIVER_FEATURE if self.status & FEATURES_OK == 0 && self.driver_select < 2 => {
                let shift = 32 * self.driver_select;
                let rest = self.accepted & !(u64::from(u32::MAX) << shift);
                self.accepted = rest | u64::from(value as u32) << shift;
            }
            CONFIG_VECTOR => self.config_vector = self.vector(value as u16),
            STATUS => self.set_status(value as u8),
            QUEUE_SELECT => self.queue_select = value as u16,
            QUEUE_VECTOR => {
                let vector = self.vector(value as u16);
                if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) {
                    queue.vector = vector;
                }
            }
            _ => self.set_queue(field, value),
        }
    }

    /// Sets a field of the selected queue that is fixed while the queue is in use.
    fn set_queue(&mut self, field: u64, value: u64) {
        let started = self.status & DRIVER_OK != 0;
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        if started || queue.enabled {
            return;
        }
        match field {
            // A split queue's size is a power of two (2.7).
            QUEUE_SIZE if (value as u16).is_power_of_two() && value as u16 <= queue.max => {
                queue.size = value as u16;
            }
            QUEUE_ENABLE => queue.enabled = value == 1,
            _ => {
                let at = QUEUE_PLACES.into_iter().position(|place| place == field);
                if let Some(place) = at.and_then(|at| queue.places.get_mut(at)) {
                    *place = value;
                }
            }
        }
    }

    /// One vector for each queue, and that of the configuration (4.1.5.1.2).
    fn vector(&self, value: u16) -> u16 {
        if usize::from(value) <= self.queues.len() { value } else { NO_VECTOR }
    }

    fn set_status(&mut self, value: u8) {
        if value == 0 {
            // A device that has not started has nothing to end. One that has reads as not reset
            // until its thread has ended what it does (4.1.4.3.1).
            match self.status & DRIVER_OK {
                0 => self.reset(),
                _ => self.order = Some(Order::Reset),
            }
            return;
        }
        // Bits are cleared by a reset only.
        let new = value & OF_DRIVER & !self.status;
        self.status |= new & !(FEATURES_OK | DRIVER_OK);
        if new & FEATURES_OK != 0 && self.are_features_supported() {
            self.status |= FEATURES_OK;
        }
        if new & DRIVER_OK != 0 && self.status & FEATURES_OK != 0 {
            self.status |= DRIVER_OK;
            self.order = Some(Order::Start);
        }
    }

    /// Whether the device can work with what the driver has accepted (2.2.2, 6.1, 6.2).
    fn are_features_supported(&self) -> bool {
        let platform = !self.needs_platform || self.accepted & ACCESS_PLATFORM != 0;
        self.accepted & !self.offered == 0 && self.accepted & VERSION_1 != 0 && platform
    }

    /// What the device's thread is to do. A reset is asked for until it is
    /// [complete](Self::reset).
    pub(super) fn take_order(&mut self) -> Option<Order> {
        match self.order {
            Some(Order::Start) => self.order.take(),
            order => order,
        }
    }

    /// Whether the driver waits for a reset.
    pub(super) fn is_resetting(&self) -> bool {
        self.order == Some(Order::Reset)
    }

    /// The features that the driver has accepted.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn queues(&self) -> &[QueueRegisters] {
        &self.queues
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector
    }

    /// Sets the bit that asks the driver for a reset. Returns whether it is to be interrupted for
    /// that (2.1.2).
    pub(super) fn set_needs_reset(&mut self) -> bool {
        self.status |= NEEDS_RESET;
        self.status & DRIVER_OK != 0
    }
}

/// Bits `32 * select` and on.
fn half(bits: u64, select: u32) -> u32 {
    match select {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = VERSION_1 | ACCESS_PLATFORM;

    fn write(registers: &mut Registers, field: u64, value: u64, len: usize) -> bool {
        registers.write(field, &value.to_le_bytes()[..len])
    }

    fn status(registers: &Registers) -> u8 {
        let mut byte = [0];
        registers.read(STATUS, 0, &mut byte);
        byte[0]
    }

    /// A device that its driver has started.
    fn started() -> Registers {
        let mut registers = Registers::new(0, false, &[8, 8]);
        write(&mut registers, STATUS, 3, 1);
        write(&mut registers, DRIVER_SELECT, 1, 4);
        write(&mut registers, DRIVER_FEATURE, ALL >> 32, 4);
        write(&mut registers, STATUS, 11, 1);
        assert!(write(&mut registers, STATUS, 15, 1), "there is something to do");
        assert_eq!(registers.take_order(), Some(Order::Start));
        assert_eq!(registers.take_order(), None);
        registers
    }

    #[test]
    fn until_a_reset_is_complete_nothing_is_accepted_and_the_status_stays() {
        let mut registers = started();
        assert!(write(&mut registers, STATUS, 0, 1) && registers.is_resetting());
        write(&mut registers, STATUS, 1, 1);
        write(&mut registers, QUEUE_SELECT, 1, 2);
        assert_eq!((status(&registers), registers.queue_select), (15, 0));
        assert_eq!(registers.take_order(), Some(Order::Reset));
        assert_eq!(registers.take_order(), Some(Order::Reset), "it is not complete");
        registers.reset();
        assert_eq!((status(&registers), registers.take_order()), (0, None));
        // A device that was not started is reset at once.
        write(&mut registers, STATUS, 3, 1);
        write(&mut registers, QUEUE_SIZE, 4, 2);
        assert!(!write(&mut registers, STATUS, 0, 1));
        assert_eq!((status(&registers), registers.queues[0].size), (0, 8));
    }

    #[test]
    fn a_reset_overtakes_a_start() {
        let mut registers = started();
        registers.order = Some(Order::Start);
        write(&mut registers, STATUS, 0, 1);
        assert_eq!(registers.take_order(), Some(Order::Reset));
    }

    #[test]
    fn the_driver_sets_its_own_bits_and_clears_none() {
        let mut registers = Registers::new(0, false, &[8]);
        write(&mut registers, STATUS, 0xff, 1);
        assert_eq!(status(&registers), 1 | 2 | 128);
        write(&mut registers, STATUS, 1, 1);
        assert_eq!(status(&registers), 1 | 2 | 128);
        assert!(!registers.set_needs_reset(), "nobody listens before the start");
        let mut registers = started();
        assert!(registers.set_needs_reset());
        write(&mut registers, STATUS, 15, 1);
        assert_eq!(status(&registers), 15 | 64);
    }

    #[test]
    fn queues_are_fixed_by_the_start_and_their_vectors_are_not() {
        let mut registers = started();
        for (field, value) in [(QUEUE_SIZE, 4), (QUEUE_ENABLE, 1), (QUEUE_PLACES[1], 0x1000)] {
            write(&mut registers, field, value, 2);
        }
        write(&mut registers, QUEUE_VECTOR, 2, 2);
        let queue = &registers.queues[0];
        let fixed = (queue.size, queue.enabled, queue.places);
        assert_eq!((fixed, queue.vector), ((8, false, [0; 3]), 2));
    }

    #[test]
    fn a_wide_write_reaches_each_field_that_it_touches() {
        let mut registers = Registers::new(0, false, &[8, 8]);
        // Vector of the configuration, number of queues, status, generation, queue.
        registers.write(CONFIG_VECTOR, &[2, 0, 9, 9, 3, 9, 1, 0]);
        assert_eq!((registers.config_vector, registers.queue_select), (2, 1));
        assert_eq!((status(&registers), registers.queues.len()), (3, 2));
        // The middle of a place, across two of them.
        registers.write(QUEUE_PLACES[0] + 6, &[1, 2, 3, 4]);
        assert_eq!(registers.queues[1].places, [0x0201 << 48, 0x0403, 0]);
        registers.write(u64::MAX, &[1]);
        registers.write(COMMON_LEN, &[1; 8]);
    }
}
