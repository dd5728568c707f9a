//! The kernel: what kind of file it is, whether it is whole, and where it wants to be.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::Address;

use super::low::LowRam;
use super::{BootError, KERNEL, open};

/// Fields of a bzImage's header (the boot protocol's numbers).
const SETUP_SECTORS: u64 = 0x1f1;
const SYSTEM_SIZE: u64 = 0x1f4;
const MAGIC: u64 = 0x202;
const SECTOR: u64 = 512;
/// `syssize` counts paragraphs of 16 bytes.
const PARAGRAPH: u64 = 16;
/// Bit of `xloadflags`: there is a 64-bit entry, at this offset.
const XLF_KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;

/// The length of an ELF file's header (64-bit), and offsets in it.
const ELF_HEADER: u64 = 64;
const ELF_CLASS: u64 = 4;
const ELF_CLASS_64: u8 = 2;
const ELF_MACHINE: u64 = 18;
const ELF_MACHINE_X86_64: u16 = 62;
const ELF_HEADERS: u64 = 32;
const ELF_HEADER_SIZE: u64 = 56;
const ELF_HEADER_COUNT: u64 = 56;
const PT_LOAD: u32 = 1;

/// How other files begin that people take for kernels.
const OTHERS: [(&[u8], &str); 7] = [
    (&[0x1f, 0x8b], "a file compressed with gzip"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "a file compressed with xz"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "a file compressed with zstd"),
    (&[0x02, 0x21, 0x4c, 0x18], "a file compressed with lz4"),
    (b"070701", "an initrd (a cpio archive)"),
    (b"MZ", "an EFI program without a bzImage's header"),
    (b"#!", "a script"),
];

/// A kernel that is in memory.
pub(super) struct Image {
    /// Its first instruction, in 64-bit mode.
    pub(super) entry: u64,
    /// The first address that it does not need before it knows its memory map.
    pub(super) end: u64,
    /// The header of a bzImage.
    pub(super) header: Option<setup_header>,
}

impl Image {
    pub(super) fn load(path: &Path, ram: &LowRam) -> Result<Self, BootError> {
        let (file, len) = open(path)?;
        let fields = Fields { file, len };
        let mut magic = [0; 4];
        fields.read(0, &mut magic);
        if magic == *b"\x7fELF" {
            return elf(path, fields, ram);
        }
        fields.read(MAGIC, &mut magic);
        if magic == *b"HdrS" {
            return bz_image(path, fields, ram);
        }
        Err(BootError::NotAKernel { path: path.into(), found: fields.kind() })
    }
}

fn bz_image(path: &Path, fields: Fields, ram: &LowRam) -> Result<Image, BootError> {
    let sectors = match u64::from(u8::from_le_bytes(fields.number(SETUP_SECTORS))) {
        0 => 4,
        sectors => sectors,
    };
    let system = u64::from(u32::from_le_bytes(fields.number(SYSTEM_SIZE))) * PARAGRAPH;
    let expected = (sectors + 1) * SECTOR + system;
    if fields.len < expected {
        return Err(BootError::Truncated { path: path.into(), len: fields.len, expected });
    }
    let unsupported = |why| BootError::Unsupported { path: path.into(), why };
    let too_small = |needed| BootError::RamTooSmall { needed, available: ram.len() };
    // Where it is loaded it needs no more than the file has, at most.
    if ram.len() < KERNEL + fields.len {
        return Err(too_small(KERNEL + fields.len));
    }
    let start = Some(vm_memory::GuestAddress(KERNEL));
    let mut file = fields.file;
    let loaded = BzImage::load(ram.memory(), start, &mut file, start)
        .map_err(|_| unsupported("linux-loader refuses this bzImage; use a newer kernel"))?;
    let header = loaded.setup_header.ok_or_else(|| unsupported("its header is missing"))?;
    if header.version < 0x20c || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(unsupported("it has no 64-bit entry; use a kernel for x86-64, 3.8 or newer"));
    }
    // It moves itself to the address that it prefers, or to an aligned one above the present, and
    // needs `init_size` bytes from there on.
    let alignment = u64::from(header.kernel_alignment).max(1);
    let aligned = KERNEL.checked_next_multiple_of(alignment);
    let runs = aligned.unwrap_or(u64::MAX).max(header.pref_address);
    let end = runs.saturating_add(u64::from(header.init_size)).max(loaded.kernel_end);
    if end > ram.len() {
        return Err(too_small(end));
    }
    let entry = loaded.kernel_load.raw_value() + ENTRY_64;
    Ok(Image { entry, end, header: Some(header) })
}

