//! A FUSE file that this process serves itself, until it falls silent.
//!
//! The protocol is that of `<linux/fuse.h>`; the mount point is a file, so only the root has to
//! be served.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const INIT: u32 = 26;
/// Length of the file in bytes.
pub(crate) const LEN: u64 = 4096;

/// State shared by the serving thread and the test.
#[derive(Default)]
struct State {
    silent: AtomicBool,
    requests: AtomicU64,
}

/// The mounted file, unmounted when dropped.
pub(crate) struct Fuse {
    path: PathBuf,
    state: Arc<State>,
}

impl Fuse {
    /// Mounts and serves the file.
    pub(crate) fn mount() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("gasp-fuse-{}", std::process::id()));
        File::create(&path)?;
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let data = format!("fd={},rootmode=100000,user_id=0,group_id=0", device.as_raw_fd());
        let (data, target) = (CString::new(data)?, c_path(&path)?);
        let kind = c"fuse".as_ptr();
        // SAFETY: source, target, type and data are strings that end in a NUL and outlive the call.
        let done = unsafe { libc::mount(kind, target.as_ptr(), kind, 0, data.as_ptr().cast()) };
        if done != 0 {
            let error = io::Error::last_os_error();
            std::fs::remove_file(&path)?;
            return Err(error);
        }
        let state = Arc::new(State::default());
        let on = Arc::clone(&state);
        std::thread::spawn(move || serve(device, &on));
        Ok(Self { path, state })
    }

    pub(crate) fn open(&self) -> OwnedFd {
        File::options().read(true).write(true).open(&self.path).unwrap().into()
    }

    /// Answers no request from now on.
    pub(crate) fn fall_silent(&self) {
        self.state.silent.store(true, Ordering::SeqCst);
    }

    /// Number of requests received.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // By force: the serving thread sees the end of the file system, and whoever waits for
        // a reply receives an error.
        if let Ok(target) = c_path(&self.path) {
            let flags = libc::MNT_FORCE | libc::MNT_DETACH;
            // SAFETY: `target` is a string that ends in a NUL and outlives the call.
            unsafe { libc::umount2(target.as_ptr(), flags) };
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn serve(mut device: File, state: &State) {
    let mut request = vec![0; 1 << 17];
    // The loop ends with the file system.
    while let Ok(len) = device.read(&mut request) {
        let word = |offset: usize| u32::from_le_bytes(*request[offset..].first_chunk().unwrap());
        assert!(len >= 40);
        state.requests.fetch_add(1, Ordering::SeqCst);
        if state.silent.load(Ordering::SeqCst) {
            continue;
        }
        let (error, body) = match word(4) {
            INIT => (0, words(&[7, 31, 0, 0, 0, 1 << 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            OPEN => (0, vec![0; 16]),
            GETATTR => (0, attributes()),
            READ => (0, b"fuse".repeat(LEN as usize / 4)),
            STATFS => (0, vec![0; 80]),
            _ => (-libc::ENOSYS, vec![]),
        };
        let mut reply = words(&[16 + body.len() as u32, error as u32, word(8), word(12)]);
        reply.extend(body);
        // Fails for a request that nobody waits for any more.
        let _ = device.write(&reply);
    }
}

/// The file's attributes, with a validity of 0, so that they are never cached.
fn attributes() -> Vec<u8> {
    let mut attributes = words(&[0, 0, 0, 0, 1, 0, LEN as u32, 0, 8, 0]);
    attributes.resize(16 + 48 + 12, 0);
    attributes.extend(words(&[libc::S_IFREG | 0o600, 1]));
    attributes.resize(104, 0);
    attributes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
