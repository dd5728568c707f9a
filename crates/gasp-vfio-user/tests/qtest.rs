//! QEMU without a guest: the test programs the emulated IOMMU and the device itself, and
//! checks on both sides what the device may access.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;
mod vmm;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gasp::{Access, DeviceAddr, Guest, MapFlags, Refusal};
use gasp_testbed::qtest::{Bar, PAGE, Pci, QTest, Rights, Vtd};
use gasp_testbed::{Error, Testbed};
use gasp_vdev::Shell;
use gasp_vdev::dma::{self, DmaEngine};
use gasp_vfio_user::{Options, Server, ServerEvent};
use serde_json::{Value, json};
use support::device::{Holder, IDENTITY};
use support::{Served, serve, wait_for};
use vmm::{IOMMU, Outcome, Process, vfio_user};

/// Memory for the IOMMU's tables.
const TABLES: std::ops::Range<u64> = 0x100_0000..0x300_0000;
const EFAULT: u32 = 14;
/// Pages of memory, and the device addresses that lead to them.
const SOURCE: u64 = 0x400_0000;
const TARGET: u64 = 0x500_0000;
const OTHER: u64 = 0x600_0000;
const IOVA_SOURCE: u64 = 0x1234_5000;
const IOVA_TARGET: u64 = 0x8_7654_3000;

fn main() {
    if let Some((_, path)) = Process::asked() {
        let shell = Shell::new("dma", DmaEngine::new()).unwrap();
        let server = Server::bind(path, shell, Options::default()).unwrap();
        Process::listens();
        return server.run().unwrap();
    }
    vmm::run(&[
        ("the_device_is_found_and_its_registers_answer", found),
        ("without_an_iommu_all_of_memory_is_reached_and_nothing_else", without_iommu),
        ("a_mapped_page_is_reached_until_it_is_unmapped", mapped_until_unmapped),
        ("a_page_for_reading_cannot_be_written", read_only),
        ("a_page_that_leads_elsewhere_now_is_reached_there", remapped),
        ("thousands_of_pages_come_and_go", thousands),
        ("an_unmap_waits_for_the_device", unmap_waits),
        ("a_reset_stops_the_device_and_clears_it", reset),
        ("two_devices_have_their_own_rights", two_devices),
        ("a_device_without_a_domain_reaches_nothing", no_domain),
        ("a_vmm_that_is_killed_leaves_nothing_and_another_comes", vmm_killed),
        ("a_server_that_is_killed_is_started_again", server_killed),
        ("qemu_asks_nothing_about_migration_and_refuses_it_only_with_a_blocker", migration),
    ]);
}

/// The DMA engine, as its driver sees it.
struct Engine<'a> {
    qtest: &'a QTest,
    device: Pci<'a>,
    bars: Vec<Bar>,
}

impl<'a> Engine<'a> {
    fn all(qtest: &'a QTest) -> Result<Vec<Self>, Error> {
        let engine = |device: Pci<'a>| {
            let bars = device.assign_bars()?;
            device.enable()?;
            Ok(Self { qtest, device, bars })
        };
        qtest.pci_all(0x1234, 0x6d61)?.into_iter().map(engine).collect()
    }

    fn new(qtest: &'a QTest) -> Result<Self, Error> {
        Ok(Self::all(qtest)?.pop().expect("the device is there"))
    }

    fn register(&self, offset: u64) -> u64 {
        self.bars[0].addr + offset
    }

    fn start(&self, from: u64, to: u64, len: u64) -> Result<(), Error> {
        for (register, value) in [(0x08, from), (0x10, to), (0x18, len)] {
            self.qtest.write_u64(self.register(register), value)?;
        }
        self.qtest.write_u32(self.register(0x20), dma::START | dma::INTERRUPT)
    }

    /// Copies; returns the errno, or 0.
    fn copy(&self, from: u64, to: u64, len: u64) -> Result<u32, Error> {
        self.start(from, to, len)?;
        let since = Instant::now();
        loop {
            match self.qtest.read_u32(self.register(0x24))? {
                dma::DONE => return Ok(0),
                dma::FAILED => return self.qtest.read_u32(self.register(0x28)),
                _ => assert!(since.elapsed().as_secs() < 10, "the copy does not end"),
            }
        }
    }
}

