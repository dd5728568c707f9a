//! Debian's Linux in QEMU, with NVMe disks served by this process: with and without an
//! IOMMU, through reboots and crashes. The written data is compared each time, in the guest
//! and here.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;
mod vmm;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gasp_nvme::{Backing, Counters, Nvme};
use gasp_testbed::{Initramfs, Testbed, Vm, VmBuilder};
use gasp_vdev::Shell;
use gasp_vfio_user::{Options, Server, ServerEvent};
use support::{Served, serve};
use vmm::{IOMMU, Outcome, Process, vfio_user};

/// Time limit of a boot on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);
const DISK: u64 = 64 << 20;
/// Offset after the end of the file system.
const RAW: u64 = 40 << 20;

/// The beginning of every script.
const WAIT: &str = "
until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
sum() { md5sum | cut -d ' ' -f 1; }
";

/// Creates a file system, and writes /data/bytes to it and after it, bypassing the cache.
const WRITE: &str = "
mke2fs -q /dev/nvme0n1 32768
mount -t ext4 /dev/nvme0n1 /mnt
cp /data/bytes /mnt/bytes
sync
umount /mnt
dd if=/data/bytes of=/dev/nvme0n1 bs=1M seek=40 oflag=direct 2> /dev/null
";

/// Reads both again, from the disk and not from memory.
const COMPARE: &str = "
echo 3 > /proc/sys/vm/drop_caches
mount -t ext4 /dev/nvme0n1 /mnt
cmp /data/bytes /mnt/bytes
echo \"sum: $(sum < /mnt/bytes) of $(sum < /data/bytes)\"
umount /mnt
dd if=/dev/nvme0n1 bs=1M skip=40 count=4 iflag=direct 2> /dev/null | cmp - /data/bytes
echo compared
";

fn main() {
    if let Some((backing, path)) = Process::asked() {
        let (nvme, _) = disk(Backing::file(backing));
        let server = Server::bind(path, Shell::new("disk", nvme).unwrap(), Options::default());
        let server = server.unwrap();
        Process::listens();
        return server.run().unwrap();
    }
    vmm::run(&[
        ("a_disk_without_an_iommu_keeps_what_is_written", without_iommu),
        ("a_disk_behind_a_strict_iommu_keeps_what_is_written", strict),
        ("a_disk_works_although_the_guest_does_not_share_its_memory", not_shared),
        ("two_disks_behind_the_iommu_do_not_mix", two_disks),
        ("a_guest_reboots_and_finds_what_it_wrote", reboots),
        ("a_vmm_killed_in_the_middle_of_writing_leaves_what_was_synced", vmm_killed),
        ("a_device_process_killed_in_the_middle_of_writing_too", process_killed),
        ("throughput_beside_qemus_own_disk", throughput),
    ]);
}

fn disk(backing: Backing) -> (Nvme, Counters) {
    // A guest takes two disks with the same serial number for one disk.
    static MADE: AtomicU32 = AtomicU32::new(0);
    let serial = format!("disk {}", MADE.fetch_add(1, Ordering::Relaxed));
    let options = gasp_nvme::Options { serial: Some(serial), ..Default::default() };
    let nvme = Nvme::new(&backing, options).unwrap();
    let counters = nvme.counters();
    (nvme, counters)
}

/// A disk in a file of its own.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("disk")).unwrap().set_len(DISK).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn backing(&self) -> Backing {
        Backing::file(self.path())
    }

    fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        File::open(self.path()).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }
}

