//! Starting a Linux kernel: a bzImage or an uncompressed ELF `vmlinux`, by the 64-bit boot protocol.
//!
//! | | |
//! |---|---|
//! | 0x0500 | descriptors of the segments |
//! | 0x7000 | the zero page |
//! | 0x9000 to 0xf000 | page tables: the first 4 GiB, identically |
//! | 0x2_0000 to 0x3_0000 | the command line |
//! | 0xe_0000 to 0x10_0000 | [ACPI tables](crate::acpi) |
//! | 1 MiB and more | the kernel, where it asks to be |
//! | below the end of low RAM | the initrd |
//!
//! References: [the Linux/x86 boot protocol](https://docs.kernel.org/arch/x86/boot.html), [the zero
//! page](https://docs.kernel.org/arch/x86/zero-page.html).

mod e820;
mod entry;
mod error;
mod image;
mod low;

use std::fs::File;
use std::path::{Path, PathBuf};

use gasp::{Guest, GuestPhys};
use linux_loader::loader::bootparam::{boot_params, setup_header};
use vm_memory::ByteValued;

pub use entry::Entry;
pub use error::BootError;
use image::Image;
use low::LowRam;

/// The zero page.
const ZERO_PAGE: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x2_0000;
/// Room for the command line, with the zero at its end.
const COMMAND_LINE_ROOM: u64 = 0x1_0000;
/// How long a command line an ELF kernel takes, which does not say: COMMAND_LINE_SIZE of x86, less
/// the zero at its end.
const COMMAND_LINE_OF_ELF: u64 = 2047;
/// The first address that a kernel may use.
const KERNEL: u64 = 1 << 20;
/// The last address of an initrd, if the kernel does not say.
const INITRD_MAX: u64 = 0x7fff_ffff;

/// Fields of the zero page for a kernel that comes without.
const BOOT_FLAG: u16 = 0xaa55;
const HEADER: u32 = u32::from_le_bytes(*b"HdrS");
const VERSION: u16 = 0x020f;
const ALIGNMENT: u32 = 2 << 20;
/// A loader without a number of its own.
const LOADER: u8 = 0xff;
/// The kernel is at 1 MiB or more.
const LOADED_HIGH: u8 = 1;

/// What to start.
///
/// ```no_run
/// use gasp::{Guest, MemoryObject};
/// use gasp_vm::{Machine, acpi, boot, layout};
///
/// let guest = Guest::builder().build()?;
/// layout::add_ram(&guest, &MemoryObject::ram(512 << 20).create()?)?;
/// let machine = Machine::builder().build(&guest)?;
/// let vcpus = machine.vcpus(1)?;
/// let root = acpi::Tables::new(1).write(&guest)?;
/// let boot = boot::Boot::new("vmlinux").initrd("initrd.img").cmdline("console=ttyS0").acpi(root);
/// boot.load(&guest)?.apply(&guest, &vcpus[0])?;
/// println!("{}", machine.start(vcpus)?.wait());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "call `load`"]
pub struct Boot {
    kernel: PathBuf,
    initrd: Option<PathBuf>,
    cmdline: String,
    acpi: Option<GuestPhys>,
}

impl Boot {
    /// A kernel without a command line, initrd and ACPI.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self { kernel: kernel.into(), initrd: None, cmdline: String::new(), acpi: None }
    }

    /// Sets the initrd.
    pub fn initrd(self, initrd: impl Into<PathBuf>) -> Self {
        Self { initrd: Some(initrd.into()), ..self }
    }

    /// Sets the command line.
    pub fn cmdline(self, cmdline: &str) -> Self {
        Self { cmdline: cmdline.into(), ..self }
    }

    /// Sets where the root of the ACPI tables is: see
    /// [`Tables::write`](crate::acpi::Tables::write).
    pub fn acpi(self, root: GuestPhys) -> Self {
        Self { acpi: Some(root), ..self }
    }

    /// Loads kernel, initrd and command line into the guest's RAM, and describes its regions to the
    /// kernel. The RAM that begins at address 0 has to hold all of it.
    ///
    /// # Errors
    /// A [`BootError`], of one line. Part of the RAM may be written then.
    pub fn load(&self, guest: &Guest) -> Result<Entry, BootError> {
        let ram = LowRam::of(guest)?;
        let image = Image::load(&self.kernel, &ram)?;
        let mut params = boot_params { hdr: header(&image), ..Default::default() };
        params.acpi_rsdp_addr = self.acpi.map_or(0, |root| root.0);
        self.write_command_line(guest, &mut params.hdr)?;
        if let Some(path) = &self.initrd {
            let (start, len) = load_initrd(path, &image, &ram)?;
            (params.hdr.ramdisk_image, params.hdr.ramdisk_size) = (start, len);
        }
        e820::describe(&guest.space().regions(), &mut params)?;
        guest.write_firmware(GuestPhys(ZERO_PAGE), params.as_slice())?;
        Ok(Entry { rip: image.entry, zero_page: ZERO_PAGE })
    }

    fn write_command_line(&self, guest: &Guest, hdr: &mut setup_header) -> Result<(), BootError> {
        let limit = match hdr.cmdline_size {
            0 => COMMAND_LINE_OF_ELF,
            size => u64::from(size).min(COMMAND_LINE_ROOM - 1),
        };
        let text = self.cmdline.as_bytes();
        if text.len() as u64 > limit {
            return Err(BootError::CommandLineTooLong { len: text.len() as u64, limit });
        }
        if let Some(at) = text.iter().position(|&byte| byte == 0) {
            return Err(BootError::CommandLineHasZero { at });
        }
        let mut bytes = text.to_vec();
        bytes.push(0);
        guest.write_firmware(GuestPhys(COMMAND_LINE), &bytes)?;
        // It is below 1 MiB.
        hdr.cmd_line_ptr = COMMAND_LINE as u32;
        Ok(())
    }
}

/// The setup header: the kernel's own, with the fields of a loader.
fn header(image: &Image) -> setup_header {
    let mut hdr = image.header.unwrap_or_else(|| setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER,
        version: VERSION,
        kernel_alignment: ALIGNMENT,
        ..Default::default()
    });
    hdr.type_of_loader = LOADER;
    hdr.loadflags |= LOADED_HIGH;
    hdr
}

/// Loads the initrd as high as the kernel allows, above the kernel. Returns where it is, and its
/// length.
fn load_initrd(path: &Path, image: &Image, ram: &LowRam) -> Result<(u32, u32), BootError> {
    let (file, len) = open(path)?;
    let highest = match image.header.map_or(0, |hdr| u64::from(hdr.initrd_addr_max)) {
        0 => INITRD_MAX,
        highest => highest,
    };
    let end = ram.len().min(highest.saturating_add(1));
    let start = end.checked_sub(len).map(|start| start & !0xfff);
    let fits = start
        .filter(|&start| start >= image.end)
        .and_then(|start| Some((u32::try_from(start).ok()?, u32::try_from(len).ok()?)));
    let Some(placed) = fits else {
        let room = end.saturating_sub(image.end) & !0xfff;
        return Err(BootError::InitrdTooLarge { path: path.into(), len, room });
    };
    ram.read_from(u64::from(placed.0), file, len)
        .map_err(|why| BootError::Read { path: path.into(), why })?;
    Ok(placed)
}

/// Opens a regular file, and returns its length.
fn open(path: &Path) -> Result<(File, u64), BootError> {
    let fail = |source| BootError::Open { path: path.into(), source };
    let file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(BootError::NotAFile { path: path.into() }),
    }
}
