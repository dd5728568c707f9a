//! Locations and interrupts as the configuration writes them, at the beginning of a text.

use gasp::Bytes;

use crate::abi::*;

/// No location or interrupt is longer.
const LONGEST: usize = 256;

/// A location.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    pub(crate) location: u64,
    /// `QST_*`, if it is said.
    pub(crate) kind: Option<u16>,
    /// In bytes or ports, if it is said.
    pub(crate) length: Option<u64>,
    /// Whether it is `pci:VENDOR/DEVICE`: the location has both, the vendor in its upper 16 bits.
    pub(crate) is_id: bool,
    /// The bytes of the text that it takes.
    pub(crate) len: usize,
}

/// A cursor in a text.
struct Reader<'text> {
    text: &'text str,
    at: usize,
    /// Whether the text goes on after `text`.
    is_cut: bool,
}

impl<'text> Reader<'text> {
    fn new(bytes: &'text [u8]) -> Self {
        let is_cut = bytes.len() > LONGEST;
        let bytes = bytes.get(..LONGEST).unwrap_or(bytes);
        let len = bytes.iter().take_while(|byte| byte.is_ascii()).count();
        let text = bytes.get(..len).and_then(|ascii| str::from_utf8(ascii).ok());
        Self { text: text.unwrap_or_default(), at: 0, is_cut }
    }

    fn rest(&self) -> &'text str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Skips what is there, if it is.
    fn takes(&mut self, what: &str) -> bool {
        let is_there = self.rest().starts_with(what);
        self.at += if is_there { what.len() } else { 0 };
        is_there
    }

    /// The letters, digits and further characters that follow.
    fn word(&mut self, further: &[char]) -> &'text str {
        let rest = self.rest();
        let belongs = |letter: char| letter.is_ascii_alphanumeric() || further.contains(&letter);
        let end = rest.find(|letter| !belongs(letter)).unwrap_or(rest.len());
        self.at += end;
        match self.is_cut && self.at == self.text.len() {
            true => "",
            false => rest.get(..end).unwrap_or_default(),
        }
    }

    /// A number that is at most `most`.
    fn number(&mut self, most: u64) -> Option<u64> {
        let word = self.word(&['_']);
        let number = match word.strip_prefix("0d") {
            Some(decimal) if decimal.starts_with("0x") => None,
            Some(decimal) => Bytes::parse(decimal),
            None => Bytes::parse(word),
        };
        number.map(|Bytes(number)| number).filter(|&number| number <= most)
    }

    /// `BUS:DEVICE[.FUNCTION]`, or `VENDOR/DEVICE`; and whether it is the latter.
    fn pci(&mut self) -> Option<(u64, bool)> {
        let first = self.number(0xffff)?;
        if self.takes("/") {
            return Some((first << 16 | self.number(0xffff)?, true));
        }
        if first > 255 || !self.takes(":") {
            return None;
        }
        let device = self.number(31)?;
        let function = if self.takes(".") { self.number(7)? } else { 0 };
        Some((first << 20 | device << 15 | function << 12, false))
    }
}

/// The location at the beginning of a text.
pub(crate) fn location(text: &[u8]) -> Option<Written> {
    let mut reader = Reader::new(text);
    let kind = [("mem:", QST_MEMORY), ("io:", QST_X86_IO), ("pci:", QST_PCI)];
    let kind = kind.into_iter().find(|(prefix, _)| reader.takes(prefix)).map(|(_, kind)| kind);
    let start = reader.at;
    let (location, kind, is_id) = match kind {
        Some(QST_PCI) => {
            let (location, is_id) = reader.pci()?;
            (location, Some(QST_PCI), is_id)
        }
        Some(QST_X86_IO) => (reader.number(0xffff)?, kind, false),
        Some(_) => (reader.number(u64::MAX)?, kind, false),
        None => {
            let location = reader.number(u64::MAX)?;
            match reader.rest().starts_with([':', '/']) {
                // A place on the PCI bus needs no prefix.
                true => {
                    reader.at = start;
                    let (location, is_id) = reader.pci()?;
                    (location, Some(QST_PCI), is_id)
                }
                false => (location, None, false),
            }
        }
    };
    let end = reader.at;
    let length = if reader.takes(",") { reader.number(u64::MAX) } else { None };
    if length.is_none() {
        // A comma without a number after it belongs to what follows.
        reader.at = end;
    }
    let most = if kind == Some(QST_X86_IO) { 0xffff } else { u64::MAX };
    let fits = |length: u64| {
        length
            .checked_sub(1)
            .and_then(|more| location.checked_add(more))
            .is_some_and(|it| it <= most)
    };
    let is_sane = length.is_none_or(|length| kind != Some(QST_PCI) && fits(length));
    is_sane.then_some(Written { location, kind, length, is_id, len: reader.at })
}

