//! Debian's Linux in QEMU, with a virtio disk and a virtio entropy device served by this process over
//! vfio-user: its own drivers, with and without an IOMMU. What was written is compared in the guest
//! and here.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use gasp_testbed::{Initramfs, Testbed, Vm};
use gasp_vdev::Shell;
use gasp_vfio_user::{Options, Server};
use gasp_virtio::block::{self, Block};
use gasp_virtio::entropy::Entropy;
use gasp_virtio::{Backing, VirtioDevice, VirtioPci};
use libtest_mimic::{Arguments, Failed, Trial};

/// Time limit of a boot on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);
const IOMMU: &str = "intel-iommu,intremap=off,caching-mode=on";
const DISK: u64 = 64 << 20;
/// After the end of the file system.
const RAW: u64 = 40 << 20;

const SCRIPT: &str = "
until [ -b /dev/vda ] && [ -c /dev/hwrng ]; do sleep 0.1; done
echo \"serial: $(cat /sys/block/vda/serial)\"
echo \"features: $(cat /sys/block/vda/device/features)\"
mke2fs -q /dev/vda 32768 > /dev/null
mount -t ext4 /dev/vda /mnt
cp /data/bytes /mnt/bytes
sync
umount /mnt
dd if=/data/bytes of=/dev/vda bs=1M seek=40 oflag=direct 2> /dev/null
echo 3 > /proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt
cmp /data/bytes /mnt/bytes
rm /mnt/bytes
fstrim /mnt 2> /dev/null || true
umount /mnt
dd if=/dev/vda bs=1M skip=40 count=4 iflag=direct 2> /dev/null | cmp - /data/bytes
blkdiscard -f -o 60M -l 1M /dev/vda 2> /dev/null || true
dd if=/dev/hwrng of=/tmp/one bs=512 count=8 2> /dev/null
dd if=/dev/hwrng of=/tmp/two bs=512 count=8 2> /dev/null
echo \"random: $(wc -c < /tmp/one)\"
if cmp -s /tmp/one /tmp/two; then false; fi
echo \"rng: $(cat /sys/class/misc/hw_random/rng_current)\"
dmesg | grep -iE 'virtio.*(fail|error|broken)|DMAR.*fault|Oops|WARNING' | sed 's/^/complaint: /' || true
echo compared
read answer
# The drivers leave and come back.
for round in 1 2 3; do
    echo virtio0 > /sys/bus/virtio/drivers/virtio_blk/unbind 2> /dev/null || \\
        echo virtio1 > /sys/bus/virtio/drivers/virtio_blk/unbind
    for device in virtio0 virtio1; do
        echo $device > /sys/bus/virtio/drivers/virtio_blk/bind 2> /dev/null || true
    done
    until [ -b /dev/vda ]; do sleep 0.1; done
    dd if=/dev/vda bs=1M skip=40 count=4 iflag=direct 2> /dev/null | cmp - /data/bytes
done
echo again
";

type Body = fn(&Testbed) -> Result<(), Failed>;

fn main() {
    let bodies: [(&str, Body); 2] = [
        ("linux_keeps_a_file_system_on_a_virtio_disk", |testbed| keeps(testbed, false)),
        ("linux_does_so_behind_its_strict_iommu", |testbed| keeps(testbed, true)),
    ];
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let testbed = Testbed::obtain();
    let trials = bodies.into_iter().map(|(name, body)| match &testbed {
        Ok(testbed) => {
            let testbed = testbed.clone();
            Trial::test(name, move || body(&testbed))
        }
        Err(why) => {
            Trial::test(format!("{name} [skipped: {why}]"), || Ok(())).with_ignored_flag(true)
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit()
}

/// A device on a socket, until it is dropped.
struct Served {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Served {
    fn new(device: VirtioPci<impl VirtioDevice>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.sock");
        let shell = Shell::new("device", device).unwrap();
        let server = Arc::new(Server::bind(&path, shell, Options::default()).unwrap());
        let running = Arc::clone(&server);
        let thread = Some(std::thread::spawn(move || running.run().unwrap()));
        Self { server, thread, path, _folder: folder }
    }

    /// QEMU's `-device` option.
    fn device(&self) -> String {
        let path = self.path.display();
        format!(r#"{{"driver":"vfio-user-pci","socket":{{"type":"unix","path":"{path}"}}}}"#)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.stopper().stop();
        self.thread.take().map(JoinHandle::join);
    }
}

/// The data that the guest writes: 4 MiB of which no two pages are alike.
fn data() -> Vec<u8> {
    let words = (0..1_u64 << 19).map(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index);
    words.flat_map(u64::to_le_bytes).collect()
}

fn keeps(testbed: &Testbed, iommu: bool) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk");
    File::create(&image)?.set_len(DISK)?;
    let options = block::Options { serial: Some("a disk of gasp".into()), ..Default::default() };
    let block = Block::new(&Backing::file(&image), options)?;
    let block = if iommu { VirtioPci::behind_iommu(block) } else { VirtioPci::new(block) };
    let (disk, rng) = (Served::new(block), Served::new(VirtioPci::new(Entropy::new())));

    let mut initramfs = Initramfs::new(testbed).file("/data/bytes", data()).script(SCRIPT);
    for module in ["virtio_pci", "virtio_blk", "virtio_rng", "ext4"] {
        initramfs = initramfs.module(module);
    }
    let mut vm = Vm::linux(testbed, initramfs);
    if iommu {
        vm = vm.device(IOMMU).kernel_arg("intel_iommu=on").kernel_arg("iommu.strict=1");
    }
    let vm = vm.device(disk.device()).device(rng.device()).start()?;
    assert_eq!(vm.wait_for("serial: ", PATIENCE)?.text, "serial: a disk of gasp");
    let features = vm.wait_for("features: ", PATIENCE)?.text;
    // Bit 0 is first. Event index, indirect tables, version 1, access platform.
    let features = features.trim_start_matches("features: ").as_bytes().to_vec();
    for bit in [9, 28, 29, 32, 33] {
        assert_eq!(features[bit], b'1', "feature {bit}");
    }
    vm.wait_for("random: 4096", PATIENCE)?;
    assert!(vm.wait_for("rng: ", PATIENCE)?.text.starts_with("rng: virtio_rng"));
    vm.wait_for("compared", PATIENCE)?;
    for served in [&disk, &rng] {
        let guest = served.server.guest().ok_or("the guest is attached")?;
        assert_eq!(guest.take_faults(), gasp::Faults::default());
        let status = served.server.status();
        assert_eq!((status.refused, status.message_bytes, status.draining), (0, 0, 0));
    }
    vm.send_line("go on")?;
    let lines = vm.finish(PATIENCE)?;
    let complaints: Vec<_> =
        lines.iter().filter(|line| line.text.starts_with("complaint: ")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(lines.iter().any(|line| line.text == "again"));

    let bytes = data();
    let mut written = vec![0; bytes.len()];
    File::open(&image)?.read_exact_at(&mut written, RAW)?;
    assert!(written == bytes, "what is in the file");
    let status = disk.server.status();
    eprintln!("{} maps, {} unmaps", status.maps, status.unmaps);
    assert_eq!(status.maps > 2000, iommu, "each page is mapped for its request: {status:?}");
    Ok(())
}