/// QEMU with the devices behind an IOMMU, or without one.
fn start(testbed: &Testbed, iommu: bool, paths: &[&Path]) -> Result<QTest, Error> {
    let devices: Vec<String> = paths.iter().map(|path| vfio_user(path)).collect();
    let mut args = Vec::new();
    if iommu {
        args.extend(["-device", IOMMU]);
    }
    args.extend(devices.iter().flat_map(|device| ["-device", device.as_str()]));
    QTest::start(testbed, &args)
}

/// A device served by this process, QEMU with an IOMMU in front of it, and two pages that
/// the device may read and write.
macro_rules! scene {
    ($served:ident, $qtest:ident, $engine:ident, $vtd:ident, $testbed:expr) => {
        let $served = serve(DmaEngine::new(), Options::default());
        let $qtest = start($testbed, true, &[&$served.path])?;
        let $engine = Engine::new(&$qtest)?;
        let mut $vtd = Vtd::new(&$qtest, TABLES)?;
        $vtd.attach(&$engine.device, 7)?;
        $vtd.enable()?;
        $vtd.map(7, IOVA_SOURCE, SOURCE, PAGE, Rights::ReadWrite)?;
        $vtd.map(7, IOVA_TARGET, TARGET, PAGE, Rights::ReadWrite)?;
    };
}

fn guest(served: &Served) -> Guest {
    served.server.guest().expect("a VMM is attached")
}

/// The grants of the device's domain: address, length and access of each.
fn grants(served: &Served) -> Vec<(u64, u64, Access)> {
    let domain = guest(served).find_domain("device").expect("the device has a domain");
    domain
        .grants()
        .iter()
        .map(|grant| (grant.device.start().0, grant.device.len(), grant.access))
        .collect()
}

/// The faults since the last call: address, access, and reason of each.
fn faults(served: &Served) -> Vec<(u64, Access, Refusal)> {
    let faults = guest(served).take_faults();
    assert_eq!(faults.dropped, 0);
    faults.records.iter().map(|fault| (fault.addr.0, fault.access, fault.refusal)).collect()
}

fn bytes_at(qtest: &QTest, addr: u64, len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; len];
    qtest.read(addr, &mut bytes)?;
    Ok(bytes)
}

/// Bytes of which no two pages are alike.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn found(testbed: &Testbed) -> Outcome {
    let served = serve(DmaEngine::new(), Options::default());
    let qtest = start(testbed, false, &[&served.path])?;
    let engine = Engine::new(&qtest)?;
    let lens: Vec<_> = engine.bars.iter().map(|bar| (bar.index, bar.len)).collect();
    assert_eq!(lens, [(0, 4096), (1, 4096)]);
    assert_eq!(engine.device.read_config(8)?, 0x0801_0001, "class and revision");
    assert!(engine.device.capability(0x11)?.is_some(), "MSI-X");
    assert_eq!(qtest.read_u32(engine.register(0))?, dma::MAGIC);
    qtest.write_u64(engine.register(0x08), 0x0123_4567_89ab_cdef)?;
    assert_eq!(qtest.read_u64(engine.register(0x08))?, 0x0123_4567_89ab_cdef);
    qtest.write_u32(engine.register(0x0c), 7)?;
    assert_eq!(qtest.read_u64(engine.register(0x08))?, 0x0000_0007_89ab_cdef);
    let status = served.status();
    assert!(status.attached);
    assert_eq!(status.pid.and_then(|pid| u32::try_from(pid).ok()), Some(qtest.pid()));
    assert_eq!((status.connections, status.refused), (1, 0));
    Ok(())
}

