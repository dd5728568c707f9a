//! Pages of one class, their reported addresses, and their present addresses.

use gasp::{DeviceAddr, Guest, GuestPhys, MapFlags, Mapping, MemoryObject, Stability};

use crate::mapped::{Disturbance, Mapped, disturb};
use crate::pagemap::{PAGE, Pagemap};
use crate::{Failure, doing};

/// The name of the group that nothing holds.
pub(super) const CONTROL: &str = "control";

/// Pages of one class.
pub(super) struct Group {
    name: String,
    memory: Memory,
    /// The address of each page when it was read last.
    last: Vec<u64>,
}

enum Memory {
    Engine {
        ram: MemoryObject,
        start: GuestPhys,
        /// A mapping of all of it, for its pointer and to access it.
        whole: Mapping,
        /// Another mapping of the same file, at an address where the kernel can collapse its pages.
        aligned: Mapped,
    },
    Control(Mapped),
}

impl Group {
    /// A group of memory of the engine, as RAM of `guest`.
    pub(super) fn of_engine(
        name: &str,
        guest: &Guest,
        ram: MemoryObject,
        pagemap: &Pagemap,
    ) -> Result<Self, Failure> {
        let start = guest.space().add_ram(None, &ram)?;
        let whole = guest.vdev(name)?.map(DeviceAddr(start.0), ram.len(), MapFlags::READ)?;
        let (file, _) = ram.file().ok_or("the engine's own memory has no file")?;
        let aligned = Mapped::file(file, usize::try_from(ram.len())?).map_err(doing(name))?;
        Self::new(name, Memory::Engine { ram, start, whole, aligned }, pagemap)
    }

    /// The control group: ordinary private pages.
    pub(super) fn control(len: usize, pagemap: &Pagemap) -> Result<Self, Failure> {
        let memory = Mapped::anonymous(len)?;
        for at in (0..len).step_by(PAGE) {
            memory.store(at, 1)?;
        }
        Self::new(CONTROL, Memory::Control(memory), pagemap)
    }

    fn new(name: &str, memory: Memory, pagemap: &Pagemap) -> Result<Self, Failure> {
        let mut group = Self { name: name.into(), memory, last: Vec::new() };
        group.last = group.addresses(pagemap)?;
        match group.last.contains(&0) {
            true => Err("frame numbers are hidden: reading them needs CAP_SYS_ADMIN".into()),
            false => Ok(group),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The engine's class of its addresses; `control` for the control group.
    pub(super) fn stability(&self) -> &'static str {
        match &self.memory {
            Memory::Engine { ram, .. } => ram.stability().name(),
            Memory::Control(_) => CONTROL,
        }
    }

    pub(super) fn is_pinned(&self) -> bool {
        matches!(&self.memory, Memory::Engine { ram, .. } if ram.stability() == Stability::Pinned)
    }

    pub(super) fn pages(&self) -> usize {
        self.last.len()
    }

    /// The length in bytes.
    pub(super) fn len(&self) -> u64 {
        (self.pages() * PAGE) as u64
    }

    /// Its guest-physical address; 0 for the control group.
    pub(super) fn start(&self) -> GuestPhys {
        match &self.memory {
            Memory::Engine { start, .. } => *start,
            Memory::Control(_) => GuestPhys(0),
        }
    }

    /// Advises the kernel to collapse or to reclaim the pages. It need not follow the advice.
    ///
    /// Only the second half of the control group is collapsed, so that compaction still has
    /// single pages of it to move.
    pub(super) fn disturb(&self, how: Disturbance) -> std::io::Result<()> {
        match (&self.memory, how) {
            (Memory::Engine { aligned, .. }, Disturbance::Collapse) => {
                disturb(aligned.base(), aligned.len(), how)
            }
            (Memory::Engine { whole, .. }, _) => disturb(whole.as_ptr(), whole.len(), how),
            (Memory::Control(memory), Disturbance::Collapse) => {
                let half = memory.len() / 2;
                memory.want_huge(half, half)?;
                disturb(memory.base().wrapping_add(half), half, how)
            }
            (Memory::Control(memory), _) => disturb(memory.base(), memory.len(), how),
        }
    }

    /// The number of pages that have moved since the last call.
    pub(super) fn moved(&mut self, pagemap: &Pagemap) -> Result<usize, Failure> {
        let now = self.addresses(pagemap)?;
        let moved = now.iter().zip(&self.last).filter(|(now, last)| now != last).count();
        self.last = now;
        Ok(moved)
    }

    /// The number of pages that are not at the address that the engine reports.
    pub(super) fn stale(&self) -> Result<usize, Failure> {
        let Memory::Engine { ram, .. } = &self.memory else { return Ok(0) };
        let mut stale = 0;
        let mut runs = ram.host_extents();
        let mut run = runs.next();
        for (index, now) in self.last.iter().enumerate() {
            let offset = (index * PAGE) as u64;
            while run.is_some_and(|run| run.offset + run.len <= offset) {
                run = runs.next();
            }
            let reported = run.and_then(|run| Some(run.addr?.0 + (offset - run.offset)));
            stale += usize::from(reported != Some(*now));
        }
        Ok(stale)
    }

    /// The addresses of the pages. A page that was swapped out, or only unmapped from this process,
    /// is faulted in first, as the next access of a device's program would do.
    fn addresses(&self, pagemap: &Pagemap) -> Result<Vec<u64>, Failure> {
        let (base, len) = match &self.memory {
            Memory::Engine { whole, .. } => (whole.as_ptr(), whole.len()),
            Memory::Control(memory) => (memory.base(), memory.len()),
        };
        // Repeatedly: under pressure, pages that are faulted in may displace earlier ones.
        for _ in 0..ATTEMPTS {
            let addresses = pagemap.addresses(base, len)?;
            let mut absent = false;
            for (index, _) in addresses.iter().enumerate().filter(|(_, address)| **address == 0) {
                absent = true;
                self.touch(index * PAGE)?;
            }
            if !absent {
                return Ok(addresses);
            }
        }
        Ok(pagemap.addresses(base, len)?)
    }

    fn touch(&self, at: usize) -> Result<(), Failure> {
        match &self.memory {
            Memory::Engine { whole, .. } => whole.read_at(at, &mut [0])?,
            Memory::Control(memory) => memory.store(at, 1)?,
        }
        Ok(())
    }
}

const ATTEMPTS: usize = 4;
