//! Features (NVMe 1.4, 5.21.1): settings that the guest makes and reads back.

use super::status::Status;

/// Feature identifiers.
const ARBITRATION: u8 = 0x01;
const POWER: u8 = 0x02;
const TEMPERATURE: u8 = 0x04;
const ERROR_RECOVERY: u8 = 0x05;
const WRITE_CACHE: u8 = 0x06;
const QUEUES: u8 = 0x07;
const COALESCING: u8 = 0x08;
const VECTOR: u8 = 0x09;
const ATOMICITY: u8 = 0x0a;
const EVENTS: u8 = 0x0b;

/// What Get Features is asked for (5.13: SEL): 0 is the current value.
const DEFAULT: u32 = 1;
const SAVED: u32 = 2;
const CAPABILITIES: u32 = 3;
/// The capability of all features: they can be changed, and are not saved.
const CHANGEABLE: u32 = 1 << 2;
/// What Set Features is asked for (5.21: SV).
const SAVE: u32 = 1 << 31;

/// The bits of a temperature that name another sensor, or the lower limit: there are none.
const OTHER_TEMPERATURE: u32 = 0x3f << 16;

/// How hot the device can become, in kelvins: it never does.
pub(super) const WARNING_TEMPERATURE: u16 = 343;

/// The settings. Those that have no meaning for this device are kept to be read back:
/// all queues are served alike, interrupts are combined as it suits, and there are no
/// degrees.
#[derive(Debug)]
pub(super) struct Features {
    values: [u32; 12],
    /// How many pairs of I/O queues there are.
    pairs: u16,
}

impl Features {
    pub(super) fn new(pairs: u16) -> Self {
        let mut values = [0; 12];
        values.iter_mut().enumerate().for_each(|(id, value)| *value = default(id as u8));
        Self { values, pairs }
    }

    /// Whether what is written may stay in a cache until it is flushed.
    pub(super) fn may_cache(&self) -> bool {
        self.value(WRITE_CACHE) & 1 != 0
    }

    fn value(&self, id: u8) -> u32 {
        self.values.get(usize::from(id)).copied().unwrap_or_default()
    }

    /// Get Features (5.13): the result, from dwords 10 and 11.
    pub(super) fn get(&self, dword10: u32, dword11: u32) -> Result<u32, Status> {
        let id = dword10 as u8;
        self.check(id)?;
        match (dword10 >> 8) & 0b111 {
            CAPABILITIES => Ok(CHANGEABLE),
            select if select > CAPABILITIES => Err(Status::INVALID_FIELD),
            select => match id {
                QUEUES => Ok(self.queues()),
                // Vectors do not differ.
                VECTOR if dword11 & 0xffff > u32::from(self.pairs) => Err(Status::INVALID_FIELD),
                VECTOR => Ok(dword11 & 0xffff),
                TEMPERATURE if dword11 & OTHER_TEMPERATURE != 0 => Ok(0),
                _ if select == DEFAULT || select == SAVED => Ok(default(id)),
                _ => Ok(self.value(id)),
            },
        }
    }

    /// Set Features (5.21): the result. `has_queues` says whether there are I/O queues.
    pub(super) fn set(
        &mut self,
        dword10: u32,
        dword11: u32,
        has_queues: bool,
    ) -> Result<u32, Status> {
        let id = dword10 as u8;
        self.check(id)?;
        if dword10 & SAVE != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        match id {
            QUEUES if dword11 & 0xffff == 0xffff || dword11 >> 16 == 0xffff => {
                return Err(Status::INVALID_FIELD);
            }
            QUEUES if has_queues => return Err(Status::SEQUENCE),
            QUEUES => return Ok(self.queues()),
            VECTOR if dword11 & 0xffff > u32::from(self.pairs) => {
                return Err(Status::INVALID_FIELD);
            }
            TEMPERATURE if dword11 & OTHER_TEMPERATURE != 0 => return Ok(0),
            // There is one power state.
            POWER if dword11 & 0x1f != 0 => return Err(Status::INVALID_FIELD),
            _ => {}
        }
        if let Some(value) = self.values.get_mut(usize::from(id)) {
            *value = dword11;
        }
        Ok(0)
    }

    fn check(&self, id: u8) -> Result<(), Status> {
        match id {
            ARBITRATION | POWER | TEMPERATURE | ERROR_RECOVERY | WRITE_CACHE | QUEUES
            | COALESCING | VECTOR | ATOMICITY | EVENTS => Ok(()),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    /// How many queues the guest gets, whatever it asked for; both counted from 0.
    fn queues(&self) -> u32 {
        let last = u32::from(self.pairs) - 1;
        last | last << 16
    }
}

fn default(id: u8) -> u32 {
    match id {
        // No limit on what is taken from one queue at a time.
        ARBITRATION => 0b111,
        TEMPERATURE => WARNING_TEMPERATURE as u32,
        WRITE_CACHE => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_and_what_cannot_be_set_is_refused() {
        let mut features = Features::new(8);
        assert_eq!(features.get(QUEUES.into(), 0), Ok(0x7_0007));
        assert_eq!(features.set(QUEUES.into(), 0x3f_003f, false), Ok(0x7_0007));
        assert_eq!(features.set(QUEUES.into(), 0, true), Err(Status::SEQUENCE));
        assert_eq!(features.set(QUEUES.into(), 0xffff, false), Err(Status::INVALID_FIELD));
        assert_eq!(features.set(WRITE_CACHE.into(), 0, false), Ok(0));
        assert!(!features.may_cache());
        assert_eq!(features.get(WRITE_CACHE.into(), 0), Ok(0));
        assert_eq!(features.get(u32::from(WRITE_CACHE) | DEFAULT << 8, 0), Ok(1));
        assert_eq!(features.get(u32::from(EVENTS) | CAPABILITIES << 8, 0), Ok(CHANGEABLE));
        assert_eq!(features.get(u32::from(EVENTS) | 4 << 8, 0), Err(Status::INVALID_FIELD));
        assert_eq!(features.set(u32::from(EVENTS) | SAVE, 0, false), Err(Status::NOT_SAVEABLE));
        assert_eq!(features.set(VECTOR.into(), 9, false), Err(Status::INVALID_FIELD));
        assert_eq!(features.set(POWER.into(), 1, false), Err(Status::INVALID_FIELD));
        let limit = u32::from(WARNING_TEMPERATURE);
        assert_eq!(features.set(TEMPERATURE.into(), 1 << 20 | 250, false), Ok(0));
        assert_eq!(features.get(TEMPERATURE.into(), 1 << 20), Ok(0));
        assert_eq!(features.get(TEMPERATURE.into(), 0), Ok(limit));
        for id in [0x00, 0x03, 0x0c, 0x7f, 0xff] {
            assert_eq!(features.get(id, 0), Err(Status::INVALID_FIELD));
            assert_eq!(features.set(id, 0, false), Err(Status::INVALID_FIELD));
        }
    }
}
