//! The socket on which a running VM answers: its counters, and a picture of its memory.
//!
//! A client sends one word and a line feed, and reads the answer to its end: `status` for the
//! counters as JSON, `layout` for the picture as SVG. Anything else is answered by nothing.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use gasp::{Errno, Guest};
use parking_lot::Mutex;

use super::event::{Status, Totals};
use super::kind::SocketFile;
use crate::failure::Failure;
use crate::layout;
use crate::socket;

/// How long a client may take to send its word, or to read.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest word.
const WORD: usize = 16;

/// The socket, which is removed with this.
pub(super) struct Answers {
    totals: Arc<Mutex<Totals>>,
    _file: SocketFile,
}

impl Answers {
    /// Answers at a new socket at `path`, which only this user may connect to.
    pub(super) fn listen(path: &Path, name: &str, guest: &Guest) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::Unavailable {
            errno: socket::errno_of(&error),
            message: match socket::errno_of(&error) {
                Errno::ADDRINUSE => format!(
                    "{}: there is a file or a socket; remove it, or choose another path",
                    path.display()
                ),
                _ => format!("{}: {}", path.display(), socket::why_not(path, &error)),
            },
        };
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = SocketFile::new(path);
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(failed)?;
        let totals = Arc::<Mutex<Totals>>::default();
        let (name, guest, now) = (name.to_owned(), guest.clone(), Arc::clone(&totals));
        let began = Instant::now();
        let serve = move || {
            for client in listener.incoming() {
                // A client that goes away, or too many files: the next one may do better.
                let served = client.and_then(|client| match word(&client)?.as_slice() {
                    b"status" => {
                        let seconds = began.elapsed().as_secs_f64();
                        let totals = now.lock().clone();
                        status(&client, Status { name: name.clone(), seconds, totals })
                    }
                    b"layout" => {
                        (&client).write_all(layout::picture(&guest).to_string().as_bytes())
                    }
                    _ => Ok(()),
                });
                if let Err(error) = served {
                    tracing::debug!(%error, "a client of the VM's socket got no answer");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        };
        // It ends with the process: nothing of it outlasts the VM.
        std::thread::Builder::new().name("answers".into()).spawn(serve)?;
        Ok(Self { totals, _file: file })
    }

    /// The counters as they are now.
    pub(super) fn update(&self, totals: &Totals) {
        self.totals.lock().clone_from(totals);
    }
}

fn status(mut client: &UnixStream, status: Status) -> io::Result<()> {
    // It contains only numbers and strings, which can always be serialized.
    let mut text = serde_json::to_string(&status).unwrap_or_default();
    text.push('\n');
    client.write_all(text.as_bytes())
}

/// The bytes before the first line feed, if they are few.
fn word(mut client: &UnixStream) -> io::Result<Vec<u8>> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut word = Vec::new();
    let mut byte = [0];
    while word.len() <= WORD {
        if client.read(&mut byte)? == 0 || byte == *b"\n" {
            return Ok(word);
        }
        word.extend(byte);
    }
    Ok(Vec::new())
}
