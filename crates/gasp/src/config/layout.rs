//! Places the regions of a configuration file, and checks that no two overlap.

use toml::Spanned;

use super::check::{Check, Names};
use super::error::ConfigError;
use super::file::{MmioTable, PassTable, RamTable, ReserveTable, RomTable};
use super::loads::file_len;
use super::plan::{Content, Image, RamPlan, RegionPlan};
use super::size::Bytes;
use super::source::Mark;
use crate::access::Access;
use crate::addr::{GRANULE, GuestPhys, HostPhys};
use crate::error::Errno;
use crate::memory::{Backing, PinMethod};

/// The regions placed so far.
pub(super) struct Layout<'a> {
    check: &'a Check<'a>,
    regions: Vec<RegionPlan>,
    ram_names: Names,
    /// The first address past the highest RAM or ROM.
    next: u64,
}

impl<'a> Layout<'a> {
    pub(super) fn new(check: &'a Check<'a>) -> Self {
        Self { check, regions: Vec::new(), ram_names: Names::new(), next: 0 }
    }

    pub(super) fn ram(&mut self, table: &Spanned<RamTable>) -> Result<(), ConfigError> {
        let ram = table.get_ref();
        let start_at = Mark::or(ram.start.as_ref(), "ram.start", table);
        let name = match &ram.name {
            Some(name) => self.check.unique(&mut self.ram_names, name, "ram.name")?,
            None => format!("ram{}", self.regions.len()),
        };
        let prefer = match &ram.backing {
            None => Backing::PREFERENCE.to_vec(),
            Some(list) if list.get_ref().is_empty() => {
                let at = Mark::of(list, "ram.backing");
                return Err(self.check.source.wrong(at, "expected at least one kind of pages"));
            }
            Some(list) => list.get_ref().iter().map(|word| word.0).collect(),
        };
        let residency = ram.residency.map(|word| word.0);
        let size = self.check.region_size(&ram.size, "ram.size")?;
        let pins = match &ram.pin {
            None => PinMethod::PREFERENCE.to_vec(),
            Some(list) => list.iter().map(|word| word.0).collect(),
        };
        let contiguity = ram.host_contiguous.map(|contiguous| contiguous.0);
        let exclusive = ram.exclusive;
        let plan = RamPlan { name, prefer, residency, pins, contiguity, exclusive };
        let content = Content::Ram(plan);
        self.memory(ram.start.as_ref(), start_at, size, content)
    }

    pub(super) fn rom(&mut self, table: &Spanned<RomTable>) -> Result<(), ConfigError> {
        let rom = table.get_ref();
        let start_at = Mark::or(rom.start.as_ref(), "rom.start", table);
        let image = match &rom.file {
            Some(file) => {
                let file_at = Mark::of(file, "rom.file");
                let (image, len) = self.image(file.get_ref(), file_at)?;
                Some((image, len, file_at))
            }
            None => None,
        };
        let size = match (&rom.size, &image) {
            (Some(size), _) => self.check.region_size(size, "rom.size")?,
            (None, Some((_, len, file_at))) => {
                (len.checked_next_multiple_of(GRANULE).unwrap_or(u64::MAX), *file_at)
            }
            (None, None) => {
                let message = "the key `size` or `file` is missing";
                return Err(self.check.source.wrong(Mark::of(table, "rom.size"), message));
            }
        };
        if let Some((_, len, file_at)) = image
            && len > size.0
        {
            let message =
                format!("the file has {:#}, but its region only {:#}", Bytes(len), Bytes(size.0));
            return Err(self.check.source.wrong(file_at, &message));
        }
        let image = image.map(|(image, _, file_at)| (image, file_at));
        self.memory(rom.start.as_ref(), start_at, size, Content::Rom { image })
    }

    pub(super) fn reserve(&mut self, table: &Spanned<ReserveTable>) -> Result<(), ConfigError> {
        let ReserveTable { start, size } = table.get_ref();
        let size = (size.get_ref().0, Mark::of(size, "reserve.size"));
        self.place(start.get_ref().0, Mark::of(start, "reserve.start"), size, Content::Reserve)
    }

