//! Tests of [`near`](crate::near), which `tests/near_proof.rs` compiles as well.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use crate::near::{Near, set_of};
use crate::sync::PLACES;

const ALL: u64 = PLACES as u64;

#[test]
fn a_value_stays_where_it_is_and_is_found_by_its_key() {
    let near = Near::new();
    assert!(near.find(0).is_none());
    let first: *const u64 = near.insert(0, 100_u64).unwrap();
    for key in 1..ALL {
        assert_eq!(near.insert(key, 100 + key), Ok(&(100 + key)));
    }
    assert_eq!(near.insert(ALL, 7), Err(7), "there is no room");
    assert_eq!(near.count(), PLACES);
    for key in 0..ALL {
        assert_eq!(near.find(key), Some(&(100 + key)));
    }
    assert!(core::ptr::eq(first, near.find(0).unwrap()));
    assert!(near.find(ALL).is_none());
}

#[test]
fn all_keys_of_one_set_are_found() {
    let near = Near::new();
    let same: Vec<u64> = (0..).filter(|&key| set_of(key) == 0).take(PLACES).collect();
    same.iter().for_each(|&key| assert!(near.insert(key, key).is_ok()));
    assert!(same.iter().all(|&key| near.find(key) == Some(&key)));
}

#[test]
fn the_value_that_was_inserted_last_is_the_one_of_its_key() {
    let near = Near::new();
    let first = near.insert(1, "first").unwrap();
    near.insert(1, "again").unwrap();
    assert_eq!((near.find(1), *first), (Some(&"again"), "first"));
}

#[test]
fn keys_at_any_regular_distance_are_spread_over_the_sets() {
    for shift in 0..50 {
        let mut sets: Vec<usize> = (0..ALL).map(|key| set_of(key << shift)).collect();
        sets.sort_unstable();
        sets.dedup();
        assert!(sets.len() * 3 >= PLACES, "{shift}: {}", sets.len());
    }
}

#[test]
fn each_value_is_dropped_once_and_only_with_all_of_them() {
    for count in [0, 1, PLACES] {
        let value = Arc::new(());
        let near = Near::new();
        for key in 0..count as u64 {
            near.insert(key % 5, Arc::clone(&value)).unwrap();
        }
        assert_eq!(Arc::strong_count(&value), count + 1);
        drop(near);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}

#[test]
fn after_it_is_cleared_there_is_room_again_and_nothing_is_found() {
    let value = Arc::new(());
    let mut near = Near::new();
    for _ in 0..3 {
        (0..ALL).for_each(|key| assert!(near.insert(key * 5, Arc::clone(&value)).is_ok()));
        near.clear();
        assert_eq!((Arc::strong_count(&value), near.count()), (1, 0));
        assert!((0..5 * ALL).all(|key| near.find(key).is_none()));
    }
}

#[test]
fn only_its_own_thread_inserts_and_others_find_what_is_complete() {
    for _ in 0..if cfg!(miri) { 3 } else { 200 } {
        let near = Near::new();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    assert!(near.insert(0, [0; 8]).is_err());
                    for key in (0..ALL).rev() {
                        assert!(near.find(key).is_none_or(|value| *value == [key; 8]));
                    }
                });
            }
            (0..ALL).for_each(|key| assert!(near.insert(key, [key; 8]).is_ok()));
        });
        assert_eq!(near.count(), PLACES);
    }
}
