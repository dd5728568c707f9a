//! Debian's Linux, booted by the example `boot` on the KVM of an emulated machine.
//!
//! QEMU emulates a processor with SVM; the Linux in it loads KVM; the example runs there, statically
//! linked, and boots the same kernel once more. No privilege is needed, and no KVM of this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod disk;
mod nested;

use libtest_mimic::{Arguments, Failed, Trial};
use nested::Nested;

type Body = fn(&Nested) -> Result<(), Failed>;

fn main() {
    let bodies: [(&str, Body); 5] = [
        ("linux_boots_to_user_space_and_powers_off", boots),
        ("linux_decompresses_itself", bz_image),
        ("linux_with_two_vcpus_reads_its_console_and_starts_anew_after_a_reset", two_vcpus),
        ("linux_hears_the_power_button", power_button),
        ("linux_finds_an_nvme_and_a_virtio_disk_that_keep_what_is_written", disk::keeps),
    ];
    let mut arguments = Arguments::from_args();
    // Each has the machine to itself.
    arguments.test_threads.get_or_insert(1);
    let nested = if arguments.list { Err("only listed".into()) } else { Nested::obtain() };
    let trials = bodies.into_iter().map(|(name, body)| match &nested {
        Ok(nested) => {
            let nested = nested.clone();
            Trial::test(name, move || body(&nested))
        }
        Err(why) => Trial::test(format!("{name} [skipped, because {why}]"), || Ok(()))
            .with_ignored_flag(true),
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// The guest's kernel is content with what it finds, and says so.
fn boots(nested: &Nested) -> Result<(), Failed> {
    let script = "
        echo inside: $(uname -r), $(nproc) CPU
        grep ttyS0 /proc/interrupts | sed 's/^/line: /'
        dmesg -r | grep '^<[0-4]>' | sed 's/^/complaint: /'";
    let lines = nested.run("/vmlinux", script)?;
    let found = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(found("inside: ") && found("1 CPU"), "{lines:#?}");
    assert!(found("IO-APIC   4-edge      ttyS0"), "{lines:#?}");
    assert!(found("boot: status 0"), "{lines:#?}");
    let complains = |line: &&String| line.contains("complaint: ");
    let complaints: Vec<_> = lines.iter().filter(complains).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    Ok(())
}

fn bz_image(nested: &Nested) -> Result<(), Failed> {
    let lines = nested.run("/vmlinuz", "echo inside: $(uname -r)")?;
    let found = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(found("inside: ") && found("boot: status 0"), "{lines:#?}");
    Ok(())
}

fn two_vcpus(nested: &Nested) -> Result<(), Failed> {
    let script = "
        echo inside: waiting with $(nproc) CPUs
        read line
        echo heard: $line
        reboot -f";
    // Nobody hears the power button. The second signal ends the VM.
    let command = "
        echo hello > /tmp/in
        until [ $(grep -c 'inside: waiting' /tmp/console) = 2 ]; do sleep 0.2; done
        kill -TERM $(pidof boot)
        sleep 1
        kill -TERM $(pidof boot)";
    let lines = nested.run_and(script, "--cpus 2", &[], command)?;
    let found = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((found("with 2 CPUs"), found("heard: hello")), (2, 1), "{lines:#?}");
    assert!(found("Restarting system") == 1, "{lines:#?}");
    assert!(found("the host has stopped the guest") == 1, "{lines:#?}");
    assert!(found("boot: status 1") == 1, "{lines:#?}");
    Ok(())
}

fn power_button(nested: &Nested) -> Result<(), Failed> {
    // A key event of 24 bytes comes from the button. Then the guest resets itself.
    let script = "
        echo inside: waiting
        head -c 24 /dev/input/event0 > /tmp/event
        echo pressed
        reboot -f";
    let lines =
        nested.run_and(script, "--reset end", &["button", "evdev"], "kill -TERM $(pidof boot)")?;
    let found = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(found("pressed") && found("boot: status 0"), "{lines:#?}");
    Ok(())
}
