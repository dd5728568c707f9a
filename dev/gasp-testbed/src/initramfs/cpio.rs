//! The archive format of an initramfs, "newc" cpio: for each file a header of hexadecimal
//! numbers, the name and the contents, each padded to four bytes.
//!
//! The format is described in Linux's Documentation/driver-api/early-userspace/
//! buffer-format.rst.

use std::collections::BTreeSet;

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LAST: &str = "TRAILER!!!";

/// An archive under construction.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder and its parents, unless they exist already.
    pub(super) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.folders.contains(path) {
            return;
        }
        self.parents(path);
        self.entry(path, FOLDER, &[]);
        self.folders.insert(path.into());
    }

    /// Adds a file that everybody may read and execute, and its parent folders.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) {
        let path = path.trim_matches('/');
        self.parents(path);
        self.entry(path, FILE, contents);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(LAST, 0, &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        let (inode, links, owner, time, device) = (self.entries, 1, 0, 0, 0);
        let (size, name_size) = (contents.len(), name.len() + 1);
        let header = format!(
            "070701{inode:08x}{mode:08x}{owner:08x}{owner:08x}{links:08x}{time:08x}{size:08x}\
             {device:08x}{device:08x}{device:08x}{device:08x}{name_size:08x}{check:08x}",
            check = 0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_and_folders_come_once_and_before_their_files() {
        let mut archive = Archive::default();
        archive.file("/a/b/file", b"12345");
        archive.folder("/a");
        archive.file("a/b/empty", b"");
        let bytes = archive.finish();
        let mut names = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            assert_eq!(&rest[..6], b"070701");
            let field = |index: usize| {
                let digits = std::str::from_utf8(&rest[6 + index * 8..][..8]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            let name = std::str::from_utf8(&rest[110..110 + name_size - 1]).unwrap();
            names.push((name, size));
            let contents = (110 + name_size).next_multiple_of(4);
            rest = &rest[contents + size.next_multiple_of(4)..];
        }
        let want = [("a", 0), ("a/b", 0), ("a/b/file", 5), ("a/b/empty", 0), (LAST, 0)];
        assert_eq!(names, want);
    }
}
