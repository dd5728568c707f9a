//! The socket on which a running VM answers: its counters, and a picture of its memory.
//!
//! A client sends one word and a line feed, and reads the answer to its end: `status` for the
//! counters as JSON, `layout` for the picture as SVG. Anything else is answered by nothing.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use gasp::Guest;
use gasp_vfio_user::Listener;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SocketFlags, accept_with};

use super::event::{Status, Totals};
use crate::failure::Failure;
use crate::layout;
use crate::socket;

/// How long a client may take, all in all.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest word.
const WORD: usize = 16;

/// The socket, which is removed with this.
pub(super) struct Answers {
    totals: Arc<Mutex<Totals>>,
    /// Its end removes the file.
    _listener: Listener,
}

impl Answers {
    /// Answers at a new socket at `path`, which only this user may connect to.
    pub(super) fn listen(path: &Path, name: &str, guest: &Guest) -> Result<Self, Failure> {
        let listener = Listener::bind(path, 0o600).map_err(|error| {
            let (errno, message) = socket::not_bound(path, &error);
            Failure::Unavailable { errno, message }
        })?;
        let clients = listener.as_fd().try_clone_to_owned()?;
        let totals = Arc::<Mutex<Totals>>::default();
        let (name, guest, now) = (name.to_owned(), guest.clone(), Arc::clone(&totals));
        let began = Instant::now();
        let serve = move || {
            // It ends with the process at the latest: nothing of it outlasts the VM.
            loop {
                let accepted = poll(&mut [PollFd::new(&clients, PollFlags::IN)], None)
                    .and_then(|_| accept_with(&clients, SocketFlags::CLOEXEC));
                // Too many files, or a client that goes away: the next one may do better.
                let served = accepted.map_err(Into::into).and_then(|client| {
                    let client = Client::new(client);
                    match client.word()?.as_slice() {
                        b"status" => {
                            let (name, totals) = (name.clone(), now.lock().clone());
                            let seconds = began.elapsed().as_secs_f64();
                            client.send(&line(&Status { name, seconds, totals }))
                        }
                        b"layout" => client.send(layout::picture(&guest).to_string().as_bytes()),
                        _ => Ok(()),
                    }
                });
                if let Err(error) = served {
                    tracing::debug!(%error, "a client of the VM's socket got no answer");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        };
        std::thread::Builder::new().name("answers".into()).spawn(serve)?;
        Ok(Self { totals, _listener: listener })
    }

    /// The counters as they are now.
    pub(super) fn update(&self, totals: &Totals) {
        self.totals.lock().clone_from(totals);
    }
}

fn line(status: &Status) -> Vec<u8> {
    // It contains only numbers and strings, which can always be serialized.
    let mut text = serde_json::to_vec(status).unwrap_or_default();
    text.push(b'\n');
    text
}

/// A client, and the time until which it is served.
struct Client(UnixStream, Instant);

impl Client {
    fn new(fd: std::os::fd::OwnedFd) -> Self {
        Self(fd.into(), Instant::now() + PATIENCE)
    }

    /// The time that is left.
    fn rest(&self) -> io::Result<Option<Duration>> {
        let rest = self.1.saturating_duration_since(Instant::now());
        if rest.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(rest)) }
    }

    /// The bytes before the first line feed, if they are few.
    fn word(&self) -> io::Result<Vec<u8>> {
        let mut word = Vec::new();
        let mut byte = [0];
        while word.len() <= WORD {
            self.0.set_read_timeout(self.rest()?)?;
            if (&self.0).read(&mut byte)? == 0 || byte == *b"\n" {
                return Ok(word);
            }
            word.extend(byte);
        }
        Ok(Vec::new())
    }

    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.set_write_timeout(self.rest()?)?;
            let some = bytes.get(..64 << 10).unwrap_or(bytes);
            let sent = (&self.0).write(some)?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}
