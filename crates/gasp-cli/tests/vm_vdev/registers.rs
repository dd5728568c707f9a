//! Registers: places, widths, regions of a vdev's own, and what a reset does to them.

use libtest_mimic::Failed;

use crate::code::Code;
use crate::flat::{Fixture, HALT, ONCE, RESET};
use crate::{TRACE, compile, parts, run, with_probe};

const AT: u32 = 0xfa00_0000;

pub(crate) fn trace() -> Result<(), Failed> {
    let code = Code::new().store(AT, 7).store(AT, 8).load_and_say(4, AT).load_and_say(2, AT);
    let fixture = Fixture::new(&[code.load_and_say(4, AT + 4).power_off().bytes()]);
    compile(&fixture, TRACE, "trace", &[]);
    let output = run(&fixture, "vdev trace loc 0xfa000000 quiet", &[]);
    let expected = [2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let (status, said, _) = parts(&output);
    assert_eq!((status, said), (Some(0), &expected[..]), "{output:?}");
    let device = &fixture.events()[0]["devices"][0];
    let fields = ["name", "type", "at"].map(|key| device[key].as_str().unwrap().to_owned());
    assert_eq!(fields, ["trace", "trace", "mem:0xfa000000"]);
    assert_eq!(fixture.events()[1]["devices"][0]["name"], "trace", "it has counters");
    Ok(())
}

pub(crate) fn widths() -> Result<(), Failed> {
    let number = 0x8877_6655_4433_2211_u64.to_le_bytes();
    let (mut code, mut expected) = (Code::new(), Vec::new());
    for width in [1, 2, 4, 8] {
        code = code.load_and_say(width, AT);
        expected.extend_from_slice(&number[..width]);
    }
    for width in [1, 2, 4] {
        code = code.input_and_say(width, 0x200);
        expected.extend_from_slice(&number[..width]);
    }
    // Across its end.
    code = code.load_and_say(4, AT + 14);
    expected.extend_from_slice(&[0x11, 0x22, 0xff, 0xff]);
    let fixture = with_probe(code.power_off().bytes());
    let output = run(&fixture, "vdev probe loc mem:0xfa000000\nvdev probe loc io:0x200", &[]);
    assert_eq!(parts(&output).1, expected, "{output:?}");
    Ok(())
}

pub(crate) fn own_regions() -> Result<(), Failed> {
    let own = 0xfb00_0000;
    let mut code = Code::new().load_and_say(1, own);
    for what in [6, 7, 8] {
        code = code.store(AT + 8, what).load_and_say(1, own);
    }
    let fixture = with_probe(code.power_off().bytes());
    let output = run(&fixture, "vdev probe loc 0xfa000000 own 0xfb000000", &[]);
    assert_eq!(parts(&output).1, [0xff, 6, 7, 0xff], "{output:?}");
    // One without a region of the host's.
    let fixture = Fixture::new(&[Code::new().load_and_say(1, own).power_off().bytes()]);
    let flags = "-DFLAGS=VFF_VDEV_MEM|VFF_MANUAL_REGION";
    compile(&fixture, crate::PROBE, "manual", &[flags]);
    let output = run(&fixture, "vdev manual own 0xfb000000 refuse 4", &[]);
    assert_eq!(parts(&output).1, [4], "{output:?}");
    // Where the machine has something it would never be reached.
    let output = run(&fixture, "vdev manual own 0xc0000000 refuse 4", &[]);
    let (status, _, error) = parts(&output);
    assert_eq!(status, Some(2), "{error}");
    for part in ["a.qvmconf:3", "`manual`", "the window of PCI devices"] {
        assert!(error.contains(part), "{error}");
    }
    Ok(())
}

pub(crate) fn reset() -> Result<(), Failed> {
    // At first: two writes and a reset, which are left out then.
    let first = Code::new().store(AT, 1).store(AT, 1).load_and_say(1, AT).raw(&RESET).raw(&HALT);
    let mut once = ONCE;
    once[17] = first.bytes().len() as u8;
    let code = Code::new().raw(&once).raw(first.bytes()).load_and_say(1, AT).power_off();
    let fixture = Fixture::new(&[code.bytes()]);
    let widths = "-DACC_SIZES=(1u<<1|1u<<4)";
    compile(&fixture, TRACE, "trace", &[widths]);
    // Its register is read as a byte here, which it does not allow.
    let output = run(&fixture, "vdev trace loc 0xfa000000 quiet", &[]);
    assert_eq!(parts(&output).1, [0xff, 0xff], "{output:?}");

    let first = Code::new().store(AT + 8, 1).load_and_say(4, AT + 12).raw(&RESET).raw(&HALT);
    once[17] = first.bytes().len() as u8;
    let code = Code::new().raw(&once).raw(first.bytes()).load_and_say(4, AT + 12).power_off();
    let fixture = with_probe(code.bytes());
    let output = run(&fixture, "vdev probe loc 0xfa000000 intr ioapic:5", &[]);
    let (status, said, log) = parts(&output);
    assert_eq!((status, said), (Some(0), &[1, 0, 0, 0, 0, 0, 0, 0][..]), "{log}");
    assert_eq!(log.matches("the end").count(), 2, "TERMINATE, for each: {log}");
    Ok(())
}

pub(crate) fn maps() -> Result<(), Failed> {
    let mut code = Code::new();
    for addr in [0x40_0000, 0x40_1000, 0x200_0000] {
        code = code.store(AT + 8, addr).load_and_say(1, AT + 4);
    }
    let fixture = with_probe(code.power_off().bytes());
    const EFAULT: u8 = 14;
    const ENXIO: u8 = 6;
    let domain = "[[domain]]\nname = \"d\"\nkind = \"identity\"\n\
                  grant-identity = [{ start = 0x400000, size = \"4K\", access = \"rw\" }]\n";
    for (iommu, attached, expected) in [
        ("", "", [0, 0, ENXIO]),
        // As `vdev iommu` has it, for what is not on the PCI bus.
        ("[iommu]\nunattached = \"bypass\"\n", "", [0, 0, ENXIO]),
        ("[iommu]\n", "", [EFAULT; 3]),
        (&*format!("[iommu]\n{domain}"), "domain = \"d\"\n", [0, EFAULT, EFAULT]),
    ] {
        let text = format!(
            "[machine]\nkernel = \"kernel\"\n{iommu}[[ram]]\nsize = \"16M\"\n\
             [[vdev]]\nname = \"probe\"\ntype = \"probe\"\nloc = [\"mem:0xfa000000\"]\n{attached}"
        );
        std::fs::write(fixture.path("a.toml"), &text)?;
        let args = ["a.toml", "--vdev-path", ".", "--json", "events"];
        let output = crate::flat::finish(fixture.command(&args).spawn()?);
        assert_eq!(parts(&output).1, expected, "{text}: {output:?}");
    }
    Ok(())
}
