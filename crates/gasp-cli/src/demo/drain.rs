//! A revoke that drains: the guest revokes a range while a device holds a mapping of it.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gasp::{DeviceAddr, MapFlags, Result};

use super::guest::DemoGuest;
use super::maps::expect_refused;
use super::report::{Drain, FaultRecord, Map, Meanwhile, Report};
use super::verify;
use crate::failure::Failure;

/// How long the device holds its mapping after the revoke.
const HELD: Duration = Duration::from_millis(20);
/// The length of the range.
const LEN: u64 = 64 << 10;

/// One thread holds a mapping; this one revokes the range, checks that a new map of it fails,
/// and waits for the drain.
pub(super) fn revoke_while_held(
    demo: &DemoGuest,
    report: &mut Report,
) -> std::result::Result<(), Failure> {
    let addr = DeviceAddr::identity(demo.disk_range.start());
    let (mapped, is_mapped) = mpsc::channel();
    let (revoked, is_revoked) = mpsc::channel();
    let (held, drain) = thread::scope(|scope| {
        let holder = scope.spawn(move || hold(demo, addr, &mapped, &is_revoked));
        // If the device cannot map, there is nothing to wait for, and `join` returns why.
        if is_mapped.recv().is_err() {
            return (holder.join(), None);
        }
        let drain = revoke(demo, addr, revoked);
        (holder.join(), Some(drain))
    });
    let held = held.map_err(|_| std::io::Error::other("the holder's thread died"))??;
    report.maps.push(held);
    report.drain = drain.transpose()?;
    let faults = demo.guest.take_faults().records;
    report.faults.extend(faults.into_iter().map(FaultRecord::from));
    Ok(())
}

/// The device: maps the range, uses the mapping for a while after the revoke, then drops it.
fn hold(
    demo: &DemoGuest,
    addr: DeviceAddr,
    mapped: &mpsc::Sender<()>,
    is_revoked: &mpsc::Receiver<()>,
) -> Result<Map> {
    let mapping = demo.disk.map(addr, LEN, MapFlags::RW)?;
    // The receiver waits for this, so it exists.
    let _ = mapped.send(());
    // An error means that the revoke has failed, which the other thread reports.
    let _ = is_revoked.recv();
    thread::sleep(HELD);
    // The mapping is still valid.
    let verified = verify::write_and_find(&mapping, 4)?;
    Ok(Map::of("disk", "held in a revoke", &mapping, verified))
}

/// The guest: revokes the range and notifies the holder through `revoked`, which is dropped after
/// an error.
fn revoke(
    demo: &DemoGuest,
    addr: DeviceAddr,
    revoked: mpsc::Sender<()>,
) -> std::result::Result<Drain, Failure> {
    let drain = demo.disk_domain.revoke(addr, LEN)?;
    let started = Instant::now();
    let error = expect_refused(demo.disk.map(addr, LEN, MapFlags::RW))?;
    let took_ns = nanoseconds(started.elapsed());
    // The holder waits for this, so it exists.
    let _ = revoked.send(());
    let drained = drain.wait();
    Ok(Drain {
        held_ns: nanoseconds(HELD),
        waited_ns: nanoseconds(drained.waited),
        holders: drained.holders,
        completed: drained.completed(),
        meanwhile: Meanwhile { errno: error.errno_name(), took_ns },
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
