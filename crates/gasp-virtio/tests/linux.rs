//! Debian's Linux in QEMU, with a virtio disk and a virtio entropy device served by this process over
//! vfio-user: its own drivers, with and without an IOMMU. What was written is compared in the guest
//! and here.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use gasp_testbed::{Initramfs, Testbed, Vm};
use gasp_vdev::Shell;
use gasp_vfio_user::{Options, Server};
use gasp_virtio::block::{self, Block};
use gasp_virtio::entropy::Entropy;
use gasp_virtio::net::{Net, Port};
use gasp_virtio::{Backing, Console, VirtioDevice, VirtioPci};
use libtest_mimic::{Arguments, Failed, Trial};

/// Time limit of a boot on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
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
# Linux asks for the size when it changes, and passes it on to a terminal that is open.
exec 3<> /dev/hvc0
echo opened
until [ \"$(stty size <&3 2> /dev/null)\" = '31 93' ]; do sleep 0.1; done
echo sized
stty raw -echo < /dev/hvc0
head -c 100000 /data/bytes > /dev/hvc0
head -c 20000 < /dev/hvc0 > /tmp/typed
head -c 20000 /data/bytes | cmp - /tmp/typed
ifconfig eth0 10.9.8.7 netmask 255.255.255.0 up
echo \"address: $(cat /sys/class/net/eth0/address)\"
ping -c 20 -i 0.05 -s 1400 10.9.8.1 > /dev/null
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

/// Types 20,000 bytes at the other end of a console, and reads 100,000.
fn type_and_read(far: UnixStream) -> Vec<u8> {
    let mut read = vec![0; 100_000];
    (&far).read_exact(&mut read).unwrap();
    (&far).write_all(&data()[..20_000]).unwrap();
    read
}

/// A neighbour in the guest's network, which says that it is 10.9.8.1 (ARP), and echoes (ICMP).
/// Ends with the network device.
fn neighbour(wire: &UnixDatagram) {
    let mut frame = [0; 2048];
    while let Ok(len) = wire.recv(&mut frame) {
        let frame = &mut frame[..len];
        let is_arp = len >= 42 && frame[12..14] == [8, 6];
        let is_echo = len >= 42 && frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == 8;
        if is_arp && frame[38..42] == [10, 9, 8, 1] {
            let asks = <[u8; 10]>::try_from(&frame[22..32]).unwrap();
            frame[32..42].copy_from_slice(&asks);
            frame[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
            frame[28..32].copy_from_slice(&[10, 9, 8, 1]);
            frame[21] = 2;
        } else if is_echo {
            // Addresses change places, and so the header's checksum stays.
            let source = <[u8; 4]>::try_from(&frame[26..30]).unwrap();
            frame.copy_within(30..34, 26);
            frame[30..34].copy_from_slice(&source);
            // An echo reply has type 0: the checksum grows by what the type shrinks.
            frame[34] = 0;
            let sum = u32::from(u16::from_be_bytes([frame[36], frame[37]])) + 0x800;
            let sum = (sum & 0xffff) + (sum >> 16);
            frame[36..38].copy_from_slice(&(sum as u16).to_be_bytes());
        } else {
            continue;
        }
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        wire.send(frame).unwrap();
    }
}

fn keeps(testbed: &Testbed, iommu: bool) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk");
    File::create(&image)?.set_len(DISK)?;
    let options = block::Options { serial: Some("a disk of gasp".into()), ..Default::default() };
    let block = Block::new(&Backing::file(&image), options)?;
    let block = if iommu { VirtioPci::behind_iommu(block) } else { VirtioPci::new(block) };
    let (disk, rng) = (Served::new(block), Served::new(VirtioPci::new(Entropy::new())));
    let (terminal, far) = UnixStream::pair()?;
    let window = Console::new(Some(terminal.try_clone()?.into()), terminal.into()).sized(80, 25);
    let window = Arc::new(window);
    let console = Served::new(VirtioPci::new(Arc::clone(&window)));
    let typist = std::thread::spawn(move || type_and_read(far));
    let (port, wire) = UnixDatagram::pair()?;
    let net = Served::new(VirtioPci::new(Net::new(Port::datagrams(port), [2, 0, 0, 0, 8, 7])));
    std::thread::spawn(move || neighbour(&wire));

    let mut initramfs = Initramfs::new(testbed).file("/data/bytes", data()).script(SCRIPT);
    for module in ["virtio_pci", "virtio_blk", "virtio_rng", "virtio_console", "virtio_net", "ext4"]
    {
        initramfs = initramfs.module(module);
    }
    let mut vm = Vm::linux(testbed, initramfs);
    if iommu {
        vm = vm.device(IOMMU).kernel_arg("intel_iommu=on").kernel_arg("iommu.strict=1");
    }
    let all = [&disk, &rng, &console, &net];
    let vm = all.into_iter().fold(vm, |vm, served| vm.device(served.device())).start()?;
    assert_eq!(vm.wait_for("serial: ", PATIENCE)?.text, "serial: a disk of gasp");
    let features = vm.wait_for("features: ", PATIENCE)?.text;
    // Bit 0 is first. Event index, indirect tables, version 1, access platform.
    let features = features.trim_start_matches("features: ").as_bytes().to_vec();
    for bit in [9, 28, 29, 32, 33] {
        assert_eq!(features[bit], b'1', "feature {bit}");
    }
    vm.wait_for("random: 4096", PATIENCE)?;
    assert!(vm.wait_for("rng: ", PATIENCE)?.text.starts_with("rng: virtio_rng"));
    vm.wait_for("opened", PATIENCE)?;
    window.resize(93, 31);
    vm.wait_for("sized", PATIENCE)?;
    assert_eq!(vm.wait_for("address: ", PATIENCE)?.text, "address: 02:00:00:00:08:07");
    vm.wait_for("compared", PATIENCE)?;
    assert!(typist.join().unwrap() == data()[..100_000], "what the guest has written");
    for served in all {
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
