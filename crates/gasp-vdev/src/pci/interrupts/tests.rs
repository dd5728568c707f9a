//! Delivery, masks and eventfds of interrupts.

use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};

use super::super::eventfd::is_counting;
use super::super::model::tests::IDENTITY;
use super::super::{Bar, Msix};
use super::*;
use crate::error::IrqError;

fn interrupts() -> Interrupts {
    let msix = Msix { vectors: 70, bar: 0, table: 0, pending: 0x800 };
    let model = Model::new(IDENTITY).bar(Bar::memory(0, 4096)).pin().msi(4).msix(msix);
    model.check().unwrap();
    let irqs = Interrupts::new(&model);
    irqs.set_master(true);
    irqs
}

fn event() -> (OwnedFd, OwnedFd) {
    let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    (event.try_clone().unwrap(), event)
}

fn count(event: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::read(event, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
}

#[test]
fn a_message_goes_to_its_vector_and_the_pin_is_used_only_without_messages() {
    let irqs = interrupts();
    let (given, pin) = event();
    irqs.assign(IrqKind::Pin, 0, vec![Some(given)]).unwrap();
    irqs.signal(3);
    assert_eq!(count(&pin), 1);
    let (given, third) = event();
    irqs.assign(IrqKind::Msix, 3, vec![Some(given)]).unwrap();
    irqs.signal(3);
    assert_eq!((count(&pin), count(&third)), (0, 1));
}

#[test]
fn the_pin_masks_itself_and_comes_again_while_it_is_up() {
    let irqs = interrupts();
    let (given, pin) = event();
    irqs.assign(IrqKind::Pin, 0, vec![Some(given)]).unwrap();
    irqs.signal(0);
    irqs.signal(0);
    assert_eq!(count(&pin), 1, "masked after the first");
    irqs.unmask_pin();
    assert_eq!(count(&pin), 1, "still up");
    irqs.lower();
    irqs.unmask_pin();
    assert_eq!(count(&pin), 0, "down");
}

#[test]
fn a_masked_vector_is_pending_and_delivered_once_when_the_last_mask_goes() {
    let irqs = interrupts();
    let (given, event) = event();
    irqs.assign(IrqKind::Msix, 66, vec![Some(given)]).unwrap();
    irqs.set_table_mask(66, true);
    irqs.set_function_mask(true);
    irqs.set_masked(IrqKind::Msix, 66, &[true], true).unwrap();
    irqs.signal(66);
    irqs.signal(66);
    assert_eq!(irqs.pending(1), 1 << 2);
    irqs.set_table_mask(66, false);
    irqs.set_function_mask(false);
    assert_eq!(count(&event), 0);
    irqs.set_masked(IrqKind::Msix, 66, &[true], false).unwrap();
    assert_eq!((count(&event), irqs.pending(1)), (1, 0));
}

#[test]
fn messages_are_pending_while_the_device_may_not_write_memory_and_the_pin_is_not() {
    for kind in [IrqKind::Msix, IrqKind::Msi] {
        let irqs = interrupts();
        let (given, event) = event();
        irqs.assign(kind, 0, vec![Some(given)]).unwrap();
        irqs.set_master(false);
        irqs.signal(0);
        irqs.signal(0);
        irqs.set_masked(kind, 0, &[true], true).unwrap();
        irqs.set_masked(kind, 0, &[true], false).unwrap();
        irqs.set_function_mask(true);
        irqs.set_function_mask(false);
        assert_eq!(count(&event), 0, "{kind:?}");
        assert_eq!(irqs.pending(0), u64::from(kind == IrqKind::Msix));
        irqs.set_master(true);
        assert_eq!((count(&event), irqs.pending(0)), (1, 0), "{kind:?}");
        irqs.reset();
        irqs.signal(0);
        assert_eq!(count(&event), 0, "{kind:?}: a reset clears the bus master bit");
    }
    let irqs = interrupts();
    let (given, event) = event();
    irqs.assign(IrqKind::Pin, 0, vec![Some(given)]).unwrap();
    irqs.set_master(false);
    irqs.signal(0);
    assert_eq!(count(&event), 1);
}

#[test]
fn msi_vectors_that_were_not_granted_share_those_that_were() {
    let irqs = interrupts();
    let (given, first) = event();
    irqs.assign(IrqKind::Msi, 0, vec![Some(given)]).unwrap();
    irqs.signal(3);
    assert_eq!(count(&first), 1);
}

#[test]
fn what_nobody_listens_to_is_not_kept() {
    let irqs = interrupts();
    irqs.signal(5);
    irqs.lower();
    let (given, event) = event();
    irqs.assign(IrqKind::Msix, 5, vec![Some(given)]).unwrap();
    assert_eq!(count(&event), 0);
}

#[test]
fn a_descriptor_that_is_no_eventfd_is_refused_and_so_are_too_many() {
    let irqs = interrupts();
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let refused = irqs.assign(IrqKind::Msix, 0, vec![Some(file)]).unwrap_err();
    assert_eq!(refused, IrqError::NotAnEvent(IrqKind::Msix));
    assert!(irqs.assign(IrqKind::Msix, 69, vec![None, None]).is_err());
    assert!(irqs.assign(IrqKind::Msix, u32::MAX, vec![None]).is_err());
    assert!(irqs.trigger(IrqKind::Pin, 1, &[true]).is_err());
}

#[test]
fn a_full_counter_does_not_hold_the_device_up() {
    let irqs = interrupts();
    let full = eventfd(0, EventfdFlags::empty()).unwrap();
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let peer = full.try_clone().unwrap();
    irqs.assign(IrqKind::Msix, 0, vec![Some(full)]).unwrap();
    irqs.signal(0);
    // Not even if its peer makes it block.
    rustix::fs::fcntl_setfl(&peer, rustix::fs::OFlags::empty()).unwrap();
    irqs.signal(0);
    irqs.trigger(IrqKind::Msix, 0, &[true]).unwrap();
    irqs.empty_full_events();
    irqs.signal(0);
    assert_eq!(count(&peer), 1);
    // A thread that waits on it nevertheless is unblocked.
    rustix::io::write(&peer, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let stuck = std::thread::spawn(move || rustix::io::write(&peer, &1_u64.to_ne_bytes()));
    while !stuck.is_finished() {
        irqs.empty_full_events();
    }
    stuck.join().unwrap().unwrap();
}

#[test]
fn an_eventfd_of_ones_own_gets_what_is_pending_and_a_full_one_loses_nothing() {
    let irqs = interrupts();
    let (given, first) = event();
    irqs.connect(IrqKind::Msix, 0, given).unwrap();
    irqs.signal(0);
    irqs.signal(4);
    assert_eq!((count(&first), irqs.pending(0)), (1, 1 << 4), "the kind is in use");
    let (given, later) = event();
    rustix::io::write(&later, &(u64::MAX - 2).to_ne_bytes()).unwrap();
    irqs.connect(IrqKind::Msix, 4, given).unwrap();
    irqs.signal(4);
    assert_eq!((count(&later), irqs.pending(0)), (u64::MAX - 1, 0));
    assert!(irqs.connect(IrqKind::Msix, 70, event().0).is_err());
    irqs.disable(IrqKind::Msix);
    assert_eq!(irqs.assigned(IrqKind::Msix), 0);
}

#[derive(Debug, Default)]
struct Levels(Mutex<Vec<bool>>);

impl PinLine for Levels {
    fn set(&self, raised: bool) {
        self.0.lock().push(raised);
    }
}

#[test]
fn a_line_follows_the_pin_and_hears_of_changes_alone() {
    let irqs = interrupts();
    let line = std::sync::Arc::new(Levels::default());
    let heard = || core::mem::take(&mut *line.0.lock());
    irqs.signal(0);
    irqs.connect_pin(line.clone()).unwrap();
    irqs.signal(1);
    assert_eq!(heard(), [true]);
    irqs.set_pin_disabled(true);
    irqs.lower();
    irqs.signal(0);
    irqs.set_pin_disabled(false);
    assert_eq!(heard(), [false, true]);
    irqs.lower();
    irqs.lower();
    irqs.signal(0);
    irqs.reset();
    irqs.signal(0);
    assert_eq!(heard(), [false, true, false, true]);
    // Messages are used instead.
    let (given, _event) = event();
    irqs.connect(IrqKind::Msix, 0, given).unwrap();
    irqs.disable(IrqKind::Pin);
    assert_eq!(heard(), [false]);
    irqs.lower();
    irqs.signal(0);
    irqs.disable(IrqKind::Msix);
    irqs.connect_pin(line.clone()).unwrap();
    irqs.signal(0);
    irqs.detach_events();
    irqs.signal(0);
    assert_eq!(heard(), [true, false]);
    let none = Interrupts::new(&Model::new(IDENTITY));
    assert!(none.connect_pin(line.clone()).is_err());
}

#[test]
fn an_unmask_event_that_blocks_does_not_hold_the_front_end_up() {
    let irqs = interrupts();
    let (given, pin) = event();
    irqs.assign(IrqKind::Pin, 0, vec![Some(given)]).unwrap();
    let (given, unmask) = event();
    irqs.set_unmask_event(Some(given)).unwrap();
    rustix::fs::fcntl_setfl(&unmask, rustix::fs::OFlags::empty()).unwrap();
    irqs.signal(0);
    irqs.take_unmask_event();
    assert_eq!(count(&pin), 1);
    rustix::io::write(&unmask, &1_u64.to_ne_bytes()).unwrap();
    irqs.take_unmask_event();
    assert_eq!(count(&pin), 1, "still up");
    assert!(!is_counting(&unmask), "read");
}
