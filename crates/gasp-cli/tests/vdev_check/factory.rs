//! Files and factories that are wrong before anything is called.

use crate::vdev::{Fault, Vdev, expect, expect_of};

#[test]
fn a_vdev_without_a_fault_has_no_findings_in_both_editions() {
    for edition in [800, 710] {
        let vdev = Vdev::of_edition(&Fault::default(), edition);
        expect_of(&vdev, &["--poke"], &[]);
        let record = vdev.json(&["--poke", "--loc", "mem:0xfb000000"]);
        assert_eq!(record["findings"].as_array().unwrap().len(), 0, "{record:#}");
        assert_eq!(record["reads"], record["writes"], "{record:#}");
        // Two registers, in two rounds.
        assert_eq!(record["reads"], 4);
        assert_eq!(record["place"]["start"], 0xfb00_0000_u32);
        assert_eq!(record["factory"]["edition"], if edition == 800 { "8.0" } else { "7.x" });
        let calls = record["calls"].as_array().unwrap();
        for call in ["OPTIONS_START", "GUEST_STARTING", "STATUS", "BUTTON", "TERMINATE"] {
            for occasion in ["", ", in a second round"] {
                let call = format!("control({call}){occasion}");
                assert!(calls.iter().any(|done| *done == call), "{call}: {record:#}");
            }
        }
    }
}

#[test]
fn the_samples_have_no_findings() {
    for edition in [800, 710] {
        for (name, args) in [
            ("vdev-trace", &["--option", "period=20", "--poke"][..]),
            ("vdev-trace", &["--option", "quiet", "--loc", "0xfa000000"]),
            ("vdev-ser8250", &["--loc", "io:0x2f8", "--intr", "ioapic:3", "--poke"]),
            ("vdev-wdt-sp805", &[]),
            ("vdev-virtio-entropy", &["--loc", "mem:0xfa000000", "--intr", "ioapic:5"]),
        ] {
            expect_of(&Vdev::example(name, edition), args, &[]);
        }
    }
}

#[test]
fn a_file_that_is_no_vdev_is_a_finding() {
    const REGISTER: &str = "static void __attribute__((constructor)) load(void)";
    let control = "static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg) \
                   { return EOK; }";
    for (text, kind, message) in [
        ("int unrelated;".to_owned(), "no-factory", "it is no vdev"),
        (format!("{REGISTER} {{ vdev_register_factory(NULL, QVM_VDEV_ABI); }}"), "factory", "NULL"),
        (
            format!(
                "{control}\nstatic struct vdev_factory factory = {{ .control = control }};\n\
                 {REGISTER} {{ vdev_register_factory(&factory, 4711); }}"
            ),
            "abi",
            "4711",
        ),
        (
            format!("int vdev_frob(void); {REGISTER} {{ vdev_frob(); }}"),
            "not-loaded",
            "undefined symbol: vdev_frob",
        ),
        (format!("{control}\nVDEV(.vread = NULL)"), "factory", "control is NULL"),
        (
            format!("{control}\nVDEV(.control = control, .factory_flags = VFF_MUTEX_RECURSIVE)"),
            "factory",
            "needs VFF_MUTEX",
        ),
    ] {
        expect_of(&Vdev::of_text(&text), &[], &[(kind, "", message)]);
    }
    let vdev = Vdev::new(&Fault::default());
    std::fs::write(&vdev.path, "a text that is no shared object").unwrap();
    expect_of(&vdev, &[], &[("not-loaded", "", "cc -shared -fPIC")]);
}

#[test]
fn members_of_the_factory_that_are_wrong_are_findings() {
    const ODD: &str =
        "static const char *const odd[] = { \"a\", \"0a\", \"\", \"0\", \"loc\", \"x y\", NULL };";
    let list = "option-list";
    for (members, before, expected) in [
        (".factory_flags = VFF_VDEV_MEM | 0x9000", "", &[("flags", "", "0x9000")][..]),
        (".factory_flags = 0", "", &[("location-type", "", "anywhere")]),
        (
            ".factory_flags = VFF_VDEV_MEM | VFF_LOC_NO",
            "",
            &[("location-type", "", "as well"), ("callbacks", "", "nothing calls")],
        ),
        (".vread = NULL, .vwrite = NULL", "", &[("callbacks", "", "neither")]),
        (".acc_sizes = 0", "", &[("access-widths", "", "acc_sizes is 0")]),
        (".acc_sizes = 1u << 3", "", &[("access-widths", "", "allows no access")]),
        (".acc_sizes = 1u << 4 | 1u << 5", "", &[("access-widths", "", "0x20")]),
        (".name = \"even\"", "", &[("name", "", "vdev-odd.so")]),
        (".pic = (void *)&factory", "", &[("controller", "", "pic")]),
        (".factory_flags = VFF_VDEV_MEM | VFF_RC", "", &[("controller", "", "VFF_RC")]),
        (
            ".option_list = odd",
            ODD,
            &[
                (list, "", "`a` twice"),
                (list, "", "no name"),
                (list, "", "no name"),
                (list, "", "twice"),
                (list, "", "every vdev has"),
                (list, "", "\"x y\""),
            ],
        ),
    ] {
        // The factory's own address, before it is defined.
        let before = format!("static struct vdev_factory factory; {before}");
        expect(&Fault { members, before: &before, ..Fault::default() }, &[], expected);
    }
}

#[test]
fn a_pci_function_is_noted() {
    let fault = Fault { members: ".factory_flags = VFF_VDEV_PCI", ..Fault::default() };
    let record = Vdev::new(&fault).json(&["--loc", "pci:0:4"]);
    let kinds: Vec<_> =
        record["findings"].as_array().unwrap().iter().map(|one| one["kind"].clone()).collect();
    assert_eq!(kinds, ["pci"], "{record:#}");
}