/// The controller and the line of the interrupt at the beginning of a text, and its length in bytes.
pub(crate) fn interrupt(text: &[u8]) -> Option<(&str, u32, usize)> {
    let mut reader = Reader::new(text);
    let controller = reader.word(&['_', '-']);
    if controller.is_empty() || !reader.takes(":") {
        return None;
    }
    let line = reader.number(u32::MAX.into())?;
    Some((controller, u32::try_from(line).ok()?, reader.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(location: u64, kind: Option<u16>, len: usize) -> Option<Written> {
        Some(Written { location, kind, length: None, is_id: false, len })
    }

    #[test]
    fn a_location_ends_where_its_last_number_does() {
        for (text, expected) in [
            ("0x1000", plain(0x1000, None, 6)),
            ("mem:0xfa000000 more", plain(0xfa00_0000, Some(QST_MEMORY), 14)),
            ("mem:4K,", plain(4096, Some(QST_MEMORY), 6)),
            ("mem:4K,x", plain(4096, Some(QST_MEMORY), 6)),
            ("io:0x3f8;", plain(0x3f8, Some(QST_X86_IO), 8)),
            ("io:0d16", plain(16, Some(QST_X86_IO), 7)),
            ("pci:0:4.1", plain(4 << 15 | 1 << 12, Some(QST_PCI), 9)),
            ("pci:1:31", plain(1 << 20 | 31 << 15, Some(QST_PCI), 8)),
            ("0:4.0", plain(4 << 15, Some(QST_PCI), 5)),
        ] {
            assert_eq!(location(text.as_bytes()), expected, "{text}");
        }
        let with = location(b"mem:0x1000,0x20,0x30").unwrap();
        assert_eq!((with.length, with.len), (Some(0x20), 15));
        let id = location(b"pci:0x1c05/2").unwrap();
        assert_eq!((id.location, id.is_id, id.len), (0x1c05_0002, true, 12));
    }

    #[test]
    fn what_is_no_location_is_refused() {
        let long = format!("mem:{}", "0".repeat(LONGEST));
        for text in [
            "",
            "mem:",
            "mem:x",
            "mem:-1",
            "mem:1Kx",
            "io:0x10000",
            "io:0xffff,2",
            "io:1,0",
            "pci:0",
            "pci:256:0",
            "pci:0:32",
            "pci:0:0.8",
            "pci:0x10000/1",
            "pci:0:1,5",
            "usb:1",
            "mem:0xffffffffffffffff,2",
            "mem:0x10000000000000000",
            "0d0x10",
            "\u{e9}",
            &long,
        ] {
            assert_eq!(location(text.as_bytes()), None, "{text}");
        }
        assert_eq!(location(b"\xff\x00"), None);
    }

    #[test]
    fn an_interrupt_is_a_controller_and_a_line() {
        assert_eq!(interrupt(b"ioapic:5 x"), Some(("ioapic", 5, 8)));
        assert_eq!(interrupt(b"gic-2:0x10"), Some(("gic-2", 16, 10)));
        for text in ["", ":5", "ioapic", "ioapic:", "ioapic:x", "ioapic:4294967296", "ioapic :5"] {
            assert_eq!(interrupt(text.as_bytes()), None, "{text}");
        }
    }
}
