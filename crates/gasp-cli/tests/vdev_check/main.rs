//! `gasp vdev check`: a vdev in C for each finding, which has that fault and no other.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod ends;
mod factory;
mod life;
mod output;
mod registers;
mod vdev;
