//! The mappings of the calling thread that a change would wait for (decision 22).

use core::ops::ControlFlow;

use super::domain::Domain;
use super::inner::Inner;
use super::space::AddressSpace;
use super::space_lock::SpaceLock;
use crate::addr::{DeviceAddr, GuestPhys};
use crate::guest::domain::guest_address;
use crate::iommu::{DomainInner, DomainKind, in_chunks};
use crate::mapping::own;
use crate::protocol::Use;
use crate::span::Span;

impl AddressSpace<'_> {
    /// The number of mappings that this thread has created, that are still held, and that reach
    /// guest memory in `span` through any domain. The [`Drain`](crate::Drain) of a change that
    /// reduces access to `span` waits for them; waited for on this thread, it ends only if
    /// another thread unmaps them (decision 22).
    pub fn held_by_this_thread(&self, span: Span<GuestPhys>) -> usize {
        self.inner().held_by_this_thread(span)
    }
}

impl SpaceLock {
    /// As [`AddressSpace::held_by_this_thread`].
    pub fn held_by_this_thread(&self, span: Span<GuestPhys>) -> usize {
        self.inner().held_by_this_thread(span)
    }
}

impl Domain {
    /// The number of mappings that this thread has created through the domain, that are still held,
    /// and that overlap `span`, rounded outward to 4 KiB. The drain of a
    /// [`revoke`](Self::revoke) of `span` waits for them (decision 22).
    pub fn held_by_this_thread(&self, span: Span<DeviceAddr>) -> usize {
        let span = span.rounded_out();
        let inside = |found: &Use| span.is_none_or(|span| found.overlaps(span));
        let view = self.inner.view.id();
        own().filter(|found| found.view == view && inside(found)).count()
    }
}

impl Inner {
    fn held_by_this_thread(&self, span: Span<GuestPhys>) -> usize {
        let own: Vec<Use> = own().collect();
        if own.is_empty() {
            return 0;
        }
        let same = |span: Span<GuestPhys>| {
            Span::inclusive(DeviceAddr::identity(span.start()), DeviceAddr::identity(span.last()))
        };
        let overlaps = |found: &Use| same(span).is_some_and(|span| found.overlaps(span));
        let domains: Vec<_> =
            self.lock_domains().iter().filter(|d| d.has_table()).cloned().collect();
        let reaches = |found: &Use| {
            if found.view == self.flat.id() {
                return overlaps(found);
            }
            match domains.iter().find(|domain| domain.view.id() == found.view) {
                Some(domain) if domain.kind != DomainKind::Identity => {
                    self.leads_into(domain, found, span)
                }
                Some(_) => overlaps(found),
                None => false,
            }
        };
        own.iter().filter(|found| reaches(found)).count()
    }

    /// Whether the domain translates part of a mapping's addresses into `span`.
    fn leads_into(&self, domain: &DomainInner, found: &Use, span: Span<GuestPhys>) -> bool {
        let (view, memory) = (&domain.view, self.memory());
        let Some(mapped) = Span::inclusive(DeviceAddr(found.first), DeviceAddr(found.last)) else {
            return false;
        };
        in_chunks(view, memory, mapped, |_, writer, rest| {
            view.table.visit(&mut writer.work, rest, |whole, leaf| {
                let Some(part) = whole.intersection(&rest) else {
                    return ControlFlow::Continue(());
                };
                let within = part.start().0 - whole.start().0;
                let to = guest_address(self, leaf).checked_add(within);
                match to.and_then(|to| Span::new(to, part.len()).ok()) {
                    Some(to) if to.overlaps(&span) => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })
        })
        .is_break()
    }
}
