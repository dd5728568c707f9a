//! Maps of several pages, whose translator answers about those that follow.

use std::sync::Arc;

use gasp::{Access, DeviceAddr, Domain, Following, MapFlags, PageTables, Span, Translator, Vdev};
use parking_lot::Mutex;

use super::*;

/// Answers with the same addresses, about as many pages as are asked for, and with `extra` more;
/// keeps what it was asked.
struct Runs {
    size: u64,
    extra: usize,
    asked: Mutex<Vec<(u64, u64)>>,
    /// The page that is not allowed, and the one that leads nowhere.
    refused: u64,
    bad: u64,
    /// What is invalidated while the translator answers, and how many pages further the pages that
    /// follow lead until then.
    domain: Mutex<Option<(Domain, u64)>>,
    older: u64,
}

impl Translator for Runs {
    fn translate(&self, _: &PageTables<'_>, addr: DeviceAddr, _: Access) -> Answer {
        self.asked.lock().push((addr.0 / PAGE, 1));
        match addr.0 / PAGE == self.refused {
            true => refused(1),
            false => page(self.size, addr.0 & !(self.size - 1), Access::RW),
        }
    }

    fn translate_run(
        &self,
        memory: &PageTables<'_>,
        run: Span<DeviceAddr>,
        access: Access,
        following: &mut Following,
    ) -> Answer {
        let answer = self.translate(memory, run.start(), access)?;
        let pages = run.len() / PAGE;
        *self.asked.lock().last_mut().unwrap() = (run.start().0 / PAGE, pages);
        let older = if self.domain.lock().is_some() { self.older } else { 0 };
        for next in 1..pages + self.extra as u64 {
            let page = run.start().0 / PAGE + next;
            let guest = if page == self.bad { (1 << 40) + 123 } else { (page + older) * PAGE };
            let access = if page == self.refused { Access::WRITE } else { Access::RW };
            following.push(gasp::GuestPhys(guest), access);
        }
        if let Some((domain, page)) = self.domain.lock().take() {
            drop(domain.invalidate(DeviceAddr(page * PAGE), 1).unwrap());
        }
        Ok(answer)
    }
}

fn runs() -> Runs {
    let (asked, domain) = Default::default();
    Runs { size: PAGE, extra: 0, asked, refused: u64::MAX, bad: u64::MAX, domain, older: 0 }
}

fn scene(runs: Runs, limit: u64) -> (gasp::Guest, Domain, Vdev, Arc<Runs>) {
    let (guest, _ram) = iommu_guest(64 * PAGE);
    let runs = Arc::new(runs);
    let options = DomainOptions { limit, ..DomainOptions::ask(Arc::clone(&runs) as _) };
    let domain = guest.domain("domain", options).unwrap();
    let disk = guest.vdev("disk").unwrap();
    drop(disk.attach(&domain).unwrap());
    (guest, domain, disk, runs)
}

fn map(disk: &Vdev, page: u64, pages: u64) -> gasp::Result<()> {
    let (at, len) = (DeviceAddr(page * PAGE + 8), pages * PAGE - 16);
    let mapping = disk.map(at, len, MapFlags::READ)?;
    assert_eq!(mapping.object_offset(), page * PAGE + 8);
    Ok(())
}

fn asked(runs: &Runs) -> Vec<(u64, u64)> {
    core::mem::take(&mut runs.asked.lock())
}

#[test]
fn eight_pages_are_one_question_and_no_page_past_the_map_is() {
    let (_guest, domain, disk, runs) = scene(runs(), 1000);
    map(&disk, 0, 21).unwrap();
    assert_eq!(asked(&runs), [(0, 8), (8, 8), (16, 5)]);
    assert_eq!(domain.entries(), 21);
    map(&disk, 0, 21).unwrap();
    map(&disk, 30, 1).unwrap();
    assert_eq!(asked(&runs), [(30, 1)]);
    // What is known already is not asked for again.
    map(&disk, 25, 8).unwrap();
    assert_eq!(asked(&runs), [(25, 8), (31, 2)]);
}

#[test]
fn more_than_was_asked_for_is_not_kept() {
    let (_guest, domain, disk, _) = scene(Runs { extra: 20, ..runs() }, 1000);
    map(&disk, 0, 2).unwrap();
    assert_eq!(domain.entries(), 8, "seven that follow, at most");
}

#[test]
fn what_follows_is_kept_as_far_as_it_is_in_order() {
    for (refused, bad) in [(5, u64::MAX), (u64::MAX, 5)] {
        let (_guest, domain, disk, runs) = scene(Runs { refused, bad, ..runs() }, 1000);
        let mapped = map(&disk, 2, 6);
        assert_eq!(mapped.is_err(), refused == 5, "it is asked about, and then it matters");
        let again = if refused == 5 { (5, 1) } else { (5, 3) };
        assert_eq!(asked(&runs), [(2, 6), again]);
        let kept = if refused == 5 { 3 } else { 6 };
        assert_eq!(domain.entries(), kept);
    }
}

#[test]
fn what_was_invalidated_meanwhile_does_not_follow() {
    let (_guest, domain, disk, runs) = scene(runs(), 1000);
    *runs.domain.lock() = Some((domain.clone(), 3));
    map(&disk, 0, 6).unwrap();
    assert_eq!(asked(&runs), [(0, 6), (3, 3)]);
}

#[test]
fn what_follows_a_void_answer_is_void_as_well() {
    let (_guest, domain, disk, runs) = scene(Runs { older: 10, ..runs() }, 1000);
    *runs.domain.lock() = Some((domain.clone(), 0));
    map(&disk, 0, 6).unwrap();
    assert_eq!(asked(&runs), [(0, 6), (0, 6)]);
}

#[test]
fn nothing_follows_a_large_page_or_a_full_table() {
    let (_guest, domain, disk, runs_) = scene(Runs { size: 4 * PAGE, ..runs() }, 1000);
    map(&disk, 0, 8).unwrap();
    assert_eq!((asked(&runs_).len(), domain.entries()), (8, 8), "each is asked about");
    let (_guest, domain, disk, runs_) = scene(runs(), 4);
    map(&disk, 0, 4).unwrap();
    map(&disk, 20, 4).unwrap();
    assert_eq!(asked(&runs_), [(0, 4), (20, 4), (21, 3), (22, 2), (23, 1)]);
    assert_eq!(errno(map(&disk, 40, 5)), "ENOSPC");
    assert!(domain.entries() <= 4);
}
