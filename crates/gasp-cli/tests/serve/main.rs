//! `gasp serve`, run as people and scripts run it, with a client that performs the handshake.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

#[path = "../support/compile.rs"]
mod compile;
mod devices;
mod output;
mod refusals;
mod reload;
mod serving;
mod signals;
mod vdev;
