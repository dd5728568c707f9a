//! A host for vdevs, whose answers are the test's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gasp::Errno;
use gasp::config::Config;
use gasp_qvm::{Access, Bar, Host, Instance, Request, Space, VdevError};
use parking_lot::Mutex;

use crate::support::{Event, Guests, Library};

/// What a vdev has asked for, and what the host answers.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) events: Mutex<Vec<Event>>,
    /// Lines that others have.
    pub(crate) taken: Vec<u32>,
    /// Whether the host chooses lines at once.
    pub(crate) chooses: Option<u32>,
    /// Whether it dispatches BARs itself.
    pub(crate) dispatches: bool,
    pub(crate) assigned: Mutex<Vec<(Option<u32>, bool)>>,
    pub(crate) bars: Mutex<Vec<Bar>>,
    /// The paths of core files.
    pub(crate) cores: Mutex<Vec<Option<PathBuf>>>,
}

impl Host for Board {
    fn interrupt(&self, raised: bool) {
        self.events.lock().push(Event::Interrupt(raised));
    }
    fn message(&self, addr: u64, data: u32) {
        self.events.lock().push(Event::Message(addr, data));
    }
    fn end(&self, end: &gasp_qvm::End) {
        self.events.lock().push(Event::End(end.clone()));
    }
    fn assign(&self, line: Option<u32>, exclusive: bool) -> Result<Option<u32>, Errno> {
        self.assigned.lock().push((line, exclusive));
        match line {
            Some(line) if self.taken.contains(&line) => Err(Errno::BUSY),
            Some(line) => Ok(Some(line)),
            None => Ok(self.chooses),
        }
    }
    fn place_bars(&self, bars: &[Bar]) -> bool {
        *self.bars.lock() = bars.to_vec();
        self.dispatches
    }
    fn write_core(&self, path: Option<&Path>) -> Result<(), Errno> {
        self.cores.lock().push(path.map(Path::to_owned));
        match path {
            Some(path) if path == Path::new("/full") => Err(Errno::NOSPC),
            _ => Ok(()),
        }
    }
}

impl Board {
    pub(crate) fn events(&self) -> Vec<Event> {
        core::mem::take(&mut *self.events.lock())
    }

    /// Creates a vdev in front of a guest.
    pub(crate) fn create(
        self: &Arc<Self>,
        guest: &Guests,
        library: &Library,
        text: &str,
    ) -> Result<Instance, VdevError> {
        let factory = library.load().unwrap_or_else(|error| panic!("{error}"));
        let config = Config::parse(&format!("ram 1M\n{text}\n"), "test.qvmconf".as_ref()).unwrap();
        let request = Request::of(&config.machine().devices[0], &factory)?;
        let number = guest.guest.vdevs().len();
        let vdev = guest.guest.vdev(&format!("{}{number}", request.name)).unwrap();
        let host: Arc<dyn Host> = Arc::clone(self) as Arc<dyn Host>;
        Instance::create(&guest.listed, &vdev, &factory, &request, host)
    }
}

/// Takes a vdev up to the running guest.
pub(crate) fn start(vdev: Instance) -> Result<Instance, VdevError> {
    vdev.assign()?;
    vdev.configured()?;
    vdev.starting()?;
    Ok(vdev)
}

/// Runs a source whose checks are all in `control`, in an edition.
pub(crate) fn check(source: &str, edition: u32, name: &str) {
    let (library, guest) = (compiled(source, edition, name), Guests::new());
    let board = Arc::<Board>::default();
    let vdev = board.create(&guest, &library, &format!("vdev {name}"));
    let vdev = vdev.and_then(start).unwrap_or_else(|error| panic!("{edition}: {error}"));
    assert!(vdev.terminate().is_empty());
}

/// A source text after `check.h`.
pub(crate) fn compiled(source: &str, edition: u32, name: &str) -> Library {
    let text = format!("{}\n#line 1\n{source}", include_str!("check.h"));
    Library::of_text(&text, edition, name)
}

pub(crate) fn at(space: Space, addr: u64) -> Access {
    Access { space, addr, cookie: 0 }
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
