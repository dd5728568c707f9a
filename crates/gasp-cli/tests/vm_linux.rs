//! Debian's Linux, booted by `gasp vm` on the KVM of an emulated machine, with disks behind its own
//! driver of an emulated VT-d.
//!
//! QEMU emulates a processor with SVM; the Linux in it loads KVM; the command runs there, and boots
//! the same kernel once more. No privilege is needed, and no KVM of this machine.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use gasp_testbed::{Initramfs, Testbed, Vm};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

/// The time limit of the machine, for a busy one.
const PATIENCE: Duration = Duration::from_secs(420);
/// The inner kernel's command line; without `quiet` its whole log would be an exit a byte.
const CMDLINE: &str = "console=ttyS0 panic=-1 quiet mitigations=off cryptomgr.notests";

/// The inner guest: what each boot does is a word of its command line.
const INNER: &str = r#"
has() { grep -q "$1" /proc/cmdline; }
until [ -b /dev/nvme0n1 ] && [ -b /dev/vda ]; do sleep 0.1; done
sum() { md5sum | cut -d ' ' -f 1; }
keep() {
    mke2fs -q $1 16384
    mount -t ext4 $1 /mnt
    cp /tmp/bytes /mnt/bytes
    umount /mnt
}
check() {
    echo 3 > /proc/sys/vm/drop_caches
    mount -t ext4 $1 /mnt
    echo "inside: $2 $1 $(sum < /mnt/bytes)"
    umount /mnt
}
dmesg | grep -iE 'dmar|iommu' | sed 's/^/inside: log: /'
dmesg -r | grep '^<[0-4]>' | sed 's/^/inside: complaint: /'
if has first; then
    if ! mount -t ext4 /dev/vda /mnt 2> /dev/null; then
        dd if=/dev/urandom of=/tmp/bytes bs=1M count=2 2> /dev/null
        echo "inside: written $(sum < /tmp/bytes)"
        keep /dev/nvme0n1
        keep /dev/vda
        check /dev/nvme0n1 strict
        check /dev/vda strict
        sync
        reboot -f
        sleep 100
    fi
    umount /mnt
    check /dev/nvme0n1 reset
    check /dev/vda reset
    echo inside: ready
    read line
    dd if=/dev/nvme0n1 of=/dev/null bs=4k count=1000 iflag=direct 2> /dev/null
    echo inside: measured
    read line
    echo inside: waiting
    head -c 24 /dev/input/event0 > /tmp/event
    echo inside: pressed
else
    check /dev/nvme0n1 $(has lazy && echo lazy || echo off)
    check /dev/vda $(has lazy && echo lazy || echo off)
    dmesg | grep -iE 'dmar.*fault' | sed 's/^/inside: complaint: /'
    if has lazy; then
        # Without its driver, the controller is given admin queues that nobody has mapped.
        pci=/sys/bus/pci/devices/0000:00:07.0
        echo 0000:00:07.0 > /sys/bus/pci/drivers/nvme/unbind
        echo 1 > $pci/enable
        printf '\006\004' | dd of=$pci/config bs=1 seek=4 conv=notrunc 2> /dev/null
        bar=$(head -n 1 $pci/resource | cut -d ' ' -f 1)
        register() { devmem $(printf '0x%x' $(($bar + $1))) $2 $3; }
        register 0x14 32 0
        register 0x24 32 0x10001
        register 0x28 64 0x12345000
        register 0x30 64 0x12346000
        register 0x14 32 0x460001
        sleep 1
        register 0x1000 32 1
        sleep 1
        dmesg | grep 'fault addr' | sed 's/^/inside: fault: /'
    fi
fi
"#;

/// The machine around it.
const OUTER: &str = r#"
truncate -s 64M /tmp/a
truncate -s 64M /tmp/b
mkfifo /tmp/in
until_says() { until grep -q "inside: $1" /tmp/console; do sleep 0.2; done; }
gasp vm --kernel /vmlinux --initrd /initrd --ram 256M --disk /tmp/a --disk virtio-blk:/tmp/b \
    --cmdline "$CMDLINE intel_iommu=on iommu.strict=1 first" --json /tmp/json \
    < /tmp/in > /tmp/console & job=$!
exec 3> /tmp/in
until_says ready
sleep 3
tail -n 1 /tmp/json | sed 's/^/before: /'
echo go >&3
until_says measured
sleep 3
tail -n 1 /tmp/json | sed 's/^/after: /'
kill -USR1 $job
sleep 1
echo go >&3
until_says waiting
sleep 1
kill -TERM $job
status=0
wait $job || status=$?
cat /tmp/console
echo "first: status $status"
sed 's/^/json: /' /tmp/json
cat > /tmp/guest.qvmconf <<END
system lazy
ram 256M
guest load /vmlinux
initrd load /initrd
cmdline "$CMDLINE intel_iommu=on iommu.strict=0 lazy"
vdev iommu
vdev nvme hostdev a loc pci:0:7
vdev virtio-blk hostdev b readonly
vdev ser8250
END
status=0
gasp vm /tmp/guest.qvmconf --json /tmp/json < /dev/null || status=$?
grep '"fault"' /tmp/json | sed 's/^/refused: /'
echo "second: status $status"
"#;