fn elf(path: &Path, fields: Fields, ram: &LowRam) -> Result<Image, BootError> {
    let unsupported = |why| BootError::Unsupported { path: path.into(), why };
    let truncated =
        |expected| BootError::Truncated { path: path.into(), len: fields.len, expected };
    if fields.len < ELF_HEADER {
        return Err(truncated(ELF_HEADER));
    }
    let [class] = fields.number(ELF_CLASS);
    let machine = u16::from_le_bytes(fields.number(ELF_MACHINE));
    if class != ELF_CLASS_64 || machine != ELF_MACHINE_X86_64 {
        return Err(unsupported("it is for another processor; use a kernel for x86-64"));
    }
    let headers = u64::from_le_bytes(fields.number(ELF_HEADERS));
    let count = u16::from_le_bytes(fields.number(ELF_HEADER_COUNT));
    let end_of_headers = headers.saturating_add(u64::from(count) * ELF_HEADER_SIZE);
    if fields.len < end_of_headers {
        return Err(truncated(end_of_headers));
    }
    let (mut lowest, mut end) = (u64::MAX, 0);
    for index in 0..u64::from(count) {
        let header = headers + index * ELF_HEADER_SIZE;
        if u32::from_le_bytes(fields.number(header)) != PT_LOAD {
            continue;
        }
        let field = |at| u64::from_le_bytes(fields.number(header + at));
        let (offset, addr, in_file, in_memory) = (field(8), field(24), field(32), field(40));
        let expected = offset.saturating_add(in_file);
        if in_file > 0 && fields.len < expected {
            return Err(truncated(expected));
        }
        lowest = lowest.min(addr);
        end = end.max(addr.saturating_add(in_memory.max(in_file)));
    }
    if lowest < KERNEL || end == 0 {
        let why = "it is no kernel: its segments are not at 1 MiB or above; use an ELF vmlinux";
        return Err(unsupported(why));
    }
    if end > ram.len() {
        return Err(BootError::RamTooSmall { needed: end, available: ram.len() });
    }
    let mut file = fields.file;
    let start = Some(vm_memory::GuestAddress(KERNEL));
    let loaded = Elf::load(ram.memory(), None, &mut file, start)
        .map_err(|_| unsupported("linux-loader refuses this ELF file; use a vmlinux of Linux"))?;
    let entry = loaded.kernel_load.raw_value();
    if entry >= end {
        return Err(unsupported("its entry is outside of it; use a vmlinux of Linux"));
    }
    Ok(Image { entry, end, header: None })
}

/// A file whose fields are looked at. What lies past its end is zero.
struct Fields {
    file: File,
    len: u64,
}

impl Fields {
    fn read(&self, at: u64, into: &mut [u8]) {
        into.fill(0);
        let read = self.file.read_exact_at(into, at);
        if read.is_err_and(|error| error.kind() != io::ErrorKind::UnexpectedEof) {
            // Loading it will fail as well, and says why.
            into.fill(0);
        }
    }

    fn number<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(at, &mut bytes);
        bytes
    }

    /// What it seems to be, if it is no kernel.
    fn kind(&self) -> &'static str {
        let mut start = [0; 8];
        self.read(0, &mut start);
        let known = OTHERS.iter().find(|(magic, _)| start.starts_with(magic));
        match known {
            _ if self.len == 0 => "an empty file",
            Some((_, name)) => name,
            None => "something else",
        }
    }
}
