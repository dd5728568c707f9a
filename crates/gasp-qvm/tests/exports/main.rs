//! The functions that C calls, called by vdevs in C, in both editions.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "pseudoterminals")]

#[path = "../support/mod.rs"]
mod support;

mod assign;
mod board;
mod cdev;
mod device;
mod hostile;
mod misc;
mod vpci;
mod wdog;
