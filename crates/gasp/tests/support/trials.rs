//! Trials that need something of the machine, and are skipped visibly where it has it not.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use parking_lot::Mutex;

use gasp::{Backing, MemoryObject, Residency};
use gasp::{FrameAccess, PinMethod, frame_access};
use libtest_mimic::Trial;

/// Why something cannot be tested here; `None` where it can.
pub(crate) type Lack = Option<String>;

/// Frame numbers.
pub(crate) fn frames() -> Lack {
    match frame_access() {
        FrameAccess::Allowed => None,
        FrameAccess::Denied(why) => Some(why.into()),
    }
}

/// Pins by this method, of so many bytes.
pub(crate) fn pins_by(method: PinMethod, len: usize) -> Lack {
    match method.access(len) {
        gasp::PinAccess::Allowed => None,
        gasp::PinAccess::Denied(why) => Some(why.into()),
    }
}

/// Memory of this backing.
pub(crate) fn backing(backing: Backing, len: u64) -> Lack {
    let made = MemoryObject::ram(len).prefer(&[backing]).residency(Residency::Resident).create();
    made.err().map(|error| format!("no {backing} pages: {}", error.errno_name()))
}

/// A file that has to be writable.
pub(crate) fn writable(path: &str) -> Lack {
    let open = std::fs::OpenOptions::new().write(true).open(path);
    open.err().map(|error| format!("{path}: {error}"))
}

/// One trial at a time: a pool of huge pages may be just large enough for one of them.
pub(crate) fn trial(
    name: impl Into<String>,
    lacks: &[Lack],
    body: impl FnOnce() + Send + 'static,
) -> Trial {
    let name = name.into();
    let lack = lacks.iter().flatten().next();
    let name = lack.map_or_else(|| name.clone(), |why| format!("{name} [skipped: {why}]"));
    let run = move || {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock();
        body();
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(lack.is_some())
}
