//! Why a socket cannot be created, and what would help.

use std::io;
use std::path::Path;

use gasp::Errno;
use gasp_vfio_user::BindError;

use crate::output::system_words;

/// The longest path that fits into the address of a socket, in bytes.
const PATH_MAX: usize = 107;

/// The error number of an error; `EIO` if it has none.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Why a server cannot listen at `path`, and the error number.
pub(crate) fn not_bound(path: &Path, error: &BindError) -> (Errno, String) {
    let at = path.display();
    match error {
        BindError::InUse { .. } => (
            Errno::ADDRINUSE,
            format!("{at}: another server listens on this socket; end it, or choose another path"),
        ),
        BindError::NotASocket { .. } => (
            Errno::EXIST,
            format!("{at}: there is a file that is no socket; remove it, or choose another path"),
        ),
        BindError::System { source, .. } => {
            (errno_of(source), format!("{at}: {}", why_not(path, source)))
        }
    }
}

/// Why there can be no socket at `path`, from the error of its creation.
pub(crate) fn why_not(path: &Path, error: &io::Error) -> String {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.display();
    let len = path.as_os_str().len();
    match errno_of(error) {
        Errno::NOENT => {
            format!("there is no directory {folder}; create it, or choose another path")
        }
        Errno::NOTDIR => format!("{folder} is not a directory; choose another path"),
        Errno::ACCESS | Errno::PERM => format!(
            "this process may not create files in {folder}; change its permissions, or choose \
             another path"
        ),
        Errno::ROFS => format!("{folder} is read-only; choose another path, such as in /run"),
        _ if len > PATH_MAX => format!(
            "the path has {len} bytes, and that of a socket has at most {PATH_MAX}; choose a \
             shorter one"
        ),
        _ if error.kind() == io::ErrorKind::TimedOut => format!(
            "another process is creating this socket and has locked {}.lock for seconds; end it, \
             or choose another path",
            path.display()
        ),
        _ => format!("it cannot be created: {}; choose another path", system_words(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_says_what_to_do() {
        let errors = [Errno::NOENT, Errno::NOTDIR, Errno::ACCESS, Errno::ROFS, Errno::MFILE];
        for errno in errors {
            let why = why_not(Path::new("a/b.sock"), &errno.into());
            assert!(why.contains("; "), "{why}");
            assert!(!why.contains("os error"), "{why}");
        }
        let long = why_not(Path::new(&"x".repeat(108)), &io::ErrorKind::InvalidInput.into());
        assert!(long.contains("108 bytes") && long.contains("107"), "{long}");
    }
}
