//! Places and lines: given, taken, refused, and described to the guest.

use libtest_mimic::Failed;

use crate::code::Code;
use crate::flat::Fixture;
use crate::{PROBE, compile, parts, run, with_probe};

const OFF: fn() -> Code = || Code::new().power_off();

pub(crate) fn given() -> Result<(), Failed> {
    let code = Code::new().load_and_say(1, 0xe010_0000).load_and_say(1, 0xe010_1000);
    let fixture = with_probe(code.load_and_say(1, 0xe010_0010).power_off().bytes());
    let flags = "-DFLAGS=VFF_VDEV_MEM|VFF_INTR_REQ";
    compile(&fixture, PROBE, "lined", &[flags]);
    let output = run(&fixture, "vdev probe\nvdev lined\nvdev lined", &[]);
    assert_eq!(parts(&output).1, [0x11, 0x11, 0xff], "{output:?}");
    let devices = &fixture.events()[0]["devices"];
    let at: Vec<_> = (0..3).map(|index| devices[index]["at"].as_str().unwrap()).collect();
    assert_eq!(at, ["mem:0xe0100000", "mem:0xe0101000", "mem:0xe0102000"]);
    // All lines that can be given, and one more.
    let lines = "vdev lined\n".repeat(11);
    let (status, _, error) = parts(&run(&fixture, &lines, &[])).into_owned();
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("a.qvmconf:13") && error.contains("no line"), "{error}");
    Ok(())
}

/// What outlives the output.
trait IntoOwned {
    fn into_owned(self) -> (Option<i32>, Vec<u8>, String);
}

impl IntoOwned for (Option<i32>, &[u8], String) {
    fn into_owned(self) -> (Option<i32>, Vec<u8>, String) {
        (self.0, self.1.to_vec(), self.2)
    }
}

/// Each is refused with this status, and these parts in its message.
fn check(fixture: &Fixture, cases: &[(&str, i32, &[&str])]) {
    for (lines, status, expected) in cases {
        let output = run(fixture, lines, &[]);
        let (found, said, error) = parts(&output);
        assert_eq!((found, said), (Some(*status), &b""[..]), "{lines}: {error}");
        for part in *expected {
            assert!(error.contains(part), "{lines}: {part}: {error}");
        }
    }
}

pub(crate) fn taken() -> Result<(), Failed> {
    let fixture = with_probe(OFF().bytes());
    let cases: [(&str, i32, &[&str]); 13] = [
        (
            "vdev probe name a intr ioapic:7\nvdev probe name b refuse 5",
            1,
            &["a.qvmconf:4", "the vdev `a`", "vdev `b`"],
        ),
        ("vdev probe loc 0xfffffc", 2, &["a.qvmconf:3", "`probe`", "RAM (0x0 to 0xffffff)"]),
        (
            "vdev probe name a loc 0xfa000000\nvdev probe name b loc 0xfa00000f",
            2,
            &["a.qvmconf:4", "`a`", "`b`", "0xfa000000 to 0xfa00000f"],
        ),
        ("vdev probe loc 0xd0000000", 2, &[":3", "the window of PCI devices", "0xc0000000"]),
        ("vdev probe loc 0xfed90000", 2, &[":3", "the IOMMU"]),
        ("vdev probe loc io:0x3f0", 2, &[":3", "the serial port", "0x3f8"]),
        ("vdev probe loc io:0x1000", 2, &[":3", "the window of PCI devices"]),
        ("vdev probe loc 0x200000000", 2, &[":3", "the high window of PCI devices"]),
        ("vdev probe intr ioapic:4", 2, &[":3", "ioapic:4", "the serial port"]),
        ("vdev probe intr ioapic:17", 2, &[":3", "ioapic:17", "the pins of PCI devices"]),
        ("vdev probe intr ioapic:9", 2, &[":3", "ioapic:9", "generic event device"]),
        (
            "vdev probe name a intr ioapic:5\nvdev probe name b intr ioapic:5",
            2,
            &["a.qvmconf:4", "ioapic:5", "the vdev `a`"],
        ),
        ("vdev probe intr gic:5", 2, &[":3", "gic:5", "`ioapic:5`"]),
    ];
    check(&fixture, &cases);
    let flags = "-DFLAGS=VFF_VDEV_X86_IO";
    compile(&fixture, PROBE, "ports", &[flags]);
    check(&fixture, &[("vdev ports", 2, &["a.qvmconf:3", "`loc io:PORT`"])]);
    Ok(())
}

