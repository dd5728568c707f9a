//! QEMU's emulated Intel IOMMU, programmed as by an operating system.
//!
//! Legacy mode: a root table, a context table for bus 0, and second-level page tables of
//! 4 KiB pages for each domain, all in the machine's memory, and invalidation through
//! registers. Names and numbers are those of Intel's "Virtualization Technology for
//! Directed I/O" specification.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pci::Pci;
use super::session::QTest;
use crate::error::{Error, Result};

/// The bytes that one entry of a page table maps, and the size of each table.
pub const PAGE: u64 = 4096;

const BASE: u64 = 0xfed9_0000;
const CAPABILITY: u64 = BASE + 0x08;
const EXTENDED_CAPABILITY: u64 = BASE + 0x10;
const GLOBAL_COMMAND: u64 = BASE + 0x18;
const GLOBAL_STATUS: u64 = BASE + 0x1c;
const ROOT_TABLE: u64 = BASE + 0x20;
const CONTEXT_COMMAND: u64 = BASE + 0x28;
const FAULT_STATUS: u64 = BASE + 0x34;

const TRANSLATION: u32 = 1 << 31;
const SET_ROOT_TABLE: u32 = 1 << 30;
/// The bits of the status register that say what is enabled, not what has just been done.
const LASTING: u32 = 0x96ff_ffff;
const INVALIDATE: u64 = 1 << 63;
const CONTEXT_GLOBAL: u64 = 1 << 61;
const IOTLB_GLOBAL: u64 = 1 << 60;
const IOTLB_DOMAIN: u64 = 2 << 60;
const IOTLB_PAGES: u64 = 3 << 60;
const DRAIN: u64 = 3 << 48;
const FAULT: u64 = 1 << 63;

const PRESENT: u64 = 1;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const LEVEL_BITS: u32 = 9;

/// The time limit of an invalidation.
const PATIENCE: Duration = Duration::from_secs(5);

/// The access that a device has to a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Reads and writes.
    ReadWrite,
}

impl Rights {
    fn bits(self) -> u64 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::ReadWrite => 3,
        }
    }
}

/// An access that the IOMMU refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The device address of the page.
    pub page: u64,
    /// The device's bus (upper byte), and device and function number.
    pub source: u16,
    /// Whether the access was a write.
    pub write: bool,
    /// The fault reason, as numbered by the specification.
    pub reason: u8,
}

/// The IOMMU, as seen by its driver. QEMU needs
/// `-device intel-iommu,intremap=off,caching-mode=on` before the devices behind it.
pub struct Vtd<'a> {
    qtest: &'a QTest,
    /// The number of levels of page tables: 3 or 4.
    levels: u32,
    /// The most pages of one invalidation, as a power of two.
    most_pages: u32,
    iotlb: u64,
    faults: u64,
    /// The unused memory for tables.
    free: std::ops::Range<u64>,
    contexts: u64,
    /// The top-level table of each domain.
    domains: BTreeMap<u16, u64>,
}

impl<'a> Vtd<'a> {
    /// Initializes the IOMMU with its tables in `memory`: whole pages that the test does not use
    /// otherwise. Once it is [enabled](Self::enable), no device reaches any memory.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such IOMMU; those of [`QTest::command`].
    pub fn new(qtest: &'a QTest, memory: std::ops::Range<u64>) -> Result<Self> {
        let capability = qtest.read_u64(CAPABILITY)?;
        let extended = qtest.read_u64(EXTENDED_CAPABILITY)?;
        let widths = capability >> 8 & 0x1f;
        let levels = match (widths >> 2 & 1, widths >> 1 & 1) {
            (1, _) => 4,
            (0, 1) => 3,
            _ => return Err(Error::Refused("no Intel IOMMU in this machine".into())),
        };
        let mut vtd = Self {
            qtest,
            levels,
            most_pages: u32::try_from(capability >> 48 & 0x3f).unwrap_or_default(),
            iotlb: BASE + 16 * (extended >> 8 & 0x3ff) + 8,
            faults: BASE + 16 * (capability >> 24 & 0x3ff),
            free: memory,
            contexts: 0,
            domains: BTreeMap::new(),
        };
        let root = vtd.table()?;
        vtd.contexts = vtd.table()?;
        qtest.write_u64(root, vtd.contexts | PRESENT)?;
        qtest.write_u64(ROOT_TABLE, root)?;
        vtd.global(SET_ROOT_TABLE, true)?;
        vtd.invalidate_all()?;
        Ok(vtd)
    }

