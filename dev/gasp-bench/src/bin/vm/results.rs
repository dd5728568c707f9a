//! Numbers of each guest, from the console of the emulated machine.

use core::fmt;
use std::collections::BTreeMap;

use gasp_testbed::Line;
use serde::Serialize;
use serde_json::Value;

use crate::contest::Contestant;

/// What was measured of a guest.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Measured {
    pub(crate) guest: &'static str,
    /// Milliseconds from the start of its program to the start of its own first one.
    pub(crate) boot_ms: Option<u64>,
    /// Nanoseconds of a transfer, as in `read 4096`.
    pub(crate) ns: BTreeMap<String, u64>,
    pub(crate) exits_per_read: Option<Exits>,
    /// Memory of the program beside the guest's RAM.
    pub(crate) resident_kib: Option<u64>,
}

/// Exits to user space for a read of 4 KiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Exits {
    pub(crate) total: f64,
    /// Of them, those to registers.
    pub(crate) mmio: f64,
    /// How many reads were looked at.
    pub(crate) reads: u64,
}

/// Counters at one moment.
#[derive(Clone, Copy, Default)]
struct Totals {
    all: u64,
    mmio: u64,
    port: u64,
    reads: u64,
    read_bytes: u64,
    writes: u64,
}

/// The numbers of all guests, in their order.
pub(crate) fn of(guests: &[Contestant], lines: &[Line]) -> Vec<Measured> {
    let found = guests.iter().map(|guest| {
        let mut measured = Measured { guest: guest.name, ..Measured::default() };
        let parts = lines.split(|line| line.text.contains("begin: "));
        let heads = lines.iter().filter(|line| line.text.contains("begin: "));
        for (head, part) in heads.zip(parts.skip(1)) {
            if head.text.trim().ends_with(&format!("begin: {}", guest.name)) {
                measured.add(guest, head, part);
            }
        }
        measured
    });
    found.collect()
}

impl Measured {
    /// Adds what one start of the guest has shown.
    fn add(&mut self, guest: &Contestant, head: &Line, lines: &[Line]) {
        let mut totals = Vec::new();
        for line in lines {
            let text = line.text.as_str();
            if text.contains("inside: up") && guest.boots {
                let took = line.at.saturating_sub(head.at).as_millis();
                least(&mut self.boot_ms, u64::try_from(took).unwrap_or(u64::MAX));
            } else if let Some((_, round)) = text.split_once("rounds: ") {
                let (what, ns) = round.trim().rsplit_once(' ').unwrap_or_default();
                if let Ok(ns) = ns.parse() {
                    let known = self.ns.entry(what.into()).or_insert(ns);
                    *known = ns.min(*known);
                }
            } else if let Some((_, kib)) = text.split_once("resident: ")
                && !guest.boots
            {
                self.resident_kib = self.resident_kib.max(kib.trim().parse().ok());
            } else if let Some((_, json)) = text.split_once("json: ") {
                totals.extend(serde_json::from_str(json).ok().and_then(|json| Totals::of(&json)));
            }
        }
        self.exits_per_read = exits(&totals).or(self.exits_per_read);
    }
}

fn least(known: &mut Option<u64>, now: u64) {
    *known = Some(known.map_or(now, |known| known.min(now)));
}

/// Of the intervals in which the guest only read 4 KiB at a time, and wrote nothing to its console.
fn exits(totals: &[Totals]) -> Option<Exits> {
    let mut sum = Totals::default();
    for pair in totals.windows(2) {
        let [before, after] = pair else { continue };
        let reads = after.reads - before.reads;
        if reads > 100
            && after.read_bytes - before.read_bytes == 4096 * reads
            && after.writes == before.writes
            && after.port == before.port
        {
            sum.all += after.all - before.all;
            sum.mmio += after.mmio - before.mmio;
            sum.reads += reads;
        }
    }
    let per = |count: u64| count as f64 / sum.reads as f64;
    let (total, mmio) = (per(sum.all), per(sum.mmio));
    (sum.reads > 0).then_some(Exits { total, mmio, reads: sum.reads })
}

