//! A guest that does anything to its unit, while its devices map and hold: for the property test, the
//! kept inputs, and the fuzzer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use gasp::{
    Access, Backing, DeviceAddr, Guest, GuestPhys, MapFlags, Mapping, MemoryObject, Unattached,
    Vdev,
};
use gasp_vtd::{RequesterId, Unit};

/// All of it can be tables, queue and pages.
const RAM: u64 = 256 << 10;
const DISK: RequesterId = RequesterId(0x0020);
const NET: RequesterId = RequesterId(0x0021);
/// The most mappings that devices hold.
const HELD: usize = 32;

/// Registers that mean something. Others are written as well.
const REGISTERS: [u64; 24] = [
    0x18, 0x18, 0x20, 0x24, 0x28, 0x2c, 0x34, 0x38, 0x3c, 0x40, 0x44, 0x80, 0x88, 0x88, 0x88, 0x90,
    0x9c, 0xa0, 0xa8, 0x500, 0x508, 0x50c, 0x60c, 0x61c,
];

struct Machine {
    guest: Guest,
    unit: Unit,
    vdevs: [Vdev; 2],
    messages: Arc<AtomicU64>,
}

/// Reads an input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn number<const N: usize>(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_at_checked(N)?;
        self.0 = rest;
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(first);
        Some(u64::from_le_bytes(bytes))
    }
}

/// Does what `bytes` say, and then what a driver does: nothing panics or hangs, and after a reset the
/// unit works.
///
/// # Panics
/// If one of these does not hold.
pub(crate) fn serve(bytes: &[u8]) {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    let machine = MACHINE.get_or_init(Machine::new);
    let mut held = Vec::new();
    let mut input = Input(bytes);
    while machine.step(&mut input, &mut held).is_some() {}
    machine.look();
    drop(held);
    machine.unit.reset();
    machine.work();
    machine.unit.reset();
    machine.guest.take_faults();
}

impl Machine {
    fn new() -> Self {
        let guest = Guest::builder().iommu(Unattached::Deny).build().unwrap();
        let ram = MemoryObject::ram(RAM).prefer(&[Backing::Base]).create().unwrap();
        guest.space().add_ram(None, &ram).unwrap();
        let messages = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&messages);
        let unit = Unit::new(&guest, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        let vdevs = [("disk", DISK), ("net", NET)].map(|(name, id)| {
            let vdev = guest.vdev(name).unwrap();
            unit.connect(id, &vdev).unwrap().wait();
            vdev
        });
        Self { guest, unit, vdevs, messages }
    }

    /// One step; `None` at the end of the input.
    fn step(&self, input: &mut Input<'_>, held: &mut Vec<Mapping>) -> Option<()> {
        match input.number::<1>()? % 16 {
            0..3 => {
                let register = REGISTERS[input.number::<1>()? as usize % REGISTERS.len()];
                let value = input.number::<8>()?;
                match value & 1 {
                    0 => self.unit.write(register, &(value as u32).rotate_right(1).to_le_bytes()),
                    _ => self.unit.write(register & !7, &value.rotate_right(1).to_le_bytes()),
                }
            }
            3 => {
                let (offset, len) = (input.number::<2>()?, input.number::<1>()? % 17);
                let mut data = vec![input.number::<1>()? as u8; len as usize];
                self.unit.write(offset, &data);
                self.unit.read(offset, &mut data);
            }
            4..7 => {
                // An entry that leads to other tables more often than not.
                let (at, to) = (input.number::<2>()?, input.number::<1>()? % 80);
                let bits = input.number::<1>()?;
                self.write(at * 8 % RAM, to << 12 | bits & 0x8f | (bits & 0x70) << 57);
            }
            7 => self.write(input.number::<2>()? * 8 % RAM, input.number::<8>()?),
            8..11 => {
                // A descriptor, and the tail after it.
                let (low, high) = (input.number::<6>()?, input.number::<3>()?);
                let mut quads = [[0; 8]; 3];
                self.unit.read(0x80, &mut quads[0]);
                self.unit.read(0x88, &mut quads[1]);
                self.unit.read(0x90, &mut quads[2]);
                let [_, tail, address] = quads.map(u64::from_le_bytes);
                let at = (address & !0xfff).wrapping_add(tail);
                if at < RAM - 16 {
                    self.write(at, low & 0x3f_ffff_ffff & !0xff00 | (low & 0xff00) >> 7);
                    self.write(at + 8, high << 8 & !0xfff | high & 0x7f);
                }
                self.unit.write(0x88, &(tail + 16).to_le_bytes());
            }
            11..14 => {
                let [which, flags, count] =
                    [input.number::<1>()?, input.number::<1>()?, input.number::<1>()?];
                let addr = DeviceAddr(input.number::<2>()? << 8);
                let vdev = &self.vdevs[which as usize % 2];
                let access = Access::from_bits_truncate(flags as u8);
                let Ok(flags) = MapFlags::new(access) else { return Some(()) };
                match count % 4 {
                    0 => drop(vdev.map_scatter(addr, (count + 1) << 9, flags)),
                    1 => drop(vdev.allows(addr, count << 6, flags)),
                    _ if held.len() < HELD => held.extend(vdev.map(addr, 1 + count, flags)),
                    _ => held.clear(),
                }
            }
            14 => drop(held.pop()),
            _ => match input.number::<1>()? {
                0..8 => self.unit.reset(),
                8..128 => self.enable(),
                _ => self.look(),
            },
        }
        Some(())
    }

