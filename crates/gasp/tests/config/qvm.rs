//! The qvm language: what its options mean, and what is refused.

use std::path::Path;

use gasp::config::{Config, ConfigError, Location};
use gasp::{Errno, RegionKind};

use crate::{Wrong, assert_wrong};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("test.qvmconf"))
}

/// Kind, start and size of each region of a text without windows.
fn regions(text: &str) -> Vec<(RegionKind, u64, u64)> {
    let guest = parse(text).unwrap().build(None).unwrap();
    let regions = guest.space().regions();
    regions.iter().map(|r| (r.kind(), r.span().start().0, r.span().len())).collect()
}

#[test]
fn memory_without_a_start_follows_the_highest_so_far() {
    use RegionKind::{Ram, Reserved, Rom};
    assert_eq!(regions(""), []);
    assert_eq!(regions("ram 1M ram 1m"), [(Ram, 0, 1 << 20), (Ram, 1 << 20, 1 << 20)]);
    assert_eq!(
        regions("ram 0xa0000 rom 0xc0000,0x40000 ram 1024K"),
        [(Ram, 0, 0xa0000), (Rom, 0xc0000, 0x40000), (Ram, 0x100000, 1 << 20)]
    );
    assert_eq!(
        regions("ram 1M,4K ram 0,4K rom 0d8192 reserve loc 0x10001,8"),
        [(Ram, 0, 4096), (Reserved, 0x10001, 8), (Ram, 1 << 20, 4096), (Rom, 0x101000, 8192)]
    );
}

#[test]
fn a_context_lasts_until_the_next_and_other_options_do_not_end_it() {
    let config = parse(
        "vdev a loc 1 ram 1M name b intr p:1 cpu cpu ram 1M vdev c log warning none x y ram 1M z",
    )
    .unwrap();
    let machine = config.machine();
    assert_eq!(machine.cpus, 2);
    let [b, c] = machine.devices.as_slice() else { panic!("{:?}", machine.devices) };
    assert_eq!((b.name.as_str(), b.kind.as_str()), ("b", "a"));
    assert_eq!(b.locations, [Location::Default(1)]);
    assert_eq!(b.interrupt.as_ref().unwrap().to_string(), "p:1");
    assert!(b.words.is_empty() && b.logs.is_empty());
    let words: Vec<&str> = c.words.iter().map(|word| word.text.as_str()).collect();
    assert_eq!((words.as_slice(), c.logs.len()), (["x", "y", "z"].as_slice(), 1));
    assert_eq!(config.build(None).unwrap().space().regions().len(), 3);
}

#[test]
fn the_last_of_an_option_in_a_context_counts_and_locations_add_up() {
    let text = "cmdline a vdev a name b intr p:1 log info none loc 1 name c intr p:2 loc mem:2 \
                log error stdout cmdline b set exit-on-halt no set exit-on-halt yes";
    let config = parse(text).unwrap();
    let [device] = config.machine().devices.as_slice() else { panic!() };
    assert_eq!(device.name, "c");
    assert_eq!(device.interrupt.as_ref().unwrap().line(), Some(2));
    assert_eq!(device.locations.len(), 2);
    assert_eq!(device.logs.len(), 1);
    assert_eq!(config.machine().cmdline.as_deref(), Some("b"));
    assert!(config.machine().exit_on_halt);
}

#[test]
fn devices_without_a_name_have_that_of_their_type_and_a_number() {
    let config = parse("vdev a vdev a vdev b name a-2 vdev a vdev \"a b\"").unwrap();
    assert_eq!(config.vdevs().collect::<Vec<_>>(), ["a", "a-3", "a-2", "a-4", "a b"]);
}

#[test]
fn the_first_load_without_a_type_is_the_image_that_is_started() {
    let config = parse("ram 1M initrd load 0x2000,i load 4K,k,v").unwrap();
    let machine = config.machine();
    let (kernel, initrd) = (machine.kernel.as_ref().unwrap(), machine.initrd.as_ref().unwrap());
    assert_eq!(
        (kernel.path.as_path(), kernel.address),
        (Path::new("k,v"), Some(gasp::GuestPhys(4096)))
    );
    assert_eq!(
        (initrd.path.as_path(), initrd.address),
        (Path::new("i"), Some(gasp::GuestPhys(0x2000)))
    );
    let config = parse("rom 4K guest load a,b").unwrap();
    let kernel = config.machine().kernel.as_ref().unwrap();
    assert_eq!((kernel.path.as_path(), kernel.address), (Path::new("a,b"), None));
}

