//! Host-physical addresses, checked from outside the engine.
//!
//! The engine says where memory is and whether it stays there. Nothing in this crate
//! believes it: one half hands the addresses to a DMA engine that somebody else wrote, the
//! other half makes the kernel move whatever it can and looks where the pages are then.
//!
//! | | |
//! |---|---|
//! | [`addresses`] | QEMU's `edu` device reads and writes at the addresses that a map returned |
//! | [`stress`] | pages that moved, by class, beside a control group that nothing holds |
//! | [`edu`] | the registers of that device |
//! | [`pagemap`] | where pages are, read without the engine's help |
//! | [`mapped`] | memory and registers mapped for this; all unsafe code of the crate |
//! | [`pool`] | pools of huge pages, grown and given back |
//! | [`neighbours`] | memory that is there so that other memory is scattered |
//!
//! Both halves are commands of the program `oracle`, which travels into a guest of the
//! testbed and is the host there. Each prints one line that a test reads: [`report_line`] and
//! [`parse_line`].

pub mod addresses;
pub mod edu;
pub mod mapped;
pub mod neighbours;
pub mod pagemap;
pub mod pool;
pub mod stress;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Whatever stops a check, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What begins a line that is for the test that reads the console.
const MARK: &str = "oracle-report: ";

/// A report as one line of text.
///
/// # Errors
/// None in practice: the report cannot be written as JSON.
pub fn report_line(report: &impl Serialize) -> Result<String, Failure> {
    Ok(format!("{MARK}{}", serde_json::to_string(report)?))
}

/// The report in a line of a console, if there is one in it.
///
/// # Errors
/// There is one, but it cannot be read.
pub fn parse_line<T: DeserializeOwned>(line: &str) -> Result<Option<T>, Failure> {
    match line.split_once(MARK) {
        Some((_, text)) => Ok(Some(serde_json::from_str(text)?)),
        None => Ok(None),
    }
}

/// Adds to an error what was being done.
pub(crate) fn doing<E: std::fmt::Display>(
    what: impl std::fmt::Display,
) -> impl FnOnce(E) -> Failure {
    move |error| format!("{what}: {error}").into()
}
