//! Every message of the engine, printed into a file for reviewers: `messages.txt`.
//!
//! The reasons are listed here; the texts of those that are a text are found in the sources.
//! After a change of either, `GASP_WRITE_MESSAGES=1 cargo test -p gasp messages` rewrites the
//! file; review the difference.

use core::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Errno, Error, Operation, Reason, Refusal};
use crate::access::Access;
use crate::addr::{DeviceAddr, GuestPhys};

/// One of each reason that is more than a text.
fn reasons() -> Vec<Reason> {
    let (at, to) = (DeviceAddr(0x4000), GuestPhys(0x8000));
    let (offered, requested) = (Access::READ, Access::RW);
    let refused = |refusal| Reason::Refused { addr: at, refusal };
    let all = vec![
        Reason::ZeroLength,
        Reason::Wraps,
        Reason::BeyondWidth { bits: 48 },
        Reason::BadFlags(0x200),
        refused(Refusal::NotGranted),
        refused(Refusal::Access { allowed: offered, requested }),
        refused(Refusal::Unattached),
        refused(Refusal::DenyDomain),
        refused(Refusal::Translator { reason: 5 }),
        Reason::NoMemory { addr: to },
        Reason::NotRam { addr: to },
        Reason::Forbidden { addr: to, offered, requested },
        Reason::NotConsecutive { prefix: 4096 },
        Reason::NotAllowed { allowed: offered },
        Reason::OutOfBounds { size: 512 },
        Reason::Unaligned { align: 8 },
        Reason::Unpinned,
        Reason::GrantedElsewhere { addr: at, to },
        Reason::OtherOwner,
        Reason::Locked,
        Reason::Limit { what: "devices", limit: 65_536 },
        Reason::NoRoom,
        Reason::FileTooSmall { size: 8192 },
        Reason::MemoryGone,
        Reason::Fragmented { required: 16 << 20, shortest: 2 << 20 },
        Reason::NoHostMemory { available: 3 << 30 },
        Reason::PoolShort { page: 2 << 20, free: 3, needed: 512 },
    ];
    // A new reason is added above, or is a text and is found in the sources.
    all.into_iter().filter(|reason| !is_text(*reason)).collect()
}

/// Whether a reason is only a text.
fn is_text(reason: Reason) -> bool {
    match reason {
        Reason::HostUnknown(_)
        | Reason::Overlaps(_)
        | Reason::NameTaken(_)
        | Reason::InUse(_)
        | Reason::Deadlock(_)
        | Reason::Invalid(_)
        | Reason::NotFound(_)
        | Reason::FileReadOnly(_)
        | Reason::NotAFile(_)
        | Reason::Os { .. } => true,
        Reason::ZeroLength
        | Reason::Wraps
        | Reason::BeyondWidth { .. }
        | Reason::BadFlags(_)
        | Reason::Refused { .. }
        | Reason::NoMemory { .. }
        | Reason::NotRam { .. }
        | Reason::Forbidden { .. }
        | Reason::NotConsecutive { .. }
        | Reason::NotAllowed { .. }
        | Reason::OutOfBounds { .. }
        | Reason::Unaligned { .. }
        | Reason::Unpinned
        | Reason::GrantedElsewhere { .. }
        | Reason::OtherOwner
        | Reason::Locked
        | Reason::Limit { .. }
        | Reason::NoRoom
        | Reason::FileTooSmall { .. }
        | Reason::MemoryGone
        | Reason::Fragmented { .. }
        | Reason::NoHostMemory { .. }
        | Reason::PoolShort { .. } => false,
    }
}

