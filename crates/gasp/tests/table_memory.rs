//! Memory that a guest can make a domain's table take: 64 bytes for each page granted and a
//! constant, wherever it grants pages and whichever of them it revokes.
//!
//! The table's top level (2 MiB at 48 bits of address, touched only as it is used) is not counted
//! by `table_bytes`; it is part of the constant.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use gasp::{Access, DeviceAddr, Domain, DomainKind, DomainOptions, GRANULE, Guest, GuestPhys};
use gasp::{Span, Unattached};

/// What a table may take whatever it holds: its first nodes, which are full ones, nodes that wait
/// to be freed, and the counts of one chunk of the arena.
const CONSTANT: usize = 256 << 10;
const PAGES: u64 = 1 << 36;

fn domain() -> Domain {
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    let options = DomainOptions { limit: 1 << 22, ..DomainOptions::new(DomainKind::Translate) };
    guest.domain("greedy", options).unwrap()
}

/// Grants a page. No two neighbours lead to neighbours, so no grants can be joined. There is no
/// memory: a hole takes as much of a table as memory does.
fn grant(domain: &Domain, page: u64) {
    let to = GuestPhys(page.wrapping_mul(7919) % PAGES * GRANULE);
    domain.grant(DeviceAddr(page % PAGES * GRANULE), to, GRANULE, Access::RW).unwrap();
}

fn revoke(domain: &Domain, page: u64) {
    domain.revoke(DeviceAddr(page % PAGES * GRANULE), GRANULE).unwrap().wait();
}

#[track_caller]
fn check(domain: &Domain, what: &str) {
    let (bytes, entries) = (domain.table_bytes(), domain.entries());
    let each = bytes.saturating_sub(CONSTANT) as f64 / entries.max(1) as f64;
    assert!(each <= 64.0, "{what}: {bytes} bytes for {entries} grants: {each:.1} each");
}

#[test]
fn grants_spread_evenly_stay_within_64_bytes_each() {
    for stride in [1, 2, 3, 5, 7, 8, 9, 63, 64, 65, 511, 512, 513, 4096, 1 << 18, (1 << 18) + 1] {
        let domain = domain();
        (0..40_000).for_each(|index| grant(&domain, index * stride));
        check(&domain, &format!("stride {stride}"));
    }
}

#[test]
fn thinning_out_a_dense_table_releases_its_memory() {
    for keep in [1, 2, 3, 8, 63, 64, 65, 128, 512] {
        let domain = domain();
        let pages = 400 * 512;
        (0..pages).for_each(|page| grant(&domain, page));
        assert!(domain.table_bytes() as u64 / pages <= 16, "dense: {}", domain.table_bytes());
        // One in `keep` stays; the others are revoked, a stretch at a time.
        let spans: Vec<_> = (0..pages.div_ceil(keep))
            .filter_map(|index| {
                let after = DeviceAddr((index * keep + 1) * GRANULE);
                Span::new(after, (keep - 1) * GRANULE).ok()
            })
            .collect();
        domain.revoke_all(&spans).unwrap().wait();
        assert_eq!(domain.entries(), pages.div_ceil(keep));
        check(&domain, &format!("one page in {keep} is left"));
        domain.revoke(DeviceAddr(0), pages * GRANULE).unwrap().wait();
        assert_eq!((domain.entries(), domain.table_bytes()), (0, 0));
    }
}

#[test]
fn granting_and_revoking_at_random_stays_within_64_bytes_each() {
    let domain = domain();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    // Pages in clusters of 512, 40 at a time, then most of them revoked.
    for round in 0..60 {
        let clusters: Vec<u64> = (0..40).map(|_| random(1 << 27) * 512).collect();
        let fill = 1 + random(512);
        for &cluster in &clusters {
            (0..fill).for_each(|page| grant(&domain, cluster + page));
        }
        check(&domain, &format!("round {round}, {fill} pages in each of 40 clusters"));
        let leave = random(fill);
        for &cluster in &clusters {
            (leave..fill).for_each(|page| revoke(&domain, cluster + page));
        }
        check(&domain, &format!("round {round}, {leave} of {fill} are left"));
    }
}

#[test]
fn a_large_grant_that_is_cut_costs_no_more_than_its_entries() {
    let domain = domain();
    domain.grant(DeviceAddr(0), GuestPhys(0), 1 << 30, Access::READ).unwrap();
    assert_eq!((domain.entries(), domain.table_bytes()), (1, 0), "one aligned GiB is one entry");
    // One page of each 2 MiB: each of those is cut into 4 KiB pages.
    for index in 0..512 {
        revoke(&domain, index * 512 + 7);
    }
    assert_eq!(domain.entries(), 512 * 511);
    check(&domain, "a GiB with holes");
}

#[test]
fn a_few_pages_in_each_of_some_ranges_of_each_gigabyte_stay_within_64_bytes_each() {
    // Between a small node and a full one on the middle level, with few pages below it.
    for (ranges, pages, left_ranges, left_pages) in
        [(97, 1, 97, 1), (97, 3, 97, 1), (97, 1, 64, 1), (97, 3, 64, 1), (200, 3, 129, 1)]
    {
        let domain = domain();
        let page = |gigabyte: u64, range: u64, page: u64| (gigabyte << 18) + range * 512 + page * 5;
        for gigabyte in 0..500 {
            for range in 0..ranges {
                (0..pages).for_each(|index| grant(&domain, page(gigabyte, range, index)));
            }
            for range in 0..ranges {
                let first = if range < left_ranges { left_pages } else { 0 };
                (first..pages).for_each(|index| revoke(&domain, page(gigabyte, range, index)));
            }
        }
        check(&domain, &format!("{ranges} x {pages}, then {left_ranges} x {left_pages}"));
    }
}
