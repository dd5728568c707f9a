//! Runs each step on the engine and on the model, and compares the results.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use gasp::{
    DeviceAddr, Domain, Drain, Guest, GuestPhys, MapFlags, Mapping, Reason, Refusal, Region,
    RegionKind, Scatter, Unattached, Vdev,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::naive::{Extent, KINDS, Model, Page, View};
use crate::objects::{BASES, Objects, check_bytes};
use crate::seen::Seen;
use crate::steps::{DOMAINS, How, PAGES, Pages, Step, VDEVS};
use crate::support::{PAGE, detach_after, span};
use crate::tables::{ABSENT, Tables};

pub(crate) type Checked = Result<(), TestCaseError>;

enum Handle {
    One(Mapping),
    Many(Scatter),
}

impl Handle {
    fn is_revoked(&self) -> bool {
        match self {
            Self::One(mapping) => mapping.is_revoked(),
            Self::Many(scatter) => scatter.is_revoked(),
        }
    }
}

/// A mapping that is kept, and what decides whether a revoke finds it.
struct Held {
    handle: Handle,
    vdev: Option<usize>,
    view: View,
    first: u64,
    last: u64,
    extents: Vec<Extent>,
}

pub(crate) struct Pair<'a> {
    objects: &'a Objects,
    guest: Guest,
    /// The domains, and the page tables of those that ask.
    domains: Vec<(Domain, Option<Arc<Tables>>)>,
    vdevs: Vec<Vdev>,
    model: Model,
    held: Vec<Held>,
    pub(crate) seen: Seen,
}

impl<'a> Pair<'a> {
    /// If `asks`, all domains that have grants ask for them.
    pub(crate) fn new(objects: &'a Objects, asks: bool) -> Self {
        let guest = Guest::builder().iommu(Unattached::Deny).address_width(32);
        let guest = guest.drain(detach_after(Duration::ZERO)).build().unwrap();
        let domains = (0..DOMAINS).map(|index| Tables::domain(&guest, index, asks)).collect();
        let vdevs = (0..VDEVS).map(|index| guest.vdev(&format!("v{index}")).unwrap()).collect();
        let (model, seen) = (Model::new(), Seen::default());
        Self { objects, guest, domains, vdevs, model, held: Vec::new(), seen }
    }

    pub(crate) fn run(&mut self, step: &Step) -> Checked {
        match *step {
            Step::Add { kind, pages, object, offset } => self.add(kind, pages, object, offset)?,
            Step::Remove(pages) => self.remove(pages)?,
            Step::SetAccess(pages, access) => self.set_access(pages, access)?,
            Step::Grant { domain, pages, to, access } => {
                let identity = KINDS[domain] == gasp::DomainKind::Identity;
                let to = if identity { pages.first } else { to };
                let addr = DeviceAddr(pages.first as u64 * PAGE);
                let len = pages.count as u64 * PAGE;
                let guest = GuestPhys(to as u64 * PAGE);
                let want = self.grant(domain, pages, to, access);
                match &self.domains[domain] {
                    (_, Some(tables)) => tables.set(&self.model.grants[domain]),
                    (domain, None) => {
                        let got = domain.grant(addr, guest, len, access);
                        prop_assert_eq!(got.map_err(|error| error.errno_name()), want);
                    }
                }
            }
            Step::Revoke { domain, pages } => self.revoke(domain, pages)?,
            Step::Attach { vdev, domain } => {
                let drain = self.vdevs[vdev].attach(&self.domains[domain].0).unwrap();
                self.moved(vdev, Some(domain), drain)?;
            }
            Step::Detach { vdev } => {
                let drain = self.vdevs[vdev].detach();
                self.moved(vdev, None, drain)?;
            }
            Step::Map { vdev, how, addr, len, flags, hold } => {
                return self.map(vdev, how, (addr, len), flags, hold);
            }
        }
        self.agree()
    }

    fn add(&mut self, kind: RegionKind, pages: Pages, object: usize, offset: usize) -> Checked {
        let range = span(pages.first as u64 * PAGE, pages.count as u64 * PAGE);
        let memory = &self.objects.0[object];
        let room = (memory.len() / PAGE) as usize;
        let region = match kind {
            RegionKind::Reserved => Ok(Region::reserved(range)),
            RegionKind::Device => Ok(Region::device(range, "uart")),
            _ => Region::memory(kind, range, memory, offset as u64 * PAGE),
        };
        prop_assert_eq!(region.is_err(), kind.is_memory() && offset + pages.count > room);
        let Ok(region) = region else { return Ok(()) };
        let free = self.model.range(pages).iter().all(Option::is_none);
        let added = self.guest.space().add(region).map_err(|error| error.errno_name());
        prop_assert_eq!(added, if free { Ok(()) } else { Err("EEXIST") });
        if free {
            for (index, page) in self.model.range(pages).iter_mut().enumerate() {
                let memory = kind.is_memory().then_some((object, offset + index));
                *page = Some(Page { kind, access: Model::offered(kind), memory });
            }
        }
        Ok(())
    }