#[test]
fn words_of_a_content_are_options_of_a_device_if_nothing_is_loaded() {
    let config =
        parse("ram 1M vdev a data initrd x cluster 2 data \"load\" data load 0,Cargo.toml")
            .unwrap();
    let words: Vec<&str> =
        config.machine().devices[0].words.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(words, ["data", "initrd", "x", "cluster", "2", "data", "load"]);
}

#[test]
fn a_line_is_shown_with_every_error_and_what_to_do() {
    for (text, error) in [
        (
            "cpu\n\n  sched 10",
            "test.qvmconf:3: sched: vCPU threads inherit the scheduling of the process: use `chrt`; \
             leave it out",
        ),
        ("rma 1M", "test.qvmconf:1: unknown option `rma`; did you mean `ram`?"),
        ("ram 1M\nram", "test.qvmconf:2: ram: the argument is missing: expected `[START,]LENGTH`"),
        (
            "# a\nram $asinfo_length{x}",
            "test.qvmconf:2: ram: `$asinfo_length{x}`: this host has no QNX system page; write \
             the number",
        ),
        (
            "ram 256T\nram 4K",
            "test.qvmconf:2: ram: 4 KiB from 0x1000000000000 on extend past the guest's \
             address width of 48 bits",
        ),
        (
            "vdev a loc 0\nset slog-buffer 8K",
            "test.qvmconf:2: set: `slog-buffer`: there is no slog on this host; leave it out",
        ),
        (
            "pass loc 0x1000,0x1000,rwd",
            "test.qvmconf:1: pass: `d`: DMA of host devices is not confined here; pass only \
             devices without DMA (`n`)",
        ),
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), error, "{text}");
    }
}

