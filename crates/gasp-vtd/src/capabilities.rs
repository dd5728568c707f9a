//! What the unit reports that it can do.

use gasp_page_tables::vtd::{self, Levels};

use crate::faults::RECORDS;
use crate::registers::{FRCD, IVA};

/// The capabilities of a unit in a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capabilities {
    /// Those that matter to a walk.
    pub(crate) walk: vtd::Capabilities,
}

impl Capabilities {
    /// Those of a guest whose addresses have `width` bits, 32 to 52. Device addresses have as many:
    /// the engine refuses wider ones.
    pub(crate) fn new(width: u32) -> Self {
        let walk = vtd::Capabilities {
            guest_address_width: width,
            snoop_control: true,
            ..vtd::Capabilities::new(width)
        };
        Self { walk }
    }

    /// Whether tables may have so many levels.
    pub(crate) fn has_levels(&self, levels: Levels) -> bool {
        levels != Levels::Five || self.walk.guest_address_width > Levels::Four.address_width()
    }

    /// The largest address mask of an invalidation (MAMV): it covers all addresses.
    pub(crate) fn most_mask(&self) -> u32 {
        self.walk.guest_address_width - 12
    }

    /// The register CAP.
    pub(crate) fn cap(&self) -> u64 {
        let width = u64::from(self.walk.guest_address_width);
        let levels = [Levels::Three, Levels::Four, Levels::Five];
        let sagaw = levels.into_iter().filter(|&levels| self.has_levels(levels));
        // 39 bits are bit 1 of SAGAW.
        let sagaw: u64 = sagaw.map(|levels| 1 << (levels as u64 - 2)).sum();
        let large = u64::from(self.walk.pages_2m) | u64::from(self.walk.pages_1g) << 1;
        // ND: domain ids of 16 bits
        6
            | sagaw << 8
            // MGAW
            | (width - 1) << 16
            // ZLR: reads of no bytes
            | 1 << 22
            // FRO, in units of 16 bytes
            | (FRCD / 16) << 24
            // SLLPS
            | large << 34
            // PSI: invalidation by page
            | 1 << 39
            // NFR
            | (RECORDS as u64 - 1) << 40
            // MAMV
            | u64::from(self.most_mask()) << 48
            // DWD, DRD: an invalidation drains writes and reads
            | 3 << 54
            // ESRTPS: setting the root table pointer invalidates everything
            | 1 << 63
    }

    /// The register ECAP.
    pub(crate) fn ecap(&self) -> u64 {
        // C: walks are coherent with processors' caches
        1
            // QI
            | 1 << 1
            // PT: pass-through
            | 1 << 6
            // SC
            | u64::from(self.walk.snoop_control) << 7
            // IRO, in units of 16 bytes
            | (IVA / 16) << 8
    }
}
