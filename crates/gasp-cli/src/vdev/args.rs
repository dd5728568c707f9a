//! The arguments of `gasp vdev check`, and the configuration that they make.

use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use gasp::config::{Config, ConfigError};

use crate::failure::plain;

/// Arguments of `gasp vdev check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the vdev, whose file is vdev-NAME.so; or the file, if there is a slash or .so
    #[arg(value_name = "NAME|FILE.so")]
    pub(super) vdev: String,
    /// Option of the vdev, with its argument; again for another
    #[arg(long = "option", value_name = "NAME[=VALUE]")]
    pub(super) options: Vec<String>,
    /// Location of its registers: mem:ADDRESS, io:PORT, pci:BUS:DEVICE
    #[arg(long, value_name = "LOCATION")]
    pub(super) loc: Option<String>,
    /// Its interrupt: ioapic:LINE
    #[arg(long, value_name = "INTERRUPT")]
    pub(super) intr: Option<String>,
    /// Folder that is searched for the vdev, before those of the dynamic loader; again for another
    #[arg(long, value_name = "DIR")]
    pub(super) vdev_path: Vec<PathBuf>,
    /// Write zeros to its registers, too; without this they are only read
    #[arg(long)]
    pub(super) poke: bool,
    /// How long a call of the vdev may take before it counts as one that does not return
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(super) limit: u32,
    /// Load the vdev into this process, for a debugger: a crash ends it, and there is no limit
    #[arg(long)]
    pub(super) in_process: bool,
    /// Print one JSON object, with the fields listed below
    #[arg(long)]
    pub(super) json: bool,
    /// Walk, and report to the socket that is stdin
    #[arg(long, hide = true)]
    pub(super) walk: bool,
}

impl Args {
    /// The arguments of the process that walks.
    pub(super) fn of_walk(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["vdev".into(), "check".into(), "--walk".into()];
        let mut add = |name: &str, value: &OsStr| {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            all.push(word);
        };
        self.options.iter().for_each(|option| add("option", option.as_ref()));
        self.loc.iter().for_each(|loc| add("loc", loc.as_ref()));
        self.intr.iter().for_each(|intr| add("intr", intr.as_ref()));
        self.vdev_path.iter().for_each(|folder| add("vdev-path", folder.as_os_str()));
        if self.poke {
            all.push("--poke".into());
        }
        all.extend(["--".into(), OsString::from(&self.vdev)]);
        all
    }

    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(self.limit.into())
    }

    /// The vdev `name` as a configuration requests it: in the language of qvm, each option of ours
    /// on a line of its own.
    ///
    /// # Errors
    /// With the option of ours that is wrong, and why.
    pub(super) fn config(&self, name: &str) -> Result<Config, String> {
        let mut origins = vec![format!("{:?}", self.vdev)];
        let mut text = format!("ram 16M vdev {} name {}", quoted(name), quoted(name));
        let mut words = 0;
        for (option, key, value) in [("--loc", "loc", &self.loc), ("--intr", "intr", &self.intr)] {
            if let Some(value) = value {
                text += &format!("\n{key} {}", quoted(value));
                origins.push(format!("{option} {value}"));
            }
        }
        for option in &self.options {
            let (key, argument) = match option.split_once('=') {
                Some((key, argument)) => (key, Some(argument)),
                None => (option.as_str(), None),
            };
            let is_word = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            let is_line = |text: &str| !text.contains(char::is_control);
            if key.is_empty() || !key.chars().all(is_word) || !argument.is_none_or(is_line) {
                return Err(format!("--option: expected NAME or NAME=VALUE, not {option:?}"));
            }
            words += 1 + usize::from(argument.is_some());
            text += &format!("\n{key}");
            if let Some(argument) = argument {
                text += &format!(" {}", quoted(argument));
            }
            origins.push(format!("--option {option}"));
        }
        let config = Config::parse(&text, Path::new("check.qvmconf"));
        let config = config.map_err(|error| at_origin(&error, &origins))?;
        // A word of the language, such as `ram`, is no option of a vdev.
        match &*config.machine().devices {
            [device] if device.words.len() == words => Ok(config),
            _ => Err("--option: one has the name of an option that every device has; `loc` and \
                      `intr` are --loc and --intr"
                .into()),
        }
    }

    /// The message of an error of [`config`](Self::config), or one that has a line of it, with the
    /// option of ours.
    pub(super) fn explained(&self, error: &ConfigError) -> String {
        let given = [("--loc", &self.loc), ("--intr", &self.intr)];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let mut origins = vec![format!("{:?}", self.vdev)];
        origins.extend(given.map(|(name, value)| format!("{name} {value}")));
        origins.extend(self.options.iter().map(|option| format!("--option {option}")));
        at_origin(error, &origins)
    }
}

/// An error of line N, with what line N is from.
fn at_origin(error: &ConfigError, origins: &[String]) -> String {
    let line = error.line().and_then(|line| line.checked_sub(1));
    // What is about all of it says what it is about.
    match line.filter(|line| *line > 0).and_then(|line| origins.get(line)) {
        Some(origin) => format!("{origin}: {}", plain(error.message())),
        None => plain(error.message()),
    }
}

/// A word that can only be an argument.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