#[test]
fn what_is_wrong_names_line_option_and_what_to_do() {
    use Errno as E;
    let wrong: &[Wrong] = &[
        // Words.
        ("ram 1M\ncmdline \"a\nb\"", 2, "", "not closed on its line", E::INVAL),
        ("ram 1M\n\"ram\" 1M", 2, "", "unexpected argument `ram`", E::INVAL),
        ("ram 1M\n64", 2, "", "unexpected argument `64`", E::INVAL),
        ("vdve a", 1, "", "did you mean `vdev`?", E::INVAL),
        ("colour", 1, "", "there are `system`", E::INVAL),
        ("ram 1M\nkernel load a", 2, "", "`load FILE`", E::INVAL),
        // Numbers.
        ("ram 1Q", 1, "ram", "not `1Q`", E::INVAL),
        ("ram ,1M", 1, "ram", "not ``", E::INVAL),
        ("ram 1M,", 1, "ram", "not ``", E::INVAL),
        ("ram 0,1M,2", 1, "ram", "not `1M,2`", E::INVAL),
        ("ram -1", 1, "ram", "not `-1`", E::INVAL),
        ("ram 0d0x10", 1, "ram", "not `0d0x10`", E::INVAL),
        ("ram 0x10000000000000000", 1, "ram", "below 2^64", E::INVAL),
        // Memory.
        ("ram 0", 1, "ram", "more than 0 bytes", E::INVAL),
        ("ram 4095", 1, "ram", "multiple of 4 KiB", E::INVAL),
        ("rom 1,4K", 1, "rom", "multiple of 4 KiB", E::INVAL),
        ("ram 256T\nram 4K", 2, "ram", "address width", E::NXIO),
        ("ram 0xfffffffffffff000,0x2000", 1, "ram", "address width", E::NXIO),
        ("ram 4K\nram 0xfffffffffffff000,0x1000\nram 4K", 2, "ram", "address width", E::NXIO),
        ("ram 1M\nrom 0xff000,4K", 2, "rom", "overlaps [0x0, 0xfffff] of line 1", E::EXIST),
        ("ram 1M\nreserve loc 0,1", 2, "reserve", "of line 1", E::EXIST),
        // Loads.
        ("load a\nram 1M", 1, "load", "move `ram` and `rom` before it", E::INVAL),
        ("ram 1M load a\nload b", 2, "load", "`initrd load FILE`", E::INVAL),
        ("ram 1M data load b", 1, "load", "give an address", E::INVAL),
        ("ram 1M load a\nguest load b", 2, "load", "already a boot image", E::INVAL),
        ("ram 1M initrd load a\ninitrd load b", 2, "load", "already an initrd", E::INVAL),
        ("ram 1M\ndata load 0,none", 2, "load", "cannot find the file to load none", E::NOENT),
        ("ram 4K\ndata load 0xfff,Cargo.toml", 2, "load", "no RAM or ROM is at 0x1000", E::NXIO),
        ("ram 1M\ndata load 256T,Cargo.toml", 2, "load", "address width", E::NXIO),
        ("ram 1M load \"\"", 1, "load", "the path of a file", E::INVAL),
        ("ram 1M acpi load a", 1, "acpi", "ACPI tables are generated", E::NOTSUP),
        ("ram 1M fdt load a", 1, "fdt", "no device tree; leave it out", E::NOTSUP),
        ("data pass loc 0,4K,r", 1, "data", "typed content is not passed", E::NOTSUP),
        // Contexts.
        ("loc 0", 1, "loc", "`vdev`, `pass` or `reserve`", E::INVAL),
        ("cpu loc 0", 1, "loc", "`vdev`, `pass` or `reserve`", E::INVAL),
        ("pass loc 0,4K,r name a", 1, "name", "only valid after `vdev`", E::INVAL),
        ("vdev a\ncpu name b", 2, "name", "only valid after `vdev`", E::INVAL),
        ("vdev a\ncpu readonly", 2, "", "unknown option `readonly`", E::INVAL),
        ("cpu intr a:1", 1, "intr", "only valid after `vdev`", E::INVAL),
        ("cpu log info none", 1, "log", "use `logger`", E::INVAL),
        ("pass\nram 1M", 1, "pass", "a `loc` must follow", E::INVAL),
        ("\nreserve vdev a", 2, "reserve", "a `loc` must follow", E::INVAL),
        ("vdev", 1, "vdev", "expected the type of the device", E::INVAL),
        ("vdev a loc", 1, "loc", "expected a location", E::INVAL),
        // Machines.
        ("cpu\nsystem a", 2, "system", "must be the first option", E::INVAL),
        ("system \"\"", 1, "system", "1 to 128 bytes", E::INVAL),
        ("system", 1, "system", "expected the name of the guest", E::INVAL),
        ("vdev a name \"\"", 1, "name", "1 to 128 bytes", E::INVAL),
        ("vdev \"\"", 1, "name", "1 to 128 bytes", E::INVAL),
        ("vdev a name b\nvdev a name b", 2, "name", "taken on line 1", E::EXIST),
        ("vdev a\nloc usb:0", 2, "loc", "unknown space `usb`", E::INVAL),
        ("vdev a loc 0,1", 1, "loc", "leave `,1` out", E::INVAL),
        ("vdev a intr 4", 1, "intr", "such as `ioapic:4`", E::INVAL),
        ("vdev a\nintr p:1\n\nvdev p", 2, "intr", "`p` is defined on line 4", E::NOENT),
        ("vdev p intr p:1", 1, "intr", "`p` is defined on line 1", E::NOENT),
        ("unsupported registre fail", 1, "unsupported", "mean `register`?", E::INVAL),
        ("unsupported register fial", 1, "unsupported", "mean `fail`?", E::INVAL),
        (
            "unsupported register",
            1,
            "unsupported",
            "expected `abort`, `fail` or `ignore`",
            E::INVAL,
        ),
        ("set exit-on-hlt on", 1, "set", "mean `exit-on-halt`?", E::INVAL),
        ("set exit-on-halt\n2", 2, "set", "`on` or `off`, not `2`", E::INVAL),
        ("set exit-on-halt", 1, "set", "expected the value of the variable", E::INVAL),
        ("logger errr none", 1, "logger", "mean `error`?", E::INVAL),
        ("logger error slog", 1, "logger", "use `stderr`", E::NOTSUP),
        ("logger error nowhere", 1, "logger", "`stdout`, `stderr`, `none`", E::INVAL),
        ("vdev a log error slog", 1, "log", "use `stderr`", E::NOTSUP),
        // Windows.
        ("pass loc 0,4K", 1, "pass", "`START,LENGTH,ATTRIBUTES[=HOST]`", E::INVAL),
        ("pass loc 0x2000,r=0x1000", 1, "pass", "not `0x2000,r=0x1000`", E::INVAL),
        ("pass loc 0,4K,q", 1, "pass", "unknown attribute `q`", E::INVAL),
        ("pass loc 0,4K,r=x", 1, "pass", "not `x`", E::INVAL),
        ("pass loc 0,4K,r=1", 1, "pass", "multiple of 4 KiB", E::INVAL),
        ("pass loc 0,1,r", 1, "pass", "multiple of 4 KiB", E::INVAL),
        ("pass loc 0,4K,re", 1, "pass", "`e`: access exceptions", E::INVAL),
        ("ram 4K\npass loc 0,4K,r", 2, "pass", "of line 1", E::EXIST),
        ("pass loc io:0x60,1,rw", 1, "pass", "are not passed through", E::NOTSUP),
        ("pass loc pci:0:1", 1, "pass", "are not passed through", E::NOTSUP),
        ("pass loc 0,4K,r\nintr gic:4", 2, "intr", "host interrupts are not", E::NOTSUP),
        ("reserve loc 0", 1, "reserve", "`START,LENGTH`", E::INVAL),
        ("reserve loc me:0,4", 1, "reserve", "did you mean `mem`?", E::INVAL),
        ("reserve loc io:0,4", 1, "reserve", "leave it out", E::NOTSUP),
        ("reserve\nintr 4", 2, "intr", "leave it out", E::NOTSUP),
    ];
    for &wrong in wrong {
        assert_wrong(Path::new("test.qvmconf"), parse(wrong.0).err(), wrong);
    }
}

