//! An NVMe disk and a virtio disk of ours on the PCI bus of the guest inside.

use libtest_mimic::Failed;

use crate::nested::Nested;

/// What each boot does, by a word of its command line.
const SCRIPT: &str = r#"
until [ -b /dev/nvme0n1 ] && [ -b /dev/vda ]; do sleep 0.1; done
sum() { md5sum | cut -d ' ' -f 1; }
raw() { dd if=/dev/nvme0n1 bs=1M skip=40 count=4 iflag=direct 2> /dev/null; }
other() { dd if=/dev/vda bs=1M skip=10 count=4 iflag=direct 2> /dev/null; }
tree() {
    echo 3 > /proc/sys/vm/drop_caches
    mount -t ext4 /dev/nvme0n1 /mnt
    echo "$1: $(sum < /mnt/bytes) of $(cat /mnt/sum)"
    umount /mnt
}
if grep -q first /proc/cmdline; then
    if [ "$(dd if=/dev/nvme0n1 bs=1M skip=60 count=1 2> /dev/null | head -c 6)" != before ]; then
        dmesg -r | grep '^<[0-4]>' | sed 's/^/complaint: /'
        dmesg | grep MMCONFIG | sed 's/^/pci: /'
        echo "bridge: $(wc -c < /sys/bus/pci/devices/0000:00:00.0/config) bytes"
        dd if=/dev/urandom of=/tmp/bytes bs=1M count=4 2> /dev/null
        mke2fs -q /dev/nvme0n1 32768
        mount -t ext4 /dev/nvme0n1 /mnt
        cp /tmp/bytes /mnt/bytes
        sum < /tmp/bytes > /mnt/sum
        umount /mnt
        dd if=/tmp/bytes of=/dev/nvme0n1 bs=1M seek=40 oflag=direct 2> /dev/null
        dd if=/tmp/bytes of=/dev/vda bs=64k seek=160 oflag=direct 2> /dev/null
        echo "written: $(sum < /tmp/bytes)"
        tree written-tree
        echo before | dd of=/dev/nvme0n1 bs=512 seek=122880 conv=sync 2> /dev/null
        sync
        reboot -f
        sleep 100
    fi
    tree reset-tree
    echo "reset: $(raw | sum)"
    echo "reset other: $(other | sum)"
fi
if grep -q second /proc/cmdline; then
    tree two-tree
    for round in 1 2 3 4 5; do
        for part in 0 1; do
            dd if=/dev/nvme0n1 of=/dev/null bs=64k skip=$((640 + 32 * part)) count=32 iflag=direct 2> /dev/null &
        done
        echo 1 > /sys/class/nvme/nvme0/reset_controller
        wait
    done
    echo "two: $(nproc) $(raw | sum)"
    echo "two other: $(other | sum)"
    grep -E 'nvme|virtio' /proc/interrupts | sed 's/^/irq: /'
fi
if grep -q third /proc/cmdline; then
    dmesg -r | grep '^<[0-4]>' | sed 's/^/complaint: /'
    tree pin-tree
    echo "pin: $(raw | sum)"
    echo "pin other: $(other | sum)"
    grep -E 'nvme|virtio' /proc/interrupts | sed 's/^/pin irq: /'
fi
"#;

/// With one vCPU, after a reset on a new machine, with two vCPUs and resets of the controller, and
/// with the interrupt pin.
pub(crate) fn keeps(nested: &Nested) -> Result<(), Failed> {
    let boots = [("--cpus 1", "first"), ("--cpus 2", "second"), ("--cpus 1", "third pci=nomsi")];
    let outside = "echo outside: $(dd if=/tmp/disk bs=1M skip=40 count=4 2> /dev/null | md5sum)";
    let lines = nested.with_disk(SCRIPT, &boots, outside)?;
    let after = |text: &str| {
        let found = lines.iter().find_map(|line| Some(line.split_once(text)?.1.trim().to_string()));
        found.ok_or_else(|| Failed::from(format!("no {text:?} in {lines:#?}")))
    };
    let sum = after("written: ")?;
    assert_eq!(sum.len(), 32, "{lines:#?}");
    for text in ["written-tree: ", "reset-tree: ", "two-tree: ", "pin-tree: "] {
        let both = after(text)?;
        assert_eq!(both, format!("{sum} of {sum}"), "{text}");
    }
    for text in ["reset: ", "pin: ", "reset other: ", "two other: ", "pin other: "] {
        assert_eq!(after(text)?, sum, "{text}");
    }
    assert_eq!(after("two: ")?, format!("2 {sum}"));
    assert!(after("outside: ")?.starts_with(&sum), "each byte is in the file: {lines:#?}");
    let found = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(found("irq: ") && after("irq: ")?.contains("PCI-MSI"), "{lines:#?}");
    assert!(found("IO-APIC  17-fasteoi   nvme0q0"), "{lines:#?}");
    assert!(found("IO-APIC  18-fasteoi   virtio0"), "{lines:#?}");
    assert!(found("[mem 0xe0000000-0xe00fffff] reserved"), "{lines:#?}");
    // The rest of it after the first 256 is reached by ECAM alone.
    assert!(found("bridge: 4096 bytes"), "{lines:#?}");
    // A clock that is read late is a busy machine's.
    let complains = |line: &&String| line.contains("complaint: ") && !line.contains("clocksource");
    let complaints: Vec<_> = lines.iter().filter(complains).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert!(found("boot: status 0"), "{lines:#?}");
    Ok(())
}
