//! Guests that do not play by the rules, with every device: registers, rings, buffers, revokes and
//! resets in any order.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/hostile.rs"]
mod hostile;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::test_runner::FileFailurePersistence;

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn no_guest_makes_a_device_panic_hang_keep_memory_or_write_where_it_may_not(
        head in vec(any::<u8>(), 0..24),
        // Small numbers make rings and descriptors that mean something.
        rest in vec(0_u8..9, 0..2048),
    ) {
        hostile::serve(&[head, rest].concat());
    }
}

#[test]
fn the_kept_inputs_of_the_fuzzer_are_served() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/virtio");
    let mut served = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        hostile::serve(&std::fs::read(entry.unwrap().path()).unwrap());
        served += 1;
    }
    assert!(served > 0, "there are inputs in {corpus}");
}
