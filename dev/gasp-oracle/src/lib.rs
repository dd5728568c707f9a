//! Host-physical addresses, checked from outside the engine.
//!
//! The engine reports where memory is and whether it stays there. This crate does not rely on
//! it: one half passes the addresses to a DMA engine that somebody else has written, the other
//! half makes the kernel move whatever it can, and reads where the pages are afterwards.
//!
//! | | |
//! |---|---|
//! | [`addresses`] | QEMU's `edu` device reads and writes at the addresses that a map returned |
//! | [`stress`] | pages that moved, by class, compared with a control group that nothing holds |
//! | [`edu`] | the registers of that device |
//! | [`pagemap`] | frame numbers, read without the engine |
//! | [`mapped`] | memory and registers that this crate maps; all its unsafe code |
//! | [`pool`] | pools of huge pages, grown and shrunk again |
//! | [`neighbours`] | memory that is allocated so that other memory is scattered |
//!
//! Both halves are commands of the program `oracle`, which is copied into a guest of the
//! testbed and acts as the host there. Each prints one line for the test to read:
//! [`report_line`] and [`parse_line`].

pub mod addresses;
pub mod edu;
pub mod mapped;
pub mod neighbours;
pub mod pagemap;
pub mod pool;
pub mod stress;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// An error that stops a check.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The beginning of the line for the test that reads the console.
const MARK: &str = "oracle-report: ";

/// A report as one line of text.
///
/// # Errors
/// The report cannot be written as JSON, which does not happen in practice.
pub fn report_line(report: &impl Serialize) -> Result<String, Failure> {
    Ok(format!("{MARK}{}", serde_json::to_string(report)?))
}

/// The report in a line of a console, if it contains one.
///
/// # Errors
/// It contains one that cannot be parsed.
pub fn parse_line<T: DeserializeOwned>(line: &str) -> Result<Option<T>, Failure> {
    match line.split_once(MARK) {
        Some((_, text)) => Ok(Some(serde_json::from_str(text)?)),
        None => Ok(None),
    }
}

/// Adds to an error what was attempted.
pub(crate) fn doing<E: std::fmt::Display>(
    what: impl std::fmt::Display,
) -> impl FnOnce(E) -> Failure {
    move |error| format!("{what}: {error}").into()
}