#[test]
fn a_quoted_word_is_taken_as_it_is() {
    let config = parse("cmdline \"$asinfo_start{a} @b # c\" vdev a b \"ram\" \"@c\"").unwrap();
    assert_eq!(config.machine().cmdline.as_deref(), Some("$asinfo_start{a} @b # c"));
    let [device] = config.machine().devices.as_slice() else { panic!() };
    let words: Vec<&str> = device.words.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(words, ["b", "ram", "@c"]);
    let error = parse("vdev a b $asinfo_length{c}").unwrap_err();
    assert_eq!(error.errno(), Errno::NOTSUP, "{error}");
}

#[test]
fn everything_that_is_known_and_not_supported_says_so_by_its_name() {
    for word in ["sched", "hostvector", "safety", "dump"] {
        for context in ["", "cpu", "vdev a", "pass loc 0,4K,r"] {
            let error = parse(&format!("{context}\n{word} x")).unwrap_err();
            assert_eq!((error.line(), error.key()), (Some(2), Some(word)), "{error}");
            assert_eq!(error.errno(), Errno::NOTSUP, "{error}");
            assert!(error.message().ends_with("; leave it out"), "{error}");
        }
    }
    for word in ["runmask", "partition", "cluster"] {
        let error = parse(&format!("cpu {word} x")).unwrap_err();
        assert_eq!((error.key(), error.errno()), (Some(word), Errno::NOTSUP), "{error}");
    }
    for variable in [
        "counter-offset",
        "debug",
        "fdt-dump-file",
        "gic-hwassist",
        "grow-heap",
        "host-paddr-gicd",
        "host-paddr-gich",
        "message-block-timeout",
        "slog-buffer",
        "vdev-message-block-timeout",
    ] {
        let error = parse(&format!("set {variable} 1")).unwrap_err();
        assert_eq!((error.key(), error.errno()), (Some("set"), Errno::NOTSUP), "{error}");
        assert!(error.message().starts_with(&format!("`{variable}`: ")), "{error}");
    }
}

#[test]
fn windows_lead_to_host_memory_with_their_attributes() {
    // What they lead to is not on every host, so that only their plan is looked at.
    for text in [
        "pass loc 0xd0000000,0x1000,rwn",
        "pass loc mem:0xd0000000,0x1000,r=0x1000",
        "pass loc 0xd0000000,0x1000,rw,=0x1000",
        "pass loc 0,4K,rwc loc 8K,4K,m=0x10000",
    ] {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn an_option_of_a_device_is_found_in_the_list_of_its_type() {
    let fails = |text: &str| {
        let config = parse(text).unwrap();
        config.machine().devices[0].options(&["a", "b", "0c"]).unwrap_err()
    };
    let error = fails("vdev d a \"b\" c\nb \"a\" c \n\"c\" x");
    let text = "test.qvmconf:3: vdev: unexpected argument `c`: a quoted word is never an option";
    assert_eq!((error.to_string().as_str(), error.errno()), (text, Errno::INVAL));
    let error = fails("vdev d a b\ninrt p:1");
    let text = "test.qvmconf:2: vdev: `d` has no option `inrt`; did you mean `intr`?";
    assert_eq!((error.to_string().as_str(), error.errno()), (text, Errno::NOENT));
    let error = fails("vdev d a b c\na");
    let text = "test.qvmconf:2: vdev: the option `a` of `d` requires an argument";
    assert_eq!((error.to_string().as_str(), error.errno()), (text, Errno::INVAL));
    let config = parse("vdev d a \"b\" c\nb \"a\" c").unwrap();
    let options = config.machine().devices[0].options(&["a", "b", "0c"]).unwrap();
    let found: Vec<_> = options.iter().map(|o| (o.index, o.argument, o.place.line())).collect();
    assert_eq!(found, [(0, Some("b"), 1), (2, None, 1), (1, Some("a"), 2), (2, None, 2)]);
    let error = options[1].place.error("taken");
    assert_eq!(error.to_string(), "test.qvmconf:1: vdev: taken");
}