fn main() {
    let arguments = Arguments::from_args();
    let testbed = if arguments.list {
        Err("only listed".into())
    } else {
        Testbed::obtain().map_err(|why| why.to_string())
    };
    let name = "linux_keeps_file_systems_behind_its_own_iommu";
    let trial = match testbed {
        Ok(testbed) => Trial::test(name, move || keeps(&testbed)),
        Err(why) => Trial::test(format!("{name} [skipped, because {why}]"), || Ok(()))
            .with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

fn keeps(testbed: &Testbed) -> Result<(), Failed> {
    let modules = ["virtio_pci", "virtio_blk", "ext4", "button", "evdev"];
    let inner = Initramfs::new(testbed).script(INNER);
    let inner = modules.iter().fold(inner, |inner, module| inner.module(module)).build()?;
    let outer = Initramfs::new(testbed)
        .module("kvm")
        .module("kvm-amd")
        .program(env!("CARGO_BIN_EXE_gasp"))
        .file("/vmlinux", std::fs::read(testbed.vmlinux())?)
        .file("/initrd", inner)
        .script(&format!("CMDLINE='{CMDLINE}'\n{OUTER}"));
    let vm = Vm::linux(testbed, outer).memory(2 << 30).cpus(2).limit(PATIENCE).start()?;
    let lines: Vec<String> = vm.finish(PATIENCE)?.into_iter().map(|line| line.text).collect();
    let found = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    let after = |text: &str| {
        let found = lines.iter().find_map(|line| Some(line.split_once(text)?.1.trim().to_owned()));
        found.ok_or_else(|| Failed::from(format!("no {text:?} in {lines:#?}")))
    };

    // What was written is read: in strict mode, after a reset on a new machine, and in lazy mode.
    let sum = after("inside: written ")?;
    assert_eq!(sum.len(), 32, "{lines:#?}");
    for when in ["strict", "reset", "lazy"] {
        for disk in ["/dev/nvme0n1", "/dev/vda"] {
            assert_eq!(after(&format!("inside: {when} {disk} "))?, sum, "{when} {disk}");
        }
    }

    // Linux uses the IOMMU in each of the three boots, without a complaint.
    assert_eq!(found("DMAR: IOMMU enabled"), 3, "{lines:#?}");
    assert_eq!(found("DMAR: dmar0: Using Queued invalidation"), 3);
    assert_eq!(found("TLB invalidation policy: strict mode"), 2);
    assert_eq!(found("TLB invalidation policy: lazy mode"), 1);
    assert_eq!(found("0000:00:07.0: Adding to iommu group"), 1, "the place that was asked for");
    // A clock that is read late is a busy machine's.
    let complains =
        |line: &&String| line.contains(": complaint: ") && !line.contains("clocksource");
    let complaints: Vec<_> = lines.iter().filter(complains).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");

    assert_eq!(found("inside: pressed"), 1, "the power button");
    assert_eq!((found("first: status 0"), found("second: status 0")), (1, 1), "{lines:#?}");
    assert_eq!(found("invalidations           held"), 1, "the view");
    check_events(&lines)?;
    let [exits, invalidations] = cost_of_a_read(&after("before: ")?, &after("after: ")?)?;
    println!("for a read of 4 KiB: {exits:.3} exits, {invalidations:.3} invalidations");
    // The invalidation, and at most two doorbells.
    assert!(exits < 1.1 && (0.99..1.1).contains(&invalidations), "{exits} {invalidations}");

    // What the IOMMU refuses is in the guest's log and in the events, with device and address.
    assert_eq!(found("inside: fault: "), 1, "{lines:#?}");
    let fault = after("inside: fault: ")?;
    assert!(fault.contains("DMA Read") && fault.contains("[00:07.0]"), "{fault}");
    assert!(fault.contains("addr 0x12345000 [fault reason 0x06]"), "{fault}");
    let refused: Value = serde_json::from_str(&after("refused: ")?)?;
    assert_eq!((&refused["device"], &refused["addr"]), (&"nvme".into(), &0x1234_5000.into()));
    Ok(())
}

/// The events of the first command, in order.
fn check_events(lines: &[String]) -> Result<(), Failed> {
    let mut events = Vec::new();
    for line in lines.iter().filter_map(|line| line.strip_prefix("json: ")) {
        let event: Value = serde_json::from_str(line)?;
        if event["event"] == "started" {
            assert_eq!((&event["iommu"], &event["ram_bytes"]), (&true.into(), &(256 << 20).into()));
            assert_eq!(event["devices"][1]["type"], "virtio-blk");
        }
        if event["event"] != "totals" {
            events.push(event["event"].as_str().unwrap_or_default().to_owned());
        }
    }
    // No faults: those would be here.
    assert_eq!(events, ["started", "reset", "started", "power-button", "ended"]);
    Ok(())
}

/// Exits to the process, and invalidations, for a read: from totals before and after.
fn cost_of_a_read(before: &str, after: &str) -> Result<[f64; 2], Failed> {
    let [before, after]: [Value; 2] = [serde_json::from_str(before)?, serde_json::from_str(after)?];
    let added = |path: &str| {
        let get = |totals: &Value| totals.pointer(path).and_then(Value::as_u64);
        let pair = get(&before).zip(get(&after));
        pair.map(|(before, after)| (after - before) as f64).ok_or(format!("no {path}"))
    };
    let reads = added("/devices/0/nvme/reads")?;
    assert_eq!(reads, 1000.0, "nobody else reads");
    // Ports are the console's.
    let exits = added("/exits/mmio")? + added("/exits/other")?;
    Ok([exits / reads, added("/devices/0/iommu/invalidations")? / reads])
}
