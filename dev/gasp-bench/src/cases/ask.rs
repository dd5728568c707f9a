//! Domains that ask: hits beside a domain that is told, misses, and invalidations.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gasp::{
    Access, DeviceAddr, Domain, DomainOptions, GRANULE, Guest, GuestPhys, MapFlags, PageTables,
    Translation, TranslationFault, Translator, Vdev,
};
use gasp_page_tables::vtd::{Capabilities, Levels, SecondLevel, Table};

use super::map::{granted, map};
use super::recipe::{Contestant, Recipe, contestant, pair, recipe};
use crate::peers::{Order, Setup, addresses, addresses_of, target};

pub(super) fn recipes() -> Vec<Recipe> {
    let mut all = Vec::new();
    for pages in [1, 1024, 65_536] {
        let order = if pages == 1 { Order::Same } else { Order::Random };
        let name = format!("asks: hit, {}, {order}", granted(pages));
        all.push(recipe(name, move || hit(pages, order)));
    }
    all.push(recipe("asks: miss, an answer at once".into(), || miss(at_once)));
    all.push(recipe("asks: miss, a walk of four levels".into(), || miss(walked)));
    all.push(recipe("asks: miss, a walk of four levels, 2 threads".into(), || {
        two_threads(walked, DomainOptions::LIMIT)
    }));
    let name = "asks: miss, a walk of four levels, a limit of 1024, 2 threads";
    all.push(recipe(name.into(), || two_threads(walked, 1024)));
    let name = "asks: random over 16384 pages, a limit of 1024, a walk of four levels";
    all.push(recipe(name.into(), || evicting(walked)));
    all.push(recipe("asks: miss, 64 pages in one map, a walk of four levels".into(), || {
        run(walked)
    }));
    all.push(recipe("asks: invalidate a page, no holder".into(), invalidate));
    all.push(recipe("asks: invalidate 1024 pages at once, no holder".into(), invalidate_all));
    all
}

/// What a page is translated to, without looking it up anywhere.
struct AtOnce;

impl Translator for AtOnce {
    fn translate(
        &self,
        _: &PageTables<'_>,
        addr: DeviceAddr,
        _: Access,
    ) -> Result<Translation, TranslationFault> {
        let guest = GuestPhys(target(addr.0 / GRANULE));
        Ok(Translation { size: GRANULE, guest, access: Access::RW })
    }
}

type Created = gasp::Result<Arc<dyn Translator>>;

fn at_once(_: &Guest) -> Created {
    Ok(Arc::new(AtOnce))
}

/// The same translations as page tables of VT-d in the guest's memory.
fn walked(guest: &Guest) -> Created {
    const ROOT: u64 = 1 << 20;
    let set = |table: u64, index: u64, to: u64| {
        guest.write_firmware(GuestPhys(table + index * 8), &(to | 3).to_le_bytes())
    };
    // One table of each of the upper levels, and of the last as many as it takes.
    let (third, second, first) = (ROOT + 0x1000, ROOT + 0x2000, ROOT + 0x3000);
    set(ROOT, 0, third)?;
    set(third, 0, second)?;
    for page in 0..2 * MISSES as u64 {
        let table = first + page / 512 * GRANULE;
        set(second, page / 512, table)?;
        set(table, page % 512, target(page))?;
    }
    let table = Table { root: GuestPhys(ROOT), levels: Levels::Four };
    Ok(Arc::new(SecondLevel::new(Capabilities::new(48), table)))
}

/// A domain that asks, of the guest of `setup`, and a device in it.
fn asking(
    setup: &Setup,
    translator: fn(&Guest) -> Created,
    limit: u64,
) -> gasp::Result<(Domain, Vdev)> {
    let guest = setup.vdev.guest();
    let options = DomainOptions { limit, ..DomainOptions::ask(translator(&guest)?) };
    let name = format!("asks {}", guest.domains().len());
    let domain = guest.domain(&name, options)?;
    let vdev = guest.vdev(&name)?;
    vdev.attach(&domain)?.wait();
    Ok((domain, vdev))
}

fn hit(pages: u64, order: Order) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(pages)?;
    let (_, asks) = asking(&setup, at_once, DomainOptions::LIMIT)?;
    (0..pages).for_each(|page| map(&asks, page * GRANULE));
    let a = addresses(pages, order);
    let b = a.clone();
    let told = setup.vdev;
    Ok(vec![
        contestant("gasp", move |i| map(&asks, a.at(i))),
        contestant("gasp, a domain that is told", move |i| map(&told, b.at(i))),
    ])
}

