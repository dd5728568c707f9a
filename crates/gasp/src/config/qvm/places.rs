//! Places and interrupts, in the context that they belong to: `loc` and `intr`.

use toml::Spanned;

use super::draft::Draft;
use super::lex::Token;
use super::options::Context;
use super::pass::attributes;
use crate::config::error::ConfigError;
use crate::config::file::{PassTable, ReserveTable};
use crate::config::near::hint;
use crate::config::size::Bytes;
use crate::config::words::Letters;

impl Draft<'_> {
    pub(super) fn loc(&mut self, name: &Token) -> Result<(), ConfigError> {
        let text = self.reader.argument(name, key_of_loc(self.context), "a location")?;
        match self.context {
            Context::Vdev => {
                if let Some(vdev) = self.vdev() {
                    vdev.loc.push(text.spanned());
                }
                Ok(())
            }
            Context::Pass => self.pass(&text),
            Context::Reserve => self.reserve(&text),
            Context::None | Context::Cpu => self.astray(name, "loc", "`vdev`, `pass` or `reserve`"),
        }
    }

    pub(super) fn intr(&mut self, name: &Token) -> Result<(), ConfigError> {
        let text = self.reader.argument(name, "intr", "an interrupt")?;
        match self.context {
            Context::Vdev => {
                if let Some(vdev) = self.vdev() {
                    vdev.intr = Some(text.spanned());
                }
                Ok(())
            }
            Context::Pass => self.refuse(name, "intr", "host interrupts are not passed through"),
            Context::Reserve => {
                self.refuse(name, "intr", "interrupts are not allocated automatically")
            }
            Context::None | Context::Cpu => self.astray(name, "intr", "`vdev`"),
        }
    }

    /// `[mem:]START,LENGTH,ATTRIBUTES[=HOST]` of a window.
    fn pass(&mut self, text: &Token) -> Result<(), ConfigError> {
        let key = "pass.loc";
        let rest = self.memory(text, key, "host ports and PCI devices are not passed through")?;
        let (place, host) = match rest.split_once('=') {
            // One edition of the language has a comma before it.
            Some((place, host)) => (place.strip_suffix(',').unwrap_or(place), Some(host)),
            None => (rest.as_str(), None),
        };
        let mut parts = place.splitn(3, ',');
        let (Some(start), Some(len), Some(letters)) = (parts.next(), parts.next(), parts.next())
        else {
            let message = format!("expected `START,LENGTH,ATTRIBUTES[=HOST]`, not `{rest}`");
            return self.wrong(text, key, &message);
        };
        let start = self.number(text, start, key)?;
        let len = self.number(text, len, key)?;
        let host = match host {
            Some(host) => self.number(text, host, key)?,
            None => start,
        };
        let found = match attributes(letters) {
            Ok(found) => found,
            Err(message) => return self.wrong(text, key, &message),
        };
        let bytes = |value| Spanned::new(text.range(), Bytes(value));
        let table = PassTable {
            start: bytes(start),
            size: bytes(len),
            host: bytes(host),
            path: Spanned::new(text.range(), "/dev/mem".into()),
            offset: None,
            access: Some(Letters(found.access)),
            ram: found.memory,
            uncached: !found.cached,
        };
        self.lacking = None;
        self.document.pass.push(Spanned::new(text.range(), table));
        Ok(())
    }

    /// `[mem:]START,LENGTH` that is kept free.
    fn reserve(&mut self, text: &Token) -> Result<(), ConfigError> {
        let key = "reserve.loc";
        let why = "only addresses of memory are allocated automatically";
        let rest = self.memory(text, key, why)?;
        let Some((start, len)) = rest.split_once(',') else {
            let message = format!("expected `START,LENGTH`, not `{rest}`");
            return self.wrong(text, key, &message);
        };
        let start = self.number(text, start, key)?;
        let len = self.number(text, len, key)?;
        let bytes = |value| Spanned::new(text.range(), Bytes(value));
        let table = ReserveTable { start: bytes(start), size: bytes(len) };
        self.lacking = None;
        self.document.reserve.push(Spanned::new(text.range(), table));
        Ok(())
    }

    /// A location in memory, without its prefix. `why` says why another is not supported.
    fn memory(&self, text: &Token, key: &'static str, why: &str) -> Result<String, ConfigError> {
        match text.text.split_once(':') {
            None => Ok(text.text.clone()),
            Some(("mem", rest)) => Ok(rest.into()),
            Some((space @ ("io" | "pci"), _)) => {
                Err(self.refused(text, key, &format!("`{space}:`: {why}")))
            }
            Some((space, _)) => {
                let message = format!("unknown space `{space}`{}", hint(space, &["mem"]));
                Err(self.error(text, key, &message))
            }
        }
    }
}

fn key_of_loc(context: Context) -> &'static str {
    match context {
        Context::Pass => "pass.loc",
        Context::Reserve => "reserve.loc",
        _ => "loc",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::access::Access;
    use crate::config::Config;
    use crate::config::plan::{Content, RegionPlan};

    /// Start, length, path, host address, offset, access, RAM and uncached.
    type Window = (u64, u64, String, u64, u64, Access, bool, bool);

    fn windows(text: &str, path: &str) -> Vec<Window> {
        let config = Config::parse(text, Path::new(path)).unwrap();
        let window = |region: &RegionPlan| match &region.content {
            Content::Pass { path, host, offset, access, ram, uncached, .. } => {
                let path = path.display().to_string();
                let (start, len) = (region.span.start().0, region.span.len());
                Some((start, len, path, host.0, *offset, *access, *ram, *uncached))
            }
            _ => None,
        };
        config.plan.regions.iter().filter_map(window).collect()
    }

    #[test]
    fn windows_are_those_of_a_toml_file_through_dev_mem() {
        for (qvm, toml) in [
            ("pass loc 0xd0000000,0x2000,rwnc", "host = 0xd0000000"),
            ("pass loc mem:0xd0000000,8K,rw=0x1000", "host = 0x1000\nuncached = true"),
            ("pass loc 0xd0000000,8K,rc,=4K", "host = 0x1000\naccess = 'r'"),
            ("ram 4K pass loc 0xd0000000,8K,m=4K", "host = 4096\naccess = 'rwx'\nram = true"),
        ] {
            let toml =
                format!("[[pass]]\nstart = 0xd0000000\nsize = '8K'\npath = '/dev/mem'\n{toml}");
            let found = windows(qvm, "/a/b.qvmconf");
            assert_eq!(found, windows(&toml, "/a/b.toml"), "{qvm}");
            assert_eq!((found.len(), found[0].2.as_str()), (1, "/dev/mem"), "{qvm}");
        }
    }

    #[test]
    fn a_pass_has_a_window_for_each_location() {
        let found = windows("pass loc 0,4K,rw loc 4K,4K,r pass loc 8K,4K,x", "a.qvmconf");
        assert_eq!(found.iter().map(|window| window.0).collect::<Vec<_>>(), [0, 4096, 8192]);
    }
}
