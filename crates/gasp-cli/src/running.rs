//! Questions to a running `gasp vm`, at the socket of its `--status`.

use core::time::Duration;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use gasp::Errno;

use crate::failure::Failure;
use crate::output::system_words;
use crate::socket;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer.
const ANSWER_MAX: u64 = 64 << 20;

/// The answer to a word: `status` or `layout`.
pub(crate) fn ask(path: &Path, word: &str) -> Result<Vec<u8>, Failure> {
    let at = path.display();
    let unavailable = |errno, message| Failure::Unavailable { errno, message };
    let mut vm = UnixStream::connect(path).map_err(|error| {
        let errno = socket::errno_of(&error);
        let why = match errno {
            Errno::NOENT => "there is no such socket".into(),
            Errno::CONNREFUSED => "nobody listens on this socket any more".into(),
            Errno::ACCESS | Errno::PERM => "only the user of the VM may ask it".into(),
            _ => system_words(&error),
        };
        unavailable(errno, format!("{at}: {why}; it is created by gasp vm --status {at}"))
    })?;
    let mut answer = Vec::new();
    let asked = vm
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| vm.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| vm.write_all(format!("{word}\n").as_bytes()))
        .and_then(|()| vm.take(ANSWER_MAX).read_to_end(&mut answer));
    match asked {
        Ok(_) if answer.is_empty() => Err(unavailable(
            Errno::PROTO,
            format!("{at}: whoever listens there gives no answer; is it that of a gasp vm?"),
        )),
        // The rest may be missing.
        Ok(_) if u64::try_from(answer.len()).is_ok_and(|len| len >= ANSWER_MAX) => {
            Err(unavailable(
                Errno::OVERFLOW,
                format!(
                    "{at}: the answer is not complete after {ANSWER_MAX} bytes, and is dropped"
                ),
            ))
        }
        Ok(_) => Ok(answer),
        Err(error) => Err(unavailable(
            socket::errno_of(&error),
            format!("{at}: the VM does not answer: {}", system_words(&error)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_answer_that_is_cut_off_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm");
        let vm = UnixListener::bind(&path).unwrap();
        let serve = std::thread::spawn(move || {
            for mebibytes in [1, 80] {
                let (mut client, _) = vm.accept().unwrap();
                client.read_exact(&mut [0; b"layout\n".len()]).unwrap();
                // The client goes away before the end of the long one.
                let _ = (0..mebibytes).try_for_each(|_| client.write_all(&[b'x'; 1 << 20]));
            }
        });
        assert_eq!(ask(&path, "layout").unwrap().len(), 1 << 20);
        let cut = ask(&path, "layout");
        let Err(Failure::Unavailable { errno, message }) = cut else { panic!("not an error") };
        assert_eq!(errno, Errno::OVERFLOW);
        assert!(message.contains("not complete after 67108864 bytes"), "{message}");
        serve.join().unwrap();
    }
}
