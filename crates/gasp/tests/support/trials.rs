//! Trials that need something of the machine, and are skipped visibly if it does not have it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use parking_lot::Mutex;

use gasp::{Backing, MemoryObject, Residency};
use gasp::{FrameAccess, PinMethod, frame_access};
use libtest_mimic::Trial;

/// Why something cannot be tested here; `None` if it can.
pub(crate) type Lack = Option<String>;

/// Needs frame numbers.
pub(crate) fn frames() -> Lack {
    match frame_access() {
        FrameAccess::Allowed => None,
        FrameAccess::Denied(why) => Some(why.into()),
    }
}

/// Needs pins by this method, of `len` bytes.
pub(crate) fn pins_by(method: PinMethod, len: usize) -> Lack {
    match method.access(len) {
        gasp::PinAccess::Allowed => None,
        gasp::PinAccess::Denied(why) => Some(why.into()),
    }
}

/// Needs `len` bytes of memory of this backing.
pub(crate) fn backing(backing: Backing, len: u64) -> Lack {
    let made = MemoryObject::ram(len).prefer(&[backing]).residency(Residency::Resident).create();
    made.err().map(|error| format!("no {backing} pages: {}", error.errno_name()))
}

/// Needs a writable file.
pub(crate) fn writable(path: &str) -> Lack {
    let open = std::fs::OpenOptions::new().write(true).open(path);
    open.err().map(|error| format!("{path}: {error}"))
}

/// A trial that runs alone: a pool of huge pages may be just large enough for one of them. It is
/// marked as ignored if something is lacking, with the reason in its name.
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
