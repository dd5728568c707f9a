//! QEMU without a guest: the DMA engine of its `edu` device behind its Intel IOMMU, programmed by
//! the test.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use gasp_testbed::qtest::{Fault, PAGE, Pci, QTest, Rights, Vtd};
use gasp_testbed::{Error, Testbed};
use support::Outcome;

const IOMMU: [&str; 2] = ["-device", "intel-iommu,intremap=off,caching-mode=on"];
const EDU: [&str; 2] = ["-device", "edu"];
const TABLES: std::ops::Range<u64> = 0x100_0000..0x200_0000;

fn main() {
    support::run(&[
        ("a_device_reaches_what_is_mapped_and_nothing_else", mapped_and_nothing_else),
        ("many_pages_come_and_go", many_pages_come_and_go),
        ("memory_is_what_was_written", memory_is_what_was_written),
        ("an_interrupt_line_is_seen_to_rise", an_interrupt_line),
        ("an_interrupt_message_is_seen_in_memory", an_interrupt_message),
        ("what_is_not_there_is_an_error", what_is_not_there),
    ]);
}

/// The `edu` device's DMA engine.
struct Edu<'a> {
    qtest: &'a QTest,
    device: Pci<'a>,
    registers: u64,
}

impl<'a> Edu<'a> {
    /// The address of the device's own buffer for its DMA engine.
    const BUFFER: u64 = 0x40000;
    const FROM_MEMORY: u64 = 1;
    const TO_MEMORY: u64 = 3;

    fn new(qtest: &'a QTest) -> Result<Self, Error> {
        let device = qtest.pci(0x1234, 0x11e8)?;
        let bars = device.assign_bars()?;
        device.enable()?;
        Ok(Self { qtest, device, registers: bars[0].addr })
    }

    fn transfer(&self, from: u64, to: u64, len: u64, command: u64) -> Result<(), Error> {
        for (register, value) in [(0x80, from), (0x88, to), (0x90, len), (0x98, command)] {
            self.qtest.write_u64(self.registers + register, value)?;
        }
        self.qtest.step_clock(Duration::from_millis(200))?;
        assert_eq!(
            self.qtest.read_u64(self.registers + 0x98)? & 1,
            0,
            "the transfer has completed"
        );
        Ok(())
    }

    /// Makes the device copy from one bus address to another.
    fn copy(&self, from: u64, to: u64, len: u64) -> Result<(), Error> {
        self.transfer(from, Self::BUFFER, len, Self::FROM_MEMORY)?;
        self.transfer(Self::BUFFER, to, len, Self::TO_MEMORY)
    }
}

fn bytes_at(qtest: &QTest, addr: u64, len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; len];
    qtest.read(addr, &mut bytes)?;
    Ok(bytes)
}

fn mapped_and_nothing_else(testbed: &Testbed) -> Outcome {
    let qtest = QTest::start(testbed, &[IOMMU, EDU].concat())?;
    let edu = Edu::new(&qtest)?;
    let (source, target) = (0x30_0000, 0x40_0000);
    let (iova_source, iova_target) = (0x123_4000, 0x765_4000);
    let text = b"what the device moves";
    qtest.write(source + 8, text)?;
    let moved = || -> Result<bool, Error> {
        let result = bytes_at(&qtest, target + 16, text.len())? == text;
        qtest.fill(target, PAGE, 0xee)?;
        Ok(result)
    };
    let copy = |from: u64, to: u64| -> Result<bool, Error> {
        // So that older contents of the device's buffer are not mistaken for a success.
        edu.transfer(0x50_0000, Edu::BUFFER, 64, Edu::FROM_MEMORY)?;
        edu.copy(from + 8, to + 16, text.len() as u64)?;
        moved()
    };
    assert!(copy(source, target)?, "with the IOMMU off, bus addresses are physical");

    let mut vtd = Vtd::new(&qtest, TABLES)?;
    vtd.enable()?;
    assert!(!copy(source, target)?, "no domain, no access");
    vtd.take_faults()?;
    vtd.attach(&edu.device, 7)?;
    vtd.map(7, iova_source, source, PAGE, Rights::Read)?;
    vtd.map(7, iova_target, target, PAGE, Rights::ReadWrite)?;
    // The helper's first transfer is not mapped: it faults every time.
    assert!(copy(iova_source, iova_target)?);
    assert_eq!(vtd.take_faults()?.first().map(|fault| fault.page), Some(0x50_0000));

    edu.copy(iova_source + 8, iova_target + 16, text.len() as u64)?;
    assert!(moved()?);
    assert_eq!(vtd.take_faults()?, []);
    // A write to a read-only page. QEMU records a fault only if it has to walk the tables: an
    // access that its IOTLB refuses leaves no record.
    let source_id = u16::from(edu.device.devfn());
    let fault = Fault { page: iova_source, source: source_id, write: true, reason: 5 };
    for faults in [vec![], vec![fault]] {
        edu.transfer(Edu::BUFFER, iova_source, 8, Edu::TO_MEMORY)?;
        assert_eq!(vtd.take_faults()?, faults, "reason 5: no right to write");
        assert_eq!(bytes_at(&qtest, source, 8)?, [0; 8]);
        vtd.invalidate(7, iova_source, PAGE)?;
    }

    vtd.unmap(7, iova_target, PAGE)?;
    edu.copy(iova_source + 8, iova_target + 16, text.len() as u64)?;
    assert!(!moved()?, "unmapped, so not reached");
    assert_eq!(vtd.take_faults()?, [Fault { page: iova_target, ..fault }]);
    vtd.detach(&edu.device)?;
    edu.transfer(iova_source, Edu::BUFFER, 8, Edu::FROM_MEMORY)?;
    let fault = vtd.take_faults()?.pop().expect("no domain, no access");
    assert_eq!((fault.page, fault.write, fault.reason), (iova_source, false, 2));
    vtd.disable()?;
    edu.copy(source + 8, target + 16, text.len() as u64)?;
    assert!(moved()?, "off again");
    Ok(())
}