    pub(super) fn mmio(
        &mut self,
        table: &Spanned<MmioTable>,
        vdevs: &Names,
    ) -> Result<(), ConfigError> {
        let MmioTable { start, size, vdev } = table.get_ref();
        let size = (size.get_ref().0, Mark::of(size, "mmio.size"));
        let vdev = self.check.known(vdevs, vdev, "mmio.vdev", "[[vdev]]")?;
        let start_at = Mark::of(start, "mmio.start");
        self.place(start.get_ref().0, start_at, size, Content::Device { vdev })
    }

    pub(super) fn pass(&mut self, table: &Spanned<PassTable>) -> Result<(), ConfigError> {
        let pass = table.get_ref();
        let size = self.check.region_size(&pass.size, "pass.size")?;
        let host_at = Mark::of(&pass.host, "pass.host");
        let host = self.check.granular(pass.host.get_ref().0, host_at)?;
        let offset = match &pass.offset {
            Some(offset) => {
                self.check.granular(offset.get_ref().0, Mark::of(offset, "pass.offset"))?
            }
            // The offsets of this device are host-physical addresses.
            None if pass.path.get_ref() == "/dev/mem" => host,
            None => 0,
        };
        if host.checked_add(size.0).is_none() || offset.checked_add(size.0).is_none() {
            let message = "`host` or `offset`, and `size`, extend past 64 bits";
            return Err(self.check.source.wrong(size.1, message));
        }
        let path_at = Mark::of(&pass.path, "pass.path");
        let content = Content::Pass {
            path: self.check.source.resolve(path_at, pass.path.get_ref()),
            path_at,
            host: HostPhys(host),
            offset,
            access: pass.access.map_or(Access::RW, |letters| letters.0),
            ram: pass.ram,
            uncached: pass.uncached,
        };
        self.place(pass.start.get_ref().0, Mark::of(&pass.start, "pass.start"), size, content)
    }

    /// Returns all regions, if no two of them overlap.
    pub(super) fn finish(self) -> Result<Vec<RegionPlan>, ConfigError> {
        let mut sorted: Vec<&RegionPlan> = self.regions.iter().collect();
        sorted.sort_by_key(|region| region.span.start());
        let mut previous: Option<&RegionPlan> = None;
        for region in sorted {
            if let Some(before) = previous
                && before.span.overlaps(&region.span)
            {
                let swap = before.start_at.is_after(region.start_at);
                let (old, new) = if swap { (region, before) } else { (before, region) };
                let source = self.check.source;
                let message = format!(
                    "{} overlaps {} of {}",
                    new.span,
                    old.span,
                    source.line(old.start_at, new.start_at)
                );
                return Err(source.wrong(new.start_at, &message).with_errno(Errno::EXIST));
            }
            previous = Some(region);
        }
        Ok(self.regions)
    }

    /// Places RAM or ROM: at the address in the file, or past the highest RAM or ROM.
    fn memory(
        &mut self,
        start: Option<&Spanned<Bytes>>,
        start_at: Mark,
        size: (u64, Mark),
        content: Content,
    ) -> Result<(), ConfigError> {
        let start = start.map_or(self.next, |start| start.get_ref().0);
        self.place(start, start_at, size, content)?;
        // `place` checked that the end is inside the address width.
        self.next = self.next.max(start.saturating_add(size.0));
        Ok(())
    }

    fn place(
        &mut self,
        start: u64,
        start_at: Mark,
        size: (u64, Mark),
        content: Content,
    ) -> Result<(), ConfigError> {
        // A region without memory can have any start and length.
        let start = match content {
            Content::Reserve | Content::Device { .. } => start,
            _ => self.check.granular(start, start_at)?,
        };
        let span = self.check.span::<GuestPhys>((start, start_at), size)?;
        self.regions.push(RegionPlan { span, start_at, size_at: size.1, content });
        Ok(())
    }

    /// A ROM image, either of the program's or a file, and its length in bytes.
    fn image(&self, name: &str, at: Mark) -> Result<(Image, u64), ConfigError> {
        let source = self.check.source;
        if let Some(bytes) = source.image(name) {
            return Ok((Image::Bytes { name: name.into(), bytes }, bytes.len() as u64));
        }
        let file = source.resolve(at, name);
        let len = file_len(source, &file, at, "ROM image")?;
        Ok((Image::File(file), len))
    }
}
