//! RAM: created of the best pages that the host can provide, with a report of which those are.

use core::fmt;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::param::page_size;

use super::adopt::AT_START;
use super::contiguity::{Contiguity, FileLayout, map_in_frame_order};
use super::file::{MemoryFile, seals_from};
use super::object::{MemoryObject, Properties};
use super::pin::PinMethod;
use super::report::Residency;
use super::report::{Backing, BackingReport, PassedOver};
use super::supply::{Unavailable, check_available, pool_shortage, set_len};
use super::window::Window;
use crate::access::Access;
use crate::addr::GRANULE;
use crate::bytes::Bytes;
use crate::error::{Error, Operation, Reason, Result};

/// Progress of the creation of RAM.
#[derive(Clone, Copy, Debug)]
pub struct RamProgress {
    /// The backing that is being tried.
    pub backing: Backing,
    /// Bytes populated.
    pub done: u64,
    /// The length of the RAM in bytes.
    pub total: u64,
}

/// A builder of RAM; see [`MemoryObject::ram`].
#[must_use = "call `create`"]
pub struct Ram<'a> {
    len: u64,
    name: &'a str,
    prefer: &'a [Backing],
    residency: Residency,
    pins: &'a [PinMethod],
    contiguity: Option<Contiguity>,
    exclusive: bool,
    progress: Option<&'a mut dyn FnMut(RamProgress)>,
}

impl fmt::Debug for Ram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ram").field("len", &self.len).field("prefer", &self.prefer).finish()
    }
}

/// The number of bytes populated from one progress report to the next.
const STEP: usize = 64 << 20;
/// The size of a transparent huge page, in bytes.
const HUGE: usize = 2 << 20;

impl MemoryObject {
    /// Zeroed RAM of `len` bytes, a multiple of 4 KiB and of the host's page size.
    ///
    /// It is a memfd, mapped shared, so that it can be passed to another process, and sealed, so
    /// that nobody can resize it.
    ///
    /// ```
    /// use gasp::{Backing, MemoryObject};
    /// let ram = MemoryObject::ram(2 << 20).prefer(&[Backing::Thp, Backing::Base]).create()?;
    /// assert_eq!(ram.len(), 2 << 20);
    /// println!("{}: {:?}", ram.backing().obtained, ram.backing().passed_over);
    /// # Ok::<(), gasp::Error>(())
    /// ```
    pub fn ram<'a>(len: u64) -> Ram<'a> {
        Ram {
            len,
            name: "ram",
            prefer: &Backing::PREFERENCE,
            residency: Residency::Pinned,
            pins: &PinMethod::PREFERENCE,
            contiguity: None,
            exclusive: false,
            progress: None,
        }
    }
}

impl<'a> Ram<'a> {
    /// The name for reports; `ram` by default.
    pub fn name(self, name: &'a str) -> Self {
        Self { name, ..self }
    }

    /// The backings to try, in order; [`Backing::PREFERENCE`] by default.
    pub fn prefer(self, prefer: &'a [Backing]) -> Self {
        Self { prefer, ..self }
    }

    /// How firmly to hold the pages; [`Residency::Pinned`] by default.
    pub fn residency(self, residency: Residency) -> Self {
        Self { residency, ..self }
    }

    /// The pin methods to try, in order; [`PinMethod::PREFERENCE`] by default.
    pub fn pin(self, pins: &'a [PinMethod]) -> Self {
        Self { pins, ..self }
    }

    /// Maps the memory in the order of its frames, so that its host-physical runs are as long as
    /// possible; [`BackingReport::placement`] reports the result. If this is a
    /// [demand](Contiguity::AtLeast) that a backing does not meet, the next one is tried.
    ///
    /// Memory in the order of its frames is in general not one piece of its file: see
    /// [`MemoryObject::file_extents`].
    pub fn host_contiguous(self, contiguity: Contiguity) -> Self {
        Self { contiguity: Some(contiguity), ..self }
    }

    /// Seals the file against new writable mappings and against punching holes: whoever receives it
    /// can only read. A [stitched](crate::Vdev::map_stitched) map for writing then fails with
    /// `EPERM`.
    pub fn exclusive(self, exclusive: bool) -> Self {
        Self { exclusive, ..self }
    }