fn without_iommu(testbed: &Testbed) -> Outcome {
    let served = serve(DmaEngine::new(), Options::default());
    let qtest = start(testbed, false, &[&served.path])?;
    let engine = Engine::new(&qtest)?;
    let (message, data) = (0x7000, 0x5a5a);
    engine.device.set_msix(&engine.bars, 0, message, data)?;
    let bytes = pattern(300_000, 1);
    qtest.write(SOURCE + 77, &bytes)?;
    assert_eq!(engine.copy(SOURCE + 77, TARGET + 5, bytes.len() as u64)?, 0);
    assert!(bytes_at(&qtest, TARGET + 5, bytes.len())? == bytes);
    assert_eq!(qtest.read_u64(engine.register(0x30))?, bytes.len() as u64, "progress");
    wait_for("the interrupt", || qtest.read_u32(message).is_ok_and(|found| found == data));
    let status = served.status();
    assert_eq!((status.files, status.message_bytes), (1, 0), "one file, mapped");
    assert_eq!(faults(&served), []);
    // After the end of memory, and across it.
    let end = gasp_testbed::qtest::MEMORY;
    for addr in [end, end - 4096, 1 << 40] {
        qtest.fill(TARGET, PAGE, 0xee)?;
        assert_eq!(engine.copy(addr, TARGET, 8192)?, EFAULT, "{addr:#x}");
        assert_eq!(bytes_at(&qtest, TARGET, 8192)?[..4096], [0xee; 4096]);
        let at = addr.max(end);
        assert_eq!(faults(&served), [(at, Access::READ, Refusal::NotGranted)]);
    }
    Ok(())
}

fn mapped_until_unmapped(testbed: &Testbed) -> Outcome {
    scene!(served, qtest, engine, vtd, testbed);
    let bytes = pattern(4096, 2);
    qtest.write(SOURCE, &bytes)?;
    let both = [(IOVA_SOURCE, PAGE, Access::RW), (IOVA_TARGET, PAGE, Access::RW)];
    assert_eq!(grants(&served), both, "what the IOMMU allows, and nothing else");
    assert_eq!(engine.copy(IOVA_SOURCE, IOVA_TARGET, PAGE)?, 0);
    assert!(bytes_at(&qtest, TARGET, 4096)? == bytes);
    assert_eq!((faults(&served), served.status().windows), (vec![], 2));

    qtest.fill(TARGET, PAGE, 0xee)?;
    let before = served.status();
    vtd.unmap(7, IOVA_TARGET, PAGE)?;
    assert_eq!(grants(&served), both[..1]);
    assert_eq!(served.status().unmaps, before.unmaps + 1);
    assert_eq!(engine.copy(IOVA_SOURCE, IOVA_TARGET, PAGE)?, EFAULT, "unmapped, so refused");
    assert_eq!(bytes_at(&qtest, TARGET, 4096)?, [0xee; 4096], "and nothing was copied");
    assert_eq!(qtest.read_u64(engine.register(0x30))?, 0);
    assert_eq!(faults(&served), [(IOVA_TARGET, Access::WRITE, Refusal::NotGranted)]);
    // The device can no longer use guest-physical addresses.
    assert_eq!(engine.copy(SOURCE, TARGET, 8)?, EFAULT);
    assert_eq!(faults(&served), [(SOURCE, Access::READ, Refusal::NotGranted)]);

    vtd.unmap(7, IOVA_SOURCE, PAGE)?;
    assert_eq!((grants(&served), served.status().windows), (vec![], 0));
    vtd.map(7, IOVA_SOURCE, SOURCE, PAGE, Rights::Read)?;
    vtd.map(7, IOVA_TARGET, TARGET, PAGE, Rights::Write)?;
    assert_eq!(engine.copy(IOVA_SOURCE, IOVA_TARGET, PAGE)?, 0, "mapped again");
    assert!(bytes_at(&qtest, TARGET, 4096)? == bytes);
    vtd.disable()?;
    assert_eq!(engine.copy(TARGET, SOURCE + PAGE, PAGE)?, 0, "the IOMMU is off again");
    assert!(bytes_at(&qtest, SOURCE + PAGE, 4096)? == bytes);
    assert_eq!((served.status().files, served.status().refused), (1, 0));
    Ok(())
}

