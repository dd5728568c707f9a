//! A minimal NVMe driver, and a guest for it.

use gasp::{Guest, MemoryObject};
use gasp_nvme::{Backing, Counters, Nvme, Options};
use gasp_vdev::Shell;
use gasp_vdev::testbus;

/// The size of the guest's memory.
pub(crate) const RAM: u64 = 16 << 20;
/// Addresses of the driver's memory. Data is from here on.
pub(crate) const DATA: u64 = 4 << 20;
pub(crate) const LISTS: u64 = 2 << 20;
const ADMIN: u64 = 0x1_0000;
const QUEUES: u64 = 0x10_0000;

/// A command, as its dwords.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Command(pub(crate) [u32; 16]);

impl Command {
    pub(crate) fn new(opcode: u8) -> Self {
        let mut words = [0; 16];
        words[0] = u32::from(opcode);
        Self(words)
    }

    /// A command for namespace 1.
    pub(crate) fn io(opcode: u8) -> Self {
        Self::new(opcode).word(1, 1)
    }

    /// A read (2) or write (1) of blocks.
    pub(crate) fn blocks(opcode: u8, first: u64, count: u32, prps: (u64, u64)) -> Self {
        Self::io(opcode).prps(prps).long(10, first).word(12, count.wrapping_sub(1))
    }

    pub(crate) fn word(mut self, index: usize, value: u32) -> Self {
        self.0[index] = value;
        self
    }

    pub(crate) fn long(self, index: usize, value: u64) -> Self {
        self.word(index, value as u32).word(index + 1, (value >> 32) as u32)
    }

    pub(crate) fn prps(self, (prp1, prp2): (u64, u64)) -> Self {
        self.long(6, prp1).long(8, prp2)
    }

    pub(crate) fn id(self, id: u16) -> Self {
        let word = self.0[0] & 0xffff | u32::from(id) << 16;
        self.word(0, word)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// A completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Completion {
    pub(crate) result: u32,
    pub(crate) head: u16,
    pub(crate) queue: u16,
    pub(crate) id: u16,
    /// Status code type and status code.
    pub(crate) status: u16,
    pub(crate) retry: bool,
    /// Whether the error log has an entry for it.
    pub(crate) more: bool,
    /// The whole status field, with the phase tag.
    pub(crate) field: u16,
}

/// A pair of queues.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) id: u16,
    pub(crate) submissions: u64,
    pub(crate) completions: u64,
    pub(crate) size: u32,
    pub(crate) tail: u32,
    pub(crate) head: u32,
    pub(crate) phase: bool,
}

impl Pair {
    pub(crate) fn new(id: u16, size: u32) -> Self {
        let base = if id == 0 { ADMIN } else { QUEUES + u64::from(id) * 0x4_0000 };
        Self {
            id,
            submissions: base,
            completions: base + 0x2_0000,
            size,
            tail: 0,
            head: 0,
            phase: true,
        }
    }
}

/// A device, its guest, and the state of its driver.
pub(crate) struct Rig {
    pub(crate) shell: Shell,
    pub(crate) guest: Guest,
    pub(crate) ram: MemoryObject,
    pub(crate) counters: Counters,
    pub(crate) admin: Pair,
}

pub(crate) fn ram() -> MemoryObject {
    MemoryObject::ram(RAM).prefer(&[gasp::Backing::Base]).create().unwrap()
}

impl Rig {
    /// A device attached to a guest without an IOMMU, not enabled.
    pub(crate) fn attached(backing: &Backing, options: Options) -> Self {
        let guest = Guest::builder().build().unwrap();
        let rig = Self::of(guest, backing, options);
        rig.shell.attach(rig.guest.vdev("disk").unwrap(), None, None).unwrap();
        rig.shell.config_write(4, &[6, 0]).unwrap();
        rig
    }

    /// A device that is not attached.
    pub(crate) fn of(guest: Guest, backing: &Backing, options: Options) -> Self {
        let ram = ram();
        guest.space().add_ram(None, &ram).unwrap();
        let nvme = Nvme::new(backing, options).unwrap();
        let counters = nvme.counters();
        let shell = Shell::new("disk", nvme).unwrap();
        Self { shell, guest, ram, counters, admin: Pair::new(0, 32) }
    }

    /// A device with a memory disk of 64 MiB, enabled, with a pair of I/O queues.
    pub(crate) fn started() -> (Self, Pair) {
        Self::started_with(&Backing::memory(64 << 20), Options::default())
    }

    pub(crate) fn started_with(backing: &Backing, options: Options) -> (Self, Pair) {
        let mut rig = Self::attached(backing, options);
        rig.enable();
        let pair = rig.make_pair(1, 64);
        (rig, pair)
    }

