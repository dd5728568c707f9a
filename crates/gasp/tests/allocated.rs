//! The bytes of table that a domain reports, compared with the allocator's own count. The test
//! is alone in its process, because the count is of all of it.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "asks the allocator")]

mod support;

use gasp::{Access, DeviceAddr, DomainKind, DomainOptions, Guest, GuestPhys, Unattached};

use support::PAGE;

/// Allocated bytes, with what the allocator keeps for each block.
fn allocated() -> usize {
    // SAFETY: mallinfo2(3) has no requirements: it takes no argument, and its result is a copy.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

#[test]
fn a_table_takes_what_it_says_and_at_most_64_bytes_for_each_page() {
    const GRANTS: u64 = 30_000;
    let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
    for (name, stride) in [
        ("one in 4 KiB", 1_u64),
        ("one in 12 KiB", 3),
        ("one in 256 KiB", 64),
        ("one in 2 MiB", 512),
        ("one in 16 MiB", 4096),
        ("one in 1 GiB", 1 << 18),
    ] {
        let domain = guest.domain(name, DomainOptions::new(DomainKind::Translate)).unwrap();
        // The top level is touched only as it is used, and not part of the report.
        let before = allocated();
        for index in 0..GRANTS {
            let to = GuestPhys((GRANTS - index) * 7 * PAGE);
            domain.grant(DeviceAddr(index * stride * PAGE), to, PAGE, Access::RW).unwrap();
        }
        let (took, reported) = (allocated() - before, domain.table_bytes());
        // The list of nodes that wait to be freed takes memory as well, and a few blocks are not
        // tables.
        assert!(took <= reported + (64 << 10), "{name}: reported {reported}, took {took}");
        // The first nodes are full ones whatever they hold.
        let each = took.saturating_sub(256 << 10) as f64 / GRANTS as f64;
        assert!(each <= 64.0, "{name}: {each:.1} bytes each");
    }
}
