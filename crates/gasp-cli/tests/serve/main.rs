//! `gasp serve`, run as a person or a script runs it, with a client that shakes hands.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, stop at what they do not expect")]

mod devices;
mod output;
mod refusals;
mod reload;
mod serving;
mod signals;
