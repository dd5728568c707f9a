//! The text output of the demo.

use std::io;

use super::guest::DemoGuest;
use super::report::{Drain, Refused, Report, Run, Shortened};
use crate::output::{Mark, Printer};
use crate::quantity::{address, count, length, several};

/// How many runs are listed, besides the longest.
const RUNS_SHOWN: usize = 8;
/// A row that stands for omitted ones.
const LEFT_OUT: [&str; 5] = ["…", "…", "…", "…", ""];

/// Prints the report.
pub(super) fn show(demo: &DemoGuest, report: &Report) -> io::Result<()> {
    let mut out = Printer::stdout();
    guest(&mut out, demo)?;
    backing(&mut out, report)?;
    runs(&mut out, report)?;
    maps(&mut out, report)?;
    if let Some(shortened) = &report.shortened {
        shorter(&mut out, report, shortened)?;
    }
    if let Some(refused) = &report.refused {
        refused_map(&mut out, report, refused)?;
    }
    if let Some(refused) = &report.rom_write {
        rom(&mut out, refused)?;
    }
    if let Some(drain) = &report.drain {
        revoke(&mut out, drain)?;
    }
    summary(&mut out, report)?;
    out.flush()
}

fn guest(out: &mut Printer, demo: &DemoGuest) -> io::Result<()> {
    out.heading("The guest of examples/guest/demo.toml; nothing here is simulated")?;
    let range = |start: u64, len: u64| format!("{} from {}", length(len), address(start));
    let ram: Vec<String> = demo.ram.iter().map(|(at, ram)| range(at.0, ram.len())).collect();
    let (disk, net) = (demo.disk_range, demo.net_range);
    out.pairs(&[
        ("RAM", ram.join(", and ")),
        ("ROM", range(demo.rom_at.0, demo.rom.len())),
        ("disk", format!("may read and write {}", range(disk.start().0, disk.len()))),
        (
            "net",
            format!(
                "may read {}, which it calls {}",
                range(net.start().0, net.len()),
                address(demo.net_at.0)
            ),
        ),
    ])
}

fn backing(out: &mut Printer, report: &Report) -> io::Result<()> {
    out.heading("The pages of the RAM")?;
    let remark = report.backing_note.as_ref().map(|note| format!("; {note}"));
    let pages = match report.backing {
        "1G" | "2M" => format!("{} pages from the kernel's pool", report.backing),
        "thp" => "ordinary memory with transparent huge pages".into(),
        _ => "ordinary pages of the host's size".into(),
    };
    let stays = match (report.stability, report.not_pinned_because) {
        ("pinned", _) => "pinned: its host-physical addresses cannot change".into(),
        ("reserved", _) => {
            "not pinned, but from a pool that the kernel does not move in practice".into()
        }
        (_, why) => format!("not pinned: its pages can move ({})", why.unwrap_or("no reason")),
    };
    let mut pairs = vec![("pages", pages + &remark.unwrap_or_default()), ("stability", stays)];
    for passed in &report.passed_over {
        pairs.push(("passed over", format!("{}: {}", passed.backing, passed.why)));
    }
    out.pairs(&pairs)
}

fn runs(out: &mut Printer, report: &Report) -> io::Result<()> {
    out.heading("Where the RAM lies in host-physical memory")?;
    if !report.host_known() {
        let why = report.notes.first().map_or("", String::as_str);
        return out.text(&format!("Not reported: {why} (EPERM). Addresses are never invented."));
    }
    let (total, rows) = (report.runs.len(), excerpt(&report.runs));
    out.table(&["run", "guest-physical", "host-physical", "length", ""], &[0, 1, 2], rows)?;
    let hidden = total.saturating_sub(RUNS_SHOWN);
    match (total, hidden) {
        (1, _) => out.text("One run: all of the RAM is consecutive in the host."),
        (_, 0) => out.text(&format!("{} in all.", several(total, "run"))),
        _ => out.text(&format!("{} in all; --json lists them all.", several(total, "run"))),
    }
}

/// The first runs and the longest one, with a mark where others are omitted.
fn excerpt(runs: &[Run]) -> Vec<[String; 5]> {
    let longest = runs.iter().enumerate().rev().max_by_key(|(_, run)| run.len).map(|(at, _)| at);
    let longest = longest.filter(|_| runs.len() > 1);
    let mut rows = Vec::new();
    let mut next = 0;
    for (at, run) in runs.iter().enumerate() {
        if at >= RUNS_SHOWN && Some(at) != longest {
            continue;
        }
        if at > next {
            rows.push(LEFT_OUT.map(String::from));
        }
        next = at + 1;
        let host = run.host.map_or_else(|| "not disclosed".into(), address);
        let remark = if Some(at) == longest { "the longest" } else { "" };
        rows.push([count(next), address(run.guest), host, length(run.len), remark.into()]);
    }
    if next < runs.len() {
        rows.push(LEFT_OUT.map(String::from));
    }
    rows
}

