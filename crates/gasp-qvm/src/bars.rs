//! Base address registers of PCI functions that answer their own configuration accesses.
#![allow(unsafe_code, reason = "calls a C function")]

use core::mem::offset_of;
use core::ops::RangeInclusive;

use gasp_capi::embed;
use gasp_capi::lock::{gasp_lock, gasp_unlock};
use gasp_capi::regions::gasp_region_set_soft;
use gasp_capi::types::{GRF_NONE, Region, StateBlock};

use crate::abi::*;
use crate::bar::{Bar, Installed};
use crate::error::VdevError;
use crate::instance::Instance;
use crate::live::Live;
use crate::request::Space;

/// The lines of the log about BARs of a vdev, which its guest can cause without end.
const LINES_MAX: u32 = 16;

/// What a structure of C says of a BAR, in either edition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Described {
    pub(crate) flags: u32,
    pub(crate) cookie: u32,
    pub(crate) block: Block,
    pub(crate) value: u32,
    pub(crate) upper: u32,
}

impl From<VpciBar> for Described {
    fn from(bar: VpciBar) -> Self {
        let Region { flags, cookie, guest, .. } = bar.vb_mapping;
        let (value, upper) = (bar.vb_value, bar.vb_value_upper);
        Self { flags, cookie, block: guest.into(), value, upper }
    }
}

impl From<VpciBar710> for Described {
    fn from(bar: VpciBar710) -> Self {
        let mapping = bar.vb_mapping;
        let (value, upper) = (bar.vb_value, bar.vb_value_upper);
        let (flags, cookie) = (mapping.flags, mapping.cookie);
        Self { flags, cookie, block: mapping.guest.into(), value, upper }
    }
}

impl Described {
    /// The BAR, with its place if the command register enables it; `None` if there is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn bar(&self, index: usize, command: u16) -> Result<Option<Bar>, String> {
        let len = self.block.length;
        if len == 0 {
            return Ok(None);
        }
        let (space, least, most, enabled) = match self.block.kind {
            QST_MEMORY => (Space::Memory, 16, 1 << 63, command & PCI_CMD_MEMORY),
            QST_PCI_IO | QST_X86_IO => (Space::Ports, 4, 0x1_0000, command & PCI_CMD_IO),
            kind => {
                return Err(format!(
                    "the BAR {index} has the type {kind}; use QST_MEMORY or QST_PCI_IO"
                ));
            }
        };
        if !len.is_power_of_two() || len < least || len > most {
            return Err(format!(
                "the BAR {index} has {len:#x} bytes; it needs a power of two, at least {least}"
            ));
        }
        let address = match space {
            Space::Ports => u64::from(self.value) & !(len - 1),
            _ => (u64::from(self.upper) << 32 | u64::from(self.value)) & !(len - 1),
        };
        let start = (enabled != 0 && address != 0).then_some(address);
        let (flags, cookie) = (self.flags, self.cookie);
        Ok(Some(Bar { index, space, len, start, flags, cookie }))
    }
}

/// Moves the BARs of a vdev to where its guest has put them. Returns where each is now; `None` if that
/// is the host's business.
pub(crate) fn update(
    live: &Live,
    described: [Described; BARS],
    command: u16,
) -> Option<[Option<u64>; BARS]> {
    let mut installed = live.bars.lock();
    let mut wanted: [Option<Bar>; BARS] = [None; BARS];
    for (index, (described, wanted)) in described.iter().zip(&mut wanted).enumerate() {
        match described.bar(index, command) {
            Ok(bar) => *wanted = bar,
            Err(why) => complain(live, &mut installed.lines, &why),
        }
    }
    let all: Vec<Bar> = wanted.into_iter().flatten().collect();
    if live.host.place_bars(&all) {
        return None;
    }
    let wanted = wanted.map(|bar| bar.filter(|bar| bar.start.is_some()));
    // First all that go: two may change places.
    for (before, wanted) in installed.bars.iter_mut().zip(&wanted) {
        if let Some(bar) = before.filter(|bar| Some(*bar) != *wanted) {
            remove(live, &bar);
            *before = None;
        }
    }
    let Installed { bars, lines } = &mut *installed;
    for (before, wanted) in bars.iter_mut().zip(wanted) {
        if let Some(bar) = wanted.filter(|_| before.is_none()) {
            match add(live, &bar) {
                Ok(()) => *before = Some(bar),
                Err(why) => complain(live, lines, &format!("the BAR {}: {why}", bar.index)),
            }
        }
    }
    Some(bars.map(|bar| bar?.start))
}

fn complain(live: &Live, lines: &mut u32, why: &str) {
    *lines = lines.saturating_add(1);
    if *lines <= LINES_MAX {
        tracing::warn!(vdev = %live.name, "{why}");
    }
}

fn span(bar: &Bar) -> Option<RangeInclusive<u64>> {
    let start = bar.start?;
    Some(start..=start.checked_add(bar.len - 1)?)
}

fn add(live: &Live, bar: &Bar) -> Result<(), String> {
    let space = match bar.space {
        Space::Ports => embed::Space::Ports,
        _ => embed::Space::Memory,
    };
    let span = span(bar).ok_or("it extends past the last address")?;
    live.listed.add_registers(space, span, bar.flags, bar.cookie).map_err(|error| error.to_string())
}

