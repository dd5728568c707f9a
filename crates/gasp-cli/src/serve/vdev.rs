//! A virtual device in C, as a device on a socket: its keys.

use std::path::{Path, PathBuf};

use gasp::config::{Config, ConfigError};

use super::requested::{Requested, Wrong, wrong};

/// A vdev in C, as it is requested.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Vdev {
    /// Its type: what `vdev-TYPE.so` is searched for, or the name of a factory in `file`.
    pub(super) kind: String,
    /// Its file, if that is not searched for.
    pub(super) file: Option<PathBuf>,
    /// Where it is, in the language of qvm.
    loc: Option<String>,
    /// Its options, each with its argument: `period=50`.
    options: Vec<String>,
}

/// The options of a requested vdev. Its type is its name, unless it is given otherwise.
pub(super) fn of(requested: &Requested, folder: &Path) -> Result<Vdev, Wrong> {
    let file = requested.path.as_ref().map(|path| folder.join(path));
    let by_file = || Some(file.as_ref()?.file_stem()?.to_string_lossy().into_owned());
    let by_file = || by_file().map(|stem| stem.strip_prefix("vdev-").unwrap_or(&stem).to_owned());
    let kind = requested.vdev.clone().or_else(by_file).or_else(|| requested.name.clone());
    let Some(kind) = kind else {
        return wrong("vdev", "the kind vdev requires it: NAME, whose file is vdev-NAME.so");
    };
    if requested.path.as_deref().is_some_and(|path| path.is_empty() || path.contains('\0')) {
        return wrong("path", "expected the path of a vdev's file");
    }
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.+".contains(letter);
    let is_given = requested.vdev.is_some() || file.is_none();
    if is_given && (kind.is_empty() || !kind.chars().all(is_plain)) {
        let message = format!(
            "expected the name of a vdev, of letters and digits, not {kind:?}; a file has the key \
             path"
        );
        return wrong("vdev", message);
    }
    let vdev = Vdev {
        kind,
        file,
        loc: requested.loc.clone(),
        options: requested.options.clone().unwrap_or_default(),
    };
    // What can be known without its file is known at once.
    vdev.config("vdev").map(|_| vdev)
}

/// Refuses the keys of a vdev, of another kind.
pub(super) fn refuse_keys(requested: &Requested, kind: &str) -> Result<(), Wrong> {
    let Requested { vdev, path, loc, options, .. } = requested;
    let surplus = [
        ("vdev", vdev.is_some()),
        ("path", path.is_some()),
        ("loc", loc.is_some()),
        ("options", options.is_some()),
    ];
    match surplus.iter().find(|(_, there)| *there) {
        Some((key, _)) => wrong(key, format!("the kind {kind} has no such key")),
        None => Ok(()),
    }
}

impl Vdev {
    /// The vdev as a text of the qvm language, parsed: its location is line 2, and each option a line
    /// after that.
    pub(super) fn config(&self, name: &str) -> Result<Config, Wrong> {
        let mut text = format!("ram 1M vdev {} name {}\n", quoted(&self.kind), quoted(name));
        if let Some(loc) = &self.loc {
            text += &format!("loc {}", quoted(loc));
        }
        let mut words = 0;
        for option in &self.options {
            let (name, argument) = match option.split_once('=') {
                Some((name, argument)) => (name, Some(argument)),
                None => (option.as_str(), None),
            };
            let is_word = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            let is_line = |text: &str| !text.contains(char::is_control);
            if name.is_empty() || !name.chars().all(is_word) || !argument.is_none_or(is_line) {
                let message = format!("expected OPTION or OPTION=ARGUMENT, not {option:?}");
                return wrong("options", message);
            }
            words += 1 + usize::from(argument.is_some());
            text += &format!("\n{name}");
            if let Some(argument) = argument {
                text += &format!(" {}", quoted(argument));
            }
        }
        let config = Config::parse(&text, Path::new("vdev.qvmconf"));
        let config = config.map_err(|error| {
            let option = error.line().and_then(|line| self.options.get(line.checked_sub(3)?));
            let message = match option {
                Some(option) => format!("{option:?}: {}", error.message()),
                None => error.message().to_owned(),
            };
            Wrong { key: key_of(&error), message }
        })?;
        // A word of the language, such as `ram`, is no option of a vdev.
        match &*config.machine().devices {
            [device] if device.words.len() == words => Ok(config),
            _ => wrong("options", "an option has the name of an option that every device has"),
        }
    }
}

/// A word that can only be an argument.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The key that an error is about.
pub(super) fn key_of(error: &ConfigError) -> &'static str {
    match error.line() {
        None | Some(..=1) => "vdev",
        Some(2) => "loc",
        Some(3..) => "options",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(vdev: &str, options: &[&str], loc: Option<&str>) -> Requested {
        Requested {
            kind: "vdev".into(),
            socket: "a.sock".into(),
            vdev: Some(vdev.into()),
            loc: loc.map(Into::into),
            options: Some(options.iter().map(ToString::to_string).collect()),
            ..Requested::default()
        }
    }

    #[test]
    fn options_and_their_arguments_are_words_of_one_device() {
        let options = ["period=50", "quiet", r#"text=a "b" \ c # d"#, "none=", "at=@file=x"];
        let vdev =
            of(&requested("trace", &options, Some("mem:0xfa000000")), Path::new("")).unwrap();
        let config = vdev.config("trace0").unwrap();
        let device = &config.machine().devices[0];
        assert_eq!((device.name.as_str(), device.kind.as_str()), ("trace0", "trace"));
        assert_eq!(device.locations.len(), 1);
        let words: Vec<_> = device.words.iter().map(|word| word.text.as_str()).collect();
        let expected =
            ["period", "50", "quiet", "text", r#"a "b" \ c # d"#, "none", "", "at", "@file=x"];
        assert_eq!(words, expected);
    }

    #[test]
    fn the_type_is_that_of_the_key_the_file_or_the_name() {
        let kind = |vdev: Option<&str>, path: Option<&str>, name: Option<&str>| {
            let [vdev, path, name] = [vdev, path, name].map(|text| text.map(Into::into));
            let requested = Requested { vdev, path, name, ..Requested::default() };
            of(&requested, Path::new("/etc")).map(|vdev| (vdev.kind, vdev.file))
        };
        assert_eq!(kind(None, None, Some("trace")), Ok(("trace".into(), None)));
        assert_eq!(kind(Some("a"), None, Some("trace")), Ok(("a".into(), None)));
        let file = Some("/etc/x/vdev-b.so".into());
        assert_eq!(kind(None, Some("x/vdev-b.so"), Some("trace")), Ok(("b".into(), file)));
        assert_eq!(kind(None, None, None).unwrap_err().key, "vdev");
    }

    #[test]
    fn what_is_no_vdev_is_refused_with_its_key() {
        let key = |vdev: &str, options: &[&str], loc: Option<&str>| {
            of(&requested(vdev, options, loc), Path::new("")).unwrap_err().key
        };
        for vdev in ["", "a b", "../x", "a\n"] {
            assert_eq!(key(vdev, &[], None), "vdev", "{vdev:?}");
        }
        for option in ["", "=1", "a b=1", "ram", "cpu", "x=a\nb", "\"x\"", "vdev=nvme", "loc=5"] {
            assert_eq!(key("trace", &[option], None), "options", "{option:?}");
        }
        for loc in ["", "usb:1", "0x1 0x2", "pci:0:99.0"] {
            assert_eq!(key("trace", &["quiet"], Some(loc)), "loc", "{loc:?}");
        }
    }
}