    pub(crate) fn read32(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.shell.bar_read(0, offset, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn read64(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.shell.bar_read(0, offset, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn write32(&self, offset: u64, value: u32) {
        self.shell.bar_write(0, offset, &value.to_le_bytes()).unwrap();
    }

    pub(crate) fn write64(&self, offset: u64, value: u64) {
        self.shell.bar_write(0, offset, &value.to_le_bytes()).unwrap();
    }

    /// Describes the admin queues and enables the controller.
    pub(crate) fn enable(&mut self) {
        self.admin = Pair::new(0, 32);
        self.clear(&self.admin);
        self.write32(0x24, 31 << 16 | 31);
        self.write64(0x28, self.admin.submissions);
        self.write64(0x30, self.admin.completions);
        self.write32(0x14, 0x46_0001);
        self.wait_status(0b11, 1);
    }

    pub(crate) fn disable(&self) {
        self.write32(0x14, 0x46_0000);
        self.wait_status(0b11, 0);
    }

    /// Waits until CSTS is `value` under `mask`.
    pub(crate) fn wait_status(&self, mask: u32, value: u32) {
        until(|| (self.read32(0x1c) & mask == value).then_some(()));
    }

    fn clear(&self, pair: &Pair) {
        self.ram.write_at(pair.completions, &vec![0; 16 * pair.size as usize]).unwrap();
    }

    /// Creates a pair of I/O queues, with the interrupt vector of the same number.
    pub(crate) fn make_pair(&mut self, id: u16, size: u32) -> Pair {
        let pair = Pair::new(id, size);
        self.clear(&pair);
        let name = u32::from(id) | (size - 1) << 16;
        let vector = u32::from(id) << 16;
        let make = Command::new(5).prps((pair.completions, 0)).word(10, name);
        assert_eq!(self.administer(make.word(11, vector | 0b11)).status, 0);
        let make = Command::new(1).prps((pair.submissions, 0)).word(10, name);
        assert_eq!(self.administer(make.word(11, u32::from(id) << 16 | 1)).status, 0);
        pair
    }

    /// Puts a command into a queue; it is executed once the doorbell is rung.
    pub(crate) fn put(&self, pair: &mut Pair, command: Command) {
        let at = pair.submissions + 64 * u64::from(pair.tail);
        self.ram.write_at(at, &command.bytes()).unwrap();
        pair.tail = (pair.tail + 1) % pair.size;
    }

    pub(crate) fn ring(&self, pair: &Pair) {
        self.write32(0x1000 + 8 * u64::from(pair.id), pair.tail);
    }

    /// Rings the completion queue's doorbell: completions up to the head were consumed.
    pub(crate) fn ring_head(&self, pair: &Pair) {
        self.write32(0x1004 + 8 * u64::from(pair.id), pair.head);
    }

    /// Consumes the next completion, if there is one.
    pub(crate) fn take(&self, pair: &mut Pair) -> Option<Completion> {
        let mut bytes = [0; 16];
        let at = pair.completions + 16 * u64::from(pair.head);
        self.ram.read_at(at, &mut bytes).unwrap();
        let word = |at| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        if (word(12) >> 16 & 1 == 1) != pair.phase {
            return None;
        }
        pair.head = (pair.head + 1) % pair.size;
        pair.phase ^= pair.head == 0;
        Some(Completion {
            result: word(0),
            head: word(8) as u16,
            queue: (word(8) >> 16) as u16,
            id: word(12) as u16,
            status: (word(12) >> 17) as u16 & 0x7ff,
            retry: word(12) >> 31 == 0,
            more: word(12) >> 30 & 1 == 1,
            field: (word(12) >> 16) as u16,
        })
    }

    /// Waits for the next completion.
    pub(crate) fn wait(&self, pair: &mut Pair) -> Completion {
        let completion = until(|| self.take(pair));
        self.ring_head(pair);
        completion
    }

    /// Executes one command.
    pub(crate) fn run(&self, pair: &mut Pair, command: Command) -> Completion {
        self.put(pair, command);
        self.ring(pair);
        self.wait(pair)
    }

    /// Executes one admin command.
    pub(crate) fn administer(&mut self, command: Command) -> Completion {
        let mut admin = self.admin.clone();
        let completion = self.run(&mut admin, command);
        self.admin = admin;
        completion
    }

    /// Bytes of the guest's memory.
    pub(crate) fn bytes(&self, at: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.ram.read_at(at, &mut bytes).unwrap();
        bytes
    }

    /// Builds PRPs for `len` bytes at `at`, of pages of 4 KiB, with their list, if there is one, at
    /// `list`; a full page of the list leads to the page after it.
    pub(crate) fn prps(&self, at: u64, len: u64, list: u64) -> (u64, u64) {
        self.prps_of(at, len, list, |page| page)
    }

    /// As `prps`, with pages after the first one where `place` puts them.
    pub(crate) fn prps_of(
        &self,
        at: u64,
        len: u64,
        mut list: u64,
        place: impl Fn(u64) -> u64,
    ) -> (u64, u64) {
        let end = at + len;
        let first = at / 4096 + 1;
        let pages: Vec<u64> = (first..end.div_ceil(4096)).map(|page| place(4096 * page)).collect();
        let second = match pages.len() {
            0 => return (at, 0xdead_beef_0000_0000),
            1 => return (at, pages[0]),
            _ => list,
        };
        let mut next_list = (list & !0xfff) + 0x1000;
        for (done, page) in pages.iter().enumerate() {
            if list % 4096 == 4088 && done + 1 < pages.len() {
                self.ram.write_at(list, &next_list.to_le_bytes()).unwrap();
                list = next_list;
                next_list += 0x1000;
            }
            self.ram.write_at(list, &page.to_le_bytes()).unwrap();
            list += 8;
        }
        (at, second)
    }
}

/// Waits until `there` returns a value; it must.
pub(crate) fn until<T>(there: impl FnMut() -> Option<T>) -> T {
    testbus::until(there).unwrap()
}

/// Pseudo-random numbers, the same each time.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
