//! A real Linux guest in a real QEMU.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gasp_testbed::{Error, Initramfs, Testbed, Vm};
use support::Outcome;

/// The time limit of a boot, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() {
    support::run(&[
        ("a_disk_behind_the_iommu_keeps_what_is_written", disk_behind_the_iommu),
        ("a_guest_reboots_and_finds_what_it_wrote", guest_reboots),
        ("a_script_that_fails_is_an_error", a_script_that_fails),
        ("a_guest_that_hangs_is_ended_in_time", a_guest_that_hangs),
        ("a_guest_reads_what_the_host_sends", a_guest_reads),
        ("modules_and_programs_of_the_host_are_there", modules_and_programs),
        ("qemu_runs_in_a_guest_with_its_firmware", qemu_in_a_guest),
        ("a_guest_dies_with_its_test", dies_with_its_test),
        ("what_qemu_refuses_is_told", what_qemu_refuses),
    ]);
}

fn disk_behind_the_iommu(testbed: &Testbed) -> Outcome {
    let backing = tempfile::NamedTempFile::new()?;
    backing.as_file().set_len(64 << 20)?;
    let drive = format!("if=none,id=disk,format=raw,file={}", backing.path().display());
    let script = "
        ls /sys/kernel/iommu_groups | wc -l | sed 's/^/iommu groups: /'
        head -c 8000000 /dev/urandom > /tmp/data
        mke2fs -q /dev/nvme0n1
        mount -t ext4 /dev/nvme0n1 /mnt
        cp /tmp/data /mnt/data
        umount /mnt
        echo 3 > /proc/sys/vm/drop_caches
        mount -t ext4 /dev/nvme0n1 /mnt
        cmp /tmp/data /mnt/data
        md5sum < /mnt/data | sed 's/^/sum: /'
        umount /mnt";
    let started = Instant::now();
    let vm = Vm::linux(testbed, Initramfs::new(testbed).script(script))
        .device("intel-iommu,intremap=off,caching-mode=on")
        .arg("-drive")
        .arg(drive)
        .device("nvme,drive=disk,serial=1")
        .kernel_arg("intel_iommu=on")
        .kernel_arg("iommu.strict=1")
        .start()?;
    let groups = vm.wait_for("iommu groups: ", PATIENCE)?;
    let count: u32 = groups.text.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(count > 0, "the guest uses its IOMMU");
    let lines = vm.finish(PATIENCE)?;
    assert!(lines.iter().any(|line| line.text.starts_with("sum: ")));
    eprintln!("the guest was up after {:?}, done after {:?}", groups.at, started.elapsed());
    Ok(())
}

