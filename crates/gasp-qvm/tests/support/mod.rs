//! Vdevs that are compiled for a test, and a guest without a VMM that they are in front of.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gasp::config::Config;
use gasp::{Guest, GuestPhys, MemoryObject};
use gasp_capi::embed::ListedGuest;
use gasp_qvm::{End, Factory, Host, Instance, Loader, Request, VdevError};
use parking_lot::Mutex;

/// The compiled file of a vdev.
pub(crate) struct Library {
    folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Options for the compiler, in the environment: for a test that runs itself once more, with vdevs
/// that are instrumented.
pub(crate) const CFLAGS: &str = "GASP_TEST_CFLAGS";

/// Compiles a source into `vdev-NAME.so` in a folder of its own; the compiler's messages if that
/// fails.
pub(crate) fn compile(source: &Path, edition: u32, name: &str) -> Result<Library, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("vdev-{name}.so"));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(compiler)
        // A sanitizer is for the vdev, not for its compiler.
        .env_remove("LD_PRELOAD")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-shared", "-fPIC"])
        .args(std::env::var(CFLAGS).unwrap_or_default().split_whitespace())
        .arg(format!("-DQVM_EDITION={edition}"))
        .arg("-I")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../gasp-capi/include"))
        .arg("-I")
        .arg(source.parent().unwrap())
        .arg("-o")
        .args([&path, source])
        .output()
        .expect("a C compiler: cc, or $CC");
    match output.status.success() {
        true => Ok(Library { folder, path }),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

impl Library {
    /// A source file as a vdev of this name, which no other test's has: factories are of the
    /// process.
    pub(crate) fn of_file(source: &str, edition: u32, name: &str) -> Self {
        let unique = format!("{name}{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        compile(Path::new(source), edition, &unique).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// A source text.
    pub(crate) fn of_text(text: &str, edition: u32, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("vdev.c");
        std::fs::write(&source, text).unwrap();
        std::fs::write(folder.path().join("support.h"), include_str!("parts.h")).unwrap();
        Self::of_file(source.to_str().unwrap(), edition, name)
    }

    pub(crate) fn load(&self) -> Result<Arc<Factory>, VdevError> {
        Loader::default().load(self.path.to_str().unwrap())
    }
}

/// What a vdev has asked its host for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Interrupt(bool),
    Message(u64, u32),
    Vector(u16),
    End(End),
}

#[derive(Debug, Default)]
pub(crate) struct Noted(pub(crate) Mutex<Vec<Event>>);

impl Host for Noted {
    fn interrupt(&self, raised: bool) {
        self.0.lock().push(Event::Interrupt(raised));
    }
    fn message(&self, addr: u64, data: u32) {
        self.0.lock().push(Event::Message(addr, data));
    }
    fn vector(&self, vector: u16) {
        self.0.lock().push(Event::Vector(vector));
    }
    fn end(&self, end: &End) {
        self.0.lock().push(Event::End(end.clone()));
    }
}

/// The request of a text of the configuration, with one vdev.
pub(crate) fn request(factory: &Factory, text: &str) -> Result<Request, VdevError> {
    let config = Config::parse(&format!("ram 1M\n{text}\n"), "test.qvmconf".as_ref()).unwrap();
    Request::of(&config.machine().devices[0], factory)
}

/// A guest with 4 MiB of RAM at 0, listed for C.
pub(crate) struct Guests {
    pub(crate) guest: Guest,
    pub(crate) listed: ListedGuest,
    pub(crate) host: Arc<Noted>,
}

impl Guests {
    pub(crate) fn new() -> Self {
        let guest = Guest::builder().build().unwrap();
        let ram = MemoryObject::ram(4 << 20).create().unwrap();
        guest.space().add_ram(Some(GuestPhys(0)), &ram).unwrap();
        let listed = ListedGuest::new(guest.clone()).unwrap();
        Self { guest, listed, host: Arc::default() }
    }

    /// Creates a vdev as a text of the configuration requests it.
    pub(crate) fn create(&self, library: &Library, text: &str) -> Result<Instance, VdevError> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let request = request(&*library.load()?, text)?;
        let engine = self.guest.vdev(&format!("{}{number}", request.name)).unwrap();
        self.create_on(&engine, library, text)
    }

    /// The same, with a device of the engine.
    pub(crate) fn create_on(
        &self,
        engine: &gasp::Vdev,
        library: &Library,
        text: &str,
    ) -> Result<Instance, VdevError> {
        let factory = library.load()?;
        let request = request(&factory, text)?;
        let host: Arc<dyn Host> = Arc::clone(&self.host) as Arc<dyn Host>;
        Instance::create(&self.listed, engine, &factory, &request, host)
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        core::mem::take(&mut *self.host.0.lock())
    }
}
