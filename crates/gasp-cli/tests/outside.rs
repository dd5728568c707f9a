//! The output of `gasp map --hold`, checked from outside: the test reads the frame numbers of
//! the other process's pages itself.
//!
//! Frame numbers need `CAP_SYS_ADMIN`; without it these tests are counted as ignored,
//! with the reason in their names.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use gasp::{FrameAccess, frame_access};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

const CONFIG: &str = r#"
[guest]
name = "outside"
allow-unpinned = true
[[ram]]
start = 0
size = "8M"
backing = ["4K"]
[[vdev]]
name = "disk"
"#;

type Check = fn() -> Result<(), Failed>;

fn main() {
    let denied = frame_access() != FrameAccess::Allowed;
    let reason = if denied { " (frame numbers need CAP_SYS_ADMIN)" } else { "" };
    let checks: [(&str, Check); 2] = [
        ("a_held_mapping_is_where_it_says_page_by_page", held_mapping_is_where_it_says),
        ("a_run_ends_where_the_next_frame_is_another", run_ends_where_frames_do),
    ];
    let mut trials: Vec<Trial> = checks
        .into_iter()
        .map(|(name, check)| {
            Trial::test(format!("{name}{reason}"), check).with_ignored_flag(denied)
        })
        .collect();
    trials.push(Trial::test("a_hold_ends_at_a_signal_and_with_status_0", hold_ends_at_a_signal));
    trials.push(Trial::test("a_hold_ends_when_its_time_is_over", hold_ends_in_time));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A child that holds a mapping, and what it has printed about that.
struct Holder {
    child: Child,
    held: Value,
    _folder: tempfile::TempDir,
}

impl Holder {
    fn start(addr: &str, len: &str, seconds: &str) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("guest.toml");
        std::fs::write(&config, CONFIG)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_gasp"))
            .args(["map", "--vdev", "disk", "--access", "rw", "--json"])
            .args(["--addr", addr, "--len", len, "--hold", seconds, "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.as_mut().ok_or("no stdout")?;
        let mut line = String::new();
        let mut lines = BufReader::new(stdout);
        lines.read_line(&mut line)?;
        let held = serde_json::from_str(&line)?;
        // The other line is read, too, so that the child can write it.
        line.clear();
        lines.read_line(&mut line)?;
        Ok(Self { child, held, _folder: folder })
    }

    fn number(&self, field: &str) -> Result<u64, Failed> {
        Ok(self.held[field].as_u64().ok_or(format!("{field} in {}", self.held))?)
    }

    /// The host-physical address of the byte at `vaddr` of the child, according to the kernel.
    fn host_of(&self, vaddr: u64) -> Result<u64, Failed> {
        const FRAME: u64 = (1 << 55) - 1;
        let page = rustix::param::page_size() as u64;
        let pagemap = File::open(format!("/proc/{}/pagemap", self.number("pid")?))?;
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, vaddr / page * 8)?;
        let frame = u64::from_ne_bytes(entry) & FRAME;
        if frame == 0 {
            return Err("the page has no frame number".into());
        }
        Ok(frame * page + vaddr % page)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn held_mapping_is_where_it_says() -> Result<(), Failed> {
    for (addr, len) in [("0", "8M"), ("0x123456", "0x1fff"), ("4M", "1")] {
        let holder = Holder::start(addr, len, "60")?;
        let (vaddr, host) = (holder.number("vaddr")?, holder.number("host")?);
        let page = rustix::param::page_size();
        let last = holder.number("len")? - 1;
        for at in (0..last).step_by(page).chain([last]) {
            let found = holder.host_of(vaddr + at)?;
            if found != host + at {
                return Err(format!("byte {at:#x} is at {found:#x}, not {:#x}", host + at).into());
            }
        }
    }
    Ok(())
}

fn run_ends_where_frames_do() -> Result<(), Failed> {
    let holder = Holder::start("0", "8M", "60")?;
    let (vaddr, host) = (holder.number("vaddr")?, holder.number("host")?);
    let len = holder.number("len")?;
    if len < 8 << 20 && holder.host_of(vaddr + len)? == host + len {
        return Err(format!("the run continues after {len:#x} bytes").into());
    }
    Ok(())
}

fn hold_ends_at_a_signal() -> Result<(), Failed> {
    let mut holder = Holder::start("0", "4K", "600")?;
    let pid = rustix::process::Pid::from_child(&holder.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let status = holder.child.wait()?;
    if status.code() != Some(0) {
        return Err(format!("it ended with {status}").into());
    }
    Ok(())
}

fn hold_ends_in_time() -> Result<(), Failed> {
    let mut holder = Holder::start("0", "4K", "0.05")?;
    let status = holder.child.wait()?;
    if !status.success() || holder.number("len")? != 4096 {
        return Err(format!("it ended with {status}: {}", holder.held).into());
    }
    Ok(())
}