fn maps(out: &mut Printer, report: &Report) -> io::Result<()> {
    out.heading("What the devices map")?;
    let rows = report.maps.iter().map(|map| {
        [
            map.device.to_string(),
            map.what.to_string(),
            map.access.clone(),
            address(map.addr),
            length(map.len),
            map.host.map_or_else(|| "not disclosed".into(), address),
            if map.verified { "same" } else { "DIFFERENT" }.into(),
        ]
    });
    out.table(&["device", "map", "access", "address", "length", "host", "bytes"], &[3, 5], rows)?;
    out.note(
        "same: the bytes written through the mapping were read back through a second, \
         independent mapping of the same memory.",
    )
}

fn shorter(out: &mut Printer, report: &Report, shortened: &Shortened) -> io::Result<()> {
    out.heading("A host-contiguous map that may be shorter than requested")?;
    let Shortened { addr, asked, got } = *shortened;
    let ask = format!("disk requests {} at {}", length(asked), address(addr));
    match got {
        None => out
            .text(&format!("{ask}: refused, because host-physical addresses are not disclosed.")),
        Some(got) if got == asked => out.text(&format!(
            "{ask} and gets all of it: {}.",
            if report.runs.len() == 1 {
                "this guest's RAM is one host-physical run"
            } else {
                "it is one host-physical run"
            }
        )),
        Some(got) => out.text(&format!(
            "{ask} and gets {}, where the host-physical run ends. The rest has to be requested at {}.",
            length(got),
            address(addr + got)
        )),
    }
}

fn refused_map(out: &mut Printer, report: &Report, refused: &Refused) -> io::Result<()> {
    out.heading("A map that the guest's IOMMU refuses")?;
    out.text(&format!(
        "{} requests {} at {} for writing, which it may only read:",
        refused.device,
        length(refused.len),
        address(refused.addr)
    ))?;
    out.pairs(&[("error", format!("{}: {}", refused.errno, refused.reason))])?;
    out.text("The guest finds a record of the attempt:")?;
    let faults: Vec<_> = report
        .faults
        .iter()
        .take(1)
        .map(|fault| {
            let at = address(fault.addr);
            ("fault", format!("{} {} at {at}: {}", fault.device, fault.access, fault.reason))
        })
        .collect();
    out.pairs(&faults)
}

fn rom(out: &mut Printer, refused: &Refused) -> io::Result<()> {
    out.heading("A write to ROM")?;
    out.text(&format!(
        "{} requests ROM at {} for writing. The IOMMU allows that, but the memory does not:",
        refused.device,
        address(refused.addr)
    ))?;
    out.pairs(&[("error", format!("{}: {}", refused.errno, refused.reason))])
}

fn revoke(out: &mut Printer, drain: &Drain) -> io::Result<()> {
    out.heading("A revoke that waits for the holder of a mapping")?;
    let micros = |ns: u64| format!("{}.{} µs", ns / 1_000, ns % 1_000 / 100);
    let millis = |ns: u64| format!("{}.{} ms", ns / 1_000_000, ns % 1_000_000 / 100_000);
    out.text(&format!(
        "disk holds a mapping for {} after the guest has revoked the range:",
        millis(drain.held_ns)
    ))?;
    let ended = match drain.completed {
        true => "no mapping is left",
        false => "a mapping is still held, and marked as revoked",
    };
    let Drain { waited_ns, holders, meanwhile, .. } = drain;
    let held = several(*holders, "mapping");
    out.pairs(&[
        (
            "at once",
            format!("a new map fails: {}, in {}", meanwhile.errno, micros(meanwhile.took_ns)),
        ),
        ("then", format!("the revoke waits {} for {held}", millis(*waited_ns))),
        ("at the end", ended.into()),
    ])
}

fn summary(out: &mut Printer, report: &Report) -> io::Result<()> {
    out.heading("Summary")?;
    let (mark, word, text) = match report.verified {
        true => (Mark::Good, "yes", "bytes written through each mapping are in the guest's memory"),
        false => (Mark::Bad, "NO", "bytes written through a mapping were not found; see above"),
    };
    out.verdict(mark, word, "verified", text)?;
    let known = (report.host_known(), "host addresses", "disclosed for all of the RAM");
    let stays = (report.stability != "unpinned", "stable addresses", "while a mapping is held");
    let mut notes = report.notes.iter();
    for (holds, name, text) in [known, stays] {
        match holds {
            true => out.verdict(Mark::Good, "yes", name, text)?,
            false => {
                let why = notes.next().map_or("", String::as_str);
                out.verdict(Mark::Fair, "no", name, why)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn omitted_rows_are_marked() {
        let runs = |lengths: &[u64]| -> Vec<Run> {
            let run = |&len: &u64| Run { guest: 0, host: Some(0), len };
            lengths.iter().map(run).collect()
        };
        let first = |runs: &[Run]| -> Vec<String> {
            excerpt(runs).into_iter().map(|[first, ..]| first).collect()
        };
        assert_eq!(first(&runs(&[1])), ["1"]);
        let mut many = runs(&[4096; 438]);
        many[436].len = 8192;
        assert_eq!(first(&many)[7..], ["8", "…", "437", "…"]);
        many.truncate(437);
        assert_eq!(first(&many)[7..], ["8", "…", "437"]);
        many.truncate(9);
        assert_eq!(first(&many)[7..], ["8", "…"]);
        many[8].len = 8192;
        assert_eq!(first(&many)[7..], ["8", "9"]);
    }
}
