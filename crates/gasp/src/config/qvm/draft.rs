//! The tables of a configuration, as far as its options were read.

use toml::Spanned;

use super::lex::Token;
use super::options::{self, Context, Meaning};
use super::reader::{Item, Reader};
use super::vdev::{VdevDraft, tables};
use crate::config::error::ConfigError;
use crate::config::file::Document;
use crate::config::near::hint;
use crate::config::size::{Number, number};
use crate::config::source::Mark;
use crate::config::words::{Word, word};
use crate::error::Errno;

/// The tables so far.
pub(super) struct Draft<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) document: Document,
    vdevs: Vec<VdevDraft>,
    pub(super) context: Context,
    /// The option that began the context, until something belongs to it that it requires.
    pub(super) lacking: Option<Token>,
    /// The first address past the highest RAM or ROM.
    pub(super) next: u64,
    /// Whether nothing was read yet.
    first: bool,
}

impl<'a> Draft<'a> {
    /// Reads everything.
    pub(super) fn read(reader: Reader<'a>) -> Result<Document, ConfigError> {
        let mut draft = Self {
            reader,
            document: Document::default(),
            vdevs: Vec::new(),
            context: Context::None,
            lacking: None,
            next: 0,
            first: true,
        };
        loop {
            match draft.reader.next()? {
                Item::Word(word) => draft.word(word)?,
                // A file is a text of its own: no context goes on in another.
                Item::Edge => draft.begin(Context::None)?,
                Item::End => break,
            }
        }
        draft.begin(Context::None)?;
        let mut document = draft.document;
        document.vdev = tables(draft.vdevs);
        Ok(document)
    }

    /// Reads a word in the place of an option, with its arguments.
    fn word(&mut self, name: Token) -> Result<(), ConfigError> {
        let found = if name.quoted { None } else { options::option(&name.text) };
        // What only `cpu` has is a device's own.
        let found = found.filter(|(_, meaning)| {
            self.context != Context::Vdev || !matches!(meaning, Meaning::RefusedOfCpu(_))
        });
        let first = core::mem::replace(&mut self.first, false);
        let before_load = self
            .reader
            .peek()
            .is_some_and(|next| !next.quoted && matches!(next.text.as_str(), "load" | "pass"));
        match found {
            Some((key, Meaning::Refused(why) | Meaning::RefusedOfCpu(why))) => {
                self.refuse(&name, key, why)
            }
            Some((_, meaning)) => self.option(&name, meaning, first),
            None => match options::content(&name.text) {
                Some(content) if before_load && !name.quoted => self.content(&name, content),
                _ => self.other(name, before_load),
            },
        }
    }

    fn option(&mut self, name: &Token, meaning: Meaning, first: bool) -> Result<(), ConfigError> {
        match meaning {
            Meaning::System => self.system(name, first),
            Meaning::Ram => self.ram(name),
            Meaning::Rom => self.rom(name),
            Meaning::Load => self.load(name, None),
            Meaning::Cmdline => {
                let text = self.reader.argument(name, "cmdline", "the command line")?;
                self.document.machine.cmdline = Some(text.spanned());
                Ok(())
            }
            Meaning::Set => self.set(name),
            Meaning::Unsupported => self.unsupported(name),
            Meaning::Logger => {
                let log = self.log(name, "logger")?;
                self.document.machine.log.push(log);
                Ok(())
            }
            Meaning::DryRun => {
                self.document.machine.dry_run = true;
                Ok(())
            }
            Meaning::Begin(context) => self.context(name, context),
            Meaning::Loc => self.loc(name),
            Meaning::Intr => self.intr(name),
            Meaning::Name => {
                let text = self.reader.argument(name, "name", "a name")?;
                match self.vdev() {
                    Some(vdev) => vdev.name = Some(text.spanned()),
                    None => return self.astray(name, "name", "`vdev`"),
                }
                Ok(())
            }
            Meaning::Log => {
                let log = self.log(name, "log")?;
                match self.vdev() {
                    Some(vdev) => vdev.log = Some(log),
                    None => return self.astray(name, "log", "`vdev`; for all use `logger`"),
                }
                Ok(())
            }
            Meaning::Refused(why) | Meaning::RefusedOfCpu(why) => self.refuse(name, "", why),
        }
    }

