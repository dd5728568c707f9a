//! A server in this process, and a client that can send anything to it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs")]

pub mod client;
pub mod device;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use gasp_vdev::{Device, Shell};
use gasp_vfio_user::{Options, Server, Status};
use parking_lot::{Mutex, MutexGuard};

use client::Client;

/// A server that runs until it is dropped.
pub struct Served {
    pub server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

pub fn serve(device: impl Device, options: Options) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.sock");
    let shell = Shell::new("device", device).unwrap();
    let server = Arc::new(Server::bind(&path, shell, options).unwrap());
    let running = Arc::clone(&server);
    let thread = std::thread::spawn(move || running.run().unwrap());
    Served { server, thread: Some(thread), _folder: folder, path }
}

impl Served {
    /// A client after its handshake.
    pub fn client(&self) -> Client {
        let mut client = Client::connect(&self.path);
        client.hello();
        client
    }

    pub fn status(&self) -> Status {
        self.server.status()
    }

    /// Waits until no client is attached.
    pub fn wait_detached(&self) {
        wait_for("the client to be gone", || {
            !self.status().attached && !self.server.shell().is_attached()
        });
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.stopper().stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Waits until a condition holds; fails after ten seconds.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = std::time::Instant::now();
    while !is_so() {
        assert!(since.elapsed().as_secs() < 10, "waited too long for {what}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Serialises the tests of a file that count resources of the process.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

/// Number of descriptors of the process.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until `now` returns `expected`, and fails if it never does: descriptors that a
/// client sent and nobody used may be closed after the reply.
pub fn settles<T: PartialEq + std::fmt::Debug>(now: impl Fn() -> T, expected: T) {
    let started = std::time::Instant::now();
    while now() != expected && started.elapsed() < std::time::Duration::from_secs(5) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(now(), expected);
}

/// Number of mappings of memory files of the process.
pub fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("memfd:")).count()
}
