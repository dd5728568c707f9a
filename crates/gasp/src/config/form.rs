//! The forms of a configuration.

use std::ffi::OsStr;
use std::path::Path;

use super::qvm::options::is_option;

/// The language that a configuration is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Toml,
    Qvm,
}

impl Form {
    /// The form of a text: by the extension of its file if that is `toml` or `qvmconf`, else by
    /// its first line that has more than a comment.
    pub(super) fn of(path: &Path, text: &str) -> Self {
        match path.extension().and_then(OsStr::to_str) {
            Some("toml") => Self::Toml,
            Some("qvmconf") => Self::Qvm,
            _ => Self::of_text(text),
        }
    }

    fn of_text(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or("");
        let mut words = first.split_whitespace();
        let word = words.next().unwrap_or("");
        let assigned = words.next().is_some_and(|second| second.starts_with('='));
        match !assigned && (word.starts_with('@') || is_option(word)) {
            true => Self::Qvm,
            false => Self::Toml,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_and_otherwise_the_first_line() {
        for (path, text, form) in [
            ("a.toml", "ram 1M", Form::Toml),
            ("a.qvmconf", "[[ram]]", Form::Qvm),
            ("a", "\n# x\n  ram 1M", Form::Qvm),
            ("a.conf", "system", Form::Qvm),
            ("a", "@other", Form::Qvm),
            ("a", "[[ram]]\nsize = '1M'", Form::Toml),
            ("a", "ram = 1", Form::Toml),
            ("a", "ram=1", Form::Toml),
            ("a", "", Form::Toml),
            ("a", "colour blue", Form::Toml),
        ] {
            assert_eq!(Form::of(Path::new(path), text), form, "{path}: {text}");
        }
    }
}
