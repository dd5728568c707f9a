//! Files that look like kernels, around a few instructions of 64-bit code.
#![allow(dead_code, reason = "each test binary uses a part of it")]

/// The longest command line of a [`bz_image`].
pub(crate) const COMMAND_LINE: usize = 100;

/// Writes a number into a file's bytes.
fn put(bytes: &mut [u8], at: usize, number: impl AsRef<[u8]>) {
    let number = number.as_ref();
    bytes[at..at + number.len()].copy_from_slice(number);
}

/// An ELF vmlinux of one segment at 1 MiB, of 1 MiB in memory, which is entered at its begin.
pub(crate) fn elf(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x400];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, [2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version 1
    put(&mut file, 24, 0x10_0000_u64.to_le_bytes()); // entry
    put(&mut file, 32, 64_u64.to_le_bytes()); // program headers
    put(&mut file, 52, [64, 0, 56, 0, 1, 0]); // sizes of the headers, and one of them
    let segment = 64;
    put(&mut file, segment, [1, 0, 0, 0, 7, 0, 0, 0]); // to be loaded, all access
    put(&mut file, segment + 8, 0x400_u64.to_le_bytes()); // offset
    put(&mut file, segment + 24, 0x10_0000_u64.to_le_bytes()); // physical address
    put(&mut file, segment + 32, (code.len() as u64).to_le_bytes()); // in the file
    put(&mut file, segment + 40, 0x10_0000_u64.to_le_bytes()); // in memory
    file.extend_from_slice(code);
    file
}

/// A bzImage with one sector of setup, which runs at 2 MiB and needs 1 MiB there.
pub(crate) fn bz_image(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x400 + 0x200];
    put(&mut file, 0x1f1, [1]); // sectors of setup
    put(&mut file, 0x1fe, [0x55, 0xaa]);
    put(&mut file, 0x200, [0xeb, 0x6a]); // the header's end
    put(&mut file, 0x202, b"HdrS");
    put(&mut file, 0x206, 0x020f_u16.to_le_bytes()); // version
    put(&mut file, 0x211, [1]); // loaded high
    put(&mut file, 0x214, 0x10_0000_u32.to_le_bytes()); // where
    put(&mut file, 0x22c, 0x7fff_ffff_u32.to_le_bytes()); // the initrd's last address
    put(&mut file, 0x230, 0x20_0000_u32.to_le_bytes()); // alignment
    put(&mut file, 0x234, [1]); // can be moved
    put(&mut file, 0x236, [1]); // has a 64-bit entry
    put(&mut file, 0x238, (COMMAND_LINE as u32).to_le_bytes());
    put(&mut file, 0x258, 0x20_0000_u64.to_le_bytes()); // preferred address
    put(&mut file, 0x260, 0x10_0000_u32.to_le_bytes()); // memory that it needs
    file[0x400..].fill(0xf4); // hlt: the 32-bit entry
    file.extend_from_slice(code);
    file.resize(file.len().next_multiple_of(16), 0);
    let paragraphs = (file.len() - 0x400) as u32 / 16;
    put(&mut file, 0x1f4, paragraphs.to_le_bytes());
    file
}
