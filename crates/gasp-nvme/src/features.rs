//! Features (NVMe 1.4, 5.21.1): settings that the guest writes and reads back.

use super::command::{ALL, ONLY};
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

/// What Get Features selects (5.13: SEL): 0 is the current value.
const DEFAULT: u32 = 1;
const SAVED: u32 = 2;
const CAPABILITIES: u32 = 3;
/// The capabilities of a feature: it can be changed, it belongs to a namespace. None can be
/// saved.
const CHANGEABLE: u32 = 1 << 2;
const OF_NAMESPACE: u32 = 1 << 1;
/// Set Features is to save the value (5.21: SV).
const SAVE: u32 = 1 << 31;

/// Temperature threshold (5.21.1.4): the sensor, of which 0, the composite temperature, is the only
/// one, and 15 selects all; and which of its thresholds.
const SENSOR: u32 = 0xf << 16;
const UNDER: u32 = 1 << 20;
const THRESHOLD_RESERVED: u32 = 1 << 21;
/// Error recovery (5.21.1.5): reads of deallocated blocks fail.
const DEALLOCATED_FAILS: u32 = 1 << 16;
/// Interrupt vector configuration (5.21.1.9): coalescing disabled.
const COALESCING_DISABLED: u32 = 1 << 16;
/// Asynchronous events (5.21.1.11): a critical temperature.
const TEMPERATURE_EVENT: u32 = 1 << 1;

/// The warning threshold, in kelvins, and the temperature that the device always reports.
pub(super) const WARNING_TEMPERATURE: u16 = 343;
pub(super) const ROOM_TEMPERATURE: u16 = 293;

/// The settings. Those that have no effect on this device are kept to be read back: all queues are
/// served alike, and interrupts are coalesced by batch.
#[derive(Clone, Debug)]
pub(super) struct Features {
    values: [u32; 12],
    /// The under-temperature threshold; the over-temperature threshold is in `values`.
    under_threshold: u32,
    /// A bit for each vector: coalescing is disabled.
    coalescing_disabled: [u64; 3],
    /// The number of pairs of I/O queues, at most 128.
    pairs: u16,
}

impl Features {
    pub(super) fn new(pairs: u16) -> Self {
        let mut values = [0; 12];
        values.iter_mut().enumerate().for_each(|(id, value)| *value = default(id as u8, 0));
        Self { values, under_threshold: 0, coalescing_disabled: [0; 3], pairs }
    }

    /// Whether written data may stay in a cache until it is flushed.
    pub(super) fn may_cache(&self) -> bool {
        self.value(WRITE_CACHE) & 1 != 0
    }

    /// Whether the temperature has passed a threshold.
    pub(super) fn is_temperature_critical(&self) -> bool {
        let temperature = u32::from(ROOM_TEMPERATURE);
        temperature >= self.value(TEMPERATURE) || temperature <= self.under_threshold
    }

    /// Whether a critical temperature is reported as an event.
    pub(super) fn reports_temperature(&self) -> bool {
        self.is_temperature_critical() && self.value(EVENTS) & TEMPERATURE_EVENT != 0
    }

    fn value(&self, id: u8) -> u32 {
        self.values.get(usize::from(id)).copied().unwrap_or_default()
    }

    /// Get Features (5.13): the result, from dwords 10 and 11.
    pub(super) fn get(&self, dword10: u32, dword11: u32, namespace: u32) -> Result<u32, Status> {
        let id = dword10 as u8;
        mask(id)?;
        if id == ERROR_RECOVERY && namespace != ONLY {
            return Err(Status::INVALID_NAMESPACE);
        }
        match (dword10 >> 8) & 0b111 {
            CAPABILITIES if id == ERROR_RECOVERY => Ok(CHANGEABLE | OF_NAMESPACE),
            CAPABILITIES => Ok(CHANGEABLE),
            select if select > CAPABILITIES => Err(Status::INVALID_FIELD),
            select => {
                let is_default = select == DEFAULT || select == SAVED;
                match id {
                    QUEUES => Ok(self.queues()),
                    VECTOR => {
                        let vector = self.vector(dword11)?;
                        Ok(vector | if is_default { 0 } else { self.coalescing_disabled(vector) })
                    }
                    TEMPERATURE if dword11 & (SENSOR | THRESHOLD_RESERVED) != 0 => {
                        Err(Status::INVALID_FIELD)
                    }
                    _ if is_default => Ok(default(id, dword11)),
                    TEMPERATURE if dword11 & UNDER != 0 => Ok(self.under_threshold),
                    _ => Ok(self.value(id)),
                }
            }
        }
    }