    /// Calls `progress` now and then while the memory is populated.
    pub fn progress(self, progress: &'a mut dyn FnMut(RamProgress)) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Creates the memory.
    ///
    /// # Errors
    /// `EINVAL` if the length is 0 or not whole pages, or memory on demand is to be
    /// host-contiguous. If no backing can be used, the error of the last one tried: `EINVAL` if
    /// there is none, if RAM cannot have it, or if the length is not whole pages of it;
    /// `ENOMEM` if the host or the pool has too little memory, or it is not host-contiguous enough;
    /// `EPERM` if that cannot be known; `EFBIG` if the length is past the process's file-size limit
    /// (`RLIMIT_FSIZE`; no SIGXFSZ is raised); any mmap() error.
    pub fn create(mut self) -> Result<MemoryObject> {
        let fail = |reason| Error::new(Operation::CreateMemory, AT_START, self.len, reason);
        if self.len == 0 {
            return Err(fail(Reason::ZeroLength));
        }
        let unit = GRANULE.max(page_size() as u64);
        let len = usize::try_from(self.len).ok().filter(|_| self.len.is_multiple_of(unit));
        let len = len.ok_or_else(|| {
            fail(Reason::Invalid(
                "the size of RAM must be a multiple of 4 KiB and of the host's page size",
            ))
        })?;
        if self.contiguity.is_some() && self.residency == Residency::OnDemand {
            return Err(fail(Reason::Invalid(
                "memory on demand cannot be host-contiguous; create it resident or pinned",
            )));
        }
        let mut passed_over = Vec::new();
        let mut last = Reason::Invalid("no backing for RAM was given");
        for &backing in self.prefer {
            let result = self.attempt(backing, len).and_then(|file| self.finish(backing, file));
            match result {
                Ok((properties, pins)) => {
                    let mut properties = properties;
                    properties.report.passed_over = core::mem::take(&mut passed_over);
                    let object = MemoryObject::resident(properties, self.residency, pins);
                    let met = |requested: Contiguity| {
                        let placement = object.backing().placement;
                        requested.check(placement, object.len(), object.page_size())
                    };
                    match self.contiguity.map_or(Ok(()), met) {
                        Ok(()) => return Ok(object),
                        Err(reason) => {
                            passed_over = object.backing().passed_over.clone();
                            let why = reason.to_string();
                            passed_over.push(PassedOver { backing, why });
                            last = reason;
                        }
                    }
                }
                Err(Unavailable { why, reason }) => {
                    tracing::debug!(%backing, why, "backing passed over");
                    passed_over.push(PassedOver { backing, why });
                    last = reason;
                }
            }
        }
        Err(Error::new(Operation::CreateMemory, AT_START, self.len, last))
    }

    /// Maps populated memory in frame order, if requested, and seals its file.
    fn finish(
        &self,
        backing: Backing,
        file: MappedFile,
    ) -> core::result::Result<Finished<'a>, Unavailable> {
        let MappedFile { fd, mut window, note } = file;
        let page = backing.page_size();
        let layout = match self.contiguity {
            Some(requested) => map_in_frame_order(&fd, &mut window, page, requested)?,
            None => FileLayout::in_file_order(window.len() as u64),
        };
        let mut seals = SealFlags::SHRINK | SealFlags::GROW;
        seals.set(SealFlags::FUTURE_WRITE, self.exclusive);
        rustix::fs::fcntl_add_seals(&fd, seals).map_err(Reason::os("sealing the memory"))?;
        let mut report = BackingReport::of(backing);
        report.note = note;
        report.placement = layout.placement;
        let properties = Properties {
            file: Some(MemoryFile { fd, seals: seals_from(seals), pieces: layout.pieces }),
            populated: true,
            shared: true,
            ..Properties::new(self.name, window, Access::RWX, report, page)
        };
        Ok((properties, self.pins))
    }

    fn attempt(
        &mut self,
        backing: Backing,
        len: usize,
    ) -> core::result::Result<MappedFile, Unavailable> {
        attempt(backing, len, self.residency, &mut self.progress)
    }
}

type Finished<'a> = (Properties, &'a [PinMethod]);

type Progress<'a> = Option<&'a mut dyn FnMut(RamProgress)>;

/// A mapped file, populated unless its memory is to come on demand.
struct MappedFile {
    fd: OwnedFd,
    window: Window,
    note: Option<String>,
}

fn attempt(
    backing: Backing,
    len: usize,
    residency: Residency,
    progress: &mut Progress<'_>,
) -> core::result::Result<MappedFile, Unavailable> {
    let flags = match backing {
        Backing::Huge1G => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
        Backing::Huge2M => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        Backing::Thp | Backing::Base => MemfdFlags::empty(),
        Backing::Adopted | Backing::PassThrough | Backing::External => {
            return Err(Reason::Invalid("RAM cannot have this backing").into());
        }
    };
    let page = backing.page_size();
    let huge = matches!(backing, Backing::Huge1G | Backing::Huge2M);
    if !len.is_multiple_of(page) {
        let reason =
            Reason::Invalid("the length is not a multiple of the page size; allow smaller pages");
        return Err(Unavailable {
            why: format!("{} is not a multiple of a {backing} page", Bytes(len as u64)),
            reason,
        });
    }
    let fd = rustix::fs::memfd_create(
        "gasp-ram",
        flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )
    .map_err(Reason::os("memfd_create"))?;
    set_len(&fd, len as u64)?;
    let align = if backing == Backing::Thp { HUGE } else { page };
    let pool_is_short = |reason| match reason {
        Reason::Os { errno, .. } if huge => Unavailable::from(
            pool_shortage(page, len)
                .unwrap_or(Reason::Os { what: "taking pages from the kernel's pool", errno }),
        ),
        other => Unavailable::from(other),
    };
    if !huge && residency != Residency::OnDemand {
        check_available(len as u64)?;
    }
    let window = Window::map(fd.as_fd(), 0, len, Access::RW, align).map_err(pool_is_short)?;
    let note = match (backing, residency) {
        (Backing::Thp, Residency::OnDemand) => {
            let _ = window.want_huge();
            None
        }
        (_, Residency::OnDemand) => None,
        (Backing::Thp, _) => Some(gather_huge(&window, progress)?),
        _ => {
            populate(&window, backing, progress).map_err(pool_is_short)?;
            None
        }
    };
    Ok(MappedFile { fd, window, note })
}