type OfText = fn(&'static str) -> Reason;

/// The reasons that are a text, as the sources construct them, and the texts that they name.
const OF_TEXT: [(&str, OfText); 22] = [
    ("Reason::HostUnknown(", Reason::HostUnknown),
    ("Reason::Overlaps(", Reason::Overlaps),
    ("Reason::NameTaken(", Reason::NameTaken),
    ("Reason::InUse(", Reason::InUse),
    ("Reason::Deadlock(", Reason::Deadlock),
    ("Reason::Invalid(", Reason::Invalid),
    ("Reason::NotFound(", Reason::NotFound),
    ("Reason::FileReadOnly(", Reason::FileReadOnly),
    ("Reason::NotAFile(", Reason::NotAFile),
    ("const NO_PRIVILEGE: &str =", Reason::HostUnknown),
    ("const NO_PAGEMAP: &str =", Reason::HostUnknown),
    ("const NOT_PRESENT: &str =", Reason::HostUnknown),
    ("FileType::CharacterDevice =>", Reason::NotAFile),
    ("FileType::BlockDevice =>", Reason::NotAFile),
    ("FileType::Directory =>", Reason::NotAFile),
    ("FileType::Fifo =>", Reason::NotAFile),
    ("FileType::Socket =>", Reason::NotAFile),
    ("Reason::os(", of_system),
    ("Reason::Os { what:", of_system),
    ("const WHAT: &str =", of_system),
    ("failed(", of_system),
    ("const UNTRUSTED: &str =", of_system),
];

fn of_system(what: &'static str) -> Reason {
    Reason::Os { what, errno: Errno::IO }
}

/// The string literal at the start of `source`, without its quotation marks.
fn literal(source: &str) -> Option<&str> {
    let text = source.trim_start().strip_prefix('"')?;
    let end = text.char_indices().find(|&(offset, letter)| {
        letter == '"' && !text.get(..offset).unwrap_or_default().ends_with('\\')
    });
    text.get(..end?.0)
}

/// The value of a literal: a line that ends in a backslash continues at the next word.
fn unescaped(literal: &str) -> String {
    let mut lines = literal.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start()).replace("\\\"", "\"")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The messages of all texts in the sources, with their errno.
fn texts() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&folder, &mut files);
    let mut lines = Vec::new();
    files.retain(|file| !file.ends_with("error/messages.rs"));
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        for (call, reason) in OF_TEXT {
            for (offset, _) in source.match_indices(call) {
                let Some(text) = literal(&source[offset + call.len()..]) else { continue };
                let reason = reason(Box::leak(unescaped(text).into_boxed_str()));
                lines.push(format!("{} {reason}", crate::error::errno_name(reason.errno())));
            }
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

#[test]
fn every_message_is_in_the_file_that_is_read_by_eye() {
    let mut all = String::from("Each reason, as the reason of a map that failed:\n\n");
    for reason in reasons() {
        let error = Error::new(Operation::Map, DeviceAddr(0x4000), 4096, reason);
        writeln!(all, "{}", error.of(&Arc::from("disk"))).unwrap();
    }
    all.push_str("\nErrors about an object as a whole:\n\n");
    for (operation, reason) in [
        (Operation::Create, Reason::NameTaken("a device")),
        (Operation::Remove, Reason::InUse("devices are attached to it; move them first")),
        (Operation::Attach, Reason::OtherOwner),
        (Operation::HostPhysical, Reason::HostUnknown("the broker refuses")),
    ] {
        writeln!(all, "{}", Error::whole(operation, reason).of(&Arc::from("disk"))).unwrap();
    }
    all.push_str("\nErrors of the system for which there is a remedy:\n\n");
    for errno in [Errno::MFILE, Errno::NFILE, Errno::FBIG, Errno::NOMEM] {
        writeln!(all, "{}", Reason::Os { what: "mmap", errno }).unwrap();
    }
    all.push_str("\nReasons that are a text, as they follow such a beginning:\n\n");
    texts().into_iter().for_each(|line| all.push_str(&(line + "\n")));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/error/messages.txt");
    if std::env::var_os("GASP_WRITE_MESSAGES").is_some() {
        fs::write(&path, &all).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = all.lines().find(|line| !kept.lines().any(|other| other == *line));
    assert_eq!(differs, None, "not in messages.txt; see the module for how to rewrite it");
    assert_eq!(kept, all, "messages.txt has lines that no code prints any more");
}