impl Totals {
    fn of(event: &Value) -> Option<Self> {
        let exits = event.get("exits")?;
        let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64);
        let nvme = event.get("devices")?.as_array()?.first()?.get("nvme")?;
        let (mmio, port) = (number(exits, "mmio")?, number(exits, "port")?);
        Some(Self {
            all: exits.as_object()?.values().filter_map(Value::as_u64).sum(),
            mmio,
            port,
            reads: number(nvme, "reads")?,
            read_bytes: number(nvme, "read_bytes")?,
            writes: number(nvme, "writes")?,
        })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<22}", self.guest)?;
        if let Some(ms) = self.boot_ms {
            write!(f, "  boot {ms} ms")?;
        }
        for (what, ns) in &self.ns {
            write!(f, "  {what}: {} µs", ns / 1000)?;
        }
        if let Some(Exits { total, mmio, reads, .. }) = self.exits_per_read {
            write!(f, "  exits per read {total:.3} ({mmio:.3} mmio, {reads} reads)")?;
        }
        if let Some(kib) = self.resident_kib {
            write!(f, "  resident {kib} KiB")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use core::time::Duration;

    use super::*;

    fn guest(name: &'static str, boots: bool) -> Contestant {
        Contestant { name, server: None, command: String::new(), boots }
    }

    fn lines(texts: &[&str]) -> Vec<Line> {
        let line = |(index, text): (usize, &&str)| Line {
            at: Duration::from_millis(100 * index as u64),
            text: (*text).to_string(),
        };
        texts.iter().enumerate().map(line).collect()
    }

    fn totals(port: u64, mmio: u64, reads: u64, bytes: u64, writes: u64) -> String {
        let exits = serde_json::json!({"port": port, "mmio": mmio, "interrupted": 0, "other": 0});
        let nvme = serde_json::json!({"reads": reads, "read_bytes": bytes, "writes": writes});
        let event = serde_json::json!({"exits": exits, "devices": [{"nvme": nvme}]});
        format!("json: {event}")
    }

    #[test]
    fn each_guest_has_the_least_of_its_own_starts() {
        let guests = [guest("a", false), guest("b a", true)];
        let starts = ["begin: a", "inside: up", "rounds: read 4096 30", "resident: 9"];
        let boots = ["begin: b a", "inside: up", "resident: 11", "end: b a"];
        let again = ["begin: a", "rounds: read 4096 20", "rounds: read 4096 40", "resident: 7"];
        let later = ["begin: b a", "later", "inside: up", "rounds: end"];
        let found = of(&guests, &lines(&[starts, boots, again, later].concat()));
        let [disk, boot] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(disk.ns.get("read 4096"), Some(&20));
        assert_eq!((disk.resident_kib, disk.boot_ms), (Some(9), None));
        assert_eq!((boot.resident_kib, boot.boot_ms, boot.ns.len()), (None, Some(100), 0));
    }

    #[test]
    fn exits_are_those_of_intervals_with_nothing_but_small_reads() {
        let mut texts = vec!["begin: a".to_string()];
        texts.push(totals(5, 10, 0, 0, 0));
        // Other reads, too.
        texts.push(totals(5, 90, 200, 200 * 4096 + 512, 0));
        texts.push(totals(5, 490, 400, 400 * 4096 + 512, 0));
        // A line of the console, a write, and only a few.
        texts.push(totals(9, 900, 600, 600 * 4096 + 512, 0));
        texts.push(totals(9, 1900, 800, 800 * 4096 + 512, 1));
        texts.push(totals(9, 2900, 900, 900 * 4096 + 512, 1));
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let found = of(&[guest("a", false)], &lines(&texts));
        let exits = found.first().unwrap().exits_per_read.unwrap();
        assert_eq!((exits.reads, exits.mmio, exits.total), (200, 2.0, 2.0));
    }
}