fn populate(
    window: &Window,
    backing: Backing,
    progress: &mut Progress<'_>,
) -> core::result::Result<(), Reason> {
    for offset in (0..window.len()).step_by(STEP) {
        let step = STEP.min(window.len() - offset);
        window.populate(offset, step, Access::RW).map_err(Reason::os("populating memory"))?;
        report(progress, backing, offset + step, window.len());
    }
    Ok(())
}

/// Populates the window with as many transparent huge pages as the kernel can provide; returns how
/// many as a note for the report.
///
/// A memfd gets huge pages at once only if `shmem_enabled` says so; otherwise each 2 MiB is
/// collapsed on request, which needs one page to start from.
fn gather_huge(
    window: &Window,
    progress: &mut Progress<'_>,
) -> core::result::Result<String, Unavailable> {
    let whole = window.len() / HUGE;
    if whole == 0 {
        let reason = Reason::Invalid("the length is less than a huge page; allow ordinary ones");
        return Err(Unavailable { why: "it is shorter than 2 MiB".into(), reason });
    }
    let _ = window.want_huge();
    let mut gathered = 0;
    for index in 0..whole {
        let offset = index * HUGE;
        window
            .populate(offset, page_size(), Access::RW)
            .map_err(Reason::os("populating memory"))?;
        match window.collapse(offset, HUGE) {
            Ok(()) => gathered += 1,
            Err(errno) if index == 0 => {
                let why = format!(
                    "the kernel does not collapse memory into huge pages ({}); that needs \
                     MADV_COLLAPSE (Linux 6.1) and free 2 MiB blocks",
                    crate::error::errno_name(errno)
                );
                return Err(Unavailable {
                    why,
                    reason: Reason::Os { what: "MADV_COLLAPSE", errno },
                });
            }
            Err(_) => {}
        }
        if index % (STEP / HUGE) == 0 {
            report(progress, Backing::Thp, offset, window.len());
        }
    }
    window.populate(0, window.len(), Access::RW).map_err(Reason::os("populating memory"))?;
    report(progress, Backing::Thp, window.len(), window.len());
    Ok(format!("{gathered} of {whole} collapsed into huge pages"))
}

fn report(progress: &mut Progress<'_>, backing: Backing, done: usize, total: usize) {
    if let Some(progress) = progress {
        progress(RamProgress { backing, done: done as u64, total: total as u64 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_is_zeroed_and_reports_what_it_is_made_of() {
        let ram = MemoryObject::ram(4 << 20).name("test").create().unwrap();
        let mut bytes = vec![1; 4 << 20];
        ram.read_at(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 0));
        let passed: Vec<Backing> = ram.backing().passed_over.iter().map(|p| p.backing).collect();
        assert!(passed.contains(&Backing::Huge1G), "4 MiB is not a multiple of 1 GiB");
        assert!(!passed.contains(&ram.backing().obtained));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for (len, errno) in [(0, "EINVAL"), (100, "EINVAL"), (1 << 62, "ENOMEM")] {
            let error = MemoryObject::ram(len).prefer(&[Backing::Base]).create().unwrap_err();
            let name = error.errno_name();
            assert!(name == errno || (len > 100 && name == "EINVAL"), "{len:#x}: {error}");
        }
        let error = MemoryObject::ram(4096).prefer(&[]).create().unwrap_err();
        assert_eq!(error.errno_name(), "EINVAL");
        let error = MemoryObject::ram(4096).prefer(&[Backing::Adopted]).create().unwrap_err();
        assert_eq!(error.errno_name(), "EINVAL");
    }

    #[test]
    fn more_than_the_machine_has_is_refused_before_it_is_tried() {
        let error = MemoryObject::ram(1 << 44).prefer(&Backing::PREFERENCE).create().unwrap_err();
        assert_eq!(error.errno_name(), "ENOMEM", "{error}");
    }

    #[test]
    fn progress_ends_at_the_whole_length() {
        let mut last = None;
        let mut note = |progress: RamProgress| last = Some((progress.done, progress.total));
        MemoryObject::ram(8 << 20).prefer(&[Backing::Base]).progress(&mut note).create().unwrap();
        assert_eq!(last, Some((8 << 20, 8 << 20)));
    }
}
