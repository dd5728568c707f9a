//! Memory and what is loaded into it: `ram`, `rom`, `load`.

use toml::Spanned;

use super::draft::{Draft, key_of};
use super::lex::Token;
use super::options::Content;
use crate::config::error::ConfigError;
use crate::config::file::{LoadTable, RamTable, RomTable};
use crate::config::size::{Bytes, number};

impl Draft<'_> {
    pub(super) fn ram(&mut self, name: &Token) -> Result<(), ConfigError> {
        let (start, size) = self.extent(name, "ram")?;
        self.document.ram.push(Spanned::new(
            name.range(),
            RamTable {
                start: Some(start),
                size,
                backing: None,
                residency: None,
                pin: None,
                host_contiguous: None,
                exclusive: false,
                name: None,
            },
        ));
        Ok(())
    }

    pub(super) fn rom(&mut self, name: &Token) -> Result<(), ConfigError> {
        let (start, size) = self.extent(name, "rom")?;
        let rom = RomTable { start: Some(start), size: Some(size), file: None };
        self.document.rom.push(Spanned::new(name.range(), rom));
        Ok(())
    }

    /// `[start,]length` of RAM or ROM.
    fn extent(
        &mut self,
        name: &Token,
        key: &'static str,
    ) -> Result<(Spanned<Bytes>, Spanned<Bytes>), ConfigError> {
        let text = self.reader.argument(name, key, "`[START,]LENGTH`")?;
        let (start, len) = match text.text.split_once(',') {
            Some((start, len)) => (Some(self.number(&text, start, key)?), len),
            None => (None, text.text.as_str()),
        };
        let len = self.number(&text, len, key)?;
        let start = start.unwrap_or(self.next);
        // A range that wraps is refused when its table is checked.
        self.next = self.next.max(start.saturating_add(len));
        let value = |bytes| Spanned::new(text.range(), Bytes(bytes));
        Ok((value(start), value(len)))
    }

    pub(super) fn content(&mut self, name: &Token, content: Content) -> Result<(), ConfigError> {
        if let Content::Refused(why) = content {
            return self.refuse(name, key_of(name), why);
        }
        // `load` or `pass`, which was seen.
        let load = self.reader.argument(name, key_of(name), "`load`")?;
        match load.text.as_str() {
            "load" => self.load(&load, Some(content)),
            _ => self.refuse(name, key_of(name), "typed content is not passed through"),
        }
    }

    /// `[type] load [address,]file`.
    pub(super) fn load(
        &mut self,
        name: &Token,
        content: Option<Content>,
    ) -> Result<(), ConfigError> {
        let text = self.reader.argument(name, "load", "`[ADDRESS,]FILE`")?;
        if self.document.ram.is_empty() && self.document.rom.is_empty() {
            let message = "there is no memory to load into yet; move `ram` and `rom` before it";
            return self.wrong(name, "load", message);
        }
        // A path can have a comma.
        let numbered = text.text.split_once(',');
        let numbered = numbered.and_then(|(start, path)| Some((number(start)?, path)));
        let (address, path) = match numbered {
            Some((address, path)) => {
                (Some(Spanned::new(text.range(), Bytes(address))), path.to_owned())
            }
            None => (None, text.text.clone()),
        };
        let file = Spanned::new(text.range(), path);
        let machine = &mut self.document.machine;
        let content = content.unwrap_or(match machine.kernel {
            None => Content::Guest,
            Some(_) => Content::Data,
        });
        match (content, address) {
            (Content::Guest, address) => {
                if machine.kernel.is_some() {
                    return self.wrong(name, "load", "there is already a boot image");
                }
                (machine.kernel, machine.kernel_address) = (Some(file), address);
            }
            (Content::Initrd, address) => {
                if machine.initrd.is_some() {
                    return self.wrong(name, "load", "there is already an initrd");
                }
                (machine.initrd, machine.initrd_address) = (Some(file), address);
            }
            (Content::Data, Some(address)) => {
                let load = LoadTable { address, file };
                self.document.load.push(Spanned::new(name.range(), load));
            }
            (Content::Data, None) => {
                let message = "there is already a boot image; give an address (`data load \
                               ADDRESS,FILE`), or the type (`initrd load FILE`)";
                return self.wrong(name, "load", message);
            }
            (Content::Refused(why), _) => return self.refuse(name, "load", why),
        }
        Ok(())
    }
}
