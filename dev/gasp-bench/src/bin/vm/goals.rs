//! What is expected of the figures.

use core::fmt;

use serde::Serialize;

use crate::results::Measured;

/// A figure and its goal.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) goal: String,
    pub(crate) value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at_least: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at_most: Option<f64>,
    pub(crate) reached: Option<bool>,
}

/// Transfers, as [`Measured::ns`] names them.
const SMALL: [&str; 2] = ["read 4096", "write 4096"];
const LARGE: [&str; 2] = ["read 1048576", "write 1048576"];

/// The goals with the figures that were measured.
pub(crate) fn of(results: &[Measured]) -> Vec<Goal> {
    let find = |name: &str| results.iter().find(|result| result.guest == name);
    let ns = |guest: &str, what: &str| Some(*find(guest)?.ns.get(what)? as f64);
    let mut goals = Vec::new();
    let mut faster = |ours: &str, peer: &str, whats: [&str; 2], at_least: Option<f64>| {
        for what in whats {
            let value = ns(peer, what).zip(ns(ours, what)).map(|(peer, ours)| peer / ours);
            let goal = format!("{what}, {ours} over {peer}");
            let reached = value.zip(at_least).map(|(value, least)| value >= least);
            goals.push(Goal { goal, value, at_least, at_most: None, reached });
        }
    };
    faster("gasp", "qemu", SMALL, Some(1.0));
    faster("gasp", "qemu", LARGE, Some(1.0));
    faster("gasp", "qemu ioeventfd", SMALL, None);
    faster("gasp", "qemu ioeventfd", LARGE, None);
    faster("gasp strict", "qemu strict", SMALL, Some(1.0));
    faster("gasp strict", "qemu strict", LARGE, Some(1.3));
    faster("gasp strict", "qemu ioeventfd strict", SMALL, None);
    faster("gasp strict", "qemu ioeventfd strict", LARGE, None);
    faster("gasp strict", "serve strict", SMALL, None);
    faster("gasp strict", "serve strict", LARGE, Some(10.0));
    let mut small = |goal: &str, value: Option<f64>, most: f64| {
        let reached = value.map(|value| value <= most);
        goals.push(Goal { goal: goal.into(), value, at_least: None, at_most: Some(most), reached });
    };
    let exits = |name| Some(find(name)?.exits_per_read?.total);
    small("exits for a read of 4 KiB, gasp strict", exits("gasp strict"), 2.0);
    let boot = |name| Some(find(name)?.boot_ms? as f64);
    let ratio = boot("boot gasp").zip(boot("boot microvm")).map(|(ours, peer)| ours / peer);
    small("boot, gasp over microvm", ratio, 1.2);
    let resident = find("gasp strict").and_then(|result| result.resident_kib);
    let mib = resident.map(|kib| kib as f64 / 1024.0);
    small("resident MiB beside the guest's, gasp strict", mib, 20.0);
    goals
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { goal, value, at_least, at_most, reached } = self;
        match value {
            Some(value) => write!(f, "{value:8.2}  {goal}")?,
            None => write!(f, "{:>8}  {goal}", "–")?,
        }
        match (at_least, at_most) {
            (Some(least), _) => write!(f, "; at least {least}")?,
            (_, Some(most)) => write!(f, "; at most {most}")?,
            _ => {}
        }
        match reached {
            Some(true) => write!(f, ": reached"),
            Some(false) => write!(f, ": missed"),
            None => Ok(()),
        }
    }
}