    /// Set Features (5.21): the result. `has_queues` says whether there are I/O queues.
    pub(super) fn set(
        &mut self,
        dword10: u32,
        dword11: u32,
        namespace: u32,
        has_queues: bool,
    ) -> Result<u32, Status> {
        let id = dword10 as u8;
        let mut value = dword11 & mask(id)?;
        if dword10 & SAVE != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        match (id, namespace) {
            (ERROR_RECOVERY, ONLY | ALL) => {}
            (ERROR_RECOVERY, _) => return Err(Status::INVALID_NAMESPACE),
            (_, 0 | ALL) => {}
            (_, ONLY) => return Err(Status::NOT_OF_NAMESPACE),
            _ => return Err(Status::INVALID_NAMESPACE),
        }
        match id {
            QUEUES if dword11 & 0xffff == 0xffff || dword11 >> 16 == 0xffff => {
                return Err(Status::INVALID_FIELD);
            }
            QUEUES if has_queues => return Err(Status::SEQUENCE),
            QUEUES => return Ok(self.queues()),
            VECTOR => {
                let vector = self.vector(dword11)?;
                let bit = 1 << (vector % 64);
                if let Some(word) = self.coalescing_disabled.get_mut(vector as usize / 64) {
                    *word = *word & !bit | if value & COALESCING_DISABLED != 0 { bit } else { 0 };
                }
                return Ok(0);
            }
            TEMPERATURE => {
                if ![0, SENSOR].contains(&(dword11 & SENSOR)) || dword11 & THRESHOLD_RESERVED != 0 {
                    return Err(Status::INVALID_FIELD);
                }
                value &= 0xffff;
                if dword11 & UNDER != 0 {
                    self.under_threshold = value;
                    return Ok(0);
                }
            }
            // There is one power state.
            POWER if dword11 & 0x1f != 0 => return Err(Status::INVALID_FIELD),
            ERROR_RECOVERY if dword11 & DEALLOCATED_FAILS != 0 => {
                return Err(Status::INVALID_FIELD);
            }
            _ => {}
        }
        if let Some(place) = self.values.get_mut(usize::from(id)) {
            *place = value;
        }
        Ok(0)
    }

    /// The vector that a command is about.
    fn vector(&self, dword11: u32) -> Result<u32, Status> {
        let vector = dword11 & 0xffff;
        (vector <= u32::from(self.pairs)).then_some(vector).ok_or(Status::INVALID_FIELD)
    }

    fn coalescing_disabled(&self, vector: u32) -> u32 {
        let word = self.coalescing_disabled.get(vector as usize / 64).copied().unwrap_or_default();
        if word >> (vector % 64) & 1 != 0 { COALESCING_DISABLED } else { 0 }
    }

    /// How many queues are allocated, whatever the guest requested; both numbers count from 0.
    fn queues(&self) -> u32 {
        let last = u32::from(self.pairs) - 1;
        last | last << 16
    }
}

/// The bits of a feature that are not reserved.
fn mask(id: u8) -> Result<u32, Status> {
    match id {
        ARBITRATION => Ok(0xffff_ff07),
        POWER => Ok(0xff),
        TEMPERATURE => Ok(0x1f_ffff),
        ERROR_RECOVERY => Ok(0x1_ffff),
        WRITE_CACHE | ATOMICITY => Ok(1),
        QUEUES => Ok(u32::MAX),
        COALESCING => Ok(0xffff),
        VECTOR => Ok(0x1_ffff),
        EVENTS => Ok(0x7fff),
        _ => Err(Status::INVALID_FIELD),
    }
}

