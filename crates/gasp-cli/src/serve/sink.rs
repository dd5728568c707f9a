//! The trait of output formats: a live view on a terminal, lines of text, JSON.

use std::path::PathBuf;
use std::sync::Arc;

use super::event::{Event, ServiceEvent, Snapshot};

/// A new device.
pub(super) struct Intro {
    pub(super) name: Arc<str>,
    pub(super) kind: &'static str,
    /// The socket, absolute.
    pub(super) socket: PathBuf,
}

/// The state of a device.
pub(super) struct Row {
    pub(super) name: Arc<str>,
    /// Maps and unmaps per second.
    pub(super) rate: f64,
    pub(super) now: Snapshot,
}

/// An output format. Reports that cannot be written are dropped and counted.
pub(super) trait Sink: Send {
    /// Reports new devices.
    fn added(&mut self, devices: &[Intro]);
    /// Reports an event of a device.
    fn event(&mut self, device: &str, event: &Event);
    /// Reports an event that concerns all devices.
    fn service_event(&mut self, event: &ServiceEvent);
    /// Writes a log line, which ends with a newline.
    fn log(&mut self, line: &str);
    /// Reports the state of all devices; called several times a second.
    fn totals(&mut self, rows: &[Row]);
    /// Ends the output, after all reports.
    fn end(&mut self);
}
