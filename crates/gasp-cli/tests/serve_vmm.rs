//! The command serves devices to a real QEMU: Debian's Linux, with a strict IOMMU, creates a
//! file system on the disk of an example file; and events are reported.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/compile.rs"]
mod compile;

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use gasp_testbed::qtest::{MEMORY, QTest};
use gasp_testbed::{Initramfs, Testbed, Vm};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(100);
/// The IOMMU, and the kernel arguments with which Linux invalidates strictly.
const IOMMU: &str = "intel-iommu,intremap=off,caching-mode=on";
const KERNEL: [&str; 2] = ["intel_iommu=on", "iommu.strict=1"];

const SCRIPT: &str = "
until [ -b /dev/nvme0n1 ] && [ -b /dev/nvme1n1 ]; do sleep 0.1; done
for disk in nvme0n1 nvme1n1; do
    if [ $(cat /sys/block/$disk/size) = 524288 ]; then break; fi
done
head -c 4000000 /dev/urandom > /tmp/data
mke2fs -q /dev/$disk 32768 > /dev/null
mount -t ext4 /dev/$disk /mnt
cp /tmp/data /mnt/data
umount /mnt
echo 3 > /proc/sys/vm/drop_caches
mount -t ext4 /dev/$disk /mnt
cmp /tmp/data /mnt/data
umount /mnt
echo compared
";

