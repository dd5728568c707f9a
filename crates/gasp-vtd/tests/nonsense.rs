//! Guests that do not play by the rules.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/hostile.rs"]
mod hostile;

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::test_runner::FileFailurePersistence;

fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::with_cases(128)
    })]

    #[test]
    fn nothing_that_a_guest_does_outlasts_a_reset(input in vec(any::<u8>(), 0..4096)) {
        let _one = one_at_a_time();
        let start = Instant::now();
        hostile::serve(&input);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}

#[test]
fn the_kept_inputs_of_the_fuzzer_are_served() {
    let _one = one_at_a_time();
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/vtd");
    let mut served = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        hostile::serve(&std::fs::read(entry.unwrap().path()).unwrap());
        served += 1;
    }
    assert!(served > 0, "there are inputs in {corpus}");
}