    /// Sets the table at 4 KiB and the queue at 8 KiB, and enables everything.
    fn enable(&self) {
        self.unit.write(0x20, &0x1000_u64.to_le_bytes());
        self.unit.write(0x90, &0x2000_u64.to_le_bytes());
        self.unit.write(0x88, &[0; 8]);
        for command in [1_u32 << 30, 1 << 31, 3 << 31 | 1 << 26] {
            self.unit.write(0x18, &command.to_le_bytes());
        }
    }

    /// Reads all registers: those that are read-only are as ever, and none has a reserved bit.
    fn look(&self) {
        let quad = |register: u64| {
            let mut bytes = [0; 8];
            self.unit.read(register, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        for register in (0..0x1000).step_by(8) {
            let allowed = match register {
                0x00 => 0x10,
                0x08 | 0x10 => !0,
                0x18 => (7_u64 << 30 | 1 << 26) << 32 & (0xc400_0000 << 32),
                0x20 => !0xfff,
                0x28 => 1 << 63 | 0xf << 59 | 0xffff,
                0x30 => (0x700 | 0x13) << 32,
                0x38 | 0xa0 => 3 << 30 | !0 << 32,
                0x40 | 0xa8 => !3,
                0x80 | 0x88 => 0x7_fff0,
                0x90 => !0xfff | 7,
                0x98 => 1 << 32,
                0xb0 => 7,
                0x508 => 1 << 63 | 3 << 60 | 3 << 57 | 3 << 48 | 0xffff << 32,
                0x600..0x680 if register % 16 == 0 => !0xfff,
                0x600..0x680 => 3 << 62 | 0xff << 32 | 0xffff,
                _ => 0,
            };
            assert_eq!(quad(register) & !allowed, 0, "{register:#x}");
        }
        assert_eq!(quad(0x08) & 7, 6);
    }

    fn write(&self, at: u64, value: u64) {
        self.guest.write_firmware(GuestPhys(at), &value.to_le_bytes()).unwrap();
    }

    /// What a driver does after a reset: a page is mapped, used, and taken away.
    fn work(&self) {
        let page = 0x8000;
        for (at, value) in [
            (0x1000, 0x3001),
            (0x1008, 0),
            (0x3000 + u64::from(DISK.0) * 16, 0x4001),
            (0x3008 + u64::from(DISK.0) * 16, 0x301),
            (0x3000 + u64::from(NET.0) * 16, 0),
            (0x4000, 0x5003),
            (0x5000, 0x6003),
            (0x6000 + 5 * 8, page | 3),
            (0x2000, 2 | 2 << 4 | 3 << 16),
            (0x2008, 0),
            (0x2010, 5 | 1 << 5 | 0x1234 << 32),
            (0x2018, 0x7000),
            (0x7000, 0),
        ] {
            self.write(at, value);
        }
        let set = |register: u64, value: u64| self.unit.write(register, &value.to_le_bytes());
        let command = |value: u32, status: u32| {
            self.unit.write(0x18, &value.to_le_bytes());
            self.wait_for(|| {
                let mut bytes = [0; 4];
                self.unit.read(0x1c, &mut bytes);
                u32::from_le_bytes(bytes) & status == status
            });
        };
        set(0x20, 0x1000);
        set(0x90, 0x2000);
        command(1 << 30, 1 << 30);
        command(1 << 31, 1 << 31);
        command(1 << 31 | 1 << 26, 1 << 26);
        let [disk, net] = &self.vdevs;
        let mapping = disk.map(DeviceAddr(0x5000), 16, MapFlags::RW).unwrap();
        assert_eq!(mapping.object_offset(), page);
        assert!(net.map(DeviceAddr(0x5000), 16, MapFlags::RW).is_err());
        drop(mapping);
        self.write(0x6000 + 5 * 8, 0);
        set(0x88, 32);
        self.wait_for(|| self.guest.page_tables().entry(GuestPhys(0x7000)) == Some(0x1234));
        assert!(disk.map(DeviceAddr(0x5000), 16, MapFlags::READ).is_err());
        self.messages.store(0, Ordering::Relaxed);
        self.unit.write(0x38, &[0; 4]);
        assert_eq!(self.messages.load(Ordering::Relaxed), 1, "a fault is pending");
    }

    fn wait_for(&self, is_true: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_true() {
            assert!(start.elapsed() < Duration::from_secs(20), "not in 20 s");
            std::thread::yield_now();
        }
    }
}