fn many_pages_come_and_go(testbed: &Testbed) -> Outcome {
    let qtest = QTest::start(testbed, &[IOMMU, EDU].concat())?;
    let edu = Edu::new(&qtest)?;
    let mut vtd = Vtd::new(&qtest, TABLES)?;
    vtd.attach(&edu.device, 1)?;
    vtd.enable()?;
    let started = std::time::Instant::now();
    for round in 0..500 {
        let iova = 0x10_0000 + round * 3 * PAGE;
        vtd.map(1, iova, 0x300_0000, PAGE, Rights::ReadWrite)?;
        vtd.unmap(1, iova, PAGE)?;
    }
    eprintln!("500 pairs of map and unmap: {:?}", started.elapsed());
    // A longer range is invalidated in pieces of several sizes.
    let (iova, addr, len) = (0x7f_d000, 0x300_0000, 21 * PAGE);
    vtd.map(1, iova, addr, len, Rights::ReadWrite)?;
    for page in (0..len).step_by(PAGE as usize) {
        qtest.write_u64(addr + page, page + 1)?;
    }
    for page in (0..len).step_by(PAGE as usize) {
        edu.copy(iova + page, iova + page + 8, 8)?;
        assert_eq!(qtest.read_u64(addr + page + 8)?, page + 1);
    }
    vtd.unmap(1, iova, len)?;
    for page in [0, len / 2, len - PAGE] {
        edu.transfer(iova + page, Edu::BUFFER, 8, Edu::FROM_MEMORY)?;
        assert_eq!(vtd.take_faults()?.len(), 1, "page {page:#x}");
    }
    Ok(())
}

fn memory_is_what_was_written(testbed: &Testbed) -> Outcome {
    let qtest = QTest::start(testbed, &[])?;
    let bytes: Vec<u8> = (0..150_000_u32).map(|index| (index * 7 / 3) as u8).collect();
    qtest.write(0x10_0003, &bytes)?;
    assert_eq!(bytes_at(&qtest, 0x10_0003, bytes.len())?, bytes);
    qtest.write_u64(0x8000, 0x0123_4567_89ab_cdef)?;
    assert_eq!(qtest.read_u32(0x8004)?, 0x0123_4567);
    assert_eq!(bytes_at(&qtest, 0x8000, 2)?, [0xef, 0xcd]);
    Ok(())
}

fn an_interrupt_line(testbed: &Testbed) -> Outcome {
    let qtest = QTest::start(testbed, &EDU)?;
    qtest.intercept_inputs("ioapic")?;
    let edu = Edu::new(&qtest)?;
    qtest.take_interrupts()?;
    qtest.write_u32(edu.registers + 0x60, 1)?; // Raise.
    qtest.write_u32(edu.registers + 0x64, 1)?; // Acknowledge.
    let lines = qtest.take_interrupts()?;
    let changes: Vec<bool> = lines.iter().map(|interrupt| interrupt.raised).collect();
    assert!(changes.contains(&true) && changes.last() == Some(&false), "{lines:?}");
    Ok(())
}

fn an_interrupt_message(testbed: &Testbed) -> Outcome {
    let drive = "if=none,id=disk,driver=null-co,size=1048576,read-zeroes=on";
    let args = ["-drive", drive, "-device", "nvme,drive=disk,serial=1"];
    let qtest = QTest::start(testbed, &args)?;
    let nvme = qtest.pci(0x1b36, 0x10)?;
    let bars = nvme.assign_bars()?;
    nvme.enable()?;
    let (addr, data) = (0x7000, 0x5a5a);
    nvme.set_msix(&bars, 0, addr, data)?;
    assert!(nvme.set_msix(&bars, 2000, addr, data).is_err());
    // Admin queues of two entries, an Identify of the controller, and its doorbell.
    let registers = bars[0].addr;
    let (submission, completion, page) = (0x1_0000, 0x1_1000, 0x1_2000);
    qtest.write_u32(registers + 0x24, 0x1_0001)?;
    qtest.write_u64(registers + 0x28, submission)?;
    qtest.write_u64(registers + 0x30, completion)?;
    qtest.write_u32(registers + 0x14, 0x46_0001)?;
    assert_eq!(qtest.read_u32(registers + 0x1c)? & 1, 1, "the controller is ready");
    qtest.write_u32(submission, 0x06)?;
    qtest.write_u64(submission + 24, page)?;
    qtest.write_u32(submission + 40, 1)?;
    qtest.write_u32(registers + 0x1000, 1)?;
    qtest.step_clock(Duration::from_millis(1))?;
    assert_eq!(qtest.read_u32(page)? & 0xffff, 0x1b36, "the identity has arrived by DMA");
    assert_eq!(qtest.read_u32(addr)?, data, "and the interrupt after it");
    Ok(())
}

fn what_is_not_there(testbed: &Testbed) -> Outcome {
    let qtest = QTest::start(testbed, &[])?;
    assert!(matches!(qtest.pci(0x1234, 0x11e8), Err(Error::NoDevice { .. })));
    assert!(matches!(Vtd::new(&qtest, TABLES), Err(Error::Refused(_))));
    assert!(matches!(qtest.command("nonsense"), Err(Error::Answer { .. })));
    let refused = QTest::start(testbed, &["-device", "no-such-device"]).err().unwrap();
    assert!(matches!(&refused, Error::Ended { .. }), "{refused}");
    assert!(refused.to_string().contains("no-such-device"), "{refused}");
    Ok(())
}