/// Writes to the trace vdev's register, which counts them; past it there is nothing.
const TRACE: &str = "
for device in /sys/bus/pci/devices/*; do
    if [ $(cat $device/vendor) = 0x1234 ] && [ $(cat $device/device) = 0x7664 ]; then break; fi
done
echo class: $(cat $device/class)
echo 1 > $device/enable
resource $device/resource0 0 7
resource $device/resource0 0 8
resource $device/resource0 0 9
echo count: $(resource $device/resource0 0)
echo past: $(resource $device/resource0 4)
";

/// Reads of Linux's own driver from a virtio device in C.
const ENTROPY: &str = "
until [ -c /dev/hwrng ]; do sleep 0.1; done
echo rng: $(cat /sys/class/misc/hw_random/rng_current)
dd if=/dev/hwrng of=/tmp/one bs=512 count=8 2> /dev/null
dd if=/dev/hwrng of=/tmp/two bs=512 count=8 2> /dev/null
cmp -s /tmp/one /tmp/two && exit 1
echo random: $(cat /tmp/one | wc -c)
";

type Body = fn(&Testbed) -> Result<(), Failed>;

fn main() {
    let bodies: [(&str, Body); 4] = [
        ("linux_reads_back_its_data_from_the_disk_of_the_example", example),
        ("faults_and_the_end_of_a_vmm_are_reported", faults),
        ("linux_reads_and_writes_the_register_of_a_vdev_in_c", trace),
        ("linux_reads_random_bytes_from_a_virtio_vdev_in_c_behind_its_iommu", entropy),
    ];
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
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

struct Serving(Child, Lines<BufReader<ChildStdout>>);

impl Serving {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gasp"));
        command.args(["serve", "--json"]).args(args).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self(child, lines)
    }

    fn event(&mut self, name: &str) -> Value {
        self.find(name, |_| true)
    }

    fn find(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let events = self.1.by_ref().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        events
            .into_iter()
            .find(|event: &Value| event["event"] == name && wanted(event))
            .expect(name)
    }
}

impl Serving {
    /// QEMU's argument for the next device, as the command prints it.
    fn device(&mut self) -> String {
        let listening = self.event("listening");
        let argument = listening["qemu"].as_array().and_then(|all| all.last()).unwrap();
        let device = argument.as_str().unwrap().trim_start_matches("-device ");
        device.trim_matches('\'').to_owned()
    }

    /// Ends the service, and returns the last state of the device.
    fn stop(&mut self, device: &str) -> Result<Value, Failed> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let stopped = self.find("stopped", |stopped| stopped["device"] == device);
        assert!(self.0.wait()?.success());
        Ok(stopped)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn example(testbed: &Testbed) -> Result<(), Failed> {
    // The example, with its sockets in the test's own directory.
    let folder = tempfile::tempdir()?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/serve/nvme.toml");
    let text = std::fs::read_to_string(example)?.replace("\"/tmp/", "\"");
    let config = folder.path().join("nvme.toml");
    std::fs::write(&config, text)?;
    let mut serving = Serving::start(&["--config", config.to_str().unwrap()]);
    let mut vm = Vm::linux(testbed, Initramfs::new(testbed).script(SCRIPT)).device(IOMMU);
    for argument in KERNEL {
        vm = vm.kernel_arg(argument);
    }
    for _ in 0..2 {
        vm = vm.device(serving.device());
    }
    let vm = vm.start()?;
    vm.wait_for("compared", PATIENCE)?;
    vm.finish(PATIENCE)?;
    serving.event("detached");
    let stopped = serving.stop("disk")?;
    let number = |name: &str| stopped[name].as_u64().unwrap();
    assert!(number("maps") > 2000 && number("unmaps") > 2000, "{stopped}");
    assert_eq!((number("faults"), number("refused"), number("windows")), (0, 0, 0));
    let written = stopped["counters"]["written_bytes"].as_u64().unwrap();
    assert!(written >= 4_000_000, "{stopped}");
    eprintln!("{stopped}");
    Ok(())
}

/// Serves a vdev of the examples.
fn vdev(folder: &Path, name: &str, source: &str) -> Serving {
    let file = folder.join(format!("vdev-{name}.so"));
    compile::vdev(&format!("../../examples/vdev/{source}"), &file, &[]);
    let socket = folder.join("a.sock");
    let [file, socket] = [&file, &socket].map(|path| path.to_str().unwrap());
    Serving::start(&["--device", &format!("vdev,name={name},path={file}"), "--socket", socket])
}

fn trace(testbed: &Testbed) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("resource");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/resource.c");
    compile::compile(Path::new(source), &program, &[]);
    let mut serving = vdev(folder.path(), "trace", "vdev-trace.c");
    let initramfs = Initramfs::new(testbed).program(program).script(TRACE);
    let vm = Vm::linux(testbed, initramfs).device(serving.device()).start()?;
    assert_eq!(vm.wait_for("class: ", PATIENCE)?.text, "class: 0xff0000");
    assert_eq!(vm.wait_for("count: ", PATIENCE)?.text, "count: 3");
    assert_eq!(vm.wait_for("past: ", PATIENCE)?.text, "past: 4294967295");
    vm.finish(PATIENCE)?;
    serving.event("detached");
    let stopped = serving.stop("trace")?;
    assert_eq!((&stopped["refused"], &stopped["failed"]), (&0.into(), &false.into()));
    Ok(())
}

fn entropy(testbed: &Testbed) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let mut serving = vdev(folder.path(), "entropy", "vdev-virtio-entropy.c");
    let initramfs = Initramfs::new(testbed).module("virtio_pci").module("virtio_rng");
    let mut vm = Vm::linux(testbed, initramfs.script(ENTROPY)).device(IOMMU);
    for argument in KERNEL {
        vm = vm.kernel_arg(argument);
    }
    let vm = vm.device(serving.device()).start()?;
    assert!(vm.wait_for("rng: ", PATIENCE)?.text.starts_with("rng: virtio_rng"));
    vm.wait_for("random: 4096", PATIENCE)?;
    vm.finish(PATIENCE)?;
    serving.event("detached");
    let stopped = serving.stop("entropy")?;
    assert!(stopped["maps"].as_u64().unwrap() > 0, "{stopped}");
    assert_eq!((&stopped["faults"], &stopped["failed"]), (&0.into(), &false.into()));
    Ok(())
}

fn faults(testbed: &Testbed) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("dma.sock");
    let mut serving = Serving::start(&["--device", "dma", "--socket", socket.to_str().unwrap()]);
    let device = serving.device();
    let qtest = QTest::start(testbed, &["-device", &device])?;
    assert_eq!(serving.event("attached")["pid"], qtest.pid());
    serving.event("adopted");
    let engine = qtest.pci(0x1234, 0x6d61)?;
    let registers = engine.assign_bars()?[0].addr;
    engine.enable()?;
    // Reads 8 bytes past the end of memory, and is refused.
    for (register, value) in [(0x08, MEMORY), (0x10, 0), (0x18, 8), (0x20, 1)] {
        qtest.write_u64(registers + register, value)?;
    }
    let faults = serving.event("faults");
    assert_eq!((&faults["count"], &faults["first"]["addr"]), (&1.into(), &MEMORY.into()));
    assert_eq!(faults["first"]["access"], "r--");
    let totals = serving.event("totals");
    assert!(totals["maps"].as_u64() > Some(0) && totals["faults"] == 1, "{totals}");
    qtest.kill();
    assert!(serving.event("detached")["why"].is_string());
    let stopped = serving.stop("dma0")?;
    assert_eq!((&stopped["windows"], &stopped["faults"]), (&0.into(), &1.into()));
    Ok(())
}