fn default(id: u8, dword11: u32) -> u32 {
    match id {
        // No limit on how many commands of one queue are fetched at a time.
        ARBITRATION => 0b111,
        TEMPERATURE if dword11 & UNDER == 0 => WARNING_TEMPERATURE.into(),
        WRITE_CACHE => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(features: &mut Features, id: u8, value: u32) -> Result<u32, Status> {
        let namespace = if id == ERROR_RECOVERY { ONLY } else { 0 };
        features.set(id.into(), value, namespace, false)
    }

    fn get(features: &Features, id: u8, select: u32, dword11: u32) -> Result<u32, Status> {
        features.get(u32::from(id) | select << 8, dword11, ONLY)
    }

    const ALL_OF_THEM: [u8; 10] = [
        ARBITRATION,
        POWER,
        TEMPERATURE,
        ERROR_RECOVERY,
        WRITE_CACHE,
        QUEUES,
        COALESCING,
        VECTOR,
        ATOMICITY,
        EVENTS,
    ];

    #[test]
    fn each_mandatory_feature_has_its_default_its_bits_and_its_capabilities() {
        // Written, read back, default.
        for (id, written, read, default) in [
            (ARBITRATION, u32::MAX, 0xffff_ff07, 0b111),
            (POWER, 0xffff_ffe0, 0xe0, 0),
            (TEMPERATURE, 0xffc0_ffff, 0xffff, 343),
            (ERROR_RECOVERY, 0xfffe_ffff, 0xffff, 0),
            (WRITE_CACHE, 0xffff_fffe, 0, 1),
            (QUEUES, 0x3f_0000, 0x7_0007, 0x7_0007),
            (COALESCING, u32::MAX, 0xffff, 0),
            (VECTOR, 0xffff_0000, COALESCING_DISABLED, 0),
            (ATOMICITY, u32::MAX, 1, 0),
            (EVENTS, u32::MAX, 0x7fff, 0),
        ] {
            let mut features = Features::new(8);
            assert_eq!(get(&features, id, 0, 0), Ok(default), "{id:#x}");
            let result = if id == QUEUES { 0x7_0007 } else { 0 };
            assert_eq!(set(&mut features, id, written), Ok(result), "{id:#x}");
            assert_eq!(get(&features, id, 0, 0), Ok(read), "{id:#x}");
            assert_eq!(get(&features, id, DEFAULT, 0), Ok(default), "{id:#x}");
            assert_eq!(get(&features, id, SAVED, 0), Ok(default), "{id:#x}");
            let capabilities = if id == ERROR_RECOVERY { 0b110 } else { 0b100 };
            assert_eq!(get(&features, id, CAPABILITIES, 0), Ok(capabilities), "{id:#x}");
            (4..8).for_each(|select| {
                assert_eq!(get(&features, id, select, 0), Err(Status::INVALID_FIELD));
            });
            let saved = features.set(u32::from(id) | SAVE, 0, 0, false);
            assert_eq!(saved, Err(Status::NOT_SAVEABLE));
            assert_eq!(get(&features, id, 0, 0), Ok(read), "as before");
        }
        for id in (0..=255_u8).filter(|id| !ALL_OF_THEM.contains(id)) {
            let mut features = Features::new(8);
            assert_eq!(get(&features, id, 0, 0), Err(Status::INVALID_FIELD));
            assert_eq!(set(&mut features, id, 0), Err(Status::INVALID_FIELD));
        }
    }

    #[test]
    fn a_feature_of_a_namespace_names_one_and_another_does_not() {
        let mut features = Features::new(8);
        for id in ALL_OF_THEM {
            let mut set = |namespace| features.set(id.into(), 0, namespace, false).map(|_| ());
            let [one, none] = match id {
                ERROR_RECOVERY => [Ok(()), Err(Status::INVALID_NAMESPACE)],
                _ => [Err(Status::NOT_OF_NAMESPACE), Ok(())],
            };
            assert_eq!((set(ONLY), set(0), set(ALL)), (one, none, Ok(())), "{id:#x}");
            assert_eq!(set(2), Err(Status::INVALID_NAMESPACE));
        }
        let get = |namespace| features.get(ERROR_RECOVERY.into(), 0, namespace);
        assert_eq!([get(ONLY), get(ALL)], [Ok(0), Err(Status::INVALID_NAMESPACE)]);
    }

    #[test]
    fn what_cannot_be_set_is_refused() {
        let mut features = Features::new(8);
        for (id, value) in [
            (QUEUES, 0xffff),
            (QUEUES, 0xffff << 16),
            (VECTOR, 9),
            (POWER, 1),
            (ERROR_RECOVERY, DEALLOCATED_FAILS),
            (TEMPERATURE, 1 << 16 | 300),
            (TEMPERATURE, 1 << 21),
        ] {
            assert_eq!(set(&mut features, id, value), Err(Status::INVALID_FIELD), "{id:#x}");
        }
        assert_eq!(features.set(QUEUES.into(), 0, 0, true), Err(Status::SEQUENCE));
        assert_eq!(get(&features, VECTOR, 0, 9), Err(Status::INVALID_FIELD));
        assert_eq!(get(&features, TEMPERATURE, 0, SENSOR), Err(Status::INVALID_FIELD));
    }

    #[test]
    fn thresholds_and_vectors_are_apart() {
        let mut features = Features::new(128);
        assert!(!features.is_temperature_critical());
        assert_eq!(set(&mut features, TEMPERATURE, UNDER | 293), Ok(0));
        assert!(features.is_temperature_critical() && !features.reports_temperature());
        assert_eq!(get(&features, TEMPERATURE, 0, UNDER), Ok(293));
        assert_eq!(get(&features, TEMPERATURE, 0, 0), Ok(343));
        assert_eq!(get(&features, TEMPERATURE, DEFAULT, UNDER), Ok(0));
        assert_eq!(set(&mut features, TEMPERATURE, UNDER | 292), Ok(0));
        assert!(!features.is_temperature_critical());
        assert_eq!(set(&mut features, TEMPERATURE, SENSOR | 293), Ok(0), "of all sensors");
        assert!(features.is_temperature_critical());
        assert_eq!(set(&mut features, EVENTS, TEMPERATURE_EVENT), Ok(0));
        assert!(features.reports_temperature());
        for vector in [0, 1, 63, 64, 128] {
            assert_eq!(set(&mut features, VECTOR, COALESCING_DISABLED | vector), Ok(0));
            assert_eq!(get(&features, VECTOR, 0, vector), Ok(COALESCING_DISABLED | vector));
            assert_eq!(get(&features, VECTOR, 0, 2), Ok(2), "not another");
            assert_eq!(set(&mut features, VECTOR, vector), Ok(0));
            assert_eq!(get(&features, VECTOR, 0, vector), Ok(vector));
        }
    }
}