    fn remove(&mut self, pages: Pages) -> Checked {
        let range = span(pages.first as u64 * PAGE, pages.count as u64 * PAGE);
        let there = self.model.range(pages).iter().any(Option::is_some);
        match self.guest.space().remove(range) {
            Ok(drain) => {
                prop_assert!(there);
                self.drained(drain, |model, held| touches(model, held, pages))?;
                self.model.range(pages).fill(None);
            }
            Err(error) => prop_assert_eq!((error.errno_name(), there), ("ENOENT", false)),
        }
        Ok(())
    }

    fn set_access(&mut self, pages: Pages, access: gasp::Access) -> Checked {
        let range = span(pages.first as u64 * PAGE, pages.count as u64 * PAGE);
        let whole = self.model.range(pages).iter().all(Option::is_some);
        match self.guest.space().set_access(range, access) {
            Ok(drain) => {
                prop_assert!(whole);
                let less = |page: &Page| !access.contains(page.access);
                let reduced = self.model.range(pages).iter().flatten().any(less);
                self.drained(drain, |model, held| reduced && touches(model, held, pages))?;
                for page in self.model.range(pages).iter_mut().flatten() {
                    page.access = access & Model::offered(page.kind);
                }
            }
            Err(error) => prop_assert_eq!((error.errno_name(), whole), ("ENXIO", false)),
        }
        Ok(())
    }

