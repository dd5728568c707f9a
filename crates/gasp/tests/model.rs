//! The engine compared with a naive model: an array with one element for each page of the
//! guest, and one for each page of a domain.
//!
//! Random sequences of changes and maps run on both. After each step regions, grants and held
//! mappings must be those of the model, and each map must have the model's result: the same
//! memory (recognised by a tag in each of its words), length, pieces and host-physical
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
#[path = "model/tables.rs"]
mod tables;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use engine::Pair;

#[test]
fn random_sequences_end_as_in_the_model() {
    run(false);
}

#[test]
fn random_sequences_end_as_in_the_model_if_domains_ask() {
    run(true);
}

fn run(asks: bool) {
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..ProptestConfig::with_cases(288)
    };
    let objects = objects::Objects::new();
    let mut seen = seen::Seen::default();
    // The sequences differ each time, and the first batch is nearly always varied enough;
    // otherwise there are more.
    for _ in 0..6 {
        let batch = std::cell::RefCell::new(&mut seen);
        TestRunner::new(config.clone())
            .run(&(0..5_u8, prop::collection::vec(steps::step(), 8..=40)), |(empty, steps)| {
                let mut pair = Pair::new(&objects, asks);
                let furniture = if empty == 0 { vec![] } else { steps::furniture() };
                for step in furniture.iter().chain(&steps) {
                    pair.run(step)?;
                }
                batch.borrow_mut().add(&pair.seen);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
        if seen.is_varied(asks) {
            break;
        }
    }
    println!("{seen:?}");
    // If all maps were refused, the model would agree with an engine that refuses everything.
    assert!(seen.is_varied(asks), "{seen:?}");
}
