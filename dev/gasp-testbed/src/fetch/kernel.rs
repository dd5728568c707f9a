//! Extraction of the uncompressed kernel from a package's compressed one: QEMU starts it
//! directly, which saves a second of every boot under software emulation.
//!
//! Offsets are those of the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst).

use std::fs::{self, File};
use std::path::Path;

use super::apt;
use crate::testbed::program;
use crate::unavailable::Unavailable;

const SETUP_SECTORS: usize = 0x1f1;
const SECTOR: usize = 512;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The size of the length of the uncompressed kernel, which follows the payload.
const LENGTH_FIELD: usize = 4;

/// The magic number of a compression format, and the program that decompresses it.
const FORMATS: [(&[u8], &str); 3] = [
    (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
];

/// Decompresses the kernel `image` to `vmlinux` in `root`, with a program of QEMU's folder.
pub(super) fn extract(image: &Path, root: &Path) -> Result<(), Unavailable> {
    let bytes = fs::read(image).map_err(Unavailable::file(image))?;
    let wrong = |why: &str| Unavailable::package("the kernel", why);
    let (payload, len) = payload(&bytes).ok_or_else(|| wrong("no compressed payload found"))?;
    let format = FORMATS.iter().find(|(magic, _)| payload.starts_with(magic));
    let (_, tool) = format.ok_or_else(|| wrong("unknown compression format"))?;

    let packed = root.join("payload");
    let vmlinux = root.join("vmlinux");
    fs::write(&packed, payload).map_err(Unavailable::file(&packed))?;
    // Through files: with a pipe in each direction, both would have to be served at once.
    let input = File::open(&packed).map_err(Unavailable::file(&packed))?;
    let output = File::create(&vmlinux).map_err(Unavailable::file(&vmlinux))?;
    let mut command = program(&root.join("qemu"), tool);
    apt::run(command.arg("-dc").stdin(input).stdout(output))?;
    fs::remove_file(&packed).map_err(Unavailable::file(&packed))?;

    let unpacked = fs::read(&vmlinux).map_err(Unavailable::file(&vmlinux))?;
    if !unpacked.starts_with(b"\x7fELF") || unpacked.len() != len {
        return Err(wrong("the decompressed kernel does not have the length that it declares"));
    }
    Ok(())
}

/// The compressed kernel in a boot image, and the length of the uncompressed one.
fn payload(image: &[u8]) -> Option<(&[u8], usize)> {
    let word = |bytes: &[u8], at: usize| -> Option<usize> {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let setup = match usize::from(*image.get(SETUP_SECTORS)?) {
        0 => 4,
        sectors => sectors,
    };
    let start = (setup + 1) * SECTOR + word(image, PAYLOAD_OFFSET)?;
    let payload = image.get(start..start + word(image, PAYLOAD_LENGTH)?)?;
    let end = payload.len().checked_sub(LENGTH_FIELD)?;
    Some((payload.get(..end)?, word(payload, end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_found_where_the_header_says_and_never_outside() {
        let mut image = vec![0; 2 * SECTOR + 100];
        image[SETUP_SECTORS] = 1;
        image[PAYLOAD_OFFSET] = 10;
        image[PAYLOAD_LENGTH] = 12;
        image[2 * SECTOR + 10..][..12].copy_from_slice(b"COMPRESS\x05\x01\0\0");
        assert_eq!(payload(&image), Some((&b"COMPRESS"[..], 261)));
        for (at, value) in [(PAYLOAD_LENGTH + 1, 1), (PAYLOAD_OFFSET + 3, 1), (SETUP_SECTORS, 9)] {
            let mut wrong = image.clone();
            wrong[at] = value;
            assert_eq!(payload(&wrong), None, "{at:#x}");
        }
        assert_eq!(payload(b"short"), None);
        let mut empty = image.clone();
        empty[PAYLOAD_LENGTH] = 3;
        assert_eq!(payload(&empty), None, "too short for its own length");
    }
}
