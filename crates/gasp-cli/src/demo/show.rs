//! The demo, told to a person.

use std::io;

use super::report::{Drain, Refused, Report, Run, Shortened};
use super::scene::Scene;
use crate::output::{Mark, Page};
use crate::quantity::{address, count, length};

/// How many runs are shown, beside the longest.
const RUNS_SHOWN: usize = 8;

/// Tells what happened.
pub(super) fn show(scene: &Scene, report: &Report) -> io::Result<()> {
    let mut page = Page::stdout();
    guest(&mut page, scene, report)?;
    backing(&mut page, report)?;
    runs(&mut page, report)?;
    maps(&mut page, report)?;
    if let Some(shortened) = &report.shortened {
        shorter(&mut page, report, shortened)?;
    }
    if let Some(refused) = &report.refused {
        refusal(&mut page, report, refused)?;
    }
    if let Some(refused) = &report.rom_write {
        rom(&mut page, refused)?;
    }
    if let Some(drain) = &report.drain {
        revoke(&mut page, drain)?;
    }
    summary(&mut page, report)?;
    page.flush()
}

fn guest(page: &mut Page, scene: &Scene, report: &Report) -> io::Result<()> {
    page.heading("A guest, with two devices behind its IOMMU; nothing here is simulated")?;
    let range = |start: u64, len: u64| format!("{} from {}", length(len), address(start));
    let (disk, net) = (scene.disk_range, scene.net_range);
    page.pairs(&[
        ("RAM", range(scene.ram_at.0, report.ram_bytes)),
        ("ROM", range(scene.rom_at.0, scene.rom.len())),
        ("disk", format!("may read and write {}", range(disk.start().0, disk.len()))),
        ("net", format!("may read {}", range(net.start().0, net.len()))),
    ])
}