fn remove(live: &Live, bar: &Bar) {
    let Some(location) = bar.start else { return };
    let kind = if bar.space == Space::Ports { QST_X86_IO } else { QST_MEMORY };
    let guest: StateBlock = Block { location, length: bar.len, kind }.into();
    let region = Region {
        flags: GRF_NONE,
        cookie: 0,
        vdev: core::ptr::null_mut(),
        host_location: QSL_NO_LOCATION,
        guest,
    };
    live.guest.chosen(|| {
        // It fails if this thread has the lock: then it need not be taken.
        let taken = gasp_lock(kind);
        // SAFETY: `region` is valid for reads. If the vdev has removed it meanwhile, there is
        // nothing left to do.
        unsafe { gasp_region_set_soft(1, &raw const region) };
        if taken == 0 {
            gasp_unlock(kind);
        }
    });
}

impl Instance {
    /// The BARs of a PCI function, as it reports them for `control(PCI_BARS)`; empty if it has none.
    ///
    /// # Errors
    /// [`VdevError::Refused`]; [`VdevError::Misbehaved`] if what it reports is not valid.
    pub fn bars(&self) -> Result<Vec<Bar>, VdevError> {
        match self.factory().edition() {
            Edition::V800 => bars_of::<VpciBar>(self),
            Edition::V710 => bars_of::<VpciBar710>(self),
        }
    }

    /// Tells a PCI function where its BARs are: the first address of each.
    pub(crate) fn locate_bars(&self, starts: &[Option<u64>; BARS]) -> Result<(), VdevError> {
        match self.factory().edition() {
            Edition::V800 => {
                locate::<VpciBar>(self, starts, offset_of!(VpciBar, vb_mapping.guest.location))
            }
            Edition::V710 => locate::<VpciBar710>(
                self,
                starts,
                offset_of!(VpciBar710, vb_mapping.guest.location),
            ),
        }
    }
}

/// The array of BARs that a vdev reports, and how many there are.
fn array<B>(instance: &Instance) -> Result<(*mut B, usize), VdevError> {
    let mut first: *mut B = core::ptr::null_mut();
    let place = (&raw mut first).cast();
    let what = "control(PCI_BARS)";
    let ask = || instance.live.control_at(VDEV_CTRL_PCI_BARS, what, place);
    let count = instance.done(what, |code| code <= 0, ask)?;
    let count = count.unsigned_abs() as usize;
    if count > BARS || (count > 0 && (first.is_null() || !first.is_aligned())) {
        let why = format!("{what} reports {count} BARs at {first:p}; use vpci_ctrl_pci_bars()");
        return Err(VdevError::Misbehaved { vdev: instance.name().to_owned(), why });
    }
    Ok((first, count))
}

fn bars_of<B: Copy + Into<Described>>(instance: &Instance) -> Result<Vec<Bar>, VdevError> {
    let misbehaved = |why: String| VdevError::Misbehaved { vdev: instance.name().to_owned(), why };
    let (first, count) = array::<B>(instance)?;
    let mut bars = Vec::new();
    for index in 0..count {
        // SAFETY: the vdev has reported an array of `count` BARs here, which lives as long as it.
        let described = unsafe { first.wrapping_add(index).read_volatile() };
        bars.extend(described.into().bar(index, 0).map_err(misbehaved)?);
    }
    Ok(bars)
}

/// Writes the first addresses, each at this offset in its BAR.
fn locate<B>(
    instance: &Instance,
    starts: &[Option<u64>; BARS],
    offset: usize,
) -> Result<(), VdevError> {
    let (first, count) = array::<B>(instance)?;
    for (index, start) in starts.iter().enumerate().take(count) {
        let Some(start) = start else { continue };
        let location = first.wrapping_add(index).wrapping_byte_add(offset).cast::<u64>();
        // SAFETY: the vdev has reported an array of `count` BARs here, which lives as long as it;
        // this member, an aligned `u64`, is the host's to write, as the header says.
        unsafe { location.write_volatile(*start) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(kind: u16, length: u64, value: u32, upper: u32) -> Described {
        let block = Block { location: QSL_NO_LOCATION, length, kind };
        Described { flags: 3, cookie: 9, block, value, upper }
    }

    #[test]
    fn a_bar_has_a_place_if_it_is_enabled_and_has_an_address() {
        let start =
            |described: Described, command| described.bar(2, command).unwrap().unwrap().start;
        let memory = described(QST_MEMORY, 0x1000, 0xfa00_0008, 1);
        assert_eq!(start(memory, PCI_CMD_MEMORY), Some(0x1_fa00_0000));
        assert_eq!(start(memory, PCI_CMD_IO), None);
        assert_eq!(start(described(QST_MEMORY, 0x1000, 0, 0), PCI_CMD_MEMORY), None);
        let ports = described(QST_PCI_IO, 8, 0x301, 1);
        assert_eq!(start(ports, PCI_CMD_IO), Some(0x300));
        assert_eq!(described(QST_MEMORY, 0, 1, 1).bar(0, 3), Ok(None));
    }

    #[test]
    fn a_bar_that_is_none_is_refused_with_what_it_needs() {
        for (bar, part) in [
            (described(QST_MEMORY, 0x1001, 0, 0), "power of two"),
            (described(QST_MEMORY, 8, 0, 0), "at least 16"),
            (described(QST_PCI_IO, 2, 0, 0), "at least 4"),
            (described(QST_PCI_IO, 0x2_0000, 0, 0), "power of two"),
            (described(QST_PCI, 0x1000, 0, 0), "QST_MEMORY"),
        ] {
            let why = bar.bar(3, 3).unwrap_err();
            assert!(why.contains(part) && why.contains("BAR 3"), "{why}");
        }
    }
}
