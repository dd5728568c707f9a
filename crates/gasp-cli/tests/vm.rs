//! What `gasp vm` refuses: one line each, which says what is wrong and what to do.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../gasp-vm/tests/support/kernel.rs"]
mod kernel;

use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernel"), kernel::elf(&[0xf4, 0xeb, 0xfd])).unwrap();
        fs::write(folder.path().join("script"), "#!/bin/sh\n").unwrap();
        File::create(folder.path().join("disk")).unwrap().set_len(1 << 20).unwrap();
        File::create(folder.path().join("odd")).unwrap().set_len(1000).unwrap();
        Self(folder)
    }

    /// The exit status and the line of a command that must fail.
    fn refused(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new("timeout");
        // The first signal is the power button, which a guest need not heed.
        command.args(["-k", "1", "20", env!("CARGO_BIN_EXE_gasp"), "vm"]).args(args);
        command.current_dir(self.0.path()).stdin(Stdio::null()).env_remove("RUST_LOG");
        let output = command.output().unwrap();
        assert!(output.stdout.is_empty(), "stdout is the console: {args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        let line = text.strip_prefix("error: ").unwrap_or_else(|| panic!("{args:?}: {text}"));
        println!("{line}");
        (output.status.code().unwrap(), line.trim_end().to_owned())
    }

    /// Checks that the arguments are refused with this status and a line that has all `parts`.
    fn check(&self, args: &[&str], status: i32, parts: &[&str]) {
        let (found, line) = self.refused(args);
        assert_eq!(found, status, "{args:?}: {line}");
        assert!(!line.contains('\n') && line.len() < 300, "{args:?}: {line}");
        for part in parts {
            assert!(line.contains(part), "{args:?}: {part:?} in {line}");
        }
    }

    fn check_text(&self, text: &str, status: i32, parts: &[&str]) {
        fs::write(self.0.path().join("a.qvmconf"), text).unwrap();
        self.check(&["a.qvmconf"], status, parts);
    }
}

#[test]
fn kvm_that_is_missing_refused_or_something_else_is_named() {
    let fixture = Fixture::new();
    let args = |kvm| ["--kernel", "kernel", "--ram", "16M", "--kvm", kvm];
    fixture.check(&args("/no/kvm"), 1, &["/no/kvm", "there is no KVM", "load the module"]);
    fixture.check(&args("/dev/null"), 1, &["/dev/null is not KVM", "give the path"]);
    let folder = fixture.0.path().to_str().unwrap().to_owned();
    fixture.check(&args(&folder), 1, &[&folder]);
}

