//! Bringing a domain's table up to date when the guest's regions change.
#![allow(unsafe_code, reason = "reads segments under the regions' lock")]

use core::ops::ControlFlow;

use super::domain::{DomainInner, DomainKind};
use super::rules::placed;
use crate::addr::{DeviceAddr, GuestPhys};
use crate::mapping::Revocation;
use crate::space::Regions;
use crate::span::Span;
use crate::view::entry::Leaf;
use crate::view::lookup::guest_of;
use crate::view::segment::Segments;
use crate::view::table::Writer;

/// Makes every rule that leads into `changed` lead to what is there now. The ranges whose
/// mappings are affected are added to `revocation`.
///
/// The caller holds the regions' lock for writing and the view's writer; segments that
/// the change makes unused are removed only after this.
pub(crate) fn refresh(
    domain: &DomainInner,
    writer: &mut Writer,
    regions: &Regions,
    segments: &Segments,
    changed: Span<GuestPhys>,
    revocation: Option<&mut Revocation>,
) {
    // Nothing was granted, so nothing changes, and there is nothing to go through.
    if writer.leaves() == 0 {
        return;
    }
    let parts = match domain.kind {
        DomainKind::Bypass | DomainKind::Deny => return,
        DomainKind::Identity => vec![(identity(changed), changed.start())],
        DomainKind::Translate => leading_into(domain, segments, changed),
    };
    let table = &domain.view.table;
    for &(part, guest) in &parts {
        for (piece, behind) in placed(regions, part, guest) {
            table.update(writer, piece, |addr, leaf| {
                let pages = (addr - piece.start().0) / crate::addr::GRANULE;
                Some(Leaf::new(leaf.allowed(), behind).advanced(pages))
            });
        }
    }
    if let Some(revocation) = revocation {
        for (part, _) in parts {
            revocation.range(domain.view.id(), part);
        }
    }
}

fn identity(span: Span<GuestPhys>) -> Span<DeviceAddr> {
    let start = DeviceAddr::identity(span.start());
    Span::inclusive(start, DeviceAddr::identity(span.last()))
        .unwrap_or_else(|| unreachable!("a span of one kind of address is one of the other"))
}

/// The device addresses that lead into `changed`, and where each range leads; found by
/// going through the whole table, which only a change of regions does.
fn leading_into(
    domain: &DomainInner,
    segments: &Segments,
    changed: Span<GuestPhys>,
) -> Vec<(Span<DeviceAddr>, GuestPhys)> {
    let mut parts: Vec<(Span<DeviceAddr>, GuestPhys)> = Vec::new();
    let _: ControlFlow<()> = domain.view.table.visit(domain.addresses(), |part, leaf| {
        // SAFETY: the caller holds the lock under which segments are removed.
        let guest = GuestPhys(unsafe { guest_of(segments, leaf, 0) });
        let Ok(to) = Span::new(guest, part.len()) else { return ControlFlow::Continue(()) };
        let Some(inside) = to.intersection(&changed) else { return ControlFlow::Continue(()) };
        let start = DeviceAddr(part.start().0 + (inside.start().0 - guest.0));
        let Ok(device) = Span::new(start, inside.len()) else { return ControlFlow::Continue(()) };
        // Neighbours that go on where the last one ended are one range.
        match parts.last_mut() {
            Some((last, to))
                if last.last().checked_add(1) == Some(start)
                    && to.checked_add(last.len()) == Some(inside.start()) =>
            {
                *last = Span::inclusive(last.start(), device.last()).unwrap_or(*last);
            }
            _ => parts.push((device, inside.start())),
        }
        ControlFlow::Continue(())
    });
    parts
}