fn guest_reboots(testbed: &Testbed) -> Outcome {
    let backing = tempfile::NamedTempFile::new()?;
    backing.as_file().set_len(1 << 20)?;
    let drive = format!("if=none,id=disk,format=raw,file={}", backing.path().display());
    let script = "
        if [ \"$(head -c 6 /dev/nvme0n1)\" = before ]; then echo second; exit 0; fi
        echo first
        echo before > /dev/nvme0n1
        sync
        reboot -f";
    let start = || {
        Vm::linux(testbed, Initramfs::new(testbed).script(script))
            .arg("-drive")
            .arg(&drive)
            .device("nvme,drive=disk,serial=1")
    };
    let vm = start().reboots().start()?;
    vm.wait_for("first", PATIENCE)?;
    vm.wait_for("second", PATIENCE)?;
    vm.finish(PATIENCE)?;

    backing.as_file().set_len(0)?;
    backing.as_file().set_len(1 << 20)?;
    let lines = start().start()?.finish(PATIENCE).unwrap_err().to_string();
    assert!(lines.contains("first") && !lines.contains("second"), "no reboot asked for: {lines}");
    Ok(())
}

fn a_script_that_fails(testbed: &Testbed) -> Outcome {
    let script = "echo before\n(exit 7)\necho behind";
    let vm = Vm::linux(testbed, Initramfs::new(testbed).script(script)).start()?;
    vm.wait_for("before", PATIENCE)?;
    let missing = vm.wait_for("behind", PATIENCE).unwrap_err();
    assert!(matches!(&missing, Error::Ended { status: Some(_), .. }), "{missing}");
    let failed = vm.finish(PATIENCE).unwrap_err();
    assert!(matches!(&failed, Error::Script { code: 7, .. }), "{failed}");
    assert!(failed.to_string().contains("before"), "it shows the console: {failed}");
    Ok(())
}

fn a_guest_that_hangs(testbed: &Testbed) -> Outcome {
    let initramfs = Initramfs::new(testbed).script("sleep 1000");
    let limit = Duration::from_secs(2);
    let vm = Vm::linux(testbed, initramfs.clone()).limit(limit).start()?;
    let late = vm.wait_for("never said", Duration::from_millis(100)).unwrap_err();
    assert!(matches!(&late, Error::Timeout { .. }), "{late}");
    let killed = vm.finish(PATIENCE).unwrap_err();
    assert!(matches!(&killed, Error::Ended { .. }), "{killed}");
    assert!(killed.to_string().contains("whole-run timeout"), "{killed}");

    let ends: [fn(Vm); 2] = [drop, |vm| drop(vm.kill())];
    for end in ends {
        let vm = Vm::linux(testbed, initramfs.clone()).start()?;
        let pid = vm.pid();
        assert!(alive(pid));
        end(vm);
        assert!(!alive(pid), "dropped or killed");
    }
    Ok(())
}

fn a_guest_reads(testbed: &Testbed) -> Outcome {
    let script = "echo asking\nread answer\necho \"got <$answer>\"";
    let vm = Vm::linux(testbed, Initramfs::new(testbed).script(script)).cpus(2).start()?;
    vm.wait_for("asking", PATIENCE)?;
    vm.send_line("forty two")?;
    vm.wait_for("got <forty two>", PATIENCE)?;
    vm.finish(PATIENCE)?;
    Ok(())
}

fn modules_and_programs(testbed: &Testbed) -> Outcome {
    let initramfs = Initramfs::new(testbed)
        .module("vfio-pci")
        .module("ext4")
        .file("/data/text", "from the test")
        .program(env!("CARGO_BIN_EXE_testbed"))
        .script("cat /proc/modules\ncat /data/text; echo\n/bin/testbed --help");
    let lines = Vm::linux(testbed, initramfs).start()?.finish(PATIENCE)?;
    for wanted in ["vfio_pci ", "from the test", "A real QEMU and a real Linux guest, for tests"] {
        assert!(lines.iter().any(|line| line.text.starts_with(wanted)), "{wanted}: {lines:?}");
    }
    let wrong = Initramfs::new(testbed).module("no-such-module");
    let error = Vm::linux(testbed, wrong).start().err().unwrap();
    assert!(matches!(&error, Error::NoModule(name) if name == "no_such_module"), "{error}");
    Ok(())
}

/// Without firmware it would not get as far as to end by itself, and without its libraries not even
/// start.
fn qemu_in_a_guest(testbed: &Testbed) -> Outcome {
    let script = "
        qemu --version | sed 's/^/inner: /'
        echo quit | qemu -accel tcg -M q35 -nodefaults -display none -monitor stdio -S > /tmp/said
        echo firmware: $?";
    let initramfs = Initramfs::new(testbed).qemu().script(script);
    let lines = Vm::linux(testbed, initramfs).memory(1 << 30).start()?.finish(PATIENCE)?;
    let found = |text: &str| lines.iter().any(|line| line.text.contains(text));
    let version = &testbed.versions().qemu;
    let upstream = version.split([':', '+', '-']).find(|part| part.contains('.')).unwrap();
    assert!(found(&format!("inner: QEMU emulator version {upstream}")), "{lines:#?}");
    assert!(found("firmware: 0"), "{lines:#?}");
    Ok(())
}

/// Another process boots a guest and is killed by SIGKILL, so that it cannot clean up.
fn dies_with_its_test(_testbed: &Testbed) -> Outcome {
    let mut parent = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(["boot", "echo up; sleep 1000"])
        .stderr(Stdio::piped())
        .spawn()?;
    let console = BufReader::new(parent.stderr.take().unwrap());
    let up = console.lines().map_while(Result::ok).any(|line| line.ends_with(" up"));
    let children = children_of(parent.id());
    parent.kill()?;
    parent.wait()?;
    assert!(up, "the guest was up");
    assert_eq!(children.len(), 1, "one QEMU");
    let until = Instant::now() + Duration::from_secs(5);
    while alive(children[0]) {
        assert!(Instant::now() < until, "QEMU {} is still running", children[0]);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn what_qemu_refuses(testbed: &Testbed) -> Outcome {
    let vm = Vm::linux(testbed, Initramfs::new(testbed)).device("no-such-device").start()?;
    let refused = vm.finish(PATIENCE).unwrap_err();
    assert!(refused.to_string().contains("no-such-device"), "{refused}");
    Ok(())
}

/// Whether the process exists and is not a zombie.
fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap().trim_start().chars().next();
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children = tasks.map(|task| {
        std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default()
    });
    let children: Vec<String> = children.collect();
    children
        .iter()
        .flat_map(|text| text.split_whitespace())
        .map(|pid| pid.parse().unwrap())
        .collect()
}
