//! What the controller and its namespace are (NVMe 1.4, 5.15).

use super::command::{ALL, ONLY};
use super::events::REQUESTS_MAX;
use super::features::WARNING_TEMPERATURE;
use super::identity::{IDENTITY, REVISION, TRANSFER_SHIFT};
use super::log::ENTRIES_MAX;
use super::page::Page;
use super::registers::VERSION;
use super::serial::hash;
use super::status::Status;
use super::subsystem::Subsystem;

/// What is asked for (5.15: CNS).
const NAMESPACE: u8 = 0x00;
const CONTROLLER: u8 = 0x01;
const NAMESPACES: u8 = 0x02;
const DESCRIPTORS: u8 = 0x03;

type Answer = Page<4096>;

/// Identify: 4096 bytes about what `cns` says, for the namespace `id`.
pub(super) fn identify(subsystem: &Subsystem, cns: u8, id: u32) -> Result<Answer, Status> {
    let mut page = Answer::new();
    match (cns, id) {
        (CONTROLLER, _) => controller(subsystem, &mut page),
        (NAMESPACE, ONLY) => namespace(subsystem, &mut page),
        (DESCRIPTORS, ONLY) => descriptors(subsystem, &mut page),
        // Those above the given one, as far as there are any.
        (NAMESPACES, 0) => _ = page.put(0, &ONLY.to_le_bytes()),
        (NAMESPACES, id) if id < ALL - 1 => {}
        (NAMESPACE | DESCRIPTORS | NAMESPACES, _) => return Err(Status::INVALID_NAMESPACE),
        _ => return Err(Status::INVALID_FIELD),
    }
    Ok(page)
}

/// The controller (5.15.2.2).
fn controller(subsystem: &Subsystem, page: &mut Answer) {
    const WRITE_CACHE_AND_FLUSH_OF_ALL: u8 = 0b111;
    const DEALLOCATE_ZEROES_SELECT: u16 = 0b1_1100;
    const EXTENDED_LOG_REQUESTS: u8 = 1 << 2;
    const ONE_READ_ONLY_SLOT: u8 = 1 << 1 | 1;
    // A batch of one queue's commands, as a power of two.
    const BURST: u8 = 5;
    // Microseconds until it works again, and until a shutdown is complete: this one takes as
    // long as the host's cache takes to reach the disk, and drivers wait for so long.
    const RESUME: u32 = 1;
    const SHUT_DOWN: u32 = 60_000_000;
    let options = &subsystem.options;
    let uuid = text(uuid_of(&subsystem.serial, &subsystem.options.model));
    page.put(0, &IDENTITY.vendor.to_le_bytes())
        .put(2, &IDENTITY.subsystem_vendor.to_le_bytes())
        .put_text(4, 20, &subsystem.serial)
        .put_text(24, 40, &options.model)
        .put_text(64, 8, REVISION)
        .put(72, &[BURST])
        // 73: the vendor's OUI, which there is none of.
        .put(77, &[TRANSFER_SHIFT as u8])
        .put(80, &VERSION.to_le_bytes())
        .put(84, &RESUME.to_le_bytes())
        .put(88, &SHUT_DOWN.to_le_bytes())
        // An I/O controller.
        .put(111, &[1])
        // The most aborts and event requests at a time, counted from 0.
        .put(258, &[3, REQUESTS_MAX - 1, ONE_READ_ONLY_SLOT, EXTENDED_LOG_REQUESTS])
        // Entries of the error log, counted from 0.
        .put(262, &[(ENTRIES_MAX - 1) as u8])
        .put(266, &WARNING_TEMPERATURE.to_le_bytes())
        .put(268, &(WARNING_TEMPERATURE + 10).to_le_bytes())
        // The smallest and the largest queue entries.
        .put(512, &[0x66, 0x44])
        .put(516, &ONLY.to_le_bytes())
        .put(520, &DEALLOCATE_ZEROES_SELECT.to_le_bytes())
        .put(525, &[WRITE_CACHE_AND_FLUSH_OF_ALL])
        // Must differ between the controllers of a guest, or it takes them for one.
        .put(768, b"nqn.2014-08.org.nvmexpress:uuid:")
        .put(768 + 32, uuid.as_bytes())
        // The only power state: at most 25 W.
        .put(2048, &2500_u16.to_le_bytes());
}

/// The namespace (5.15.2.1).
fn namespace(subsystem: &Subsystem, page: &mut Answer) {
    const ZEROES_AND_DEALLOCATES: u8 = 1 << 3 | 0b001;
    let blocks = subsystem.disk.blocks().to_le_bytes();
    page.put(0, &blocks)
        .put(8, &blocks)
        .put(16, &blocks)
        .put(33, &[ZEROES_AND_DEALLOCATES])
        // 104 and 120, NGUID and EUI64, have an OUI in them: see the descriptors.
        // The only format.
        .put(128, &[0, 0, subsystem.disk.block_shift() as u8, 0]);
}

/// The name of the namespace (5.15.2.3): type, length, name.
fn descriptors(subsystem: &Subsystem, page: &mut Answer) {
    const UUID: u8 = 3;
    page.put(0, &[UUID, 16]).put(4, &uuid_of(&subsystem.serial, &subsystem.options.model));
}

/// A UUID made of a serial and a model, the same each time, of version 8: what it is made
/// of is our own business.
pub(super) fn uuid_of(serial: &str, model: &str) -> [u8; 16] {
    let hash = hash(serial.bytes().chain([0]).chain(model.bytes()));
    let version = hash & !(0xf << 76) | 8 << 76;
    (version & !(0b11 << 62) | 0b10 << 62).to_be_bytes()
}

fn text(uuid: [u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(uuid));
    let dash = |at| if [8, 12, 16, 20].contains(&at) { "-" } else { "" };
    hex.chars().enumerate().map(|(at, digit)| format!("{}{digit}", dash(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_depends_on_serial_and_model_and_has_the_form_of_one() {
        let uuid = text(uuid_of("a", "b"));
        assert_eq!(uuid, text(uuid_of("a", "b")));
        assert_ne!(uuid, text(uuid_of("ab", "")));
        assert_eq!(uuid.len(), 36);
        let letter = |at| uuid.chars().nth(at).unwrap();
        assert_eq!((letter(8), letter(14)), ('-', '8'));
        assert!(['8', '9', 'a', 'b'].contains(&letter(19)));
    }
}