fn read_only(testbed: &Testbed) -> Outcome {
    scene!(served, qtest, engine, vtd, testbed);
    qtest.fill(TARGET, PAGE, 0xee)?;
    vtd.map(7, IOVA_TARGET, TARGET, PAGE, Rights::Read)?;
    let access = |served: &Served| grants(served)[1];
    assert_eq!(access(&served), (IOVA_TARGET, PAGE, Access::READ));
    assert_eq!(engine.copy(IOVA_SOURCE, IOVA_TARGET, 64)?, EFAULT);
    assert_eq!(bytes_at(&qtest, TARGET, 64)?, [0xee; 64]);
    let refusal = Refusal::Access { allowed: Access::READ, requested: Access::WRITE };
    assert_eq!(faults(&served), [(IOVA_TARGET, Access::WRITE, refusal)]);
    assert_eq!(engine.copy(IOVA_TARGET, IOVA_SOURCE, 64)?, 0, "it may be read");
    assert_eq!(bytes_at(&qtest, SOURCE, 64)?, [0xee; 64]);
    vtd.map(7, IOVA_TARGET, TARGET, PAGE, Rights::ReadWrite)?;
    assert_eq!(access(&served).2, Access::RW);
    qtest.fill(SOURCE, PAGE, 0x11)?;
    assert_eq!(engine.copy(IOVA_SOURCE, IOVA_TARGET, 64)?, 0, "it may be written again");
    assert_eq!(bytes_at(&qtest, TARGET, 64)?, [0x11; 64]);
    // One refused page is enough to refuse a longer range.
    vtd.map(7, IOVA_TARGET + PAGE, TARGET + PAGE, PAGE, Rights::Read)?;
    vtd.map(7, IOVA_SOURCE + PAGE, SOURCE + PAGE, PAGE, Rights::Read)?;
    qtest.fill(SOURCE, 2 * PAGE, 0x22)?;
    assert_eq!(engine.copy(IOVA_SOURCE, IOVA_TARGET, 2 * PAGE)?, EFAULT);
    assert_eq!(bytes_at(&qtest, TARGET, 64)?, [0x11; 64]);
    assert_eq!(faults(&served), [(IOVA_TARGET + PAGE, Access::WRITE, refusal)]);
    Ok(())
}

fn remapped(testbed: &Testbed) -> Outcome {
    scene!(served, qtest, engine, vtd, testbed);
    for (page, value) in [(SOURCE, 0x11), (OTHER, 0x22)] {
        qtest.fill(page, PAGE, value)?;
    }
    let moved = |value: u8| -> Result<bool, Error> {
        assert_eq!(engine.copy(IOVA_SOURCE + 8, IOVA_TARGET + 8, 64)?, 0);
        Ok(bytes_at(&qtest, TARGET + 8, 64)? == [value; 64])
    };
    assert!(moved(0x11)?);
    let before = served.status();
    vtd.map(7, IOVA_SOURCE, OTHER, PAGE, Rights::ReadWrite)?;
    assert!(moved(0x22)?, "the other page");
    vtd.map(7, IOVA_SOURCE, SOURCE, PAGE, Rights::ReadWrite)?;
    assert!(moved(0x11)?, "and back");
    let after = served.status();
    assert_eq!((after.maps - before.maps, after.unmaps - before.unmaps), (2, 2));
    // A change without an invalidation has no effect: sending one is up to the driver.
    let entry = vtd.entry(7, IOVA_SOURCE)?;
    qtest.write_u64(entry, OTHER | 3)?;
    assert!(moved(0x11)?);
    vtd.invalidate_domain(7)?;
    assert!(moved(0x22)?);
    assert_eq!((faults(&served), served.status().files), (vec![], 1));
    Ok(())
}

fn thousands(testbed: &Testbed) -> Outcome {
    const PAIRS: u64 = 3000;
    scene!(served, qtest, engine, vtd, testbed);
    let before = served.status();
    let since = Instant::now();
    for round in 0..PAIRS {
        let iova = 0x1_0000_0000 + round % 900 * PAGE;
        vtd.map(7, iova, OTHER + round % 64 * PAGE, PAGE, Rights::ReadWrite)?;
        vtd.unmap(7, iova, PAGE)?;
    }
    let took = since.elapsed();
    let after = served.status();
    assert_eq!((after.maps - before.maps, after.unmaps - before.unmaps), (PAIRS, PAIRS));
    assert_eq!((after.windows, after.files, after.refused), (2, 1, 0));
    let each = (after.map_time - before.map_time) / u32::try_from(PAIRS).unwrap();
    eprintln!("{PAIRS} pairs of map and unmap in {took:.2?}; a map in the server {each:?}");
    // Many pages at a time, all of which the device reaches.
    let len = 2000 * PAGE;
    vtd.map(7, 0x2_0000_0000, OTHER, len, Rights::ReadWrite)?;
    let bytes = pattern(len as usize, 3);
    qtest.write(OTHER, &bytes)?;
    let there = 0x900_0000;
    vtd.map(7, 0x3_0000_0000, there, len, Rights::Write)?;
    assert_eq!(served.status().windows, 4002);
    assert_eq!(engine.copy(0x2_0000_0000, 0x3_0000_0000, len)?, 0);
    assert!(bytes_at(&qtest, there, len as usize)? == bytes);
    vtd.unmap(7, 0x2_0000_0000, len)?;
    assert_eq!(served.status().windows, 2002);
    assert_eq!(engine.copy(0x2_0000_0000 + len - PAGE, IOVA_TARGET, 8)?, EFAULT);
    Ok(())
}

