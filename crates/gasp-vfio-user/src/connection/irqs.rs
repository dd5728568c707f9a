//! The commands about interrupts: their information, and DEVICE_SET_IRQS.

use gasp::Errno;
use gasp_vdev::{Interrupts, IrqError, IrqKind};
use vfio_bindings::bindings::vfio;

use super::device::check_info;
use super::state::Connection;
use crate::socket::Received;
use crate::wire::{Fields, IrqInfo, IrqSet, Refused, Reply};

const DATA_NONE: u32 = vfio::VFIO_IRQ_SET_DATA_NONE;
const DATA_BOOL: u32 = vfio::VFIO_IRQ_SET_DATA_BOOL;
const DATA_EVENTFD: u32 = vfio::VFIO_IRQ_SET_DATA_EVENTFD;
const DATA: u32 = DATA_NONE | DATA_BOOL | DATA_EVENTFD;
const MASK: u32 = vfio::VFIO_IRQ_SET_ACTION_MASK;
const UNMASK: u32 = vfio::VFIO_IRQ_SET_ACTION_UNMASK;
const TRIGGER: u32 = vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
const ACTION: u32 = MASK | UNMASK | TRIGGER;

impl From<IrqError> for Refused {
    fn from(error: IrqError) -> Self {
        Self::new(error.errno(), error.to_string())
    }
}

impl Connection<'_> {
    pub(super) fn irq_info(&self, payload: &[u8]) -> Result<Reply, Refused> {
        let argsz = size_of::<IrqInfo>() as u32;
        let (_, index) = check_info(payload, argsz)?;
        let kind = kind_of(index)?;
        let flags = vfio::VFIO_IRQ_INFO_EVENTFD
            | match kind {
                IrqKind::Pin => vfio::VFIO_IRQ_INFO_MASKABLE | vfio::VFIO_IRQ_INFO_AUTOMASKED,
                IrqKind::Msi | IrqKind::Msix => vfio::VFIO_IRQ_INFO_MASKABLE,
                IrqKind::Error | IrqKind::Request => 0,
            };
        let count = self.service.shell.interrupts().count(kind);
        Ok(Reply::new().put(&IrqInfo { argsz, flags, index, count }))
    }

    pub(super) fn set_irqs(&self, payload: &[u8], fds: Received) -> Result<Reply, Refused> {
        let mut fields = Fields::new(payload);
        let set = IrqSet::decode(&mut fields)?;
        let IrqSet { flags, index, start, count, .. } = set;
        let (data, action) = (flags & DATA, flags & ACTION);
        if flags & !(DATA | ACTION) != 0 || !data.is_power_of_two() || !action.is_power_of_two() {
            let what = format!("flags {flags:#x}: expected one kind of data and one action");
            return Err(Refused::invalid(what));
        }
        if data != DATA_EVENTFD && !fds.is_empty() {
            return Err(Refused::invalid("unexpected descriptors"));
        }
        if data != DATA_BOOL {
            fields.end()?;
        }
        let kind = kind_of(index)?;
        let irqs = self.service.shell.interrupts();
        let have = irqs.count(kind);
        if start.checked_add(count).is_none_or(|end| end > have) {
            return Err(IrqError::OutOfRange { kind, start, count, have }.into());
        }
        if count == 0 {
            // This disables all interrupts of the kind.
            if (data, action, start) != (DATA_NONE, TRIGGER, 0) {
                return Err(Refused::invalid("the range of interrupts is empty"));
            }
            irqs.disable(kind);
            return Ok(Reply::new());
        }
        if data == DATA_EVENTFD {
            return self.set_events(kind, action, start, count, fds);
        }
        let chosen: Vec<bool> = match data {
            DATA_BOOL => fields.rest().iter().map(|byte| *byte != 0).collect(),
            _ => vec![true; count as usize],
        };
        if chosen.len() != count as usize {
            let what = format!("{} bytes for {count} interrupts", chosen.len());
            return Err(Refused::invalid(what));
        }
        match action {
            TRIGGER => irqs.trigger(kind, start, &chosen)?,
            _ if matches!(kind, IrqKind::Error | IrqKind::Request) => {
                let what = "it cannot be masked";
                return Err(IrqError::Unsupported { kind, what }.into());
            }
            action => irqs.set_masked(kind, start, &chosen, action == MASK)?,
        }
        Ok(Reply::new())
    }

    /// Assigns eventfds to interrupts (or, for the unmask action of INTx, to its
    /// unmasking); without descriptors, removes those that are assigned.
    fn set_events(
        &self,
        kind: IrqKind,
        action: u32,
        start: u32,
        count: u32,
        mut fds: Received,
    ) -> Result<Reply, Refused> {
        let irqs = self.service.shell.interrupts();
        if !fds.is_empty() && fds.len() != count as usize {
            let what = format!("{} descriptors for {count} interrupts", fds.len());
            return Err(Refused::invalid(what));
        }
        let in_use = self.space.descriptors().saturating_add(eventfds(irqs));
        let replaced = match action {
            TRIGGER => (start..start.saturating_add(count))
                .filter(|vector| irqs.is_assigned(kind, *vector))
                .count(),
            _ => usize::from(irqs.unmask_event().is_some()),
        };
        let then = in_use.saturating_sub(replaced).saturating_add(fds.len());
        if then > self.service.options.max_descriptors as usize && !fds.is_empty() {
            let what = format!("{in_use} descriptors of this client are already held");
            return Err(Refused::new(Errno::MFILE, what));
        }
        match (action, kind) {
            (TRIGGER, _) => {
                let mut events: Vec<_> = fds.remove_all().into_iter().map(Some).collect();
                events.resize_with(count as usize, || None);
                irqs.assign(kind, start, events)?;
            }
            (UNMASK, IrqKind::Pin) => irqs.set_unmask_event(fds.pop())?,
            _ => {
                let what = "masks are not signalled by eventfds";
                return Err(Refused::new(Errno::OPNOTSUPP, format!("{kind}: {what}")));
            }
        }
        Ok(Reply::new())
    }
}

/// Number of the client's eventfds that the interrupts hold.
pub(super) fn eventfds(irqs: &Interrupts) -> usize {
    let kinds = [IrqKind::Pin, IrqKind::Msi, IrqKind::Msix, IrqKind::Error, IrqKind::Request];
    let assigned = kinds.into_iter().map(|kind| irqs.assigned(kind)).sum::<usize>();
    assigned + usize::from(irqs.unmask_event().is_some())
}

fn kind_of(index: u32) -> Result<IrqKind, Refused> {
    Ok(match index {
        vfio::VFIO_PCI_INTX_IRQ_INDEX => IrqKind::Pin,
        vfio::VFIO_PCI_MSI_IRQ_INDEX => IrqKind::Msi,
        vfio::VFIO_PCI_MSIX_IRQ_INDEX => IrqKind::Msix,
        vfio::VFIO_PCI_ERR_IRQ_INDEX => IrqKind::Error,
        vfio::VFIO_PCI_REQ_IRQ_INDEX => IrqKind::Request,
        _ => return Err(Refused::invalid(format!("there are no interrupts of index {index}"))),
    })
}
