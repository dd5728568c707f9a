//! The common configuration (virtio 1.2, 4.1.4.3) and the state of the device behind it.
//!
//! The guest may access it with any width: a read is cut out of the bytes of the whole, and a write
//! is merged into each field that it touches. A transport with other registers accesses it field by
//! field.

use super::field::{Field, PLACES, WRITABLE};
use super::layout::COMMON_LEN;
use super::queue_config::{NO_VECTOR, QueueConfig};
use super::status::{
    ACCESS_PLATFORM, DRIVER_OK, FEATURES_OK, NEEDS_RESET, OF_DRIVER, OF_TRANSPORT, VERSION_1,
};

/// What the device is to do because of what was written to its status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// DRIVER_OK was set: [set up](QueueConfig::set_up) the queues.
    Start,
    /// End what is in progress, then call [`CommonConfig::reset`].
    Reset,
}

/// The state of a device and its negotiation with the driver, whatever the transport.
///
/// It has the rules of the standard for what a driver may write, and when: features until
/// FEATURES_OK, which stays clear if they cannot be met; queues until they are enabled; nothing
/// while a reset is in progress. A transport translates its registers to [`Field`]s, or, if its
/// registers are those of virtio over PCI, to bytes.
///
/// ```
/// use gasp_virtio::transport::{CommonConfig, Field, Order, VERSION_1};
///
/// let mut common = CommonConfig::new(0, false, &[256]);
/// common.set(Field::DEVICE_STATUS, 3);
/// common.set(Field::DRIVER_FEATURE_SELECT, 1);
/// common.set(Field::DRIVER_FEATURE, VERSION_1 >> 32);
/// common.set(Field::DEVICE_STATUS, 3 | 8);
/// assert_eq!(common.get(Field::DEVICE_STATUS), 11, "the features are agreed upon");
/// assert!(common.set(Field::DEVICE_STATUS, 11 | 4));
/// assert_eq!(common.take_order(), Some(Order::Start));
/// ```
#[derive(Debug)]
pub struct CommonConfig {
    offered: u64,
    /// The driver has to accept that its device is behind an IOMMU.
    needs_platform: bool,
    device_select: u32,
    driver_select: u32,
    accepted: u64,
    config_vector: u16,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueConfig>,
    order: Option<Order>,
}

impl CommonConfig {
    /// The configuration after power-on of a device that offers `features` and those of the
    /// transport, with queues of at most these sizes (powers of two up to 32,768; 0 for one that
    /// is not there).
    ///
    /// With `needs_platform`, FEATURES_OK stays clear unless the driver accepts
    /// `VIRTIO_F_ACCESS_PLATFORM`: the device is behind an IOMMU.
    pub fn new(features: u64, needs_platform: bool, sizes: &[u16]) -> Self {
        Self {
            offered: features | OF_TRANSPORT,
            needs_platform,
            device_select: 0,
            driver_select: 0,
            accepted: 0,
            config_vector: NO_VECTOR,
            status: 0,
            queue_select: 0,
            queues: sizes.iter().map(|&max| QueueConfig::new(max)).collect(),
            order: None,
        }
    }

