//! The sample vdevs of `examples/vdev` in the hands of Linux's own drivers.
//!
//! As in `vm_linux.rs`: QEMU emulates a processor with SVM, `gasp vm` runs in it with the samples,
//! and boots Debian's kernel. Its driver 8250 has its console on one UART and reads from another,
//! virtio-rng reads the entropy device, virtio_blk the disk. There is no driver for the SP805 on
//! x86: a program of the guest accesses its registers. One boot for each edition of the API.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::process::Command;
use std::time::Duration;

use gasp_testbed::{Initramfs, Testbed, Vm};
use libtest_mimic::{Arguments, Failed, Trial};

/// The time limit of the machine, for a busy one.
const PATIENCE: Duration = Duration::from_secs(420);
const CMDLINE: &str = "console=ttyS1 panic=-1 quiet mitigations=off cryptomgr.notests";
const SAMPLES: [&str; 4] = ["ser8250", "wdt-sp805", "virtio-entropy", "block"];

/// The guest.
const INNER: &str = r#"
sum() { md5sum | cut -d ' ' -f 1; }
until [ -b /dev/vda ] && [ -c /dev/hwrng ]; do sleep 0.1; done
dmesg -r | grep '^<[0-4]>' | sed 's/^/inside: complaint: /'
dmesg | grep -E 'ttyS[12] at' | sed 's/^/inside: log: /'

# The kernel's log, and a program's output.
sleep 0.5
echo '<1>through the UART: the kernel' > /dev/kmsg
sleep 0.5
seq 100 | sed 's/^/through the UART: /' > /dev/ttyS1
# A second UART, in memory, has input.
exec 5<> /dev/ttyS2
stty raw -echo <&5
echo inside: listening
head -n 100 <&5 > /tmp/heard
echo "inside: heard $(sum < /tmp/heard)"

echo "inside: rng $(cat /sys/class/misc/hw_random/rng_current)"
for i in 1 2; do
    dd if=/dev/hwrng of=/tmp/random bs=512 count=8 2> /dev/null
    echo "inside: random $(wc -c < /tmp/random) $(sum < /tmp/random)"
done

echo "inside: disk $(cat /sys/block/vda/size) $(cat /sys/block/vda/serial)"
echo "inside: read $(head -c 1048576 /dev/vda | sum)"
mke2fs -q /dev/vda 16384 > /dev/null
mount -t ext4 /dev/vda /mnt
dd if=/dev/urandom of=/mnt/bytes bs=1M count=3 2> /dev/null
echo "inside: written $(sum < /mnt/bytes)"
umount /mnt
echo 3 > /proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt
echo "inside: kept $(sum < /mnt/bytes)"
umount /mnt
dmesg | grep -iE 'i/o error' | sed 's/^/inside: complaint: /'
grep -E 'ttyS[12]|virtio' /proc/interrupts | sed 's/^/inside: interrupt: /'
echo inside: done
sleep 1

# The watchdog, of 1000 Hz: fed, and then not.
register() { devmem $(printf '0x%x' $((0xfa001000 + $1))) 32 $2; }
register 0xc00 0x1acce551
register 0x000 999
register 0x008 3
for i in 1 2 3; do
    sleep 0.5
    register 0x00c 1
done
echo "inside: fed $(register 0x010)"
until [ $(register 0x010) = 0x00000001 ]; do sleep 0.1; done
echo "inside: interrupted $(register 0x014)"
sleep 100
"#;

/// The machine around it, for one edition.
const OUTER: &str = r#"
edition=$1
dd if=/dev/urandom of=/tmp/disk bs=1M count=32 2> /dev/null
echo "$edition: before $(head -c 1048576 /tmp/disk | md5sum | cut -d ' ' -f 1)"
seq 100 | sed 's/^/to the UART: /' > /tmp/lines
echo "$edition: input $(md5sum < /tmp/lines | cut -d ' ' -f 1)"
rm -f /tmp/input /tmp/output
mkfifo /tmp/input
# For host-physical addresses memory is pinned. There are built-in types of the names of two
# samples: their files are named instead.
cat > /tmp/guest.toml <<END
[machine]
kernel = "/vmlinux"
initrd = "/initrd"
cmdline = "$CMDLINE"
[[ram]]
size = "128M"
residency = "pinned"
[[vdev]]
name = "output"
type = "vdev-ser8250"
loc = ["io:0x2f8"]
intr = "ioapic:3"
options = ["hid PNP0501", "hostdev >/tmp/output"]
[[vdev]]
name = "input"
type = "vdev-ser8250"
loc = ["mem:0xfa002000"]
intr = "ioapic:11"
options = ["hid PNP0501", "hostdev </tmp/input"]
[[vdev]]
name = "entropy"
type = "vdev-virtio-entropy"
loc = ["mem:0xfa003000"]
intr = "ioapic:12"
[[vdev]]
name = "disk"
type = "block"
loc = ["mem:0xfa004000"]
intr = "ioapic:13"
options = ["hostdev /tmp/disk"]
[[vdev]]
name = "watchdog"
type = "wdt-sp805"
loc = ["mem:0xfa001000"]
intr = "ioapic:10"
options = ["clock 1000"]
END
gasp vm /tmp/guest.toml --vdev-path /vdevs/$edition -v < /dev/null > /dev/null 2> /tmp/log & job=$!
until_says() { until grep -q "inside: $1" /tmp/output; do sleep 0.2; done; }
(until_says listening; cat /tmp/lines > /tmp/input; until_says done; kill -USR2 $job) &
status=0
wait $job || status=$?
echo "$edition: status $status"
tr -d '\r' < /tmp/output | sed "s/^/$edition: /"
sed "s/^/$edition: log: /" /tmp/log
"#;