fn unmap_waits(testbed: &Testbed) -> Outcome {
    let device = Holder::default();
    let held = device.held.clone();
    let served = serve(device, Options::default());
    let qtest = start(testbed, true, &[&served.path])?;
    let device = qtest.pci(IDENTITY.vendor, IDENTITY.device)?;
    let bars = device.assign_bars()?;
    device.enable()?;
    let mut vtd = Vtd::new(&qtest, TABLES)?;
    vtd.attach(&device, 1)?;
    vtd.enable()?;
    vtd.map(1, IOVA_SOURCE, SOURCE, PAGE, Rights::ReadWrite)?;
    qtest.write_u64(bars[0].addr, IOVA_SOURCE)?;
    assert_eq!(qtest.read_u64(bars[0].addr + 16)?, 1, "it holds a mapping");
    let pause = Duration::from_millis(200);
    let took = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for("the drain", || served.status().draining == 1);
            std::thread::sleep(pause);
            // The device can still write through the mapping it holds, and cannot create a
            // new one.
            let vdev = guest(&served).find_vdev("device").unwrap();
            assert!(vdev.map(DeviceAddr(IOVA_SOURCE), 8, MapFlags::READ).is_err());
            let mapping = held.lock().unwrap().take().unwrap();
            mapping.write_at(0, b"at last").unwrap();
        });
        let since = Instant::now();
        vtd.unmap(1, IOVA_SOURCE, PAGE).map(|()| since.elapsed())
    })?;
    assert!(took >= pause, "the invalidation waited for the device: {took:?}");
    assert_eq!(bytes_at(&qtest, SOURCE, 7)?, b"at last");
    assert_eq!((served.status().drains, served.status().draining), (1, 0));
    assert_eq!(served.status().windows, 0);
    Ok(())
}

fn reset(testbed: &Testbed) -> Outcome {
    let (sender, resets) = std::sync::mpsc::channel();
    let served = serve(DmaEngine::new(), Options::default());
    served.server.observe(move |event| {
        if *event == ServerEvent::Reset {
            let _ = sender.send(());
        }
    });
    let qtest = start(testbed, true, &[&served.path])?;
    let engine = Engine::new(&qtest)?;
    qtest.fill(SOURCE, PAGE, 0x11)?;
    assert_eq!(engine.copy(SOURCE, TARGET, PAGE)?, 0);
    while resets.try_recv().is_ok() {}
    // The chip set's reset register resets the whole machine, in the middle of a copy.
    engine.start(SOURCE, TARGET, 100 << 20)?;
    qtest.command("outb 0xcf9 0x6")?;
    resets.recv_timeout(Duration::from_secs(10))?;
    let engine = Engine::new(&qtest)?;
    for register in [0x08, 0x10, 0x18, 0x20, 0x30] {
        assert_eq!(qtest.read_u64(engine.register(register))?, 0, "register {register:#x}");
    }
    // Memory is unchanged, and the device works.
    assert_eq!(bytes_at(&qtest, SOURCE, 8)?, [0x11; 8]);
    assert_eq!(engine.copy(SOURCE, OTHER, PAGE)?, 0);
    assert_eq!(bytes_at(&qtest, OTHER, 4096)?, [0x11; 4096]);
    assert_eq!((served.status().connections, served.status().refused), (1, 0));
    Ok(())
}

