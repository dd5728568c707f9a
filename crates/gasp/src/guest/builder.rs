//! Making a guest.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use parking_lot::RwLock;

use super::Guest;
use super::inner::Inner;
use crate::error::{Error, Operation, Reason, Refusal, Result};
use crate::iommu::Unattached;
use crate::mapping::{DrainPolicy, Physical};
use crate::space::Regions;
use crate::space::segment::Segments;
use crate::view::{Absent, Attachment, View};

/// A guest to be made.
#[derive(Clone, Debug)]
#[must_use = "call `build`"]
pub struct GuestBuilder {
    name: String,
    width: u32,
    iommu: Option<Unattached>,
    policy: DrainPolicy,
    allow_unpinned: bool,
}

impl Default for GuestBuilder {
    fn default() -> Self {
        Self {
            name: "guest".into(),
            width: Self::WIDTH,
            iommu: None,
            policy: DrainPolicy::default(),
            allow_unpinned: false,
        }
    }
}

impl GuestBuilder {
    /// The address width of a guest that is told none: 48 bits.
    pub const WIDTH: u32 = 48;
    /// The smallest and the largest address width.
    pub const WIDTHS: core::ops::RangeInclusive<u32> = 32..=52;

    /// A name for reports.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// How many bits its addresses have, from 32 to 52.
    pub fn address_width(self, width: u32) -> Self {
        Self { width, ..self }
    }

    /// Gives the guest an IOMMU, and says what becomes of devices that are attached to
    /// no domain. Without this call every device reaches all of RAM (decision 13).
    pub fn iommu(self, unattached: Unattached) -> Self {
        Self { iommu: Some(unattached), ..self }
    }

    /// How drains wait where their domain says nothing else (decision 15).
    pub fn drain(self, policy: DrainPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Accepts host-physical addresses that can change (decision 20).
    pub fn allow_unpinned(self, allow_unpinned: bool) -> Self {
        Self { allow_unpinned, ..self }
    }

    /// Makes the guest, without memory.
    ///
    /// # Errors
    /// `EINVAL` for an address width out of range.
    pub fn build(self) -> Result<Guest> {
        if !Self::WIDTHS.contains(&self.width) {
            let reason = Reason::Invalid("the address width must be from 32 to 52 bits");
            return Err(Error::whole(Operation::Create, reason));
        }
        crate::protocol::prepare();
        crate::mapping::settle();
        let flat = Arc::new(View::new(self.width, Absent::NoMemory));
        Ok(Guest(Arc::new(Inner {
            name: self.name.into(),
            physical: Physical {
                segments: Segments::new(),
                width: self.width,
                allow_unpinned: self.allow_unpinned,
            },
            iommu: self.iommu,
            policy: self.policy,
            faults: Default::default(),
            edit: Default::default(),
            regions: RwLock::new(Regions::default()),
            domains: Mutex::default(),
            vdevs: Mutex::new(BTreeMap::new()),
            firmware: Attachment::new(&flat),
            flat,
            unattached: Arc::new(View::refusing(Refusal::Unattached)),
            denied: Arc::new(View::refusing(Refusal::DenyDomain)),
        })))
    }
}
