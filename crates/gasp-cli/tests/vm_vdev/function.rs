//! Vdevs on the PCI bus.

use libtest_mimic::Failed;

use crate::code::Code;
use crate::flat::{Fixture, HALT, ONCE, RESET};
use crate::{PROBE, compile, parts, run};

/// The configuration space of 00:03.0.
const CONFIG: u32 = 0xe001_8000;

/// The vdev `func`, which can only be a PCI function, and a kernel.
fn with_function(code: &[u8]) -> Fixture {
    let fixture = Fixture::new(&[code]);
    compile(&fixture, PROBE, "func", &["-DFLAGS=VFF_VDEV_PCI"]);
    fixture
}

/// Enables memory and bus mastering, and puts the address of BAR 0 into rdi.
fn enabled(code: Code) -> Code {
    code.store(CONFIG + 4, 6)
        .raw(&[0xbe])
        .raw(&(CONFIG + 0x10).to_le_bytes()) // mov esi, CONFIG + 0x10
        .raw(&[0x8b, 0x3e, 0x83, 0xe7, 0xf0]) // mov edi, [rsi]; and edi, ~0xf
}

/// Reads BAR 0 at an offset, and says one byte of it.
fn say(code: Code, offset: u8) -> Code {
    // mov eax, [rdi + offset]; mov dx, 0x3f8; out dx, al
    code.raw(&[0x8b, 0x47, offset, 0x66, 0xba, 0xf8, 0x03, 0xee])
}

/// Writes to offset 8 of BAR 0.
fn does(code: Code, what: u8) -> Code {
    code.raw(&[0xc7, 0x47, 8, what, 0, 0, 0]) // mov dword [rdi + 8], what
}

pub(crate) fn bar() -> Result<(), Failed> {
    // At first: its interrupt is raised, and the guest resets itself.
    let first = does(enabled(Code::new()), 1);
    let first = say(first, 12).raw(&RESET).raw(&HALT);
    let mut once = ONCE;
    once[17] = u8::try_from(first.bytes().len())?;
    let then = enabled(Code::new().raw(&once).raw(first.bytes()));
    let fixture = with_function(say(say(then, 0), 12).power_off().bytes());
    let lines = "vdev iommu\nvdev func loc pci:0:3\nvdev virtio-entropy";
    let output = run(&fixture, lines, &[]);
    let (status, said, log) = parts(&output);
    assert_eq!((status, said), (Some(0), &[1, 0x11, 0][..]), "{log}");
    // One that is only asked what it is, and one for each machine.
    assert_eq!(log.matches("the end").count(), 3, "{log}");
    let devices = &fixture.events()[0]["devices"];
    let places = [0, 1].map(|index| devices[index]["at"].as_str().unwrap().to_owned());
    assert_eq!(
        (places, &devices[1]["type"]),
        (["00:01.0".into(), "00:03.0".into()], &"func".into())
    );
    Ok(())
}

pub(crate) fn ends() -> Result<(), Failed> {
    for (what, status, why) in
        [(3, 33, "guest_terminate(33)"), (4, 6, "VRS_TERMINATE"), (5, 96, "it cannot go on")]
    {
        let code = does(enabled(Code::new().say(b'a')), what).say(b'z').raw(&HALT);
        let fixture = with_function(code.bytes());
        let began = std::time::Instant::now();
        let output = run(&fixture, "vdev func loc pci:0:3", &[]);
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(5), "nobody waits for it: {took:?}");
        let (found, said, log) = parts(&output);
        assert_eq!((found, said), (Some(status), &b"a"[..]), "{what}: {log}");
        assert!(log.contains(why), "{what}: {log}");
    }
    let fixture = with_function(Code::new().power_off().bytes());
    for (lines, status, expected) in [
        ("vdev func refuse 2", 1, &["a.qvmconf:3", "`func`", "ASSIGN"][..]),
        ("vdev func refuse 1", 1, &["a.qvmconf:3", "`refuse 1`", "one is too few"]),
        ("vdev func intr ioapic:5", 2, &["a.qvmconf:3", "interrupts"]),
        ("vdev func hid PNP0501", 2, &["a.qvmconf:3", "`hid`"]),
        ("vdev func loc mem:0xfa000000", 2, &["a.qvmconf:3", "cannot be in memory"]),
        ("vdev func loc pci:0:3\nvdev func loc pci:0:3", 2, &["a.qvmconf:4", "`func`"]),
    ] {
        let output = run(&fixture, lines, &[]);
        let (found, _, log) = parts(&output);
        assert_eq!(found, Some(status), "{lines}: {log}");
        assert!(expected.iter().all(|part| log.contains(part)), "{lines}: {log}");
    }
    Ok(())
}