fn main() {
    let arguments = Arguments::from_args();
    let testbed = if arguments.list {
        Err("only listed".into())
    } else {
        Testbed::obtain().map_err(|why| why.to_string())
    };
    let name = "linux_uses_the_sample_vdevs_of_both_editions_by_its_own_drivers";
    let trial = match testbed {
        Ok(testbed) => Trial::test(name, move || uses(&testbed)),
        Err(why) => Trial::test(format!("{name} [skipped, because {why}]"), || Ok(()))
            .with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

/// A sample, compiled.
fn compiled(sample: &str, edition: &str) -> Result<Vec<u8>, Failed> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("vdev.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(compiler)
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-g", "-shared", "-fPIC"])
        .args([&format!("-DQVM_EDITION={edition}"), "-I"])
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/../gasp-capi/include"), "-o"])
        .arg(&file)
        .arg(format!("{}/../../examples/vdev/vdev-{sample}.c", env!("CARGO_MANIFEST_DIR")))
        .output()?;
    match output.status.success() {
        true => Ok(std::fs::read(file)?),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}

fn uses(testbed: &Testbed) -> Result<(), Failed> {
    let modules = ["virtio_mmio", "virtio_blk", "virtio-rng", "ext4"];
    let inner = Initramfs::new(testbed).script(INNER);
    let inner = modules.iter().fold(inner, |inner, module| inner.module(module)).build()?;
    let mut outer = Initramfs::new(testbed)
        .module("kvm")
        .module("kvm-amd")
        .program(env!("CARGO_BIN_EXE_gasp"))
        .file("/vmlinux", std::fs::read(testbed.vmlinux())?)
        .file("/initrd", inner)
        .file("/edition", OUTER)
        .script(&format!("export CMDLINE='{CMDLINE}'\nsh -e /edition 800\nsh -e /edition 710\n"));
    for edition in ["800", "710"] {
        for sample in SAMPLES {
            let path = format!("/vdevs/{edition}/vdev-{sample}.so");
            outer = outer.file(&path, compiled(sample, edition)?);
        }
    }
    let vm = Vm::linux(testbed, outer).memory(2 << 30).cpus(2).limit(PATIENCE).start()?;
    let lines: Vec<String> = vm.finish(PATIENCE)?.into_iter().map(|line| line.text).collect();
    for edition in ["800", "710"] {
        let prefix = format!("{edition}: ");
        let of_one = |line: &String| Some(line.strip_prefix(&prefix)?.to_owned());
        check(&Lines(lines.iter().filter_map(of_one).collect()));
    }
    Ok(())
}

/// What one boot printed.
struct Lines(Vec<String>);

impl Lines {
    /// What follows a text, in each line that has it.
    fn all(&self, text: &str) -> Vec<&str> {
        self.0.iter().filter_map(|line| Some(line.split_once(text)?.1.trim())).collect()
    }

    /// What follows a text that one line has.
    fn one(&self, text: &str) -> &str {
        match *self.all(text) {
            [one] => one,
            _ => panic!("not one {text:?} in {:#?}", self.0),
        }
    }
}

fn check(lines: &Lines) {
    // A clock that is read late is a busy machine's.
    let complaints = lines.all("inside: complaint: ");
    let complaints: Vec<_> =
        complaints.iter().filter(|line| !line.contains("clocksource")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");

    // The driver finds two UARTs of this type; the log, and each line of a program, goes out.
    let found = lines.all("inside: log: ");
    assert!(found.iter().any(|line| line.contains("ttyS1 at I/O 0x2f8 ")), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("ttyS2 at MMIO 0xfa002000 ")), "{found:#?}");
    assert_eq!(found.iter().filter(|line| line.ends_with("is a 16550A")).count(), 2, "{found:#?}");
    let said = lines.all("through the UART: ");
    let expected: Vec<String> = (1..=100).map(|number| number.to_string()).collect();
    assert_eq!(said.iter().filter(|line| **line == "the kernel").count(), 1, "{said:#?}");
    let said: Vec<_> = said.into_iter().filter(|line| *line != "the kernel").collect();
    assert_eq!(said, expected);
    assert_eq!(lines.one("inside: heard "), lines.one("input "));

    assert!(lines.one("inside: rng ").starts_with("virtio_rng."), "{:#?}", lines.0);
    let random = lines.all("inside: random ");
    assert!(random.iter().all(|line| line.starts_with("4096 ")), "{random:#?}");
    assert_ne!(random[0], random[1]);

    assert_eq!(lines.one("inside: disk "), "65536 gasp-block");
    assert_eq!(lines.one("inside: read "), lines.one("before "));
    assert_eq!(lines.one("inside: kept "), lines.one("inside: written "));
    let runs = lines.all(": host-physical 0x");
    assert!(runs.len() >= 8, "{:#?}", lines.0);

    // Interrupts, and not a poll by a timer.
    for name in ["ttyS1", "virtio"] {
        let of_one = lines.all("inside: interrupt: ");
        let line = of_one.iter().find(|line| line.contains(name));
        let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok());
        assert!(count.is_some_and(|count| count > 10), "{name}: {of_one:#?}");
    }

    assert_eq!(lines.one("inside: fed "), "0x00000000");
    assert_eq!(lines.one("inside: interrupted "), "0x00000001");
    assert_eq!(lines.one("status "), "4", "a watchdog has ended the guest");
    assert_eq!(lines.all("guest_terminate(4)").len(), 1, "{:#?}", lines.0);
}
