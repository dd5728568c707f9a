//! The arithmetic of [`Span`], for every combination of the numbers at which it could go wrong,
//! compared with arithmetic in 128 bits, in which nothing wraps. Debug builds panic if an
//! addition overflows, so a test that passes has had no overflow.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use gasp::{DeviceAddr, GRANULE, Reason, Span};

/// One more than the last address.
const TOP: u128 = 1 << 64;

/// Numbers around the granule, each power of two with its neighbours, and the two ends.
fn critical() -> Vec<u64> {
    let powers = (0..u64::BITS).map(|k| 1_u64 << k);
    let around = powers.flat_map(|power| [power - 1, power, power + 1]);
    let last = [GRANULE + 1, GRANULE, GRANULE - 1, GRANULE - 2, 2, 1, 0];
    let last = last.map(|back| u64::MAX - back);
    let numbers = [0, 1, 2, GRANULE - 1, GRANULE, GRANULE + 1];
    sorted(numbers.into_iter().chain(around).chain(last))
}

/// Every address in the last granule of the address space, and the one before it.
fn last_granule() -> impl Iterator<Item = u64> + Clone {
    u64::MAX - GRANULE..=u64::MAX
}

/// Fewer critical numbers, so that all pairs of spans between them can be tested.
fn few() -> Vec<u64> {
    let numbers = [0, 1, 2, GRANULE - 1, GRANULE, GRANULE + 1, 2 * GRANULE - 1, 2 * GRANULE];
    let powers = [31, 32, 52, 63].map(|k| 1_u64 << k);
    let around = powers.into_iter().flat_map(|power| [power - 1, power, power + 1]);
    let last = [GRANULE, GRANULE - 1, GRANULE - 2, 1, 0].map(|back| u64::MAX - back);
    sorted(numbers.into_iter().chain(around).chain(last))
}

fn sorted(numbers: impl Iterator<Item = u64>) -> Vec<u64> {
    numbers.collect::<BTreeSet<_>>().into_iter().collect()
}

/// All spans between two of the numbers.
fn spans(numbers: &[u64]) -> Vec<Span<DeviceAddr>> {
    let from = |(index, &first): (usize, &u64)| {
        let last = numbers[index..].iter();
        last.filter_map(move |&last| Span::inclusive(DeviceAddr(first), DeviceAddr(last)))
    };
    numbers.iter().enumerate().flat_map(from).collect()
}

/// The first address, and the one after the last.
fn wide(span: &Span<DeviceAddr>) -> (u128, u128) {
    let start = u128::from(span.start().0);
    (start, start + u128::from(span.len()))
}

/// Compares a span of a start and a length with arithmetic in 128 bits.
fn check_new(start: u64, len: u64) {
    let end = u128::from(start) + u128::from(len);
    match Span::new(DeviceAddr(start), len) {
        Ok(span) => {
            assert!(len > 0 && end <= TOP, "{start:#x} + {len:#x} was accepted");
            assert_eq!((span.start().0, span.len()), (start, len));
            assert_eq!(u128::from(span.last().0), end - 1, "{start:#x} + {len:#x}");
        }
        Err(Reason::ZeroLength) => assert_eq!(len, 0),
        Err(Reason::Wraps) => assert!(len > 0 && end > TOP, "{start:#x} + {len:#x} was refused"),
        Err(other) => panic!("{start:#x} + {len:#x}: {other:?}"),
    }
}

/// Compares a span of two ends with arithmetic in 128 bits.
fn check_inclusive(first: u64, last: u64) {
    let made = Span::inclusive(DeviceAddr(first), DeviceAddr(last));
    let len = u128::from(last) + 1;
    let len = len.checked_sub(u128::from(first)).filter(|len| (1..TOP).contains(len));
    assert_eq!(made.map(|span| u128::from(span.len())), len, "{first:#x} to {last:#x}");
    if let Some(span) = made {
        assert_eq!((span.start().0, span.last().0), (first, last));
        assert_eq!(Span::new(DeviceAddr(first), span.len()), Ok(span));
    }
}

#[test]
fn a_span_is_created_from_all_that_fits_and_nothing_that_wraps() {
    let critical = critical();
    for &start in &critical {
        for &len in &critical {
            check_new(start, len);
        }
        for near_end in last_granule() {
            check_new(start, near_end);
            check_new(near_end, start);
        }
    }
    // Every length that fits from each of the last addresses on, and two that do not.
    for start in last_granule() {
        (0..=u64::MAX - start + 3).for_each(|len| check_new(start, len));
    }
}

#[test]
fn a_span_between_two_addresses_has_both_as_its_ends() {
    let critical = critical();
    for &first in &critical {
        for &last in &critical {
            check_inclusive(first, last);
        }
        for near_end in last_granule() {
            check_inclusive(first, near_end);
            check_inclusive(near_end, first);
        }
    }
    for first in last_granule() {
        last_granule().for_each(|last| check_inclusive(first, last));
    }
}

