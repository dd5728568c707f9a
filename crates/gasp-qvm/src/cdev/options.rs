//! The options of a character device.

use core::time::Duration;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What a host device is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    Input,
    Output,
    Both,
}

/// When a host device is opened that is not opened at once: when it is first used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delay {
    /// If that fails, it is tried again until so many seconds have passed.
    Seconds(u32),
    /// If that fails, it is tried again until it succeeds.
    Forever,
}

/// The longest batch: output of a guest is shown after that in any case.
pub(crate) const BATCH_MAX: Duration = Duration::from_secs(10);

/// `hostdev`: `PATH`, `<PATH`, `>PATH`.
pub(crate) fn hostdev(text: &CStr) -> Option<(Use, PathBuf)> {
    let (used, path) = match text.to_bytes() {
        [b'<', path @ ..] => (Use::Input, path),
        [b'>', path @ ..] => (Use::Output, path),
        path => (Use::Both, path),
    };
    (!path.is_empty()).then(|| (used, PathBuf::from(OsStr::from_bytes(path))))
}

/// `delayed`: seconds, or `forever`.
pub(crate) fn delayed(text: &CStr) -> Option<Delay> {
    match text.to_str().ok()? {
        "forever" => Some(Delay::Forever),
        seconds => digits(seconds).map(Delay::Seconds),
    }
}

/// `batch`: microseconds; 0 is none.
pub(crate) fn batch(text: &CStr) -> Option<Duration> {
    let batch = Duration::from_micros(digits(text.to_str().ok()?)?.into());
    (batch <= BATCH_MAX).then_some(batch)
}

/// A number without a sign.
fn digits(text: &str) -> Option<u32> {
    text.starts_with(|first: char| first.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_device_is_a_path_with_its_use() {
        for (text, found) in [
            (c"/dev/pts/3", Some((Use::Both, "/dev/pts/3"))),
            (c"<in", Some((Use::Input, "in"))),
            (c">out>", Some((Use::Output, "out>"))),
            (c"", None),
            (c"<", None),
        ] {
            assert_eq!(hostdev(text), found.map(|(used, path)| (used, path.into())), "{text:?}");
        }
    }

    #[test]
    fn numbers_have_limits() {
        assert_eq!(delayed(c"5"), Some(Delay::Seconds(5)));
        assert_eq!(delayed(c"forever"), Some(Delay::Forever));
        assert_eq!(batch(c"0"), Some(Duration::ZERO));
        assert_eq!(batch(c"10000000"), Some(BATCH_MAX));
        assert_eq!(batch(c"10000001"), None);
        for text in [c"", c"-1", c"+1", c"1s", c"4294967296", c"ever", c"\xff"] {
            assert_eq!((delayed(text), batch(text)), (None, None), "{text:?}");
        }
    }
}
