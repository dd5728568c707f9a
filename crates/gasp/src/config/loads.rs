//! Files that are copied into RAM and ROM: checked, and copied.

use std::io::{self, Read};
use std::path::Path;

use rustix::fs::OFlags;
use toml::Spanned;

use super::check::Check;
use super::error::ConfigError;
use super::file::LoadTable;
use super::memory::Memory;
use super::plan::{Content, LoadPlan, RegionPlan};
use super::size::Bytes;
use super::source::{Mark, Source, open_file};
use crate::addr::GuestPhys;
use crate::error::Errno;
use crate::guest::AddressSpace;

/// Size of the buffer with which a file is copied, in bytes.
const COPY: usize = 1 << 20;

/// Checks that each file exists, and fits into RAM and ROM.
pub(super) fn plan_loads(
    check: &Check<'_>,
    tables: &[Spanned<LoadTable>],
    regions: &[RegionPlan],
) -> Result<Vec<LoadPlan>, ConfigError> {
    let counts = |content: &Content| matches!(content, Content::Ram(_) | Content::Rom { .. });
    let memory = Memory::of(regions, counts);
    tables.iter().map(|table| plan_load(check, table.get_ref(), &memory)).collect()
}

fn plan_load(
    check: &Check<'_>,
    table: &LoadTable,
    memory: &Memory,
) -> Result<LoadPlan, ConfigError> {
    let at = Mark::of(&table.file, "load.file");
    let address_at = Mark::of(&table.address, "load.address");
    let path = check.source.resolve(at, table.file.get_ref());
    let len = file_len(check.source, &path, at, "file to load")?;
    let span = check.span::<GuestPhys>((table.address.get_ref().0, address_at), (len, at))?;
    if let Some(hole) = memory.hole(span) {
        let message = format!(
            "the file has {:#}, and no RAM or ROM is at {hole}, inside its {span}",
            Bytes(len)
        );
        return Err(check.source.wrong(address_at, &message).with_errno(Errno::NXIO));
    }
    Ok(LoadPlan { span, path, at })
}

/// Length of a regular file in bytes; never 0. `what` names it in messages.
pub(super) fn file_len(
    source: &Source,
    path: &Path,
    at: Mark,
    what: &str,
) -> Result<u64, ConfigError> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        source.failed(at, &format!("cannot find the {what} {}", path.display()), &error)
    })?;
    let fail = |why: &str, errno| {
        let message = format!("expected a {what}, but {} {why}", path.display());
        Err(source.wrong(at, &message).with_errno(errno))
    };
    match metadata.len() {
        _ if metadata.is_dir() => fail("is a directory", Errno::ISDIR),
        _ if !metadata.is_file() => fail("is not a regular file", Errno::NODEV),
        0 => fail("is empty; it must have at least one byte", Errno::INVAL),
        len => Ok(len),
    }
}

/// Copies the files into the regions of a guest, in their order.
pub(super) fn load(
    source: &Source,
    space: &AddressSpace<'_>,
    loads: &[LoadPlan],
) -> Result<(), ConfigError> {
    loads.iter().try_for_each(|plan| {
        let start = plan.span.start();
        let mut write = |offset: u64, bytes: &[u8]| {
            let addr = start.0.saturating_add(offset);
            write(space, GuestPhys(addr), bytes).ok_or_else(grown)
        };
        copy(&plan.path, &mut write).map_err(|error| {
            let what = format!("cannot load {}", plan.path.display());
            source.failed(plan.at, &what, &error)
        })
    })
}

/// Writes to RAM or ROM. Returns `None` if there is none for some of the bytes.
fn write(space: &AddressSpace<'_>, addr: GuestPhys, bytes: &[u8]) -> Option<()> {
    let (mut addr, mut rest) = (addr, bytes);
    while !rest.is_empty() {
        let region = space.region_at(addr)?;
        let object = region.object()?;
        let before = addr.0.checked_sub(region.span().start().0)?;
        let room = region.span().len().checked_sub(before)?;
        let (part, after) = rest.split_at(rest.len().min(usize::try_from(room).ok()?));
        object.write_at(region.object_offset().checked_add(before)?, part).ok()?;
        addr = addr.checked_add(part.len() as u64)?;
        rest = after;
    }
    Some(())
}

/// Calls `write` with the bytes of a file, one part after the other, and the offset of each.
/// That it fits was checked when the configuration was read, and can have changed.
pub(super) fn copy(
    path: &Path,
    write: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = open_file(path, OFlags::RDONLY)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no longer a regular file"));
    }
    let mut buffer = vec![0; COPY];
    let mut offset = 0_u64;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        write(offset, buffer.get(..read).unwrap_or_default())?;
        offset = offset.saturating_add(read as u64);
    }
}

/// The error about a file that no longer fits.
pub(super) fn grown() -> io::Error {
    io::Error::other("it has grown")
}
