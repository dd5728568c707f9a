//! Measurement of a case: short alternating rounds, and the minimum of each contestant.

use std::time::Duration;

use serde::Serialize;

use crate::cases::{Case, Contestant, Effort};

/// One result: our time for a case, and that of one peer. A case without a peer has one row.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// The name of the case.
    pub case: String,
    /// Our time, in nanoseconds per operation and thread.
    pub ns: f64,
    /// The name of the peer.
    pub peer: Option<&'static str>,
    /// The peer's time, in nanoseconds per operation and thread.
    pub peer_ns: Option<f64>,
    /// The peer's time over ours: above 1, ours is faster by that factor.
    pub ratio: Option<f64>,
}

/// Measures one case.
pub fn run(mut case: Case, effort: Effort) -> Vec<Row> {
    let rounds: Vec<u32> =
        case.contestants.iter_mut().map(|one| operations_a_round(one, effort)).collect();
    let mut best = vec![f64::INFINITY; rounds.len()];
    for _ in 0..effort.rounds() {
        for ((one, &count), best) in case.contestants.iter_mut().zip(&rounds).zip(&mut best) {
            *best = best.min(per_operation((one.work)(count), count));
        }
    }
    let ours = best.first().copied().unwrap_or(f64::NAN);
    let peers = case.contestants.iter().zip(&best).skip(1);
    let mut rows: Vec<Row> = peers
        .map(|(peer, &ns)| Row {
            case: case.name.clone(),
            ns: ours,
            peer: Some(peer.name),
            peer_ns: Some(ns),
            ratio: Some(ns / ours),
        })
        .collect();
    if rows.is_empty() {
        rows.push(Row { case: case.name, ns: ours, peer: None, peer_ns: None, ratio: None });
    }
    rows
}

/// The number of operations for a round of about the intended length.
fn operations_a_round(one: &mut Contestant, effort: Effort) -> u32 {
    let mut count = 16;
    loop {
        let took = (one.work)(count);
        if took >= effort.round_time() || count >= 1 << 24 {
            return count;
        }
        let fits = effort.round_time().as_nanos() / took.as_nanos().max(1);
        count *= u32::try_from(fits.clamp(2, 16)).unwrap_or(2);
    }
}

fn per_operation(took: Duration, count: u32) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(count)
}
