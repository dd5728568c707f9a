//! Where the registers of vdevs can be, and what else is there.

use core::fmt;
use core::ops::{Range, RangeInclusive};

use gasp::{Guest, RegionKind};
use gasp_qvm::Space;
use gasp_vm::layout;

/// Where the host puts registers that have no place.
const ANY: RangeInclusive<u64> =
    layout::PCI_CONFIG.0.0 + layout::PCI_CONFIG.1..=layout::IO_APIC.0 - 1;
const PAGE: u64 = 4096;

/// What a range of addresses or ports belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Taken {
    range: RangeInclusive<u64>,
    by: String,
}

impl Taken {
    fn overlaps(&self, range: &RangeInclusive<u64>) -> bool {
        self.range.start() <= range.end() && range.start() <= self.range.end()
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#x} to {:#x})", self.by, self.range.start(), self.range.end())
    }
}

/// The ranges of a machine that are taken.
#[derive(Clone, Debug)]
pub(super) struct Places {
    memory: Vec<Taken>,
    ports: Vec<Taken>,
}

impl Places {
    /// Those of the machine itself, without its memory; `high` is the window of PCI devices past
    /// the end of RAM.
    pub(super) fn of_machine(high: Range<u64>) -> Self {
        let taken = |range, by: &str| Taken { range, by: by.into() };
        let len = |start: u64, len: u64| start..=start + (len - 1);
        let (pci, config) = (layout::PCI_MEMORY, layout::PCI_CONFIG);
        let mut memory = vec![
            taken(len(pci.0.0, pci.1), "the window of PCI devices"),
            taken(len(config.0.0, config.1), "the configuration space of PCI devices"),
            taken(len(layout::IO_APIC.0, PAGE), "the I/O APIC"),
            taken(len(layout::IOMMU.0, PAGE), "the place of the IOMMU"),
            taken(len(layout::LOCAL_APIC.0, 1 << 20), "the local APICs and messages to them"),
            taken(0xfffb_c000..=0xfffb_ffff, "pages that KVM uses itself"),
        ];
        if !high.is_empty() {
            memory.push(taken(high.start..=high.end - 1, "the high window of PCI devices"));
        }
        let ports = vec![
            taken(0x3f8..=0x3ff, "the serial port"),
            taken(0x600..=0x602, "the registers of ACPI"),
            taken(0xcf8..=0xcff, "the configuration ports of PCI devices"),
            taken(
                len(layout::PCI_PORTS.0.into(), layout::PCI_PORTS.1.into()),
                "the window of PCI devices",
            ),
        ];
        Self { memory, ports }
    }

    /// Adds the memory of a guest, and registers that its configuration has.
    pub(super) fn add_regions(&mut self, guest: &Guest) {
        for region in guest.space().regions() {
            let by = match (region.kind(), region.owner()) {
                (RegionKind::Device, Some(owner)) => format!("the registers of `{owner}`"),
                (RegionKind::Ram, _) => "RAM".into(),
                (RegionKind::Rom, _) => "ROM".into(),
                (RegionKind::PassThrough, _) => "a window to host memory (`pass`)".into(),
                (_, _) => "a reserved range (`reserve`)".into(),
            };
            let range = region.span().start().0..=region.span().last().0;
            self.memory.push(Taken { range, by });
        }
    }

    fn of(&mut self, space: Space) -> &mut Vec<Taken> {
        match space {
            Space::Ports => &mut self.ports,
            Space::Memory | Space::Pci => &mut self.memory,
        }
    }

    /// Gives a range to the vdev `name`.
    ///
    /// # Errors
    /// What is there.
    pub(super) fn take(
        &mut self,
        space: Space,
        range: RangeInclusive<u64>,
        name: &str,
    ) -> Result<(), String> {
        if let Some(other) = self.of(space).iter().find(|taken| taken.overlaps(&range)) {
            let what = if space == Space::Ports { "ports" } else { "registers" };
            let advice = match space {
                Space::Ports => "choose another `loc`, such as `io:0x200`".to_owned(),
                _ => format!(
                    "choose another `loc`, such as `mem:{:#x}`, or leave it out",
                    0xfa00_0000_u64
                ),
            };
            return Err(format!(
                "the {what} {:#x} to {:#x} of the vdev `{name}` overlap {other}; {advice}",
                range.start(),
                range.end()
            ));
        }
        self.of(space).push(Taken { range, by: format!("the vdev `{name}`") });
        Ok(())
    }

