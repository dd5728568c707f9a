//! Maps by the devices of the demo, which succeed, are shortened or are refused.

use std::io;

use gasp::{Access, DeviceAddr, Errno, GuestPhys, MapFlags, Mapping, Result, Vdev};

use super::guest::DemoGuest;
use super::report::{FaultRecord, Map, Refused, Report, Shortened};
use super::verify;
use crate::failure::Failure;

/// The length of a device's request.
const REQUEST: u64 = 64 << 10;

/// `disk` maps a request, host-contiguous; `net` maps what the guest wrote, to read it;
/// `disk` reads the ROM.
pub(super) fn whole_map(demo: &DemoGuest, report: &mut Report) -> Result<()> {
    let addr = DeviceAddr::identity(demo.disk_range.start());
    let addr = DeviceAddr(addr.0 + demo.disk_range.len() / 4);
    let (mapping, what) = contiguous(&demo.disk, addr, REQUEST)?;
    let verified = verify::write_and_find(&mapping, 1)?;
    report.maps.push(Map::of("disk", what, &mapping, verified));
    drop(mapping);

    // The guest writes; its device reads.
    let at = demo.net_range.start();
    let guest = demo.guest.map_firmware(at, REQUEST, MapFlags::RW)?;
    let written = verify::write_and_find(&guest, 2)?;
    report.maps.push(Map::of("(guest)", "firmware", &guest, written));
    let mapping = demo.net.map(demo.net_at, REQUEST, MapFlags::READ)?;
    let same = verify::read_and_compare(&mapping, |at, len| verify::pattern(2, at, len))?;
    report.maps.push(Map::of("net", "map", &mapping, written && same));

    let addr = DeviceAddr::identity(demo.rom_at);
    let mapping = demo.disk.map(addr, 4096, MapFlags::READ.any())?;
    let mut expected = vec![0; mapping.len()];
    demo.rom.read_at(0, &mut expected)?;
    let same = verify::read_and_compare(&mapping, |at, len| expected[at..at + len].to_vec())?;
    report.maps.push(Map::of("disk", "map of ROM", &mapping, same));
    Ok(())
}

/// `disk` requests all that it may write, from the start of a run, and gets that run.
pub(super) fn shortened_map(demo: &DemoGuest, report: &mut Report) -> Result<()> {
    let range = demo.disk_range;
    // The longest run that ends inside the range, and the first of several, is the best example.
    let inside = report.runs.iter().rev().filter(|run| {
        run.host.is_some()
            && range.contains(GuestPhys(run.guest))
            && run.guest + run.len <= range.last().0
    });
    let start = inside.max_by_key(|run| run.len).map_or(range.start().0, |run| run.guest);
    let asked = range.last().0 - start + 1;
    let mut shortened = Shortened { addr: start, asked, got: None };
    match demo.disk.map_host_contig(DeviceAddr(start), asked, MapFlags::RW) {
        Ok(mapping) => {
            shortened.got = Some(mapping.len() as u64);
            let verified = verify::write_and_find(&mapping, 3)?;
            report.maps.push(Map::of("disk", "host-contiguous", &mapping, verified));
        }
        Err(error) if is_unknown(&error) => {}
        Err(error) => return Err(error),
    }
    report.shortened = Some(shortened);
    Ok(())
}

/// `net` tries to write what it may only read; the guest finds a fault record.
pub(super) fn refused_map(
    demo: &DemoGuest,
    report: &mut Report,
) -> std::result::Result<(), Failure> {
    let error = expect_refused(demo.net.map(demo.net_at, REQUEST, MapFlags::WRITE))?;
    report.refused = Some(Refused::of("net", Access::WRITE, &error));
    report.faults.extend(demo.guest.take_faults().records.into_iter().map(FaultRecord::from));
    Ok(())
}

/// `disk` tries to write ROM. Its domain allows that; the memory does not.
pub(super) fn rom_write(demo: &DemoGuest, report: &mut Report) -> std::result::Result<(), Failure> {
    let addr = DeviceAddr::identity(demo.rom_at);
    let error = expect_refused(demo.disk.map(addr, 4096, MapFlags::WRITE.any()))?;
    report.rom_write = Some(Refused::of("disk", Access::WRITE, &error));
    Ok(())
}

/// Whether the error means that host-physical addresses are not disclosed, or can change.
fn is_unknown(error: &gasp::Error) -> bool {
    matches!(error.errno(), Errno::PERM | Errno::AGAIN)
}

/// A host-contiguous map, or an ordinary one if the address is not disclosed.
fn contiguous(vdev: &Vdev, addr: DeviceAddr, len: u64) -> Result<(Mapping, &'static str)> {
    match vdev.map_host_contig(addr, len, MapFlags::RW) {
        Ok(mapping) => Ok((mapping.into_mapping(), "host-contiguous")),
        Err(error) if is_unknown(&error) => Ok((vdev.map(addr, len, MapFlags::RW)?, "map")),
        Err(error) => Err(error),
    }
}

/// The error of a map that must fail.
pub(super) fn expect_refused(result: Result<Mapping>) -> std::result::Result<gasp::Error, Failure> {
    match result {
        Err(error) => Ok(error),
        Ok(mapping) => Err(Failure::Io(io::Error::other(format!(
            "a map that the guest forbids succeeded: {mapping:?}"
        )))),
    }
}