    fn grant(
        &mut self,
        domain: usize,
        pages: Pages,
        to: usize,
        access: gasp::Access,
    ) -> Result<(), &'static str> {
        if matches!(KINDS[domain], gasp::DomainKind::Bypass | gasp::DomainKind::Deny) {
            return Err("EINVAL");
        }
        let grants = &mut self.model.grants[domain][pages.first..pages.first + pages.count];
        let conflict = |(index, grant): (usize, &crate::naive::Granted)| {
            grant.is_some_and(|(there, _)| there != to + index)
        };
        if grants.iter().enumerate().any(conflict) {
            return Err("EEXIST");
        }
        for (index, grant) in grants.iter_mut().enumerate() {
            let had = grant.map_or(gasp::Access::empty(), |(_, had)| had);
            *grant = Some((to + index, had | access));
        }
        Ok(())
    }

    fn revoke(&mut self, domain: usize, pages: Pages) -> Checked {
        let addr = DeviceAddr(pages.first as u64 * PAGE + 5);
        let len = pages.count as u64 * PAGE - 10;
        let drain = match &self.domains[domain] {
            (domain, None) => domain.revoke(addr, len),
            (asking, Some(tables)) => {
                let mut grants = self.model.grants[domain].clone();
                grants[pages.first..pages.first + pages.count].fill(None);
                tables.set(&grants);
                asking.invalidate(addr, len)
            }
        };
        if matches!(KINDS[domain], gasp::DomainKind::Bypass | gasp::DomainKind::Deny) {
            prop_assert_eq!(drain.map(drop).map_err(|error| error.errno_name()), Err("EINVAL"));
            return Ok(());
        }
        let revoked = pages.first..pages.first + pages.count;
        let tables = self.domains[domain].1.clone();
        let whole = tables.map_or(revoked.clone(), |tables| tables.invalidated(revoked.clone()));
        let hit = |held: &Held, pages: &Range<usize>| {
            let (first, end) = (pages.start as u64 * PAGE, pages.end as u64 * PAGE);
            held.view == View::Grants(domain) && held.first < end && first <= held.last
        };
        self.seen.widened += u32::from(whole != revoked);
        // An answer for a larger page need not be in the table, if its pages were there before.
        let can = |_: &Model, held: &Held| {
            hit(held, &revoked) || hit(held, &whole) && held.handle.is_revoked()
        };
        self.drained(drain.unwrap(), can)?;
        self.model.grants[domain][pages.first..pages.first + pages.count].fill(None);
        Ok(())
    }

    fn moved(&mut self, vdev: usize, to: Option<usize>, drain: Drain) -> Checked {
        let old = self.model.view(vdev, How::Map);
        self.model.attached[vdev] = to;
        let changed = self.model.view(vdev, How::Map) != old;
        self.drained(drain, |_, held| changed && held.vdev == Some(vdev) && held.view == old)
    }

    /// Waits for a drain that detaches at once: it must have found the held mappings that `hit`
    /// selects, and marked those and no others.
    fn drained(&mut self, drain: Drain, hit: impl Fn(&Model, &Held) -> bool) -> Checked {
        let drained = drain.wait();
        let (gone, kept): (Vec<Held>, Vec<Held>) =
            self.held.drain(..).partition(|held| hit(&self.model, held));
        self.held = kept;
        prop_assert_eq!((drained.holders, drained.detached), (gone.len(), gone.len()));
        self.seen.drained += gone.len() as u32;
        for (held, revoked) in
            gone.iter().map(|held| (held, true)).chain(self.held.iter().map(|held| (held, false)))
        {
            prop_assert_eq!(held.handle.is_revoked(), revoked);
            check_memory(&held.handle, &held.extents)?;
        }
        Ok(())
    }

    fn map(
        &mut self,
        vdev: usize,
        how: How,
        (addr, len): (u64, u64),
        flags: MapFlags,
        hold: bool,
    ) -> Checked {
        let view = self.model.view(vdev, how);
        let want = self.wanted(view, how, (addr, len), flags);
        let (device, start) = (&self.vdevs[vdev], DeviceAddr(addr));
        let one = |mapping: gasp::HostMapping| Handle::One(mapping.into_mapping());
        let got = match how {
            How::Map => device.map(start, len, flags).map(Handle::One),
            How::HostContig => device.map_host_contig(start, len, flags).map(one),
            How::Truncated => device.map_host_contig_truncated(start, len, flags).map(one),
            How::Scatter => device.map_scatter(start, len, flags).map(Handle::Many),
            How::Firmware => self.guest.map_firmware(GuestPhys(addr), len, flags).map(Handle::One),
            How::Stitched => match (device.map_stitched(start, len, flags), &want) {
                (Ok(stitched), Ok(extents)) => {
                    check_bytes(stitched.as_ptr(), extents)?;
                    return Ok(());
                }
                (got, want) => {
                    let got = got.map(|_| vec![]).map_err(|error| error.reason());
                    let want = want.clone().map_err(|reason| self.as_asked(vdev, reason));
                    prop_assert_eq!(&got, &want);
                    return self.check_faults(vdev, how, flags, got.err());
                }
            },
        };
        match (got, want) {
            (Ok(handle), Ok(extents)) => {
                self.seen.mapped += 1;
                self.seen.shortened += u32::from(extents.iter().map(|e| e.2).sum::<u64>() < len);
                self.seen.pieces += u32::from(extents.len() > 1);
                check_memory(&handle, &extents)?;
                if let (Handle::One(mapping), How::HostContig | How::Truncated) = (&handle, how) {
                    let run = mapping.host_run().unwrap();
                    let (object, offset, len) = extents[0];
                    prop_assert_eq!(Some(run.addr.0), BASES[object].map(|base| base + offset));
                    prop_assert_eq!(run.len, len);
                }
                let last = addr + extents.iter().map(|extent| extent.2).sum::<u64>() - 1;
                let vdev = (how != How::Firmware).then_some(vdev);
                if hold {
                    self.held.push(Held { handle, vdev, view, first: addr, last, extents });
                }
                prop_assert_eq!(self.guest.take_faults().records, []);
                Ok(())
            }
            (got, want) => {
                let got = got.map(|_| vec![]).map_err(|error| error.reason());
                let want = want.map_err(|reason| match (reason, got.as_ref().err()) {
                    // The model does not know the engine's text.
                    (Reason::HostUnknown(_), Some(&said @ Reason::HostUnknown(_))) => said,
                    (reason, Some(_)) => self.as_asked(vdev, reason),
                    (reason, _) => reason,
                });
                prop_assert_eq!(&got, &want, "{:?} {:#x} {:#x}", how, addr, len);
                self.check_faults(vdev, how, flags, got.err())
            }
        }
    }

    /// The reason that the device's domain has for what the model refuses.
    fn as_asked(&self, vdev: usize, reason: Reason) -> Reason {
        let asks = self.model.attached[vdev].is_some_and(|domain| self.domains[domain].1.is_some());
        match reason {
            Reason::Refused { addr, refusal: Refusal::NotGranted } if asks => {
                Reason::Refused { addr, refusal: Refusal::Translator { reason: ABSENT } }
            }
            reason => reason,
        }
    }

    /// The model's result of a map: the memory, or the reason why not.
    fn wanted(
        &self,
        view: View,
        how: How,
        (addr, len): (u64, u64),
        flags: MapFlags,
    ) -> Result<Vec<Extent>, Reason> {
        let extents = match how {
            How::Truncated => vec![self.model.truncated(view, addr, len, flags)?],
            _ => self.model.look_up(view, addr, len, flags)?,
        };
        match how {
            How::Map | How::Firmware if extents.len() > 1 => {
                Err(Reason::NotConsecutive { prefix: extents[0].2 })
            }
            How::HostContig | How::Truncated => match BASES[extents[0].0] {
                Some(_) => Ok(vec![extents[0]]),
                None => Err(Reason::HostUnknown("")),
            },
            _ => Ok(extents),
        }
    }

    /// Expects one fault record if the IOMMU refused, and none otherwise.
    fn check_faults(
        &mut self,
        vdev: usize,
        how: How,
        flags: MapFlags,
        reason: Option<Reason>,
    ) -> Checked {
        let faults = self.guest.take_faults().records;
        let Some(reason) = reason else { return Ok(()) };
        self.seen.refused(reason);
        match reason {
            Reason::Refused { addr: at, refusal } if how != How::Firmware => {
                prop_assert_eq!(faults.len(), 1);
                prop_assert_eq!(&*faults[0].device, format!("v{vdev}"));
                let fault = (faults[0].addr, faults[0].access, faults[0].refusal);
                prop_assert_eq!(fault, (at, flags.access(), refusal));
            }
            _ => prop_assert_eq!(faults, []),
        }
        Ok(())
    }

    /// Compares regions and grants with the model.
    fn agree(&self) -> Checked {
        let mut pages: Vec<Option<Page>> = vec![None; PAGES];
        for region in self.guest.space().regions() {
            let first = (region.span().start().0 / PAGE) as usize;
            for index in 0..(region.span().len() / PAGE) as usize {
                let memory = region.object().map(|memory| {
                    let object = self.objects.0.iter().position(|object| object.same(memory));
                    (object.unwrap(), (region.object_offset() / PAGE) as usize + index)
                });
                let (kind, access) = (region.kind(), region.access());
                pages[first + index] = Some(Page { kind, access, memory });
            }
        }
        prop_assert!(pages == self.model.pages, "regions differ");
        for (index, (domain, tables)) in self.domains.iter().enumerate() {
            match tables {
                None => prop_assert_eq!(domain.grants(), self.model.grants(index)),
                // It has a part of them, and never anything else.
                Some(_) => {
                    domain.grants().iter().try_for_each(|grant| self.is_granted(index, grant))?
                }
            }
        }
        Ok(())
    }
}

