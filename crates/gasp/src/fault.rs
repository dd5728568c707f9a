//! Fault records: the accesses that the guest's IOMMU refused, kept for the guest to read.

use core::fmt;
use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::Access;
use crate::addr::DeviceAddr;
use crate::error::Refusal;

/// Maximum number of records that are kept; further ones are dropped and counted.
pub const FAULTS_KEPT: usize = 64;

/// One access that the guest's IOMMU refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The name of the device.
    pub device: Arc<str>,
    /// The first refused address.
    pub addr: DeviceAddr,
    /// The access that the device requested.
    pub access: Access,
    /// The reason of the refusal.
    pub refusal: Refusal,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, addr, access, refusal } = self;
        write!(f, "`{device}` {access} at {addr}: {refusal}")
    }
}

/// Fault records, and the number of those dropped since records were last read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// The records, oldest first; at most [`FAULTS_KEPT`].
    pub records: Vec<Fault>,
    /// Number of records that were dropped for lack of room.
    pub dropped: u64,
}

/// The fault log of a guest: records, and the number of those dropped.
#[derive(Debug, Default)]
pub(crate) struct FaultLog(Mutex<(VecDeque<Fault>, u64)>);

impl FaultLog {
    #[cold]
    pub(crate) fn record(
        &self,
        device: &Arc<str>,
        addr: DeviceAddr,
        access: Access,
        refusal: Refusal,
    ) {
        let mut log = self.0.lock();
        if log.0.len() < FAULTS_KEPT {
            log.0.push_back(Fault { device: Arc::clone(device), addr, access, refusal });
        } else {
            log.1 = log.1.saturating_add(1);
        }
    }

    /// Removes and returns the oldest record, with the number of those dropped since records
    /// were last read.
    pub(crate) fn take_one(&self) -> Option<(Fault, u64)> {
        let mut log = self.0.lock();
        let fault = log.0.pop_front()?;
        Some((fault, core::mem::take(&mut log.1)))
    }

    /// Removes and returns all records, which makes room for new ones.
    pub(crate) fn take(&self) -> Faults {
        let mut log = self.0.lock();
        Faults { records: log.0.drain(..).collect(), dropped: core::mem::take(&mut log.1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_faults_are_kept_and_the_others_counted() {
        let log = FaultLog::default();
        let device: Arc<str> = Arc::from("net");
        for addr in 0..100 {
            log.record(&device, DeviceAddr(addr), Access::READ, Refusal::NotGranted);
        }
        let faults = log.take();
        assert_eq!((faults.records.len(), faults.dropped), (64, 36));
        assert_eq!(faults.records[63].addr, DeviceAddr(63), "the oldest are kept");
        assert_eq!(log.take(), Faults::default(), "reading frees them");
        for addr in 0..66 {
            log.record(&device, DeviceAddr(addr), Access::WRITE, Refusal::NotGranted);
        }
        let one = |(fault, dropped): (Fault, u64)| (fault.addr.0, dropped);
        assert_eq!(log.take_one().map(one), Some((0, 2)), "one at a time, too");
        assert_eq!(log.take_one().map(one), Some((1, 0)));
        assert_eq!(log.take().records.len(), 62);
        assert_eq!(log.take_one(), None);
    }
}