#[test]
fn what_is_no_kernel_or_disk_is_refused() {
    if !std::path::Path::new("/dev/kvm").exists() {
        eprintln!("skipped in part: no /dev/kvm, without which no kernel is read");
    } else {
        let fixture = Fixture::new();
        let with = |kernel| ["--ram", "16M", "--kernel", kernel];
        fixture.check(&with("script"), 1, &["script is no kernel but a script", "give a bzImage"]);
        fixture.check(&with("none"), 1, &["none: No such file", "check the path"]);
        fixture.check(&with("."), 1, &["not a regular file", "give the file itself"]);
        fixture.check(
            &["--kernel", "kernel", "--ram", "4K"],
            1,
            &["the ACPI tables", "give the guest RAM there"],
        );
        let long = "x".repeat(3000);
        let args = ["--kernel", "kernel", "--ram", "16M", "--cmdline", &long];
        fixture.check(&args, 1, &["at most 2047", "shorten it"]);
        let args = ["--kernel", "kernel", "--ram", "16M", "--initrd", "."];
        fixture.check(&args, 1, &["not a regular file"]);
    }
    let fixture = Fixture::new();
    let disk = |disk| ["--kernel", "kernel", "--ram", "16M", "--disk", disk];
    fixture.check(&disk("."), 1, &["--disk .: ", "a directory"]);
    fixture.check(&disk("none"), 1, &["--disk none: none does not exist", "truncate"]);
    fixture.check(&disk("odd"), 1, &["--disk odd", "not a multiple of the block size"]);
    fixture.check(&disk(""), 2, &["--disk : expected the path of an image"]);
    fixture.check(&disk("disk,readonly"), 2, &["use virtio-blk:PATH,readonly"]);
    fixture.check(&disk("null:0"), 2, &["expected at least one byte"]);
    let twice = ["--kernel", "kernel", "--ram", "16M", "--disk", "disk", "--disk", "disk"];
    fixture.check(&twice, 1, &["--disk disk: disk is the image of another device"]);
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let fixture = Fixture::new();
    let ram = |ram| ["--kernel", "kernel", "--ram", ram];
    fixture.check(&ram("1000"), 1, &["1000 bytes", "a multiple of 4 KiB"]);
    fixture.check(&ram("200T"), 1, &["ask for less"]);
    fixture.check(&ram("64T"), 1, &["more than 16 TiB"]);
    fixture.check_text("ram 4G load kernel", 2, &["0xc0000000", "ram 0,3G ram 4G,1G"]);
    for (size, part) in [("0", "expected at least one byte"), ("1P", "expected a number such as")] {
        let (status, text) = fixture.refused(&ram(size));
        assert!(status == 2 && text.contains("--ram") && text.contains(part), "{text}");
    }
    if !std::path::Path::new("/dev/kvm").exists() {
        eprintln!("skipped in part: no /dev/kvm, which says how wide addresses are");
        return;
    }
    let text = "[guest]\naddress-width = 52\n[machine]\nkernel = \"kernel\"\n[[ram]]\nsize = \"16M\"\n\
                [[ram]]\nstart = 0x8000000000000\nsize = \"4K\"\n";
    fs::write(fixture.0.path().join("wide.toml"), text).unwrap();
    fixture.check(&["wide.toml"], 1, &["memory up to 0x8000000000fff", "bits; move it"]);
}

#[test]
fn network_devices_that_cannot_be_are_refused() {
    let fixture = Fixture::new();
    let net = |net| ["--kernel", "kernel", "--ram", "16M", "--net", net];
    fixture.check(&net("eth0"), 2, &["--net eth0: expected tap:NAME or unix:OWN:PEER"]);
    fixture.check(&net("unix:a"), 2, &["expected two sockets"]);
    fixture.check(&net("unix:a:a"), 2, &["would receive its own frames", "two different"]);
    fixture.check(&net("tap:a-name-that-is-too-long"), 1, &["1 to 15 bytes"]);
    fixture.check(&net("unix:a:b"), 1, &["b: No such file", "start the other end first"]);
    assert!(!fixture.0.path().join("a").exists(), "the socket is removed");
    let _taken = UnixListener::bind(fixture.0.path().join("c")).unwrap();
    fixture.check(&net("unix:c:b"), 1, &["c: ", "remove it, or choose another path"]);
}

#[test]
fn a_console_that_is_no_terminal_is_refused() {
    let fixture = Fixture::new();
    let console = |path| format!("ram 16M load kernel\nvdev virtio-console hostdev {path}");
    let made = Command::new("mkfifo").arg(fixture.0.path().join("fifo")).status().unwrap();
    assert!(made.success());
    // It would read what it has written.
    let parts = ["a.qvmconf:2", "fifo is a FIFO", "its own output", "give a terminal", "socat"];
    fixture.check_text(&console("fifo"), 1, &parts);
    for path in ["disk", "/dev/null", "/dev/zero"] {
        let name = format!("{path} is no terminal");
        fixture.check_text(&console(path), 1, &["a.qvmconf:2", &name, "give a terminal"]);
    }
    fixture.check_text(&console("none"), 1, &["a.qvmconf:2", "none: No such file"]);
}