/// The pages that are missed before all of them are invalidated, which counts as well.
const MISSES: usize = 1 << 14;

fn miss(translator: fn(&Guest) -> Created) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(0)?;
    let (domain, vdev) = asking(&setup, translator, DomainOptions::LIMIT)?;
    Ok(vec![contestant("gasp", move |i| {
        map(&vdev, (i % MISSES) as u64 * GRANULE);
        if i % MISSES == MISSES - 1 {
            black_box(domain.invalidate_all().map(gasp::Drain::wait).is_ok());
        }
    })])
}

/// Two threads that walk pages of their own, each from where it was; and one that walks alone.
fn two_threads(translator: fn(&Guest) -> Created, limit: u64) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(0)?;
    let (domain, vdev) = asking(&setup, translator, limit)?;
    let (other, alone) = asking(&setup, translator, limit)?;
    let places = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
    let walk = move |thread: usize, places: &[Arc<AtomicUsize>; 2]| {
        let place = Arc::clone(&places[thread]);
        Walk { first: thread * MISSES, next: place.load(Ordering::Relaxed), place, limit }
    };
    let mut single = walk(0, &[0, 1].map(|_| Arc::default()));
    Ok(vec![
        pair("gasp", move |thread| {
            let (domain, vdev, mut walk) = (domain.clone(), vdev.clone(), walk(thread, &places));
            move |_| walk.step(&domain, &vdev)
        }),
        contestant("gasp, 1 thread", move |_| single.step(&other, &alone)),
    ])
}

/// A walk over [`MISSES`] pages, again and again, that misses each time.
struct Walk {
    first: usize,
    next: usize,
    /// Where the next walk begins.
    place: Arc<AtomicUsize>,
    limit: u64,
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.place.store(self.next, Ordering::Relaxed);
    }
}

impl Walk {
    fn step(&mut self, domain: &Domain, vdev: &Vdev) {
        map(vdev, (self.first + self.next) as u64 * GRANULE);
        self.next = (self.next + 1) % MISSES;
        // A table with a smaller limit has evicted them.
        if self.next == 0 && self.limit > MISSES as u64 {
            let first = DeviceAddr(self.first as u64 * GRANULE);
            let drain = domain.invalidate(first, MISSES as u64 * GRANULE);
            black_box(drain.map(gasp::Drain::wait).is_ok());
        }
    }
}

fn evicting(translator: fn(&Guest) -> Created) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(0)?;
    let (_, vdev) = asking(&setup, translator, 1024)?;
    let a = addresses_of(0, 16_384, Order::Random);
    Ok(vec![contestant("gasp", move |i| map(&vdev, a.at(i)))])
}

fn run(translator: fn(&Guest) -> Created) -> gasp::Result<Vec<Contestant>> {
    const LEN: u64 = 64 * GRANULE;
    let setup = Setup::with_grants(0)?;
    let (_, vdev) = asking(&setup, translator, 1024)?;
    let map = move |i: usize| {
        let at = DeviceAddr((i * 64 % MISSES) as u64 * GRANULE);
        black_box(vdev.map_scatter(at, LEN, MapFlags::RW).is_ok());
    };
    Ok(vec![contestant("gasp", map)])
}

fn invalidate() -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(0)?;
    let (domain, vdev) = asking(&setup, at_once, DomainOptions::LIMIT)?;
    let work = move |count: u32| {
        let mut spent = Duration::ZERO;
        let mut rest = u64::from(count);
        while rest > 0 {
            let some = rest.min(MISSES as u64);
            (0..some).for_each(|page| map(&vdev, page * GRANULE));
            let start = Instant::now();
            for page in 0..some {
                let drain = domain.invalidate(DeviceAddr(page * GRANULE), GRANULE);
                black_box(drain.map(gasp::Drain::wait).is_ok());
            }
            spent += start.elapsed();
            rest -= some;
        }
        spent
    };
    Ok(vec![Contestant { name: "gasp", work: Box::new(work) }])
}

fn invalidate_all() -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(0)?;
    let (domain, vdev) = asking(&setup, at_once, DomainOptions::LIMIT)?;
    let work = move |count: u32| {
        let mut spent = Duration::ZERO;
        for _ in 0..count {
            (0..1024).for_each(|page| map(&vdev, page * GRANULE));
            let start = Instant::now();
            black_box(domain.invalidate_all().map(gasp::Drain::wait).is_ok());
            spent += start.elapsed();
        }
        spent
    };
    Ok(vec![Contestant { name: "gasp", work: Box::new(work) }])
}