    /// Resets to the state after power-on.
    pub fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max).collect();
        *self = Self::new(self.offered, self.needs_platform, &sizes);
    }

    /// Reads from the common configuration; bytes past its end are 0.
    pub fn read(&self, offset: u64, generation: u8, into: &mut [u8]) {
        let image = self.image(generation);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, byte) in into.iter_mut().zip(image.iter().skip(from).chain([&0; 8])) {
            *place = *byte;
        }
    }

    /// Writes to the common configuration. Returns whether there is an [order](Self::take_order).
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let end = offset.saturating_add(bytes.len() as u64);
        for field in WRITABLE {
            let Field { offset: start, len } = field;
            if start >= end || start + len as u64 <= offset {
                continue;
            }
            // Until a reset is complete, nothing else is accepted: the driver waits for it.
            if self.order == Some(Order::Reset) {
                break;
            }
            let mut whole = [0; 8];
            let merged = whole.get_mut(..len).unwrap_or_default();
            self.read(start, 0, merged);
            for (at, byte) in (offset..).zip(bytes) {
                let place = at.checked_sub(start).and_then(|at| merged.get_mut(at as usize));
                if let Some(place) = place {
                    *place = *byte;
                }
            }
            self.set_field(field, u64::from_le_bytes(whole));
        }
        self.order.is_some()
    }

    /// The value of a field. That of the configuration's generation is 0: the transport has it.
    pub fn get(&self, field: Field) -> u64 {
        let mut bytes = [0; 8];
        self.read(field.offset, 0, bytes.get_mut(..field.len).unwrap_or_default());
        u64::from_le_bytes(bytes)
    }

    /// Sets a field; the bits above its length are ignored, and so are fields that can only be
    /// read. Returns whether there is an [order](Self::take_order).
    pub fn set(&mut self, field: Field, value: u64) -> bool {
        self.write(field.offset, value.to_le_bytes().get(..field.len).unwrap_or_default())
    }

    /// Sets the low or the high half of an address: [`set`](Self::set) for transports with registers
    /// of 32 bits.
    pub fn set_half(&mut self, field: Field, high: bool, value: u32) -> bool {
        self.set(field.half(high), value.into())
    }

    fn image(&self, generation: u8) -> [u8; COMMON_LEN as usize] {
        let mut image = [0; COMMON_LEN as usize];
        let mut put = |field: Field, bytes: &[u8]| {
            let places = image.iter_mut().skip(field.offset as usize);
            places.zip(bytes).for_each(|(place, byte)| *place = *byte);
        };
        put(Field::DEVICE_FEATURE_SELECT, &self.device_select.to_le_bytes());
        put(Field::DEVICE_FEATURE, &half(self.offered, self.device_select).to_le_bytes());
        put(Field::DRIVER_FEATURE_SELECT, &self.driver_select.to_le_bytes());
        put(Field::DRIVER_FEATURE, &half(self.accepted, self.driver_select).to_le_bytes());
        put(Field::CONFIG_MSIX_VECTOR, &self.config_vector.to_le_bytes());
        put(Field::NUM_QUEUES, &(self.queues.len() as u16).to_le_bytes());
        put(Field::DEVICE_STATUS, &[self.status]);
        put(Field::CONFIG_GENERATION, &[generation]);
        put(Field::QUEUE_SELECT, &self.queue_select.to_le_bytes());
        // A queue that is not there has size 0 (4.1.4.3.1).
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(Field::QUEUE_SIZE, &queue.size.to_le_bytes());
            put(Field::QUEUE_MSIX_VECTOR, &queue.vector.to_le_bytes());
            put(Field::QUEUE_ENABLE, &u16::from(queue.enabled).to_le_bytes());
            put(Field::QUEUE_NOTIFY_OFF, &self.queue_select.to_le_bytes());
            for (field, place) in PLACES.into_iter().zip(queue.places) {
                put(field, &place.to_le_bytes());
            }
        }
        image
    }

    /// Sets one field to its whole new value.
    fn set_field(&mut self, field: Field, value: u64) {
        match field {
            Field::DEVICE_FEATURE_SELECT => self.device_select = value as u32,
            Field::DRIVER_FEATURE_SELECT => self.driver_select = value as u32,
            Field::DRIVER_FEATURE if self.status & FEATURES_OK == 0 && self.driver_select < 2 => {
                let shift = 32 * self.driver_select;
                let rest = self.accepted & !(u64::from(u32::MAX) << shift);
                self.accepted = rest | u64::from(value as u32) << shift;
            }
            Field::CONFIG_MSIX_VECTOR => self.config_vector = self.vector(value as u16),
            Field::DEVICE_STATUS => self.set_status(value as u8),
            Field::QUEUE_SELECT => self.queue_select = value as u16,
            Field::QUEUE_MSIX_VECTOR => {
                let vector = self.vector(value as u16);
                if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) {
                    queue.vector = vector;
                }
            }
            _ => self.set_queue(field, value),
        }
    }

    /// Sets a field of the selected queue that is fixed while the queue is in use.
    fn set_queue(&mut self, field: Field, value: u64) {
        let started = self.status & DRIVER_OK != 0;
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        if started || queue.enabled {
            return;
        }
        match field {
            // A split queue's size is a power of two (2.7).
            Field::QUEUE_SIZE if (value as u16).is_power_of_two() && value as u16 <= queue.max => {
                queue.size = value as u16;
            }
            Field::QUEUE_ENABLE => queue.enabled = value == 1,
            _ => {
                let at = PLACES.into_iter().position(|place| place == field);
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

    /// What the device is to do. A reset is asked for until it is [complete](Self::reset).
    pub fn take_order(&mut self) -> Option<Order> {
        match self.order {
            Some(Order::Start) => self.order.take(),
            order => order,
        }
    }

    /// Sets how many entries queue `index` can have. Returns whether it could: there is such a queue,
    /// and the driver has not enabled it.
    pub fn set_queue_max(&mut self, index: usize, max: u16) -> bool {
        let queue = self.queues.get_mut(index).filter(|queue| !queue.enabled);
        queue.map(|queue| *queue = QueueConfig::new(max)).is_some()
    }

    /// Disables the selected queue, for a transport whose drivers may ask for that without a reset
    /// (MMIO: virtio 1.2, 4.2.2.2). Returns its index if it was enabled.
    pub fn disable_queue(&mut self) -> Option<u16> {
        if self.is_resetting() {
            return None;
        }
        let queue = self.queues.get_mut(usize::from(self.queue_select));
        let queue = queue.filter(|queue| queue.enabled)?;
        queue.enabled = false;
        Some(self.queue_select)
    }

    /// The device refuses the features that the driver has accepted: FEATURES_OK is cleared, unless
    /// the driver has started the device.
    pub fn refuse_features(&mut self) {
        if self.status & DRIVER_OK == 0 {
            self.status &= !FEATURES_OK;
        }
    }

    /// Whether the driver waits for a reset.
    pub fn is_resetting(&self) -> bool {
        self.order == Some(Order::Reset)
    }

    /// The features that the driver has accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The queues, as the driver has set them up.
    pub fn queues(&self) -> &[QueueConfig] {
        &self.queues
    }

    /// The MSI-X vector for changes of the configuration.
    pub fn config_vector(&self) -> u16 {
        self.config_vector
    }

    /// Sets the bit that asks the driver for a reset. Returns whether it is to be interrupted for
    /// that (2.1.2).
    pub fn set_needs_reset(&mut self) -> bool {
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

    fn write(registers: &mut CommonConfig, field: Field, value: u64, len: usize) -> bool {
        registers.write(field.offset, &value.to_le_bytes()[..len])
    }

    fn status(registers: &CommonConfig) -> u8 {
        let mut byte = [0];
        registers.read(Field::DEVICE_STATUS.offset, 0, &mut byte);
        byte[0]
    }

    /// A device that its driver has started.
    fn started() -> CommonConfig {
        let mut registers = CommonConfig::new(0, false, &[8, 8]);
        write(&mut registers, Field::DEVICE_STATUS, 3, 1);
        write(&mut registers, Field::DRIVER_FEATURE_SELECT, 1, 4);
        write(&mut registers, Field::DRIVER_FEATURE, ALL >> 32, 4);
        write(&mut registers, Field::DEVICE_STATUS, 11, 1);
        assert!(write(&mut registers, Field::DEVICE_STATUS, 15, 1), "there is something to do");
        assert_eq!(registers.take_order(), Some(Order::Start));
        assert_eq!(registers.take_order(), None);
        registers
    }

    #[test]
    fn until_a_reset_is_complete_nothing_is_accepted_and_the_status_stays() {
        let mut registers = started();
        assert!(write(&mut registers, Field::DEVICE_STATUS, 0, 1) && registers.is_resetting());
        write(&mut registers, Field::DEVICE_STATUS, 1, 1);
        write(&mut registers, Field::QUEUE_SELECT, 1, 2);
        assert_eq!((status(&registers), registers.queue_select), (15, 0));
        assert_eq!(registers.take_order(), Some(Order::Reset));
        assert_eq!(registers.take_order(), Some(Order::Reset), "it is not complete");
        registers.reset();
        assert_eq!((status(&registers), registers.take_order()), (0, None));
        // A device that was not started is reset at once.
        write(&mut registers, Field::DEVICE_STATUS, 3, 1);
        write(&mut registers, Field::QUEUE_SIZE, 4, 2);
        assert!(!write(&mut registers, Field::DEVICE_STATUS, 0, 1));
        assert_eq!((status(&registers), registers.queues[0].size), (0, 8));
    }

    #[test]
    fn a_reset_overtakes_a_start() {
        let mut registers = started();
        registers.order = Some(Order::Start);
        write(&mut registers, Field::DEVICE_STATUS, 0, 1);
        assert_eq!(registers.take_order(), Some(Order::Reset));
    }

    #[test]
    fn the_driver_sets_its_own_bits_and_clears_none() {
        let mut registers = CommonConfig::new(0, false, &[8]);
        write(&mut registers, Field::DEVICE_STATUS, 0xff, 1);
        assert_eq!(status(&registers), 1 | 2 | 128);
        write(&mut registers, Field::DEVICE_STATUS, 1, 1);
        assert_eq!(status(&registers), 1 | 2 | 128);
        assert!(!registers.set_needs_reset(), "nobody listens before the start");
        let mut registers = started();
        assert!(registers.set_needs_reset());
        write(&mut registers, Field::DEVICE_STATUS, 15, 1);
        assert_eq!(status(&registers), 15 | 64);
    }

    #[test]
    fn queues_are_fixed_by_the_start_and_their_vectors_are_not() {
        let mut registers = started();
        for (field, value) in
            [(Field::QUEUE_SIZE, 4), (Field::QUEUE_ENABLE, 1), (Field::QUEUE_DRIVER, 0x1000)]
        {
            write(&mut registers, field, value, 2);
        }
        write(&mut registers, Field::QUEUE_MSIX_VECTOR, 2, 2);
        let queue = &registers.queues[0];
        let fixed = (queue.size, queue.enabled, queue.places);
        assert_eq!((fixed, queue.vector), ((8, false, [0; 3]), 2));
    }

    #[test]
    fn a_wide_write_reaches_each_field_that_it_touches() {
        let mut registers = CommonConfig::new(0, false, &[8, 8]);
        // Vector of the configuration, number of queues, status, generation, queue.
        registers.write(Field::CONFIG_MSIX_VECTOR.offset, &[2, 0, 9, 9, 3, 9, 1, 0]);
        assert_eq!((registers.config_vector, registers.queue_select), (2, 1));
        assert_eq!((status(&registers), registers.queues.len()), (3, 2));
        // The middle of a place, across two of them.
        registers.write(Field::QUEUE_DESC.offset + 6, &[1, 2, 3, 4]);
        assert_eq!(registers.queues[1].places, [0x0201 << 48, 0x0403, 0]);
        registers.write(u64::MAX, &[1]);
        registers.write(COMMON_LEN, &[1; 8]);
    }

    #[test]
    fn a_transport_sets_field_by_field() {
        let mut common = CommonConfig::new(1, false, &[8, 0]);
        assert_eq!(common.get(Field::DEVICE_FEATURE), 1 | 3 << 28);
        common.set_half(Field::QUEUE_DRIVER, false, 0x1234_5678);
        common.set_half(Field::QUEUE_DRIVER, true, 0x9);
        assert_eq!(common.queues()[0].places(), [0, 0x9_1234_5678, 0]);
        // Bits above the field's length do not reach its neighbour.
        common.set(Field::DEVICE_STATUS, 0x0101);
        assert_eq!(
            (common.get(Field::DEVICE_STATUS), common.get(Field::CONFIG_GENERATION)),
            (1, 0)
        );
        common.set(Field::QUEUE_SELECT, 1);
        assert_eq!(common.get(Field::QUEUE_SIZE), 0, "it is not there yet");
        assert!(common.set_queue_max(1, 16) && !common.set_queue_max(2, 16));
        assert_eq!((common.get(Field::QUEUE_SIZE), common.queues()[1].max()), (16, 16));
    }

    #[test]
    fn a_queue_is_disabled_by_itself_and_its_size_fixed_while_it_is_not() {
        let mut common = started();
        assert_eq!(common.disable_queue(), None);
        let mut common = CommonConfig::new(0, false, &[8, 8]);
        common.set(Field::QUEUE_SELECT, 1);
        common.set(Field::QUEUE_ENABLE, 1);
        assert!(!common.set_queue_max(1, 4) && common.queues()[1].is_enabled());
        assert_eq!(common.disable_queue(), Some(1));
        assert!(!common.queues()[1].is_enabled() && common.set_queue_max(1, 4));
    }

    #[test]
    fn a_device_refuses_features_until_it_is_started() {
        let mut common = CommonConfig::new(0, false, &[8]);
        common.set(Field::DRIVER_FEATURE_SELECT, 1);
        common.set(Field::DRIVER_FEATURE, ALL >> 32);
        common.set(Field::DEVICE_STATUS, 11);
        common.refuse_features();
        assert_eq!(status(&common), 3);
        let mut common = started();
        common.refuse_features();
        assert_eq!(status(&common), 15);
    }
}