#[test]
fn events_that_cannot_be_written_are_refused_before_anything_else() {
    let fixture = Fixture::new();
    fixture.check(&["--kernel", "none", "--json", "no/where"], 1, &["cannot write events to"]);
    let (_, line) = fixture.refused(&["--kernel", "kernel", "--disk", "none", "--json", "a"]);
    let events = fs::read_to_string(fixture.0.path().join("a")).unwrap();
    let event: serde_json::Value = serde_json::from_str(&events).unwrap();
    assert_eq!((&event["event"], &event["status"]), (&"ended".into(), &1.into()));
    assert_eq!(event["why"], line);
}

#[test]
fn a_configuration_that_is_wrong_names_the_line_and_what_to_do() {
    let fixture = Fixture::new();
    let cases: [(&str, &[&str]); 22] = [
        ("ram 16M", &["a.qvmconf: there is no kernel", "load FILE"]),
        ("ram 16M load 1M,kernel", &["a.qvmconf:1", "leave it out"]),
        (
            "ram 16M load kernel\nvdev nvmee",
            &["a.qvmconf:2", "`nvmee` is none of the built-in types", "iommu"],
        ),
        ("ram 16M load kernel\nvdev nvme", &["a.qvmconf:2", "requires `hostdev`"]),
        ("ram 16M load kernel\nvdev nvme\nhostdef disk", &["a.qvmconf:3", "`hostdev`?"]),
        ("ram 16M load kernel\nvdev nvme hostdev", &["a.qvmconf:2", "requires an argument"]),
        ("ram 16M load kernel\nvdev nvme hostdev disk queues 0", &[":2", "1 to 128"]),
        ("ram 16M load kernel\nvdev disk hostdev disk block-size 7", &[":2", "512 or 4096"]),
        ("ram 16M load kernel\nvdev virtio-net mac 1", &[":2", "`mac`: expected an address"]),
        ("ram 16M load kernel\nvdev virtio-net", &[":2", "requires `tap` or `socket`"]),
        ("ram 16M load kernel\nvdev virtio-entropy loc pci:1:1", &[":2", "there is one bus"]),
        ("ram 16M load kernel\nvdev virtio-entropy loc pci:0:0", &[":2", "the host bridge"]),
        ("ram 16M load kernel\nvdev virtio-entropy loc mem:0x1000000000", &[":2", "PCI bus"]),
        ("ram 16M load kernel\nvdev virtio-entropy loc pci:1/2", &[":2", "identifiers"]),
        ("ram 16M load kernel\nvdev virtio-entropy loc pci:0:1.1", &[":2", "function 0 first"]),
        (
            "ram 16M load kernel\nvdev virtio-entropy loc pci:0:3\nvdev virtio-entropy loc pci:0:3",
            &["a.qvmconf:3", "`virtio-entropy` is there (a.qvmconf:2)"],
        ),
        ("ram 16M load kernel\nvdev virtio-entropy intr ioapic:5", &[":2", "leave it out"]),
        ("ram 16M load kernel\nvdev ser8250 loc 0x2f8", &[":2", "io:0x3f8"]),
        ("ram 16M load kernel\nvdev ser8250 vdev ser8250", &[":2", "there is one `ser8250`"]),
        ("ram 16M load kernel\nvdev iommu loc mem:0x1000000000", &[":2", "mem:0xfed90000"]),
        ("ram 16M load kernel unsupported reference abort", &["only its defaults"]),
        ("ram 16M load kernel set exit-on-halt off", &["always leaves the guest"]),
    ];
    for (text, parts) in cases {
        fixture.check_text(text, 2, parts);
    }
    fixture.check_text(
        "ram 16M load kernel\nvdev nvme hostdev .",
        1,
        &["a.qvmconf:2", "directory"],
    );
    let full = format!("ram 16M load kernel\n{}", "vdev virtio-entropy\n".repeat(32));
    fixture.check_text(&full, 2, &["a.qvmconf:33", "31 places"]);
    fixture.check(&["ram", "16M", "load", "kernel", "vdev", "x"], 2, &["command line:6", "`x`"]);
    fixture.check(&["none.qvmconf"], 2, &["none.qvmconf"]);
}
