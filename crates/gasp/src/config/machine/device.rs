//! A device of a machine, and its options.

use super::interrupt::Interrupt;
use super::location::Location;
use super::place::Place;
use super::settings::LogConfig;
use crate::config::error::ConfigError;
use crate::config::near::hint;
use crate::error::Errno;

/// A virtual device of a machine.
///
/// Its type is a name that the host gives a meaning to, as is every option beyond those here.
/// [`IOMMU`](Self::IOMMU) alone has one for memory as well.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DeviceConfig {
    /// Its name, which no other device has, and under which [`Guest`](crate::Guest) knows it. A
    /// text in the qvm language need not give one: then it is the type, with a number from the
    /// second one on (`virtio-blk`, `virtio-blk-2`).
    pub name: String,
    /// Its type: `virtio-blk`, `trace`.
    pub kind: String,
    /// Its locations, in the order of the text.
    pub locations: Vec<Location>,
    /// Its interrupt.
    pub interrupt: Option<Interrupt>,
    /// Where its messages are written, instead of where those of the machine are.
    pub logs: Vec<LogConfig>,
    /// All its other options and their arguments, as in the text; see [`options`](Self::options).
    pub words: Vec<Word>,
    /// Where the text defines it.
    pub place: Place,
}

/// An option of a device, or an argument of one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Word {
    /// The text, without quotes.
    pub text: String,
    /// Where it is.
    pub place: Place,
    /// Whether it can only be an argument, because it is quoted.
    pub(super) argument: bool,
}

/// An option of a device, with its argument.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DeviceOption<'a> {
    /// Its index in the list of options.
    pub index: usize,
    /// Its argument, if it takes one.
    pub argument: Option<&'a str>,
    /// Where it is.
    pub place: &'a Place,
}

impl DeviceConfig {
    /// The type of the guest's IOMMU. If a configuration has such a device and no `[iommu]`, the
    /// guest has an IOMMU that devices in no domain bypass.
    pub const IOMMU: &'static str = "iommu";

    /// The options among [`words`](Self::words), in the order of the text, with their arguments.
    ///
    /// `list` has the names of the options that the type knows. An option takes one argument,
    /// unless its name has the prefix `0`, which is not part of it.
    ///
    /// ```
    /// use gasp::config::Config;
    /// let text = "ram 1M vdev virtio-blk hostdev disk.img readonly";
    /// let config = Config::parse(text, "a.qvmconf".as_ref())?;
    /// let disk = &config.machine().devices[0];
    /// let options = disk.options(&["hostdev", "0readonly"])?;
    /// assert_eq!((options[0].index, options[0].argument), (0, Some("disk.img")));
    /// assert_eq!((options[1].index, options[1].argument), (1, None));
    ///
    /// let error = disk.options(&["hostdev", "0read-only"]).unwrap_err();
    /// let text = "a.qvmconf:1: vdev: `virtio-blk` has no option `readonly`; \
    ///             did you mean `read-only`?";
    /// assert_eq!(error.to_string(), text);
    /// # Ok::<(), gasp::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// `ENOENT` if an option is not in the list, `EINVAL` if one lacks its argument. The error
    /// names the type, the option and the line.
    pub fn options<S: AsRef<str>>(&self, list: &[S]) -> Result<Vec<DeviceOption<'_>>, ConfigError> {
        let name = |option: &S| {
            let option = option.as_ref();
            option.strip_prefix('0').map_or((option.to_owned(), true), |rest| (rest.into(), false))
        };
        let known: Vec<(String, bool)> = list.iter().map(name).collect();
        let mut options = Vec::new();
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            let found = known.iter().position(|(name, _)| *name == word.text && !word.argument);
            let Some((index, (_, takes))) = found.and_then(|at| Some((at, known.get(at)?))) else {
                return Err(self.unknown(word, &known));
            };
            let argument = match takes {
                true => {
                    let missing = || {
                        let message = format!(
                            "the option `{}` of `{}` requires an argument",
                            word.text, self.kind
                        );
                        word.place.error(&message)
                    };
                    Some(words.next().ok_or_else(missing)?.text.as_str())
                }
                false => None,
            };
            options.push(DeviceOption { index, argument, place: &word.place });
        }
        Ok(options)
    }

    #[cold]
    fn unknown(&self, word: &Word, known: &[(String, bool)]) -> ConfigError {
        if word.argument {
            let message =
                format!("unexpected argument `{}`: a quoted word is never an option", word.text);
            return word.place.error(&message);
        }
        let mut names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        names.extend(["loc", "intr", "name", "log"]);
        let hint = hint(&word.text, &names);
        let message = format!("`{}` has no option `{}`{hint}", self.kind, word.text);
        word.place.error(&message).with_errno(Errno::NOENT)
    }
}
