//! Identify, byte by byte: each byte that is not zero belongs to a field here, and each field that
//! the standard (NVMe 1.4, 5.15.2) requires has a value.

use core::ops::Range;

use gasp_nvme::{Backing, Options};

use crate::driver::Rig;

/// A field: its range, its meaning, and its value; `None` for any value but zero.
type Field = (Range<usize>, &'static str, Option<Vec<u8>>);

fn check(page: &[u8], fields: &[Field]) {
    let mut end = 0;
    for (place, meaning, value) in fields {
        assert!(page[end..place.start].iter().all(|byte| *byte == 0), "before {meaning}");
        let found = &page[place.clone()];
        match value {
            Some(value) => assert_eq!(found, value, "{meaning}"),
            None => assert!(found.iter().any(|byte| *byte != 0), "{meaning}"),
        }
        end = place.end;
    }
    assert_eq!(page.len(), 4096);
    assert!(page[end..].iter().all(|byte| *byte == 0), "at the end");
}

fn text(text: &str, len: usize) -> Option<Vec<u8>> {
    Some(format!("{text:len$}").into_bytes())
}

fn bytes(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

#[test]
fn each_byte_of_the_controller_means_something() {
    let options = Options {
        serial: Some("S0".into()),
        model: "a model of forty characters, all of them".into(),
        ..Options::default()
    };
    let mut rig = Rig::attached(&Backing::null(1 << 20), options);
    rig.enable();
    let page = rig.identify(1, 0).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let fields = [
        (0..2, "VID", bytes(&[0x34, 0x12])),
        (2..4, "SSVID", bytes(&[0x34, 0x12])),
        (4..24, "SN", text("S0", 20)),
        (24..64, "MN", text("a model of forty characters, all of them", 40)),
        (64..72, "FR", text(version, 8)),
        (72..73, "RAB: a batch of 32", bytes(&[5])),
        // IEEE (73 to 75) is mandatory, but no OUI has been assigned to us.
        (73..76, "IEEE", bytes(&[0; 3])),
        (76..77, "CMIC: one port, one controller", bytes(&[0])),
        (77..78, "MDTS: 512 KiB", bytes(&[7])),
        (78..80, "CNTLID", bytes(&[0, 0])),
        (80..84, "VER", bytes(&rig.read32(8).to_le_bytes())),
        (84..88, "RTD3R, not 0 since 1.2", None),
        (88..92, "RTD3E, not 0 since 1.2: a minute", bytes(&60_000_000_u32.to_le_bytes())),
        (92..96, "OAES: none is optional", bytes(&[0; 4])),
        (96..100, "CTRATT", bytes(&[0; 4])),
        (111..112, "CNTRLTYPE: I/O controller", bytes(&[1])),
        (256..258, "OACS: Doorbell Buffer Config", bytes(&[0, 1])),
        (258..259, "ACL: 4 aborts at a time, as recommended", bytes(&[3])),
        (259..260, "AERL: 4 event requests, as recommended", bytes(&[3])),
        (260..261, "FRMW: one slot, read only", bytes(&[0b011])),
        (261..262, "LPA: long and partial log requests", bytes(&[0b100])),
        (262..263, "ELPE: 64 errors", bytes(&[63])),
        (263..264, "NPSS: one power state", bytes(&[0])),
        (266..268, "WCTEMP, not 0 since 1.2", bytes(&343_u16.to_le_bytes())),
        (268..270, "CCTEMP, not 0 since 1.2, and above", bytes(&353_u16.to_le_bytes())),
        (512..513, "SQES: 64 bytes", bytes(&[0x66])),
        (513..514, "CQES: 16 bytes", bytes(&[0x44])),
        (516..520, "NN", bytes(&[1, 0, 0, 0])),
        (520..522, "ONCS: deallocate, write zeroes, select and save", bytes(&[0b1_1100, 0])),
        (522..524, "FUSES, FNA", bytes(&[0, 0])),
        (525..526, "VWC: there is one; flushes of all namespaces", bytes(&[0b111])),
        (526..530, "AWUN, AWUPF: one block", bytes(&[0; 4])),
        (536..540, "SGLS: none", bytes(&[0; 4])),
        (768..800, "SUBNQN", bytes(b"nqn.2014-08.org.nvmexpress:uuid:")),
        (800..836, "SUBNQN: its UUID", None),
        (2048..2050, "PSD 0, MP: 25 W", bytes(&2500_u16.to_le_bytes())),
    ];
    check(&page, &fields);
    let uuid = str::from_utf8(&page[800..836]).unwrap();
    let dashes: Vec<_> = uuid.match_indices('-').map(|(at, _)| at).collect();
    assert_eq!(dashes, [8, 13, 18, 23]);
    assert!(uuid.chars().all(|digit| digit == '-' || "0123456789abcdef".contains(digit)));
    // What it claims is true.
    let name = rig.identify(3, 1).unwrap();
    let hex: String = name[4..20].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, uuid.replace('-', ""));
    assert_eq!(rig.log(1, 0, 4096).map(|log| log.len()), Ok(4096));
    assert_eq!(rig.log(3, 0, 512).unwrap()[8..16], page[64..72]);
    for optional in [0, 4, 5, 6, 7, 8, 9, 0xd, 0xe, 0xf, 0x70, 0x80, 0x81, 0xff] {
        assert_eq!(rig.log(optional, 0, 64), Err(0x109), "log page {optional:#x}");
    }
    for optional in (4..=0xff).filter(|cns| !(0..4).contains(cns)) {
        assert_eq!(rig.identify(optional, 1), Err(2), "CNS {optional:#x}");
    }
}

#[test]
fn each_byte_of_the_namespace_means_something() {
    for (block_size, shift) in [(512, 9), (4096, 12)] {
        let options = Options { block_size, ..Options::default() };
        let mut rig = Rig::attached(&Backing::null(1 << 40), options);
        rig.enable();
        let blocks = bytes(&(1_u64 << (40 - shift)).to_le_bytes());
        let fields = [
            (0..8, "NSZE", blocks.clone()),
            (8..16, "NCAP", blocks.clone()),
            (16..24, "NUSE", blocks),
            (24..25, "NSFEAT: all blocks are there", bytes(&[0])),
            (25..26, "NLBAF: one format", bytes(&[0])),
            (26..30, "FLBAS, MC, DPC, DPS: no metadata", bytes(&[0; 4])),
            (30..33, "NMIC, RESCAP, FPI", bytes(&[0; 3])),
            (33..34, "DLFEAT: zeros, and write zeroes deallocates", bytes(&[0b1001])),
            // Names with an OUI in them: there is a UUID instead, as the standard allows.
            (104..128, "NGUID, EUI64", bytes(&[0; 24])),
            (128..132, "LBAF 0: no metadata, the block size, best", bytes(&[0, 0, shift, 0])),
        ];
        check(&rig.identify(0, 1).unwrap(), &fields);
    }
}
