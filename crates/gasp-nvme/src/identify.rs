//! Identify: what the controller and its namespace are (NVMe 1.4, 5.15).

use gasp_disk::serial::hash;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes, transmute};

use super::command::{ALL, COMPLETION_SHIFT, ENTRY_SHIFT, ONLY};
use super::events::REQUESTS_MAX;
use super::features::WARNING_TEMPERATURE;
use super::identity::{IDENTITY, REVISION, TRANSFER_SHIFT, padded};
use super::log::ENTRIES_MAX;
use super::registers::VERSION;
use super::status::Status;
use super::subsystem::Subsystem;

/// Which data structure is requested (5.15: CNS).
const NAMESPACE: u8 = 0x00;
const CONTROLLER: u8 = 0x01;
const NAMESPACES: u8 = 0x02;
const DESCRIPTORS: u8 = 0x03;

/// The data structure of 4096 bytes that `cns` selects, for the namespace `id`.
pub(super) fn identify(subsystem: &Subsystem, cns: u8, id: u32) -> Result<[u8; 4096], Status> {
    match (cns, id) {
        (CONTROLLER, _) => Ok(transmute!(Controller::new(subsystem))),
        (NAMESPACE, ONLY) => Ok(transmute!(Namespace::new(subsystem))),
        (DESCRIPTORS, ONLY) => Ok(transmute!(Descriptors::new(subsystem))),
        // Namespaces whose identifier is greater than `id`.
        (NAMESPACES, id) if id < ALL - 1 => {
            let mut list = [U32::ZERO; 1024];
            list[0] = if id < ONLY { ONLY.into() } else { U32::ZERO };
            Ok(transmute!(list))
        }
        (NAMESPACE | DESCRIPTORS | NAMESPACES, _) => Err(Status::INVALID_NAMESPACE),
        _ => Err(Status::INVALID_FIELD),
    }
}

/// The controller (5.15.2.2), by the standard's names; fields that are always zero are gaps,
/// with their offset as their name.
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct Controller {
    vid: U16,
    ssvid: U16,
    sn: [u8; 20],
    mn: [u8; 40],
    fr: [u8; 8],
    /// A batch of one queue's commands, as a power of two.
    rab: u8,
    /// The vendor's OUI, of which there is none.
    ieee: [u8; 3],
    _76: u8,
    mdts: u8,
    _78: [u8; 2],
    ver: U32,
    /// How long a resume and a shutdown take, in microseconds.
    rtd3r: U32,
    rtd3e: U32,
    _92: [u8; 19],
    cntrltype: u8,
    _112: [u8; 144],
    oacs: U16,
    /// The maximum numbers of aborts and event requests at a time, counted from 0.
    acl: u8,
    aerl: u8,
    frmw: u8,
    lpa: u8,
    /// The number of entries of the error log, counted from 0.
    elpe: u8,
    _263: [u8; 3],
    wctemp: U16,
    cctemp: U16,
    _270: [u8; 242],
    /// The smallest and the largest size of queue entries, as powers of two.
    sqes: u8,
    cqes: u8,
    _514: [u8; 2],
    nn: U32,
    oncs: U16,
    _522: [u8; 3],
    vwc: u8,
    _526: [u8; 242],
    subnqn: [u8; 32],
    /// The end of SUBNQN.
    uuid: [u8; 36],
    _836: [u8; 1212],
    /// What the only power state takes, in hundredths of a watt.
    mp: U16,
    _2050: [u8; 2046],
}