impl Pair<'_> {
    /// Checks that the model has a translation that a domain has been answered.
    fn is_granted(&self, domain: usize, grant: &gasp::Grant) -> Checked {
        let first = (grant.device.start().0 / PAGE) as usize;
        for index in 0..(grant.device.len() / PAGE) as usize {
            let to = (grant.guest.0 / PAGE) as usize + index;
            let had = self.model.grants[domain][first + index];
            let is_granted =
                had.is_some_and(|(there, access)| there == to && access.contains(grant.access));
            prop_assert!(is_granted, "{grant:?} for {had:?}");
        }
        Ok(())
    }
}

/// Whether a change of the guest pages `pages` affects a mapping.
fn touches(model: &Model, held: &Held, pages: Pages) -> bool {
    let inside = |page: usize| (pages.first..pages.first + pages.count).contains(&page);
    let mut pages = (held.first / PAGE) as usize..=(held.last / PAGE) as usize;
    match held.view {
        View::Flat => pages.any(inside),
        View::Refusing(_) => false,
        View::Grants(domain) => {
            pages.any(|page| model.grants[domain][page].is_some_and(|(to, _)| inside(to)))
        }
    }
}

/// Compares the memory behind the pointers with the model's pieces.
fn check_memory(handle: &Handle, extents: &[Extent]) -> Checked {
    match handle {
        Handle::One(mapping) => {
            prop_assert_eq!(extents.len(), 1);
            prop_assert_eq!(mapping.len() as u64, extents[0].2);
            prop_assert_eq!(mapping.object_offset(), extents[0].1);
            check_bytes(mapping.as_ptr(), extents)
        }
        Handle::Many(scatter) => {
            let lens: Vec<u64> = scatter.pieces().map(|piece| piece.len() as u64).collect();
            prop_assert_eq!(lens, extents.iter().map(|extent| extent.2).collect::<Vec<_>>());
            for (piece, extent) in scatter.pieces().zip(extents) {
                check_bytes(piece.as_ptr(), &[*extent])?;
            }
            Ok(())
        }
    }
}
