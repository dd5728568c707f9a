//! Pages of one kind, where they were told to be, and where they are.

use gasp::{DeviceAddr, Guest, GuestPhys, MapFlags, Mapping, MemoryObject, Stability};

use crate::mapped::{Disturbance, Mapped, disturb};
use crate::pagemap::{PAGE, Pagemap};
use crate::{Failure, doing};

/// The name of the group that nothing holds.
pub(super) const CONTROL: &str = "control";

/// Pages of one kind.
pub(super) struct Group {
    name: String,
    memory: Memory,
    /// Where each page was when it was looked at last.
    last: Vec<u64>,
}

enum Memory {
    Engine {
        ram: MemoryObject,
        start: GuestPhys,
        /// All of it, for its pointer and to touch it.
        whole: Mapping,
        /// The same file once more, at an address where the kernel can gather its pages.
        aligned: Mapped,
    },
    Control(Mapped),
}

impl Group {
    /// Memory of the engine, as RAM of `guest`.
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

    /// Ordinary private pages.
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
            true => Err("frame numbers are not told: that needs CAP_SYS_ADMIN".into()),
            false => Ok(group),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the engine says about its addresses.
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

    /// How many bytes.
    pub(super) fn len(&self) -> u64 {
        (self.pages() * PAGE) as u64
    }

    /// Where it is for a device of the guest; 0 for what is no guest's.
    pub(super) fn start(&self) -> GuestPhys {
        match &self.memory {
            Memory::Engine { start, .. } => *start,
            Memory::Control(_) => GuestPhys(0),
        }
    }

    /// Asks the kernel to gather it or to take it out. Whether it does is its business.
    ///
    /// The control group is gathered in its second half only, so that compaction still has
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

    /// How many pages are elsewhere than when this was asked last.
    pub(super) fn moved(&mut self, pagemap: &Pagemap) -> Result<usize, Failure> {
        let now = self.addresses(pagemap)?;
        let moved = now.iter().zip(&self.last).filter(|(now, last)| now != last).count();
        self.last = now;
        Ok(moved)
    }

    /// How many pages are elsewhere than the engine says.
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
            let told = run.and_then(|run| Some(run.addr?.0 + (offset - run.offset)));
            stale += usize::from(told != Some(*now));
        }
        Ok(stale)
    }

    /// Where the pages are. A page that was taken out of memory, or only out of this
    /// process's table, is brought back first, as a device's program would by its next
    /// access.
    fn addresses(&self, pagemap: &Pagemap) -> Result<Vec<u64>, Failure> {
        let (base, len) = match &self.memory {
            Memory::Engine { whole, .. } => (whole.as_ptr(), whole.len()),
            Memory::Control(memory) => (memory.base(), memory.len()),
        };
        // More than once: under pressure, what comes back may push out what came before.
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