fn backing(page: &mut Page, report: &Report) -> io::Result<()> {
    page.heading("What the RAM is made of")?;
    let remark = report.backing_note.as_ref().map(|note| format!("; {note}"));
    let pages = match report.backing {
        "1G" | "2M" => format!("{} pages from the kernel's pool", report.backing),
        "thp" => "ordinary memory, gathered into 2M pages".into(),
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
    page.pairs(&pairs)
}

fn runs(page: &mut Page, report: &Report) -> io::Result<()> {
    page.heading("Where the RAM lies in host-physical memory")?;
    if !report.host_known() {
        let why = report.notes.first().map_or("", String::as_str);
        return page.text(&format!("Not told: {why} (EPERM). An address is never made up."));
    }
    let total = report.runs.len();
    let longest = report.runs.iter().enumerate().rev().max_by_key(|(_, run)| run.len);
    let mut rows: Vec<[String; 4]> =
        report.runs.iter().enumerate().take(RUNS_SHOWN).map(|(at, run)| row(at, run, "")).collect();
    if let Some((at, run)) = longest
        && total > 1
    {
        if at >= RUNS_SHOWN {
            rows.push(row(at, run, "  the longest"));
        } else if let Some(row) = rows.get_mut(at) {
            row[3].push_str("  the longest");
        }
    }
    page.table(&["run", "guest-physical", "host-physical", "length"], &[0], rows)?;
    let hidden = total.saturating_sub(RUNS_SHOWN);
    match (total, hidden) {
        (1, _) => page.text("One run: all of the RAM is consecutive in the host."),
        (_, 0) => page.text(&format!("{total} runs in all.")),
        _ => page.text(&format!("{} runs in all; --json lists every one.", count(total))),
    }
}

fn row(index: usize, run: &Run, remark: &str) -> [String; 4] {
    let host = run.host.map_or_else(|| "not told".into(), address);
    [count(index + 1), address(run.guest), host, length(run.len) + remark]
}

fn maps(page: &mut Page, report: &Report) -> io::Result<()> {
    page.heading("What the devices map")?;
    let rows = report.maps.iter().map(|map| {
        [
            map.device.to_string(),
            map.what.to_string(),
            map.access.clone(),
            address(map.addr),
            length(map.len),
            map.host.map_or_else(|| "not told".into(), address),
            if map.verified { "same" } else { "OTHER" }.into(),
        ]
    });
    page.table(&["device", "map", "access", "address", "length", "host", "bytes"], &[], rows)?;
    page.note(
        "same: what was written through the mapping was read back through a second, \
         independent mapping of the same memory.",
    )
}

fn shorter(page: &mut Page, report: &Report, shortened: &Shortened) -> io::Result<()> {
    page.heading("A host-contiguous map that is shorter than asked for")?;
    let Shortened { addr, asked, got } = *shortened;
    let ask = format!("disk asks for {asked:#x} bytes ({}) at {addr:#x}", length(asked));
    match got {
        None => page.text(&format!("{ask}: EPERM, because host-physical addresses are not told.")),
        Some(got) if got == asked => page.text(&format!(
            "{ask} and gets all of it: {}.",
            if report.runs.len() == 1 {
                "this guest's RAM is one host-physical run"
            } else {
                "it is one host-physical run"
            }
        )),
        Some(got) => page.text(&format!(
            "{ask} and gets {got:#x} ({}), which is where the host-physical run ends. It asks \
             again behind that for the rest.",
            length(got)
        )),
    }
}

fn refusal(page: &mut Page, report: &Report, refused: &Refused) -> io::Result<()> {
    page.heading("A map that the guest's IOMMU refuses")?;
    page.text(&format!(
        "{} asks to write {} at {:#x}, which it may only read:",
        refused.device,
        length(refused.len),
        refused.addr
    ))?;
    page.pairs(&[("error", format!("{}: {}", refused.errno, refused.reason))])?;
    page.text("and the guest finds what its device tried:")?;
    let faults: Vec<_> = report
        .faults
        .iter()
        .take(1)
        .map(|fault| {
            let text =
                format!("{} {} at {:#x}: {}", fault.device, fault.access, fault.addr, fault.reason);
            ("fault", text)
        })
        .collect();
    page.pairs(&faults)
}

fn rom(page: &mut Page, refused: &Refused) -> io::Result<()> {
    page.heading("A write to ROM")?;
    page.text(&format!(
        "{} asks to write ROM at {:#x}. Its IOMMU rule allows that, the memory does not:",
        refused.device, refused.addr
    ))?;
    page.pairs(&[("error", format!("{}: {}", refused.errno, refused.reason))])
}

fn revoke(page: &mut Page, drain: &Drain) -> io::Result<()> {
    page.heading("A revoke that waits for its holder")?;
    let micros = |ns: u64| format!("{}.{} µs", ns / 1_000, ns % 1_000 / 100);
    let millis = |ns: u64| format!("{}.{} ms", ns / 1_000_000, ns % 1_000_000 / 100_000);
    page.text(&format!(
        "disk holds a mapping for {}; meanwhile the guest takes the range back:",
        millis(drain.held_ns)
    ))?;
    let ended = match drain.completed {
        true => "every mapping is gone",
        false => "a mapping is still held, and marked as revoked",
    };
    let Drain { waited_ns, holders, meanwhile, .. } = drain;
    let held = if *holders == 1 { "1 mapping".into() } else { format!("{holders} mappings") };
    page.pairs(&[
        (
            "at once",
            format!("a new map fails: {}, in {}", meanwhile.errno, micros(meanwhile.took_ns)),
        ),
        ("then", format!("the revoke waits {} for {held}", millis(*waited_ns))),
        ("at the end", ended.into()),
    ])
}

fn summary(page: &mut Page, report: &Report) -> io::Result<()> {
    page.heading("In short")?;
    let (mark, word, text) = match report.verified {
        true => {
            (Mark::Good, "yes", "bytes written through every mapping are in the guest's memory")
        }
        false => (Mark::Bad, "NO", "bytes written through a mapping were not found; see above"),
    };
    page.verdict(mark, word, "verified", text)?;
    let known = (report.host_known(), "host addresses", "of all of the RAM");
    let stays = (report.stability != "unpinned", "addresses stay", "while a mapping is held");
    let mut notes = report.notes.iter();
    for (holds, name, text) in [known, stays] {
        match holds {
            true => page.verdict(Mark::Good, "yes", name, text)?,
            false => {
                let why = notes.next().map_or("", String::as_str);
                page.verdict(Mark::Fair, "no", name, why)?;
            }
        }
    }
    Ok(())
}