/// QEMU maps the guest's memory privately, so the guest's writes are not in the file that
/// QEMU passes. QEMU's list of mappings shows it, and its replies by message have the right
/// data.
fn not_shared(testbed: &Testbed) -> Outcome {
    let disk = Disk::new();
    let (nvme, _) = self::disk(disk.backing());
    let served = serve(nvme, Options::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    served.server.observe(move |event| told.lock().unwrap().push(event.clone()));
    let script = ["dd if=/data/bytes of=/dev/nvme0n1 bs=64k count=4 oflag=direct 2> /dev/null\n"];
    let vm = guest(testbed, false, &[&served.path], &script)
        .arg("-object")
        .arg("memory-backend-memfd,id=private,size=262144K,share=off")
        .arg("-machine")
        .arg("memory-backend=private")
        .start()?;
    vm.finish(PATIENCE)?;
    assert_eq!(disk.bytes(0, 256 << 10), data()[..256 << 10]);
    let not_shared = ServerEvent::NotShared { len: 256 << 20, seen: true };
    assert!(seen.lock().unwrap().contains(&not_shared), "{:?}", seen.lock().unwrap());
    let status = served.status();
    assert_eq!((status.files, status.message_bytes > 256 << 10), (0, true));
    Ok(())
}

/// The data that the guest writes: 4 MiB of which no two pages are alike.
fn data() -> Vec<u8> {
    let words = (0..1_u64 << 19).map(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index);
    words.flat_map(u64::to_le_bytes).collect()
}

/// A guest with disks on these sockets, which runs the script.
fn guest(testbed: &Testbed, iommu: bool, sockets: &[&Path], script: &[&str]) -> VmBuilder {
    let script = format!("{WAIT}{}", script.concat());
    let initramfs = Initramfs::new(testbed).file("/data/bytes", data()).script(&script);
    let mut vm = Vm::linux(testbed, initramfs);
    if iommu {
        vm = vm.device(IOMMU).kernel_arg("intel_iommu=on").kernel_arg("iommu.strict=1");
    }
    sockets.iter().fold(vm, |vm, socket| vm.device(vfio_user(socket)))
}

/// Checks that the guest printed two checksums, and that they are equal.
fn check_sums(vm: &Vm) -> Outcome {
    let line = vm.wait_for("sum: ", PATIENCE)?.text;
    let (found, wanted) = line.trim_start_matches("sum: ").split_once(" of ").unwrap();
    assert_eq!(found, wanted);
    assert_eq!(found.len(), 32, "{line}");
    Ok(())
}

/// Checks that no command failed except one that Linux sends at each start: it queries
/// limits (Identify, CNS 6) that a later version of NVMe introduced.
fn check_errors(counters: &Counters) {
    let done = counters.snapshot();
    assert!(done.errors <= done.starts, "{done:?}");
}

/// Checks, while the guest waits, that nothing it did was refused.
fn check_served(served: &Served) {
    let guest = served.server.guest().expect("the guest is attached");
    assert_eq!(guest.take_faults(), gasp::Faults::default());
    let status = served.status();
    assert_eq!((status.refused, status.message_bytes, status.draining), (0, 0, 0));
    eprintln!(
        "{} maps, {} unmaps, {} drains, {} B in {} windows now",
        status.maps, status.unmaps, status.drains, status.window_bytes, status.windows
    );
}

const PAUSE: &str = "echo pausing\nread answer\n";

fn keeps_what_is_written(testbed: &Testbed, iommu: bool) -> Result<Served, libtest_mimic::Failed> {
    let file = Disk::new();
    let (nvme, counters) = disk(file.backing());
    let served = serve(nvme, Options::default());
    let groups = "ls /sys/kernel/iommu_groups | wc -l | sed 's/^/iommu groups: /'\n";
    let script = [groups, WRITE, COMPARE, PAUSE];
    let vm = guest(testbed, iommu, &[&served.path], &script).start()?;
    let line = vm.wait_for("iommu groups: ", PATIENCE)?;
    assert_eq!(line.text.ends_with(" 0"), !iommu, "{}", line.text);
    check_sums(&vm)?;
    let done = vm.wait_for("pausing", PATIENCE)?.at;
    check_served(&served);
    vm.send_line("go on")?;
    vm.finish(PATIENCE)?;
    eprintln!("found after {:.2?}, all compared after {done:.2?}", line.at);
    // Each byte went through the device into the file.
    let bytes = data();
    assert!(file.bytes(RAW, bytes.len()) == bytes, "what is in the file");
    let done = counters.snapshot();
    let len = bytes.len() as u64;
    assert!(done.written_bytes >= 2 * len && done.read_bytes >= 2 * len, "{done:?}");
    check_errors(&counters);
    Ok(served)
}

fn without_iommu(testbed: &Testbed) -> Outcome {
    let served = keeps_what_is_written(testbed, false)?;
    let maps = served.status().maps;
    assert!((1..500).contains(&maps), "the memory is mapped once: {maps}");
    Ok(())
}

fn strict(testbed: &Testbed) -> Outcome {
    let served = keeps_what_is_written(testbed, true)?;
    let status = served.status();
    // 4 MiB twice in each direction, page by page.
    assert!(status.maps > 4000 && status.unmaps > 4000, "{status:?}");
    Ok(())
}

fn two_disks(testbed: &Testbed) -> Outcome {
    let file = Disk::new();
    let (first, counters) = disk(file.backing());
    let (second, others) = disk(Backing::memory(DISK));
    let served = [serve(first, Options::default()), serve(second, Options::default())];
    let script = "
        until [ -b /dev/nvme1n1 ]; do sleep 0.1; done
        dd if=/dev/urandom of=/dev/nvme1n1 bs=1M seek=20 count=8 oflag=direct 2> /dev/null
        before=$(dd if=/dev/nvme1n1 bs=1M skip=20 count=8 iflag=direct 2> /dev/null | sum)
        (while [ ! -e /tmp/over ]; do
            dd if=/dev/nvme1n1 of=/dev/null bs=256k count=8 iflag=direct 2> /dev/null
            sleep 0.05
        done) &
        ";
    let behind = "
        echo 1 > /tmp/over
        wait
        dd if=/dev/nvme0n1 of=/dev/nvme1n1 bs=1M skip=40 count=4 oflag=direct 2> /dev/null
        after=$(dd if=/dev/nvme1n1 bs=1M skip=20 count=8 iflag=direct 2> /dev/null | sum)
        echo \"sum: $after of $before\"
        dd if=/dev/nvme1n1 bs=1M count=4 iflag=direct 2> /dev/null | cmp - /data/bytes
        ";
    let paths = [served[0].path.as_path(), served[1].path.as_path()];
    let vm = guest(testbed, true, &paths, &[script, WRITE, COMPARE, behind, PAUSE]).start()?;
    check_sums(&vm)?;
    check_sums(&vm)?;
    vm.wait_for("pausing", PATIENCE)?;
    served.iter().for_each(check_served);
    vm.send_line("go on")?;
    vm.finish(PATIENCE)?;
    // Which of them the guest calls the first is up to the guest.
    let bytes = data();
    let place = if file.bytes(RAW, 8) == bytes[..8] { RAW } else { 0 };
    assert!(file.bytes(place, bytes.len()) == bytes);
    check_errors(&counters);
    check_errors(&others);
    for served in &served {
        assert!(served.status().maps > 2000, "{:?}", served.status());
    }
    Ok(())
}

fn reboots(testbed: &Testbed) -> Outcome {
    let (nvme, counters) = disk(Backing::memory(DISK));
    let served = serve(nvme, Options::default());
    let first = "
        if [ \"$(dd if=/dev/nvme0n1 bs=1M skip=60 count=1 2> /dev/null | head -c 6)\" != before ]; then
        echo first
        ";
    let again = "
        echo before | dd of=/dev/nvme0n1 bs=512 seek=122880 conv=sync 2> /dev/null
        sync
        reboot -f
        sleep 100
        fi
        echo second
        ";
    let script = [first, WRITE, again, COMPARE, PAUSE];
    let vm = guest(testbed, true, &[&served.path], &script).reboots().start()?;
    vm.wait_for("first", PATIENCE)?;
    vm.wait_for("second", PATIENCE)?;
    check_sums(&vm)?;
    vm.wait_for("pausing", PATIENCE)?;
    check_served(&served);
    vm.send_line("go on")?;
    vm.finish(PATIENCE)?;
    assert_eq!(served.status().connections, 1, "it is one VMM");
    served.wait_detached();
    let done = counters.snapshot();
    assert_eq!((done.power_cycles, done.unsafe_shutdowns), (1, 0), "the last was a shutdown");
    assert!(done.flushes > 0, "{done:?}");
    check_errors(&counters);
    Ok(())
}

/// Writes for ever, after everything that is compared.
const BUSY: &str = "
    echo busy
    while true; do
        dd if=/dev/urandom of=/dev/nvme0n1 bs=1M seek=48 count=8 oflag=direct 2> /dev/null
    done
    ";

fn vmm_killed(testbed: &Testbed) -> Outcome {
    let file = Disk::new();
    let (nvme, counters) = disk(file.backing());
    let served = serve(nvme, Options::default());
    let mut left = None;
    for round in 0..2 {
        let before = if round == 0 { WRITE } else { COMPARE };
        let vm = guest(testbed, true, &[&served.path], &[before, BUSY]).start()?;
        vm.wait_for("busy", PATIENCE)?;
        let so_far = counters.snapshot().written_bytes;
        support::wait_for("writes", || counters.snapshot().written_bytes > so_far + (2 << 20));
        vm.kill();
        served.wait_detached();
        let status = served.status();
        assert_eq!((status.windows, status.files, status.draining), (0, 0, 0));
        let now = (support::descriptors(), support::mappings());
        assert_eq!(*left.get_or_insert(now), now, "something stays behind");
    }
    let vm = guest(testbed, true, &[&served.path], &[COMPARE]).start()?;
    check_sums(&vm)?;
    vm.finish(PATIENCE)?;
    let bytes = data();
    assert!(file.bytes(RAW, bytes.len()) == bytes);
    assert_eq!(served.status().connections, 3);
    // Two guests were killed; the third guest's driver shut the disk down as the standard
    // demands.
    served.wait_detached();
    let done = counters.snapshot();
    assert_eq!((done.power_cycles, done.unsafe_shutdowns, done.media_errors), (3, 2, 0));
    Ok(())
}

fn process_killed(testbed: &Testbed) -> Outcome {
    let file = Disk::new();
    let (socket, backing) = (file.folder.path().join("disk.sock"), file.path());
    let backing = backing.to_str().unwrap();
    let process = Process::serve(backing, &socket);
    let vm = guest(testbed, true, &[&socket], &[WRITE, BUSY]).start()?;
    vm.wait_for("busy", PATIENCE)?;
    std::thread::sleep(Duration::from_millis(300));
    process.kill();
    // What that VM does from now on is irrelevant.
    vm.kill();
    let process = Process::serve(backing, &socket);
    let vm = guest(testbed, true, &[&socket], &[COMPARE]).start()?;
    check_sums(&vm)?;
    vm.finish(PATIENCE)?;
    process.kill();
    let bytes = data();
    assert!(file.bytes(RAW, bytes.len()) == bytes);
    Ok(())
}

/// The two disks alternate, so that a busy machine disturbs both alike; the best round
/// counts.
fn throughput(testbed: &Testbed) -> Outcome {
    if cfg!(debug_assertions) {
        eprintln!("a debug build: compare the ratios of `cargo test --release` instead");
    }
    for iommu in [false, true] {
        let (ours, theirs) = (Disk::new(), Disk::new());
        let (nvme, counters) = disk(ours.backing());
        let served = serve(nvme, Options::default());
        let drive = format!("if=none,id=disk,format=raw,file={}", theirs.path().display());
        let vm = guest(testbed, iommu, &[&served.path], &[MEASURE]).arg("-drive").arg(drive);
        let lines = vm.device("nvme,drive=disk,serial=1").start()?.finish(PATIENCE)?;
        let done = counters.snapshot();
        assert!(done.written_bytes >= 3 * (120 << 20), "{done:?}");
        check_errors(&counters);
        let qemus = lines.iter().find_map(|line| {
            let (disk, model) = line.text.strip_prefix("model of ")?.split_once(": ")?;
            model.contains("QEMU").then_some(disk)
        });
        let qemus = qemus.ok_or("QEMU's own disk is there")?;
        for (what, bytes) in
            [("write 1M", WHOLE), ("read 1M", WHOLE), ("write 4k", PAGES), ("read 4k", PAGES)]
        {
            let best = |own: bool| {
                let begins = lines.windows(2).filter_map(|lines| match lines {
                    [first, second] if second.text == "end" => Some((first, second)),
                    _ => None,
                });
                let times = begins.filter_map(|(first, second)| {
                    let disk = first.text.strip_prefix(what)?.trim_start();
                    ((disk == qemus) != own).then(|| (second.at - first.at).as_secs_f64())
                });
                times.fold(f64::INFINITY, f64::min)
            };
            let rate = |own| f64::from(bytes) / best(own) / f64::from(1 << 20);
            let (ours, theirs) = (rate(true), rate(false));
            assert!(ours > 0.0 && theirs > 0.0, "{what} was measured");
            let (ratio, with) = (ours / theirs, if iommu { "strict IOMMU" } else { "no IOMMU" });
            eprintln!("{with}, {what}: {ours:.1} MiB/s, QEMU's own {theirs:.1}: {ratio:.2}x");
        }
    }
    Ok(())
}

/// Bytes that a round moves in large pieces and in small ones.
const WHOLE: u32 = 120 << 20;
const PAGES: u32 = 2000 << 12;

const MEASURE: &str = "
    until [ -b /dev/nvme1n1 ]; do sleep 0.1; done
    for disk in nvme0n1 nvme1n1; do
        echo \"model of $disk: $(cat /sys/block/$disk/device/model)\"
    done
    run() {
        echo \"$1\"
        dd bs=$2 count=$3 $4 2> /dev/null
        if [ $2 = 1M ]; then dd bs=$2 count=$3 $4 2> /dev/null; fi
        echo end
    }
    for round in 1 2 3; do for disk in nvme0n1 nvme1n1; do
        run \"write 1M $disk\" 1M 60 \"if=/dev/zero of=/dev/$disk oflag=direct\"
        run \"read 1M $disk\" 1M 60 \"if=/dev/$disk of=/dev/null iflag=direct\"
        run \"write 4k $disk\" 4k 2000 \"if=/dev/zero of=/dev/$disk oflag=direct\"
        run \"read 4k $disk\" 4k 2000 \"if=/dev/$disk of=/dev/null iflag=direct\"
    done; done
    ";