    /// Reads a word that is no option of the language.
    fn other(&mut self, word: Token, before_load: bool) -> Result<(), ConfigError> {
        if let Some(vdev) = self.vdev() {
            vdev.word(word);
            return Ok(());
        }
        let text = &word.text;
        let message = match (word.quoted, before_load) {
            (true, _) => format!("unexpected argument `{text}`: a quoted word is never an option"),
            (_, true) => format!(
                "unknown content type `{text}`; a boot image needs none (`load FILE`), and others \
                 are `initrd` and `data`"
            ),
            _ if number(text).is_some() => {
                format!("unexpected argument `{text}`: the option before it takes no more")
            }
            _ => format!("unknown option `{text}`{}", hint(text, &options::names())),
        };
        self.wrong(&word, "", &message)
    }

    fn context(&mut self, name: &Token, context: Context) -> Result<(), ConfigError> {
        self.begin(context)?;
        match context {
            Context::None => {}
            Context::Cpu => {
                let so_far = self.document.machine.cpus.as_ref();
                let count = so_far.map_or(0, |cpus| cpus.get_ref().0).saturating_add(1);
                self.document.machine.cpus = Some(Spanned::new(name.range(), Number(count)));
            }
            Context::Pass | Context::Reserve => self.lacking = Some(name.clone()),
            Context::Vdev => {
                let kind = self.reader.argument(name, "vdev", "the type of the device")?;
                self.vdevs.push(VdevDraft::new(kind));
            }
        }
        Ok(())
    }

    /// Ends the context, and begins another.
    fn begin(&mut self, context: Context) -> Result<(), ConfigError> {
        self.context = context;
        match self.lacking.take() {
            None => Ok(()),
            Some(name) => self.wrong(&name, key_of(&name), "a `loc` must follow"),
        }
    }

    /// The device whose options are being read.
    pub(super) fn vdev(&mut self) -> Option<&mut VdevDraft> {
        self.vdevs.last_mut().filter(|_| self.context == Context::Vdev)
    }

    fn system(&mut self, name: &Token, first: bool) -> Result<(), ConfigError> {
        if !first {
            return self.wrong(name, "guest.name", "this must be the first option");
        }
        let system = self.reader.argument(name, "guest.name", "the name of the guest")?;
        self.document.guest.name = Some(system.spanned());
        Ok(())
    }

    pub(super) fn number(
        &self,
        token: &Token,
        text: &str,
        key: &'static str,
    ) -> Result<u64, ConfigError> {
        number(text).ok_or_else(|| {
            let message = format!(
                "expected bytes below 2^64, such as `16M` or `0x1000` (K, M, G, T), not `{text}`"
            );
            self.error(token, key, &message)
        })
    }

    /// The value of a word that is one of several.
    pub(super) fn one_of<W: Word>(
        &self,
        token: &Token,
        key: &'static str,
    ) -> Result<W, ConfigError> {
        word(&token.text).ok_or_else(|| {
            let words: Vec<&str> = W::WORDS.iter().map(|(word, _)| *word).collect();
            let message = format!("unknown word `{}`{}", token.text, hint(&token.text, &words));
            self.error(token, key, &message)
        })
    }

    #[cold]
    pub(super) fn error(&self, at: &Token, key: &'static str, message: &str) -> ConfigError {
        self.reader.source.wrong(Mark::at(at.offset, key), message)
    }

    #[cold]
    pub(super) fn refused(&self, at: &Token, key: &'static str, why: &str) -> ConfigError {
        self.error(at, key, &format!("{why}; leave it out")).with_errno(Errno::NOTSUP)
    }

    pub(super) fn wrong(
        &self,
        at: &Token,
        key: &'static str,
        message: &str,
    ) -> Result<(), ConfigError> {
        Err(self.error(at, key, message))
    }

    /// Refuses what is known and not supported.
    pub(super) fn refuse(
        &self,
        at: &Token,
        key: &'static str,
        why: &str,
    ) -> Result<(), ConfigError> {
        Err(self.refused(at, key, why))
    }

    /// Refuses an option outside its context.
    pub(super) fn astray(
        &self,
        at: &Token,
        key: &'static str,
        of: &str,
    ) -> Result<(), ConfigError> {
        self.wrong(at, key, &format!("this option is only valid after {of}"))
    }
}

/// The name of an option or a type of content, which was found.
pub(super) fn key_of(token: &Token) -> &'static str {
    options::names().into_iter().find(|name| *name == token.text).unwrap_or("")
}
