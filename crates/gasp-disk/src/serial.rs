//! The default serial number of a disk.
//!
//! | backing | derived from | so it |
//! |---|---|---|
//! | a file | its canonical path | survives restarts of the process and of the host, and writes to the file; changes if the file is moved |
//! | a block device | the path as given, made absolute | survives for names below `/dev/disk`, whose targets can have other names after each boot |
//! | memory, nothing | process, time, and a count | is new for each disk, as the contents are |
//!
//! Paths rather than device and inode: inode numbers change when an image is restored from
//! a backup, and numbers of block devices and of FUSE's inodes with each boot.

use core::sync::atomic::{AtomicU64, Ordering};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::backing::Backing;
use crate::error::DiskError;

/// The maximum length of a serial number, in bytes: that of NVMe (1.4, 5.15.2.2: SN) and of virtio
/// (1.2, 5.2.6: VIRTIO_BLK_T_GET_ID).
pub const LEN_MAX: usize = 20;

/// The default serial number of a disk with this backing.
///
/// # Errors
/// If there is no such file.
pub fn of(backing: &Backing) -> Result<String, DiskError> {
    match backing.path() {
        Some(path) => {
            of_file(path).map_err(|source| DiskError::File { path: path.to_owned(), source })
        }
        None => Ok(of_nothing()),
    }
}

/// The serial number of a disk in the file or block device at `path`, which exists.
fn of_file(path: &Path) -> io::Result<String> {
    let name = match fs::metadata(path)?.file_type().is_block_device() {
        true => std::path::absolute(path)?,
        false => fs::canonicalize(path)?,
    };
    Ok(text(hash(name.as_os_str().as_bytes().iter().copied())))
}

/// A serial number that no other disk has.
fn of_nothing() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let words = [
        u128::from(COUNT.fetch_add(1, Ordering::Relaxed)),
        u128::from(std::process::id()),
        time.as_nanos(),
    ];
    text(hash(words.into_iter().flat_map(u128::to_le_bytes)))
}

/// A serial number of 20 characters, from both halves of the hash.
fn text(hash: u128) -> String {
    let half = (hash >> 64) as u64 ^ hash as u64;
    format!("gasp{half:016x}")
}

/// FNV-1a of 128 bits.
pub fn hash(bytes: impl Iterator<Item = u8>) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one_and_a_serial_has_20_characters() {
        // Test vectors of the authors of FNV.
        assert_eq!(hash(b"a".iter().copied()), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(hash(b"foobar".iter().copied()), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
        assert_eq!(text(1 << 64 | 2), "gasp0000000000000003");
        assert_eq!(text(u128::MAX).len(), LEN_MAX);
    }

    #[test]
    fn a_file_has_one_serial_by_all_its_names_and_no_other_file_has_it() {
        let folder = std::env::temp_dir().join(format!("gasp-serial-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [file, other, link] = ["disk", "other", "link"].map(|name| folder.join(name));
        fs::write(&file, b"contents").unwrap();
        fs::write(&other, b"contents").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let serial = of_file(&file).unwrap();
        assert_eq!(of_file(&link).unwrap(), serial);
        assert_eq!(of_file(&folder.join(".").join("disk")).unwrap(), serial);
        assert_ne!(of_file(&other).unwrap(), serial);
        // Restored from a backup: another inode with other contents.
        fs::remove_file(&file).unwrap();
        fs::write(&file, b"changed").unwrap();
        assert_eq!(of_file(&file).unwrap(), serial);
        assert_ne!(of_nothing(), of_nothing());
        fs::remove_dir_all(&folder).unwrap();
        assert!(of_file(&file).is_err());
    }
}