fn two_devices(testbed: &Testbed) -> Outcome {
    let served = [(); 2].map(|()| serve(DmaEngine::new(), Options::default()));
    let qtest = start(testbed, true, &[&served[0].path, &served[1].path])?;
    let engines = Engine::all(&qtest)?;
    let [first, second] = engines.as_slice() else { return Err("two devices".into()) };
    let mut vtd = Vtd::new(&qtest, TABLES)?;
    vtd.attach(&first.device, 1)?;
    vtd.attach(&second.device, 2)?;
    vtd.enable()?;
    // The same addresses lead to other pages, with other permissions.
    vtd.map(1, IOVA_SOURCE, SOURCE, PAGE, Rights::Read)?;
    vtd.map(1, IOVA_TARGET, TARGET, PAGE, Rights::ReadWrite)?;
    vtd.map(2, IOVA_SOURCE, OTHER, PAGE, Rights::ReadWrite)?;
    for (page, value) in [(SOURCE, 0x11), (OTHER, 0x22), (TARGET, 0xee)] {
        qtest.fill(page, PAGE, value)?;
    }
    assert_eq!(first.copy(IOVA_SOURCE, IOVA_TARGET, 64)?, 0);
    assert_eq!(bytes_at(&qtest, TARGET, 64)?, [0x11; 64]);
    assert_eq!(second.copy(IOVA_SOURCE, IOVA_TARGET, 64)?, EFAULT, "the other's page");
    assert_eq!(bytes_at(&qtest, TARGET, 64)?, [0x11; 64]);
    assert_eq!(faults(&served[1]), [(IOVA_TARGET, Access::WRITE, Refusal::NotGranted)]);
    assert_eq!(second.copy(IOVA_SOURCE, IOVA_SOURCE + 2048, 64)?, 0);
    assert_eq!(bytes_at(&qtest, OTHER + 2048, 64)?, [0x22; 64]);
    assert_eq!(first.copy(IOVA_TARGET, IOVA_SOURCE, 64)?, EFAULT, "its own is read-only");
    assert_eq!((faults(&served[0]).len(), faults(&served[1]).len()), (1, 0));
    // One device's pages are unmapped; the other goes on.
    vtd.detach(&second.device)?;
    assert_eq!((grants(&served[0]).len(), grants(&served[1]).len()), (2, 0));
    assert_eq!(first.copy(IOVA_SOURCE, IOVA_TARGET + 64, 64)?, 0);
    assert_eq!(second.copy(IOVA_SOURCE, IOVA_SOURCE, 64)?, EFAULT);
    // In one domain, they share everything.
    vtd.attach(&second.device, 1)?;
    assert_eq!(second.copy(IOVA_SOURCE, IOVA_TARGET + 128, 64)?, 0);
    assert_eq!(bytes_at(&qtest, TARGET, 192)?, [0x11; 192]);
    assert_eq!(grants(&served[0]), grants(&served[1]));
    Ok(())
}

fn no_domain(testbed: &Testbed) -> Outcome {
    let served = serve(DmaEngine::new(), Options::default());
    let qtest = start(testbed, true, &[&served.path])?;
    let engine = Engine::new(&qtest)?;
    assert_eq!(engine.copy(SOURCE, TARGET, 8)?, 0, "the IOMMU is off");
    let vtd = Vtd::new(&qtest, TABLES)?;
    vtd.enable()?;
    assert_eq!(grants(&served), [], "the memory was unmapped");
    assert_eq!(engine.copy(SOURCE, TARGET, 8)?, EFAULT);
    assert_eq!(faults(&served).len(), 1);
    vtd.disable()?;
    assert_eq!(engine.copy(SOURCE, TARGET, 8)?, 0);
    Ok(())
}

