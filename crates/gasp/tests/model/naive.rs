//! The model: a guest's memory and its IOMMU, page by page.

use gasp::{
    Access, DeviceAddr, DomainKind, GuestPhys, MapFlags, Reason, Refusal, RegionKind, Span,
};

use crate::steps::{DOMAINS, How, PAGES, Pages, VDEVS};
use crate::support::PAGE;

/// The kinds of the domains.
pub(crate) const KINDS: [DomainKind; DOMAINS] = [
    DomainKind::Identity,
    DomainKind::Translate,
    DomainKind::Bypass,
    DomainKind::Deny,
    DomainKind::Translate,
];

/// One page of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    pub(crate) kind: RegionKind,
    pub(crate) access: Access,
    /// The object, and the page in it.
    pub(crate) memory: Option<(usize, usize)>,
}

/// One page of a domain: the guest page that it leads to, and the access allowed.
pub(crate) type Granted = Option<(usize, Access)>;

/// A part of an object: object, first byte, length.
pub(crate) type Extent = (usize, u64, u64);

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) pages: Vec<Option<Page>>,
    pub(crate) grants: Vec<Vec<Granted>>,
    pub(crate) attached: [Option<usize>; VDEVS],
}

/// The view that a map goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum View {
    /// Guest memory, without an IOMMU.
    Flat,
    /// Every map is refused.
    Refusing(Refusal),
    /// A domain's grants.
    Grants(usize),
}

impl Model {
    pub(crate) fn new() -> Self {
        let grants = vec![vec![None; PAGES]; DOMAINS];
        Self { pages: vec![None; PAGES], grants, attached: [None; VDEVS] }
    }

    /// The access that memory in a region of this kind offers.
    pub(crate) fn offered(kind: RegionKind) -> Access {
        match kind {
            RegionKind::Ram | RegionKind::PassThrough => Access::RWX,
            RegionKind::Rom => Access::READ | Access::EXEC,
            RegionKind::Reserved | RegionKind::Device => Access::empty(),
        }
    }

    pub(crate) fn range(&mut self, pages: Pages) -> &mut [Option<Page>] {
        &mut self.pages[pages.first..pages.first + pages.count]
    }

    pub(crate) fn view(&self, vdev: usize, how: How) -> View {
        match self.attached[vdev] {
            _ if how == How::Firmware => View::Flat,
            None => View::Refusing(Refusal::Unattached),
            Some(domain) => match KINDS[domain] {
                DomainKind::Bypass => View::Flat,
                DomainKind::Deny => View::Refusing(Refusal::DenyDomain),
                DomainKind::Identity | DomainKind::Translate | DomainKind::Ask => {
                    View::Grants(domain)
                }
            },
        }
    }

    /// The guest page that a device page leads to, or why the IOMMU refuses it.
    fn through(&self, view: View, page: usize, requested: Access) -> Result<usize, Refusal> {
        match view {
            View::Flat => Ok(page),
            View::Refusing(refusal) => Err(refusal),
            View::Grants(domain) => {
                let grant = self.grants[domain].get(page).copied().flatten();
                let (to, allowed) = grant.ok_or(Refusal::NotGranted)?;
                match allowed.contains(requested) {
                    true => Ok(to),
                    false => Err(Refusal::Access { allowed, requested }),
                }
            }
        }
    }

    /// The pieces of memory of a range, or the first reason, in the order of decision 1, why it
    /// cannot be mapped.
    pub(crate) fn look_up(
        &self,
        view: View,
        addr: u64,
        len: u64,
        flags: MapFlags,
    ) -> Result<Vec<Extent>, Reason> {
        let requested = flags.access();
        let bytes = bytes_of(addr, len);
        // The IOMMU is checked over the whole range before memory.
        let mut guest = Vec::new();
        for &(addr, len) in &bytes {
            let page = (addr / PAGE) as usize;
            let to = self.through(view, page, requested);
            let to = to.map_err(|refusal| Reason::Refused { addr: DeviceAddr(addr), refusal })?;
            guest.push((to as u64 * PAGE + addr % PAGE, len));
        }
        let page_at = |addr: u64| self.pages.get((addr / PAGE) as usize).copied().flatten();
        let memory_at = |addr: u64| page_at(addr).filter(|page| page.memory.is_some());
        let find = |bad: &dyn Fn(Page) -> bool| {
            guest.iter().map(|piece| piece.0).find(|&addr| memory_at(addr).is_some_and(bad))
        };
        if let Some(&(addr, _)) = guest.iter().find(|piece| memory_at(piece.0).is_none()) {
            return Err(Reason::NoMemory { addr: GuestPhys(addr) });
        }
        if let Some(addr) = find(&|page| !flags.accepts_any() && page.kind != RegionKind::Ram) {
            return Err(Reason::NotRam { addr: GuestPhys(addr) });
        }
        if let Some(addr) = find(&|page| !page.access.contains(requested)) {
            let offered = memory_at(addr).unwrap().access;
            return Err(Reason::Forbidden { addr: GuestPhys(addr), offered, requested });
        }
        let mut extents: Vec<Extent> = Vec::new();
        for (addr, len) in guest {
            let (object, page) = memory_at(addr).unwrap().memory.unwrap();
            let offset = page as u64 * PAGE + addr % PAGE;
            match extents.last_mut() {
                Some(last) if last.0 == object && last.1 + last.2 == offset => last.2 += len,
                _ => extents.push((object, offset, len)),
            }
        }
        Ok(extents)
    }

    /// The longest range from `addr` on that can be mapped, or the reason why not even the part in
    /// the first page can.
    pub(crate) fn truncated(
        &self,
        view: View,
        addr: u64,
        len: u64,
        flags: MapFlags,
    ) -> Result<Extent, Reason> {
        let whole = self.look_up(view, addr, len, flags);
        let mut best = None;
        let mut sum = 0;
        for (_, part) in bytes_of(addr, len) {
            sum += part;
            match self.look_up(view, addr, sum, flags) {
                Ok(extents) if extents.len() == 1 => best = Some(extents[0]),
                _ => break,
            }
        }
        best.map_or_else(|| Err(whole.unwrap_err()), Ok)
    }

    /// The grants of a domain, with neighbours joined.
    pub(crate) fn grants(&self, domain: usize) -> Vec<gasp::Grant> {
        let mut grants: Vec<gasp::Grant> = Vec::new();
        for (page, grant) in (0_u64..).zip(&self.grants[domain]) {
            let Some((to, access)) = *grant else { continue };
            let start = DeviceAddr(page * PAGE);
            let to = GuestPhys(to as u64 * PAGE);
            if let Some(last) = grants.last_mut()
                && last.device.last().0 + 1 == start.0
                && last.guest.0 + last.device.len() == to.0
                && last.access == access
            {
                last.device = Span::new(last.device.start(), last.device.len() + PAGE).unwrap();
            } else {
                grants.push(gasp::Grant {
                    device: Span::new(start, PAGE).unwrap(),
                    guest: to,
                    access,
                });
            }
        }
        grants
    }
}

/// The parts of a range cut at page boundaries, as address and length.
fn bytes_of(addr: u64, len: u64) -> Vec<(u64, u64)> {
    let (mut at, end) = (addr, addr + len);
    let mut parts = Vec::new();
    while at < end {
        let part = (PAGE - at % PAGE).min(end - at);
        parts.push((at, part));
        at += part;
    }
    parts
}
