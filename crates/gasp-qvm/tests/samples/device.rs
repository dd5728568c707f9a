//! A sample in front of a guest, as its driver sees it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use gasp_qvm::{Access, Answer, End, Instance, Space, VdevError};
use parking_lot::Mutex;

use crate::support::{Event, Guests, Library};

/// A vdev that runs.
pub(crate) struct Device {
    pub(crate) vdev: Instance,
    pub(crate) guest: Guests,
    space: Space,
    start: u64,
    line: Mutex<Line>,
}

/// What it has asked its host for.
#[derive(Default)]
struct Line {
    level: bool,
    rises: u32,
    ends: Vec<End>,
}

/// The compiled sample `vdev-NAME.c`.
pub(crate) fn library(name: &str, edition: u32) -> Library {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/vdev");
    Library::of_file(&format!("{folder}/vdev-{name}.c"), edition, name)
}

/// How long a condition may take to come true: longer under a tool.
pub(crate) fn patience() -> Duration {
    static PATIENCE: OnceLock<Duration> = OnceLock::new();
    *PATIENCE
        .get_or_init(|| Duration::from_secs(if crate::tools::is_under_one() { 60 } else { 10 }))
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < patience(), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Device {
    /// Starts a sample as a line of the configuration says, with `loc` at the end.
    pub(crate) fn start(library: &Library, line: &str) -> Self {
        let guest = Guests::new();
        let vdev = guest.create(library, line).unwrap_or_else(|error| panic!("{error}"));
        vdev.assign().unwrap();
        let placed = vdev.placed().unwrap();
        vdev.configured().unwrap();
        vdev.starting().unwrap();
        let (space, start) = (placed.space, placed.start.unwrap());
        Self { vdev, guest, space, start, line: Mutex::default() }
    }

    /// The error of a sample that does not start.
    pub(crate) fn refusal(library: &Library, line: &str) -> String {
        match Guests::new().create(library, line) {
            Ok(_) => panic!("`{line}` is accepted"),
            Err(error @ (VdevError::Config(_) | VdevError::Refused { .. })) => error.to_string(),
            Err(error) => panic!("`{line}`: {error:?}"),
        }
    }

    fn at(&self, offset: u64) -> Access {
        Access { space: self.space, addr: self.start.wrapping_add(offset), cookie: 0 }
    }

    /// Reads `N` bytes.
    pub(crate) fn load<const N: usize>(&self, offset: u64) -> (Answer, [u8; N]) {
        let mut data = [0; N];
        let answer = self.vdev.read(self.at(offset), &mut data);
        (answer, data)
    }

    pub(crate) fn store(&self, offset: u64, data: &[u8]) -> Answer {
        self.vdev.write(self.at(offset), data)
    }

    pub(crate) fn read8(&self, offset: u64) -> u8 {
        let (answer, [byte]) = self.load(offset);
        assert_eq!(answer, Answer::Done, "{offset:#x}");
        byte
    }

    pub(crate) fn write8(&self, offset: u64, byte: u8) {
        assert_eq!(self.store(offset, &[byte]), Answer::Done, "{offset:#x}");
    }

    pub(crate) fn read32(&self, offset: u64) -> u32 {
        let (answer, bytes) = self.load(offset);
        assert_eq!(answer, Answer::Done, "{offset:#x}");
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn write32(&self, offset: u64, number: u32) {
        assert_eq!(self.store(offset, &number.to_le_bytes()), Answer::Done, "{offset:#x}");
    }

    fn update<T>(&self, view: impl FnOnce(&mut Line) -> T) -> T {
        let mut line = self.line.lock();
        for event in self.guest.events() {
            match event {
                Event::Interrupt(level) => {
                    line.rises += u32::from(level && !line.level);
                    line.level = level;
                }
                Event::End(end) => line.ends.push(end),
                other => panic!("{other:?}"),
            }
        }
        view(&mut line)
    }

    /// The level of its interrupt.
    pub(crate) fn is_raised(&self) -> bool {
        self.update(|line| line.level)
    }

    /// How often the level has risen.
    pub(crate) fn rises(&self) -> u32 {
        self.update(|line| line.rises)
    }

    /// How it has ended its guest.
    pub(crate) fn ends(&self) -> Vec<End> {
        self.update(|line| line.ends.clone())
    }

    /// Ends it. It leaves no threads, and ends soon.
    pub(crate) fn finish(self) {
        let began = Instant::now();
        assert_eq!(self.vdev.terminate(), Vec::<String>::new(), "threads");
        assert!(began.elapsed() < patience() / 10, "it waits: {:?}", began.elapsed());
    }
}

/// Numbers for accesses at random, the same in each run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}
