//! Tables of guests that do not play by the rules: loops, stray pointers, every bit at random.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/hostile.rs"]
mod hostile;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, proptest};
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;

/// What precedes the tables in an input: the format, and numbers that mostly mean something.
fn head(kind: u8) -> impl Strategy<Value = Vec<u8>> {
    let numbers = (0_u8..6, select(vec![36_u8, 48, 52]), 0xf0_u8..=0xff, 0_u8..8, 0_u8..18);
    (numbers, 0_u8..5, any::<u64>(), 16_u32..48).prop_map(
        move |((levels, width, flags, access, root), mapped, addr, narrow)| {
            let head = [kind, levels, width, flags, access, 0, root, mapped];
            [head, (addr >> narrow).to_le_bytes()].concat()
        },
    )
}

/// Entries that mostly lead on.
fn entry(kind: u8) -> impl Strategy<Value = u64> {
    let bits = match kind {
        0 => select(vec![1_u64, 2, 3, 3, 3, 3, 0x83, 0x83, 1 << 63 | 3]),
        _ => select((0..8).map(|level| 3 << 61 | level << 9 | 1).collect::<Vec<u64>>()),
    };
    (0_u64..18, bits, any::<u64>(), 0_u8..50).prop_map(|(page, bits, noise, kind)| match kind {
        0 => noise,
        1..6 => bits,
        _ => page << 12 | bits,
    })
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..2).prop_flat_map(|kind| {
        (head(kind), vec(entry(kind), 1..64)).prop_map(|(head, entries)| {
            let entries = entries.into_iter().flat_map(u64::to_le_bytes);
            head.into_iter().chain(entries).collect()
        })
    })
}

fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn no_tables_make_a_walk_panic_hang_or_stray(input in input()) {
        let _one = one_at_a_time();
        hostile::serve(&input);
    }
}

#[test]
fn the_kept_inputs_of_the_fuzzer_are_served() {
    let _one = one_at_a_time();
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/walk");
    let mut served = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        hostile::serve(&std::fs::read(entry.unwrap().path()).unwrap());
        served += 1;
    }
    assert!(served > 0, "there are inputs in {corpus}");
}
