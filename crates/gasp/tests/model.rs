//! The engine against a naive model of it: an array with one element for each page of the
//! guest, and one for each page that a domain lets through.
//!
//! Random sequences of changes and maps run on both. After each step regions, grants and
//! mappings that are held must be what the model says; each map must end as in the model:
//! the same memory (told by a tag in every word of it), length, pieces and host-physical
//! address, or the same reason, with the same address in it, and the same fault record.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

#[path = "model/engine.rs"]
mod engine;
#[path = "model/naive.rs"]
mod naive;
#[path = "model/objects.rs"]
mod objects;
#[path = "model/seen.rs"]
mod seen;
#[path = "model/steps.rs"]
mod steps;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use engine::Pair;

#[test]
fn random_sequences_end_as_in_the_model() {
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..ProptestConfig::with_cases(288)
    };
    let objects = objects::Objects::new();
    let mut seen = seen::Seen::default();
    // The sequences are new ones each time, and nearly always varied enough at once; where
    // they are not, there are more of them.
    for _ in 0..6 {
        let batch = std::cell::RefCell::new(&mut seen);
        TestRunner::new(config.clone())
            .run(&(0..5_u8, prop::collection::vec(steps::step(), 8..=40)), |(empty, steps)| {
                let mut pair = Pair::new(&objects);
                let furniture = if empty == 0 { vec![] } else { steps::furniture() };
                for step in furniture.iter().chain(&steps) {
                    pair.run(step)?;
                }
                batch.borrow_mut().add(&pair.seen);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
        if seen.is_varied() {
            break;
        }
    }
    println!("{seen:?}");
    // A model that only ever refuses would agree with an engine that does.
    assert!(seen.is_varied(), "{seen:?}");
}
