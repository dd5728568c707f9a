//! A virtio device as a hostile guest uses it, from arbitrary bytes: for the test of kept and made-up
//! inputs, and the fuzzer.

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use gasp::{Access, DeviceAddr, GuestPhys};
use gasp_vdev::testbus::{Options, TestBus};
use gasp_virtio::block::{self, Block};
use gasp_virtio::entropy::Entropy;
use gasp_virtio::net::{Net, Port};
use gasp_virtio::{Backing, Console, VirtioDevice, VirtioPci};

const PAGE: u64 = 4096;
const PAGES: u64 = 16;
const RAM: u64 = PAGES * PAGE;
/// The most steps of one input.
const STEPS: usize = 256;
const COMMON: u64 = 0;
const NOTIFY: u64 = 0x3000;

/// Bytes of an input; zeros past its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// An address near memory mostly, and anywhere sometimes.
    fn addr(&mut self) -> u64 {
        match self.byte() {
            255 => self.number(),
            page => u64::from(page) % (PAGES + 1) * PAGE + u64::from(self.byte()) * 16,
        }
    }
}

/// Uses a device as the bytes say: nothing panics or hangs, and nothing of the guest's memory is held
/// or written afterwards that may not be.
///
/// # Panics
/// If it is.
pub(crate) fn serve(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (mut near, mut wire) = (None, None);
    match input.byte() % 4 {
        0 => {
            let block = Block::new(&Backing::memory(1 << 16), block::Options::default());
            drive(block.unwrap(), &mut input);
        }
        1 => drive(Entropy::new(), &mut input),
        2 => {
            let (ours, theirs) = UnixStream::pair().unwrap();
            std::io::Write::write_all(near.insert(theirs), &[7; 1000]).unwrap();
            let console = Console::new(Some(ours.try_clone().unwrap().into()), ours.into());
            drive(console.sized(80, 25), &mut input);
        }
        _ => {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            for len in [60, 1514, 9000] {
                theirs.send(&vec![7; len]).unwrap();
            }
            wire = Some(theirs);
            drive(Net::new(Port::datagrams(ours), [2, 0, 0, 0, 0, 1]), &mut input);
        }
    }
    drop((near, wire));
}

/// A bus, and what its RAM holds as far as only the guest has written.
struct Hostile {
    bus: TestBus,
    written: Vec<u8>,
}

impl Hostile {
    fn store(&mut self, at: u64, bytes: &[u8]) {
        self.bus.store(at, bytes).unwrap();
        self.written[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}

fn drive(device: impl VirtioDevice, input: &mut Input<'_>) {
    let bus = Options::default().ram(RAM).iommu().attach(VirtioPci::new(device)).unwrap();
    let domain = bus.domain().unwrap().clone();
    let mut readonly = Vec::new();
    for page in 0..PAGES {
        let choice = input.byte();
        let access = [Access::empty(), Access::READ, Access::WRITE, Access::RW, Access::RW];
        let access = access[usize::from(choice) % access.len()];
        if !access.contains(Access::WRITE) {
            readonly.push((page * PAGE) as usize);
        }
        if !access.is_empty() {
            domain.grant(DeviceAddr(page * PAGE), GuestPhys(page * PAGE), PAGE, access).unwrap();
        }
    }
    let mut hostile = Hostile { bus, written: vec![0; RAM as usize] };
    let fill = input.0.repeat(RAM as usize / input.0.len().max(1));
    hostile.store(0, &fill);
    for _ in 0..STEPS {
        if input.0.is_empty() {
            break;
        }
        step(&mut hostile, input);
    }
    hostile.bus.detach();
    let mut all = domain.revoke(DeviceAddr(0), RAM).unwrap();
    assert!(all.poll().is_some(), "nothing is held");
    let mut ram = vec![0; RAM as usize];
    hostile.bus.load(0, &mut ram).unwrap();
    for page in readonly {
        let page = page..page + PAGE as usize;
        assert!(ram[page.clone()] == hostile.written[page.clone()], "{page:?} was written");
    }
}

/// One access of the guest.
fn step(hostile: &mut Hostile, input: &mut Input<'_>) {
    let shell = hostile.bus.shell();
    match input.byte() % 12 {
        0 => start(&hostile.bus, input),
        1 | 2 => chain(hostile, input),
        3 => {
            let (offset, len) = (u64::from(input.byte()), 1 << (input.byte() % 4));
            let value = input.number().to_le_bytes();
            shell.bar_write(0, COMMON + offset % 0x40, &value[..len]).unwrap();
        }
        4 => {
            let (offset, len) = (input.number() % 0x7ff8, 1 + usize::from(input.byte() % 8));
            let value = input.number().to_le_bytes();
            shell.bar_write(0, offset, &value[..len]).unwrap();
        }
        5 => shell.bar_read(0, input.number() % 0x7ff8, &mut [0; 8]).unwrap(),
        6 => {
            let (at, value) = (u64::from(input.byte()), input.number().to_le_bytes());
            shell.config_write(at, &value).unwrap();
            shell.config_write(4, &[6, 0]).unwrap();
        }
        7 => shell.config_read(u64::from(input.byte()), &mut [0; 16]).unwrap(),
        8 => {
            let at = input.addr() % (RAM - 8);
            let value = input.number().to_le_bytes();
            hostile.store(at, &value);
        }
        9 => {
            let page = u64::from(input.byte()) % PAGES;
            let domain = hostile.bus.domain().unwrap();
            assert!(domain.revoke(DeviceAddr(page * PAGE), PAGE).unwrap().wait().completed());
        }
        10 => shell.bar_write(0, COMMON + 0x14, &[0]).unwrap(),
        _ if input.byte().is_multiple_of(8) => {
            shell.reset();
            shell.config_write(4, &[6, 0]).unwrap();
        }
        _ => {
            shell.bar_write(0, NOTIFY, &[0, 0]).unwrap();
            // The device's thread has its turn before the next step, mostly.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// What an honest driver does up to the start, with queues anywhere.
fn start(bus: &TestBus, input: &mut Input<'_>) {
    let write = |offset: u64, bytes: &[u8]| bus.shell().bar_write(0, offset, bytes).unwrap();
    for status in [0, 1, 3] {
        write(0x14, &[status]);
    }
    let low = u32::from(input.byte() % 2) << 29;
    for (select, half) in [(0_u32, low), (1, 3)] {
        write(0x08, &select.to_le_bytes());
        write(0x0c, &half.to_le_bytes());
    }
    write(0x14, &[11]);
    for queue in 0..2_u16 {
        write(0x16, &queue.to_le_bytes());
        write(0x18, &(1_u16 << (input.byte() % 7)).to_le_bytes());
        for field in [0x20, 0x28, 0x30] {
            write(field, &input.addr().to_le_bytes());
        }
        write(0x1c, &[1, 0]);
    }
    write(0x14, &[15]);
}

/// Writes a descriptor somewhere, an entry and an index of a ring, and notifies.
fn chain(hostile: &mut Hostile, input: &mut Input<'_>) {
    let at = input.addr() % (RAM - 16);
    let mut descriptor = input.addr().to_le_bytes().to_vec();
    descriptor.extend(u32::from(input.byte()).pow(1 + u32::from(input.byte() % 4)).to_le_bytes());
    descriptor.extend([input.byte() % 8, 0, input.byte() % 16, 0]);
    hostile.store(at, &descriptor);
    let ring = input.addr() % (RAM - 8);
    let entry = [0, 0, input.byte(), 0, input.byte() % 16, 0];
    hostile.store(ring, &entry);
    hostile.bus.shell().bar_write(0, NOTIFY, &[0, 0]).unwrap();
}
