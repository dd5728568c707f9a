//! What C sees compared with the headers: every size, offset and constant of `gasp_qvm::abi`, in
//! both editions; every function that the headers for vdevs declare is exported by this crate, with
//! a prototype that passes its arguments in the same way; and nothing else is.
//!
//! Programs of static assertions are generated from the Rust side, and compiled.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod compiler;
mod layouts;
mod prototypes;
mod symbols;