impl Controller {
    fn new(subsystem: &Subsystem) -> Self {
        const WRITE_CACHE_AND_FLUSH_OF_ALL: u8 = 0b111;
        const DEALLOCATE_ZEROES_SELECT: u16 = 0b1_1100;
        const EXTENDED_LOG_REQUESTS: u8 = 1 << 2;
        const ONE_READ_ONLY_SLOT: u8 = 1 << 1 | 1;
        const IO_CONTROLLER: u8 = 1;
        const DOORBELL_BUFFER_CONFIG: u16 = 1 << 8;
        let (serial, model) = (&subsystem.serial, &subsystem.options.model);
        let both = |shift: u32| (shift | shift << 4) as u8;
        Self {
            vid: IDENTITY.vendor.into(),
            ssvid: IDENTITY.subsystem_vendor.into(),
            sn: padded(serial),
            mn: padded(model),
            fr: padded(REVISION),
            rab: 5,
            mdts: TRANSFER_SHIFT as u8,
            ver: VERSION.into(),
            rtd3r: 1.into(),
            // As long as the host may take to flush its cache to the disk; drivers wait for so
            // long.
            rtd3e: 60_000_000.into(),
            cntrltype: IO_CONTROLLER,
            oacs: DOORBELL_BUFFER_CONFIG.into(),
            acl: 3,
            aerl: REQUESTS_MAX - 1,
            frmw: ONE_READ_ONLY_SLOT,
            lpa: EXTENDED_LOG_REQUESTS,
            elpe: (ENTRIES_MAX - 1) as u8,
            wctemp: WARNING_TEMPERATURE.into(),
            cctemp: (WARNING_TEMPERATURE + 10).into(),
            sqes: both(ENTRY_SHIFT),
            cqes: both(COMPLETION_SHIFT),
            nn: ONLY.into(),
            oncs: DEALLOCATE_ZEROES_SELECT.into(),
            vwc: WRITE_CACHE_AND_FLUSH_OF_ALL,
            // Must differ between the controllers of a guest, or the guest takes them for one.
            subnqn: *b"nqn.2014-08.org.nvmexpress:uuid:",
            uuid: padded(&text(uuid_of(serial, model))),
            mp: 2500.into(),
            ..Self::new_zeroed()
        }
    }
}

/// The namespace (5.15.2.1). 104 and 120, NGUID and EUI64, have an OUI in them: see the
/// descriptors.
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct Namespace {
    nsze: U64,
    ncap: U64,
    nuse: U64,
    _24: [u8; 9],
    dlfeat: u8,
    _34: [u8; 96],
    /// The logarithm of the block size of the only format.
    lbads: u8,
    _131: [u8; 3965],
}

impl Namespace {
    fn new(subsystem: &Subsystem) -> Self {
        const ZEROES_AND_DEALLOCATES: u8 = 1 << 3 | 0b001;
        let blocks = subsystem.disk.blocks().into();
        Self {
            nsze: blocks,
            ncap: blocks,
            nuse: blocks,
            dlfeat: ZEROES_AND_DEALLOCATES,
            lbads: subsystem.disk.block_shift() as u8,
            ..Self::new_zeroed()
        }
    }
}

/// The names of the namespace (5.15.2.3): one.
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct Descriptors {
    nidt: u8,
    nidl: u8,
    _2: [u8; 2],
    nid: [u8; 16],
    _20: [u8; 4076],
}

impl Descriptors {
    fn new(subsystem: &Subsystem) -> Self {
        const UUID: u8 = 3;
        let nid = uuid_of(&subsystem.serial, &subsystem.options.model);
        Self { nidt: UUID, nidl: nid.len() as u8, nid, ..Self::new_zeroed() }
    }
}

/// A UUID derived from a serial and a model, the same each time. Version 8: the derivation is the
/// implementation's own.
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
    use core::mem::offset_of;

    use super::*;

    /// `tests/nvme/identify.rs` checks the others by their values.
    #[test]
    fn fields_of_equal_values_are_at_the_offsets_of_the_standard() {
        let [vid, ssvid] = [offset_of!(Controller, vid), offset_of!(Controller, ssvid)];
        assert_eq!((vid, ssvid, offset_of!(Controller, ieee)), (0, 2, 73));
        let [acl, aerl] = [offset_of!(Controller, acl), offset_of!(Controller, aerl)];
        assert_eq!((acl, aerl, offset_of!(Controller, frmw)), (258, 259, 260));
        let [nsze, ncap] = [offset_of!(Namespace, nsze), offset_of!(Namespace, ncap)];
        assert_eq!((nsze, ncap, offset_of!(Namespace, nuse)), (0, 8, 16));
    }

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
