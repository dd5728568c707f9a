//! A way of telling what happens: for a person at a terminal, for one who reads it later,
//! for a program.

use std::path::PathBuf;
use std::sync::Arc;

use super::event::{Event, News, Snapshot};

/// A device that is there now.
pub(super) struct Intro {
    pub(super) name: Arc<str>,
    pub(super) kind: &'static str,
    /// The socket, absolute.
    pub(super) socket: PathBuf,
}

/// How a device stands.
pub(super) struct Row {
    pub(super) name: Arc<str>,
    /// Maps and unmaps each second.
    pub(super) rate: f64,
    pub(super) now: Snapshot,
}

/// Where it is told. What cannot be told is dropped and counted.
pub(super) trait Tell: Send {
    /// Devices are there.
    fn began(&mut self, devices: &[Intro]);
    /// Something happened to a device.
    fn event(&mut self, device: &str, event: &Event);
    /// Something happened to all of them.
    fn news(&mut self, news: &News);
    /// A log line, with its end.
    fn log(&mut self, line: &str);
    /// How all stand, several times a second.
    fn totals(&mut self, rows: &[Row]);
    /// Everything was told.
    fn end(&mut self);
}