    /// Chooses a place for `len` bytes of registers in memory of the vdev `name`.
    pub(super) fn any(&mut self, len: u64, name: &str) -> Result<u64, String> {
        let mut start = *ANY.start();
        loop {
            let range = start
                .checked_add(len.max(1) - 1)
                .filter(|last| last <= ANY.end())
                .map(|last| start..=last);
            let Some(range) = range else {
                return Err(format!(
                    "there is no room for {len:#x} bytes of registers between {:#x} and {:#x}; \
                     give it a `loc`",
                    ANY.start(),
                    ANY.end()
                ));
            };
            match self.memory.iter().find(|taken| taken.overlaps(&range)) {
                // The next page: registers of two devices in one would be one to Linux.
                Some(other) => start = (other.range.end() | (PAGE - 1)).saturating_add(1),
                None => {
                    self.take(Space::Memory, range, name)?;
                    return Ok(start);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_taken_names_its_holder() {
        let mut places = Places::of_machine(5 << 30..69 << 30);
        places.memory.push(Taken { range: 0..=0x3fff_ffff, by: "RAM".into() });
        places.take(Space::Memory, 0xfa00_0000..=0xfa00_0003, "a").unwrap();
        places.take(Space::Ports, 0x200..=0x207, "a").unwrap();
        for (space, range, by) in [
            (Space::Memory, 0x3fff_ffff..=0x4000_0002, "RAM"),
            (Space::Memory, 0xfa00_0003..=0xfa00_0003, "the vdev `a`"),
            (Space::Memory, 0xdfff_ffff..=0xdfff_ffff, "window of PCI devices"),
            (Space::Memory, 0xe00f_ffff..=0xe010_0000, "configuration space"),
            (Space::Memory, 0xfec0_0fff..=0xfec0_1000, "I/O APIC"),
            (Space::Memory, 0xfed9_0000..=0xfed9_0000, "IOMMU"),
            (Space::Memory, 0xfeef_ffff..=0xfef0_0000, "local APICs"),
            (Space::Memory, 0xfffb_0000..=0xfffb_c000, "KVM"),
            (Space::Memory, 0x1_4000_0000..=0x1_4000_0000, "high window"),
            (Space::Ports, 0x3f0..=0x3f8, "serial port"),
            (Space::Ports, 0x602..=0x602, "ACPI"),
            (Space::Ports, 0xcff..=0xcff, "configuration ports"),
            (Space::Ports, 0xffff..=0xffff, "window of PCI devices"),
            (Space::Ports, 0x207..=0x208, "the vdev `a`"),
        ] {
            let error = places.take(space, range, "b").unwrap_err();
            assert!(error.contains(by) && error.contains("the vdev `b`"), "{error}");
        }
        places.take(Space::Ports, 0x2f8..=0x2ff, "b").unwrap();
    }

    #[test]
    fn a_place_is_a_page_that_nobody_has() {
        let mut places = Places::of_machine(0..0);
        places.take(Space::Memory, 0xe010_1004..=0xe010_1004, "a").unwrap();
        let given: Vec<_> = [4, 0x1000, 0x1001].map(|len| places.any(len, "b").unwrap()).into();
        assert_eq!(given, [0xe010_0000, 0xe010_2000, 0xe010_3000]);
        let all = ANY.end() - ANY.start() + 1;
        assert!(places.any(all, "c").unwrap_err().contains("no room"));
        assert!(places.any(u64::MAX, "c").unwrap_err().contains("give it a `loc`"));
        let mut empty = Places::of_machine(0..0);
        assert_eq!(empty.any(all, "c"), Ok(0xe010_0000));
        assert!(empty.any(1, "d").is_err());
    }
}
