//! The builder of a guest.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use parking_lot::RwLock;

use super::guest::Guest;
use super::inner::Inner;
use crate::error::{Error, Operation, Reason, Refusal, Result};
use crate::iommu::Unattached;
use crate::mapping::{DrainPolicy, Physical};
use crate::space::Regions;
use crate::space::segment::Segments;
use crate::view::attachment::Attachment;
use crate::view::{Absent, View};

/// A builder of a [`Guest`]; see [`Guest::builder`].
#[derive(Clone, Debug)]
#[must_use = "call `build`"]
pub struct GuestBuilder {
    name: String,
    width: u32,
    iommu: Option<Unattached>,
    policy: DrainPolicy,
    allow_unpinned: bool,
}

impl Guest {
    /// A builder with the default options.
    pub fn builder() -> GuestBuilder {
        GuestBuilder::default()
    }
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
    /// The default address width: 48 bits.
    pub const WIDTH: u32 = 48;
    /// The valid address widths, in bits.
    pub const WIDTHS: core::ops::RangeInclusive<u32> = 32..=52;

    /// Sets the name used in reports and errors; `"guest"` by default.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the address width in bits, from 32 to 52; 48 by default.
    pub fn address_width(self, width: u32) -> Self {
        Self { width, ..self }
    }

    /// Adds an IOMMU, with this treatment of devices that are attached to no domain (decision
    /// 14). A guest without an IOMMU lets every device reach all of its memory (decision 13).
    pub fn iommu(self, unattached: Unattached) -> Self {
        Self { iommu: Some(unattached), ..self }
    }

    /// Sets the drain policy of changes of regions, of devices that are attached to no domain,
    /// and of domains without a policy of their own (decision 15).
    pub fn drain(self, policy: DrainPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Whether host-contiguous maps accept memory whose host-physical address can change
    /// (decision 20); `false` by default.
    pub fn allow_unpinned(self, allow_unpinned: bool) -> Self {
        Self { allow_unpinned, ..self }
    }

    /// Creates the guest, without memory, devices or domains.
    ///
    /// # Errors
    /// `EINVAL` if the address width is not from 32 to 52 bits.
    pub fn build(self) -> Result<Guest> {
        if !Self::WIDTHS.contains(&self.width) {
            let reason = Reason::Invalid("the address width must be from 32 to 52 bits");
            return Err(Error::whole(Operation::Create, reason));
        }
        crate::protocol::prepare();
        crate::mapping::reclaim();
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
            listeners: Mutex::default(),
            announcing: Mutex::default(),
            regions: RwLock::new(Regions::default()),
            domains: Mutex::default(),
            vdevs: Mutex::new(BTreeMap::new()),
            firmware: Attachment::new(&flat),
            flat,
            unattached_denied: Arc::new(View::refusing(Refusal::Unattached)),
            denied: Arc::new(View::refusing(Refusal::DenyDomain)),
        })))
    }
}