    /// Enables translation: from now on a device reaches only what is mapped.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn enable(&self) -> Result<()> {
        self.global(TRANSLATION, true)
    }

    /// Disables translation: every device reaches all memory.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn disable(&self) -> Result<()> {
        self.global(TRANSLATION, false)
    }

    /// Attaches a device to a domain, which is created if it is new.
    ///
    /// # Errors
    /// As [`Vtd::map`].
    pub fn attach(&mut self, device: &Pci<'_>, domain: u16) -> Result<()> {
        let top = self.domain(domain)?;
        let width = u64::from(self.levels - 2);
        let context = self.contexts + 16 * u64::from(device.devfn());
        self.qtest.write_u64(context + 8, u64::from(domain) << 8 | width)?;
        self.qtest.write_u64(context, top | PRESENT)?;
        self.invalidate_all()
    }

    /// Detaches a device from its domain: it reaches no memory.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn detach(&mut self, device: &Pci<'_>) -> Result<()> {
        let context = self.contexts + 16 * u64::from(device.devfn());
        self.qtest.write_u64(context, 0)?;
        self.invalidate_all()
    }

    /// Maps `len` bytes of memory at `addr` to the device address `iova` for a domain's devices,
    /// and invalidates the range. All three are multiples of a page.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no memory left for tables; those of
    /// [`QTest::command`].
    pub fn map(
        &mut self,
        domain: u16,
        iova: u64,
        addr: u64,
        len: u64,
        rights: Rights,
    ) -> Result<()> {
        for offset in (0..len).step_by(usize::try_from(PAGE).unwrap_or(usize::MAX)) {
            let entry = self.entry(domain, iova + offset)?;
            self.qtest.write_u64(entry, (addr + offset) | rights.bits())?;
        }
        self.invalidate(domain, iova, len)
    }

    /// Unmaps `len` bytes at `iova` from a domain's devices, and invalidates the range.
    ///
    /// # Errors
    /// As [`Vtd::map`].
    pub fn unmap(&mut self, domain: u16, iova: u64, len: u64) -> Result<()> {
        for offset in (0..len).step_by(usize::try_from(PAGE).unwrap_or(usize::MAX)) {
            let entry = self.entry(domain, iova + offset)?;
            self.qtest.write_u64(entry, 0)?;
        }
        self.invalidate(domain, iova, len)
    }

    /// The address of the entry that maps the page at `iova`; creates the tables above it. For
    /// tests that write entries themselves, and invalidate when they choose.
    ///
    /// # Errors
    /// As [`Vtd::map`].
    pub fn entry(&mut self, domain: u16, iova: u64) -> Result<u64> {
        let mut table = self.domain(domain)?;
        for level in (0..self.levels).rev() {
            let shift = PAGE.trailing_zeros() + level * LEVEL_BITS;
            let index = iova >> shift & ((1 << LEVEL_BITS) - 1);
            let entry = table + 8 * index;
            if level == 0 {
                return Ok(entry);
            }
            let value = self.qtest.read_u64(entry)?;
            table = value & ADDRESS;
            if value & Rights::ReadWrite.bits() == 0 {
                table = self.table()?;
                self.qtest.write_u64(entry, table | Rights::ReadWrite.bits())?;
            }
        }
        Err(Error::Refused("the IOMMU has no level of tables".into()))
    }

    /// Invalidates `[iova, iova + len)` of a domain in the IOTLB, page by page or in larger aligned
    /// pieces.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn invalidate(&self, domain: u16, iova: u64, len: u64) -> Result<()> {
        let end = iova + len;
        let mut at = iova;
        while at < end {
            let pages = (end - at).div_ceil(PAGE).ilog2();
            let order = pages.min((at / PAGE).trailing_zeros()).min(self.most_pages);
            self.qtest.write_u64(self.iotlb - 8, at | u64::from(order))?;
            self.iotlb_command(IOTLB_PAGES, domain)?;
            at += PAGE << order;
        }
        Ok(())
    }

    /// Invalidates all of a domain in the IOTLB.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn invalidate_domain(&self, domain: u16) -> Result<()> {
        self.iotlb_command(IOTLB_DOMAIN, domain)
    }

    /// Invalidates the context cache and all of the IOTLB.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn invalidate_all(&self) -> Result<()> {
        self.qtest.write_u64(CONTEXT_COMMAND, INVALIDATE | CONTEXT_GLOBAL)?;
        self.wait("context invalidation", |qtest| {
            Ok(qtest.read_u64(CONTEXT_COMMAND)? & INVALIDATE == 0)
        })?;
        self.iotlb_command(IOTLB_GLOBAL, 0)
    }

    /// Takes the refused accesses that the IOMMU has recorded. It records few; further ones are
    /// lost.
    ///
    /// # Errors
    /// As [`QTest::command`].
    pub fn take_faults(&self) -> Result<Vec<Fault>> {
        let count = self.qtest.read_u64(CAPABILITY)? >> 40 & 0xff;
        let mut found = Vec::new();
        for record in (0..=count).map(|index| self.faults + 16 * index) {
            let high = self.qtest.read_u64(record + 8)?;
            if high & FAULT != 0 {
                found.push(Fault {
                    page: self.qtest.read_u64(record)? & !(PAGE - 1),
                    source: u16::try_from(high & 0xffff).unwrap_or_default(),
                    write: high >> 62 & 1 == 0,
                    reason: u8::try_from(high >> 32 & 0xff).unwrap_or_default(),
                });
                // The bit is cleared by writing 1.
                self.qtest.write_u32(record + 12, 1 << 31)?;
            }
        }
        self.qtest.write_u32(FAULT_STATUS, 1)?; // Clears the overflow bit.
        Ok(found)
    }

    fn iotlb_command(&self, kind: u64, domain: u16) -> Result<()> {
        let command = INVALIDATE | kind | DRAIN | u64::from(domain) << 32;
        self.qtest.write_u64(self.iotlb, command)?;
        self.wait("IOTLB invalidation", |qtest| Ok(qtest.read_u64(self.iotlb)? & INVALIDATE == 0))
    }

    fn global(&self, bit: u32, on: bool) -> Result<()> {
        let lasting = self.qtest.read_u32(GLOBAL_STATUS)? & LASTING & !bit;
        self.qtest.write_u32(GLOBAL_COMMAND, if on { lasting | bit } else { lasting })?;
        self.wait("change of the IOMMU's state", |qtest| {
            Ok((qtest.read_u32(GLOBAL_STATUS)? & bit != 0) == on)
        })
    }

    fn wait(&self, what: &str, done: impl Fn(&QTest) -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        while !done(self.qtest)? {
            if started.elapsed() > PATIENCE {
                let (expected, context) = (what.into(), self.qtest.context());
                return Err(Error::Timeout { expected, after: started.elapsed(), context });
            }
        }
        Ok(())
    }

    fn domain(&mut self, domain: u16) -> Result<u64> {
        if let Some(top) = self.domains.get(&domain) {
            return Ok(*top);
        }
        let top = self.table()?;
        self.domains.insert(domain, top);
        Ok(top)
    }

    /// Allocates an empty table.
    fn table(&mut self) -> Result<u64> {
        let table = self.free.start;
        if self.free.end.saturating_sub(table) < PAGE {
            return Err(Error::Refused("no memory left for the IOMMU's tables".into()));
        }
        self.free.start += PAGE;
        self.qtest.fill(table, PAGE, 0)?;
        Ok(table)
    }
}