#[test]
fn a_span_contains_the_addresses_from_its_first_to_its_last() {
    let critical = critical();
    for span in spans(&few()) {
        let (start, end) = wide(&span);
        for &addr in &critical {
            let inside = (start..end).contains(&u128::from(addr));
            assert_eq!(span.contains(DeviceAddr(addr)), inside, "{addr:#x} in {span}");
        }
    }
    // The last granule, address by address.
    let tail = Span::new(DeviceAddr(u64::MAX - GRANULE + 1), GRANULE).unwrap();
    for addr in last_granule() {
        assert_eq!(tail.contains(DeviceAddr(addr)), addr != u64::MAX - GRANULE, "{addr:#x}");
    }
}

/// Compares every operation on two spans, in both orders.
fn check_pair(a: &Span<DeviceAddr>, b: &Span<DeviceAddr>) {
    let ((a_start, a_end), (b_start, b_end)) = (wide(a), wide(b));
    let (start, end) = (a_start.max(b_start), a_end.min(b_end));
    let both = (start < end).then_some((start, end));
    let got = a.intersection(b);
    // Not `assert_eq`: a debug build runs millions of these.
    assert!(got.as_ref().map(wide) == both, "{a} and {b} have {got:?} in common");
    assert!(b.intersection(a) == got, "{a} and {b}");
    assert!(a.overlaps(b) == both.is_some(), "{a} overlaps {b}");
    assert!(b.overlaps(a) == both.is_some(), "{b} overlaps {a}");
    assert!(a.covers(b) == (both == Some((b_start, b_end))), "{a} covers {b}");
    assert!(b.covers(a) == (both == Some((a_start, a_end))), "{b} covers {a}");
}

#[test]
fn operations_on_two_spans_agree_with_128_bits() {
    let few = spans(&few());
    for a in spans(&critical()) {
        few.iter().for_each(|b| check_pair(&a, b));
        // And the single bytes at its two ends, inside and outside.
        for end in [a.start().0, a.last().0] {
            for addr in [end.wrapping_sub(1), end, end.wrapping_add(1)] {
                check_pair(&a, &Span::new(DeviceAddr(addr), 1).unwrap());
            }
        }
    }
}

/// The same without arithmetic: spans as sets of addresses, over a number line of the first and
/// the last addresses.
#[test]
fn spans_behave_as_the_sets_of_their_addresses() {
    const EACH: u64 = 12;
    let line = (0..EACH).chain(u64::MAX - EACH + 1..=u64::MAX);
    let line: Vec<u64> = line.collect();
    let set = |span: &Span<DeviceAddr>| -> u32 {
        let bits = (0..).zip(&line).filter(|(_, addr)| span.contains(DeviceAddr(**addr)));
        bits.map(|(bit, _)| 1_u32 << bit).sum()
    };
    let all: Vec<_> = spans(&line).into_iter().map(|span| (set(&span), span)).collect();
    assert_eq!(all.len() as u64, EACH * (2 * EACH + 1) - 1, "all but the span of all addresses");
    for (these, a) in &all {
        for (those, b) in &all {
            let both = these & those;
            assert_eq!(a.intersection(b).as_ref().map_or(0, set), both, "{a} and {b}");
            assert_eq!(a.overlaps(b), both != 0, "{a} and {b}");
            assert_eq!(a.covers(b), both == *those, "{a} and {b}");
        }
    }
}

fn check_rounded(span: &Span<DeviceAddr>) {
    let granule = u128::from(GRANULE);
    let (start, end) = wide(span);
    let aligned = start % granule == 0 && (end - start) % granule == 0;
    assert!(span.is_granular() == aligned, "{span}");
    let (out, out_end) = (start / granule * granule, end.div_ceil(granule) * granule);
    let Some(rounded) = span.rounded_out() else {
        assert!(out_end - out == TOP, "{span} is not rounded, though the result has a length");
        return;
    };
    assert!(wide(&rounded) == (out, out_end), "{span} became {rounded}");
    assert!(rounded.is_granular() && rounded.covers(span), "{span} became {rounded}");
    assert!(rounded.rounded_out() == Some(rounded), "{rounded} is rounded already");
    assert!(!aligned || rounded == *span, "{span} was whole granules already");
}

#[test]
fn rounding_out_is_to_whole_granules_and_never_wraps() {
    let critical = critical();
    spans(&critical).iter().for_each(check_rounded);
    let check = |first, last| {
        if let Some(span) = Span::inclusive(DeviceAddr(first), DeviceAddr(last)) {
            check_rounded(&span);
        }
    };
    for near_end in last_granule() {
        critical.iter().for_each(|&first| check(first, near_end));
        check(near_end, u64::MAX);
        check(near_end, near_end);
    }
    // The first two granules, address by address.
    for first in 0..2 * GRANULE {
        critical.iter().for_each(|&last| check(first, last));
    }
}