pub(crate) fn refused() -> Result<(), Failed> {
    let fixture = with_probe(OFF().bytes());
    std::fs::write(fixture.path("vdev-text.so"), "no shared object")?;
    let cases: [(&str, i32, &[&str]); 9] = [
        (
            "vdev nothing",
            2,
            &["a.qvmconf:3", "`nothing`", "virtio-blk", "vdev-nothing.so in .", "--vdev-path"],
        ),
        ("vdev text", 2, &["a.qvmconf:3", "vdev-text.so", "cc -shared"]),
        ("vdev probe\nfrobnicate", 2, &["a.qvmconf:4", "`probe` has no option `frobnicate`"]),
        ("vdev probe\ncause", 2, &["a.qvmconf:4", "requires an argument"]),
        ("vdev probe\nhid 8250", 2, &["a.qvmconf:4", "`hid 8250`", "PNP0501"]),
        ("vdev probe\nrefuse 1", 2, &["a.qvmconf:4", "`probe`", "`refuse 1`", "one is too few"]),
        ("vdev probe refuse 2", 1, &["a.qvmconf:3", "`probe`", "ASSIGN", "No such device"]),
        ("vdev probe refuse 3", 1, &["a.qvmconf:3", "GUEST_CONFIGURED", "it is Monday"]),
        ("vdev probe loc pci:0:3", 2, &["a.qvmconf:3", "`probe` cannot be on the PCI bus"]),
    ];
    check(&fixture, &cases);
    Ok(())
}

pub(crate) fn dry_run() -> Result<(), Failed> {
    let fixture = with_probe(OFF().bytes());
    check(
        &fixture,
        &[
            ("dryrun\nvdev probe refuse 2", 1, &["a.qvmconf:4", "ASSIGN"]),
            ("dryrun\nvdev probe loc 0", 2, &["a.qvmconf:4", "RAM"]),
        ],
    );
    let output = run(&fixture, "dryrun\nvdev probe refuse 3", &[]);
    let (status, said, log) = parts(&output);
    assert_eq!((status, said), (Some(0), &b""[..]), "{log}");
    assert!(log.contains("the end"), "and they end: {log}");
    Ok(())
}

pub(crate) fn tables() -> Result<(), Failed> {
    // Says the tables: mov esi, 0xe0000; mov ecx, 0x2000; mov dx, 0x3f8; rep outsb.
    let code = Code::new()
        .raw(&[0xbe, 0, 0, 0x0e, 0, 0xb9, 0, 0x20, 0, 0, 0x66, 0xba, 0xf8, 0x03, 0xf3, 0x6e])
        .power_off();
    let fixture = with_probe(code.bytes());
    let lines = "vdev probe loc 0xfa000000 intr ioapic:6 hid LNRO0005\n\
                 vdev probe loc io:0x2f8 hid PNP0501\nvdev probe loc 0xfb000000 refuse 5\n\
                 vdev probe loc 0xfc000000 refuse 6";
    let output = run(&fixture, lines, &[]);
    let has = |part: &[u8]| output.stdout.windows(part.len()).any(|at| at == part);
    for part in [
        &b"V000"[..],
        b"LNRO0005\0",
        &[0x86, 9, 0, 1, 0, 0, 0, 0xfa, 0x10, 0, 0, 0],
        &[0x89, 6, 0, 1, 1, 6, 0, 0, 0],
        b"V001",
        &[0x47, 1, 0xf8, 2, 0xf8, 2, 1, 0x10],
        b"V002",
        b"GASP0001\0",
        // The one that it has assigned itself, and the one that it has had assigned.
        &[0x89, 6, 0, 1, 1, 7, 0, 0, 0],
        &[0x89, 6, 0, 1, 1, 5, 0, 0, 0],
    ] {
        assert!(has(part), "{part:?}: {}", output.stdout.len());
    }
    Ok(())
}
