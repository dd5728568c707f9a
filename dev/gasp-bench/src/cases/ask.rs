//! Domains that ask: hits beside a domain that is told, misses, and invalidations.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gasp::{
    Access, DeviceAddr, Domain, DomainOptions, GRANULE, GuestPhys, Translation, TranslationFault,
    Translator, Vdev,
};

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
    all.push(recipe("asks: miss, an answer at once".into(), || miss(AtOnce)));
    all.push(recipe("asks: miss, an answer at once, 2 threads".into(), || two_threads(AtOnce)));
    let name = "asks: random over 16384 pages, a limit of 1024, an answer at once";
    all.push(recipe(name.into(), || evicting(AtOnce)));
    all.push(recipe("asks: invalidate a page, no holder".into(), invalidate));
    all
}

/// What a page is translated to, without looking it up anywhere.
struct AtOnce;

impl Translator for AtOnce {
    fn translate(&self, addr: DeviceAddr, _: Access) -> Result<Translation, TranslationFault> {
        let guest = GuestPhys(target(addr.0 / GRANULE));
        Ok(Translation { size: GRANULE, guest, access: Access::RW })
    }
}

/// A domain that asks, of the guest of `setup`, and a device in it.
fn asking(
    setup: &Setup,
    translator: impl Translator + 'static,
    limit: u64,
) -> gasp::Result<(Domain, Vdev)> {
    let guest = setup.vdev.guest();
    let options = DomainOptions { limit, ..DomainOptions::ask(Arc::new(translator)) };
    let domain = guest.domain("asks", options)?;
    let vdev = guest.vdev("asks")?;
    vdev.attach(&domain)?.wait();
    Ok((domain, vdev))
}

fn hit(pages: u64, order: Order) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(pages)?;
    let (_, asks) = asking(&setup, AtOnce, DomainOptions::LIMIT)?;
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

fn miss(translator: impl Translator + 'static) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(0)?;
    let (domain, vdev) = asking(&setup, translator, DomainOptions::LIMIT)?;
    Ok(vec![contestant("gasp", move |i| {
        map(&vdev, (i % MISSES) as u64 * GRANULE);
        if i % MISSES == MISSES - 1 {
            black_box(domain.invalidate_all().map(gasp::Drain::wait).is_ok());
        }
    })])
}

fn two_threads(translator: impl Translator + 'static) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(0)?;
    let (_, vdev) = asking(&setup, translator, 1024)?;
    Ok(vec![pair("gasp", move |thread| {
        let vdev = vdev.clone();
        // Each walks pages of its own, and evicts what it has walked.
        let first = thread as u64 % 2 * (MISSES as u64) * GRANULE;
        move |i| map(&vdev, first + (i % MISSES) as u64 * GRANULE)
    })])
}

fn evicting(translator: impl Translator + 'static) -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(0)?;
    let (_, vdev) = asking(&setup, translator, 1024)?;
    let a = addresses_of(0, 16_384, Order::Random);
    Ok(vec![contestant("gasp", move |i| map(&vdev, a.at(i)))])
}

fn invalidate() -> gasp::Result<Vec<Contestant>> {
    let setup = Setup::with_grants(0)?;
    let (domain, vdev) = asking(&setup, AtOnce, DomainOptions::LIMIT)?;
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