fn vmm_killed(testbed: &Testbed) -> Outcome {
    let served = serve(DmaEngine::new(), Options::default());
    let mut left = None;
    for round in 0..3 {
        let qtest = start(testbed, round % 2 == 0, &[&served.path])?;
        let engine = Engine::new(&qtest)?;
        assert_eq!(qtest.read_u64(engine.register(0x08))?, 0, "as after power-on");
        let bytes = pattern(8192, round);
        qtest.write(SOURCE, &bytes)?;
        assert_eq!(engine.copy(SOURCE, TARGET, 8192)?, 0);
        assert!(bytes_at(&qtest, TARGET, 8192)? == bytes);
        // In the middle of a copy.
        engine.start(SOURCE, TARGET, 100 << 20)?;
        qtest.kill();
        served.wait_detached();
        assert!(served.server.guest().is_none());
        let status = served.status();
        assert_eq!((status.windows, status.window_bytes, status.files), (0, 0, 0));
        assert_eq!(status.connections, round + 1);
        let now = (support::descriptors(), support::mappings());
        assert_eq!(*left.get_or_insert(now), now, "descriptors and mappings stay behind");
    }
    Ok(())
}

fn server_killed(testbed: &Testbed) -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("dma.sock");
    for round in 0..2 {
        let process = Process::serve("dma", &path);
        let qtest = start(testbed, true, &[&path])?;
        let engine = Engine::new(&qtest)?;
        qtest.fill(SOURCE, PAGE, 0x11)?;
        assert_eq!(engine.copy(SOURCE, TARGET, PAGE)?, 0);
        assert_eq!(bytes_at(&qtest, TARGET, 4096)?, [0x11; 4096]);
        process.kill();
        assert!(path.exists(), "round {round}: a server that is killed cannot tidy up");
        // QEMU goes on without its device, or reports why not.
        assert!(qtest.read_u32(SOURCE).is_ok_and(|value| value == 0x1111_1111));
    }
    Ok(())
}

/// QEMU's monitor.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(path: &Path) -> Self {
        wait_for("the monitor", || path.exists());
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut monitor = Self(BufReader::new(stream));
        monitor.line();
        monitor.ask("qmp_capabilities", json!({}));
        monitor
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The answer to a command, past events.
    fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let command = json!({ "execute": command, "arguments": arguments });
        self.0.get_mut().write_all(format!("{command}\n").as_bytes()).unwrap();
        loop {
            let line = self.line();
            if line.get("event").is_none() {
                return line;
            }
        }
    }
}

/// QEMU's vfio-user client does not migrate a device's state, does not query whether it
/// could (DEVICE_FEATURE), and does not refuse to migrate. No answer of a server can change
/// that, but a second device that QEMU does not migrate can: see "Migration" in the crate's
/// documentation. If this test fails, QEMU has changed, and the documentation must follow.
fn migration(testbed: &Testbed) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    for (number, blocker) in [&[][..], &BLOCKER].into_iter().enumerate() {
        let served = serve(DmaEngine::new(), Options::default());
        let seen: &'static Mutex<Vec<ServerEvent>> = Box::leak(Box::default());
        served.server.observe(|event| seen.lock().unwrap().push(event.clone()));
        let path = folder.path().join(format!("monitor{number}"));
        let (device, socket) =
            (vfio_user(&served.path), format!("unix:{},server=on,wait=off", path.display()));
        let mut args = vec!["-device", &device, "-qmp", &socket];
        args.extend(blocker);
        let qtest = QTest::start(testbed, &args)?;
        let mut monitor = Monitor::connect(&path);
        let migrate = json!({ "uri": format!("file:{}", folder.path().join("state").display()) });
        let answer = monitor.ask("migrate", migrate);
        if blocker.is_empty() {
            assert!(answer.get("return").is_some(), "{answer}");
            wait_for("the migration", || {
                monitor.ask("query-migrate", json!({}))["return"]["status"] == "completed"
            });
        } else {
            let why = answer["error"]["desc"].as_str().unwrap_or_default().to_owned();
            assert!(why.contains("ivshmem"), "{answer}");
            // The guest goes on, and so does the device.
            let engine = Engine::new(&qtest)?;
            assert_eq!(engine.copy(SOURCE, TARGET, PAGE)?, 0);
        }
        let refused =
            seen.lock().unwrap().iter().any(|told| matches!(told, ServerEvent::Refused { .. }));
        assert!(!refused, "QEMU asks: {:?}", seen.lock().unwrap());
    }
    Ok(())
}

/// A device whose memory is the machine's own, so that QEMU does not migrate.
const BLOCKER: [&str; 4] = [
    "-object",
    "memory-backend-memfd,id=stay,size=1M,share=on",
    "-device",
    "ivshmem-plain,memdev=stay,master=off",
];
