//! Words of the qvm language.

use core::iter::Peekable;
use core::ops::Range;
use core::str::CharIndices;

use toml::Spanned;

/// A word, without its quotes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub(super) text: String,
    /// Offset of its first byte.
    pub(super) offset: usize,
    /// Whether a part of it is quoted: then it can only be an argument.
    pub(super) quoted: bool,
}

impl Token {
    /// The text with its place, as the tables of a TOML file have it.
    pub(super) fn spanned(self) -> Spanned<String> {
        Spanned::new(self.range(), self.text)
    }

    /// The place of the word, of which only the beginning matters.
    pub(super) fn range(&self) -> Range<usize> {
        self.offset..self.offset
    }
}

/// A text that cannot be cut into words, at an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LexError {
    pub(super) offset: usize,
    pub(super) message: &'static str,
}

/// Cuts a text into at most `max` words.
///
/// White space separates them, line breaks as any other. `#` begins a comment, unless it is
/// quoted. A quoted part ends on its line, or at `\` before the end of the line goes on in the
/// next; in it `\"` and `\\` are the letters themselves.
pub(super) fn words(text: &str, begin: usize, max: usize) -> Result<Vec<Token>, LexError> {
    let mut lexer = Lexer { letters: text.char_indices().peekable(), begin };
    let mut words = Vec::new();
    while let Some(word) = lexer.word()? {
        if words.len() == max {
            return Err(LexError { offset: word.offset, message: "there are too many words" });
        }
        words.push(word);
    }
    Ok(words)
}

struct Lexer<'a> {
    letters: Peekable<CharIndices<'a>>,
    begin: usize,
}

impl Lexer<'_> {
    /// The next word; `None` at the end.
    fn word(&mut self) -> Result<Option<Token>, LexError> {
        self.skip_space();
        let Some(&(at, _)) = self.letters.peek() else { return Ok(None) };
        let mut word =
            Token { text: String::new(), offset: self.begin.saturating_add(at), quoted: false };
        while let Some(&(at, letter)) = self.letters.peek() {
            if letter.is_whitespace() || letter == '#' || self.continues(letter) {
                break;
            }
            self.letters.next();
            if letter == '"' {
                word.quoted = true;
                self.quoted(&mut word.text, self.begin.saturating_add(at))?;
            } else {
                word.text.push(letter);
            }
        }
        Ok(Some(word))
    }

    /// Skips white space, comments and continued line ends.
    fn skip_space(&mut self) {
        while let Some(&(_, letter)) = self.letters.peek() {
            if letter == '#' {
                while self.letters.next_if(|(_, letter)| *letter != '\n').is_some() {}
            } else if letter.is_whitespace() || self.continues(letter) {
                self.letters.next();
            } else {
                return;
            }
        }
    }

    /// Whether `letter`, which is the next, is a `\` before the end of a line.
    fn continues(&self, letter: char) -> bool {
        if letter != '\\' {
            return false;
        }
        let mut after = self.letters.clone();
        after.next();
        let next = after.next().map(|(_, letter)| letter);
        let next = if next == Some('\r') { after.next().map(|(_, letter)| letter) } else { next };
        next == Some('\n')
    }

    /// Reads the rest of a quoted part, whose first quote is at `offset`.
    fn quoted(&mut self, text: &mut String, offset: usize) -> Result<(), LexError> {
        let open = |message| Err(LexError { offset, message });
        loop {
            let Some(&(_, letter)) = self.letters.peek() else {
                return open("the quote is not closed");
            };
            let continues = self.continues(letter);
            self.letters.next();
            match letter {
                '"' => return Ok(()),
                '\n' => {
                    return open(
                        "the quote is not closed on its line; end the line with `\\` to go on in \
                         the next",
                    );
                }
                '\\' if continues => {
                    self.letters.next_if(|(_, letter)| *letter == '\r');
                    self.letters.next();
                }
                '\\' => match self.letters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                    Some((_, escaped)) => text.push(escaped),
                    None => text.push('\\'),
                },
                letter => text.push(letter),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Vec<String> {
        words(text, 0, 100).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn white_space_and_comments_separate_words() {
        assert_eq!(texts(""), [""; 0]);
        assert_eq!(texts("ram 1M\n\tcpu # two\r\ncpu#x\n# y"), ["ram", "1M", "cpu", "cpu"]);
        assert_eq!(texts("a \\\n b\\\r\nc \\d e\\"), ["a", "b", "c", "\\d", "e\\"]);
        let found = words("\n  ram", 10, 1).unwrap();
        assert_eq!(found, [Token { text: "ram".into(), offset: 13, quoted: false }]);
    }

    #[test]
    fn a_quoted_part_has_spaces_and_goes_on_after_a_backslash() {
        assert_eq!(texts(r#"a "b # c" d"e f"g """#), ["a", "b # c", "de fg", ""]);
        assert_eq!(texts("\"a \\\nb\" \"c\\\r\nd\""), ["a b", "cd"]);
        assert_eq!(texts(r#""a\"b\\c\d""#), [r#"a"b\c\d"#]);
        let quoted: Vec<bool> =
            words("a \"\" b\"c\"", 0, 9).unwrap().iter().map(|word| word.quoted).collect();
        assert_eq!(quoted, [false, true, true]);
    }

    #[test]
    fn a_quote_that_is_not_closed_is_refused_where_it_begins() {
        for (text, offset, part) in
            [("a \"b\nc\"", 2, "on its line"), ("ab\"c", 2, "not closed"), ("\"a\\", 0, "not")]
        {
            let error = words(text, 0, 9).unwrap_err();
            assert_eq!(error.offset, offset, "{text}");
            assert!(error.message.contains(part), "{text}: {}", error.message);
        }
    }

    #[test]
    fn words_are_counted() {
        assert_eq!(words("a b", 0, 2).unwrap().len(), 2);
        let error = words("a b", 0, 1).unwrap_err();
        assert_eq!((error.offset, error.message), (2, "there are too many words"));
    }

    proptest! {
        #[test]
        fn words_without_quotes_are_those_between_spaces(text in "[a-z0-9,.: \n\t]{0,60}") {
            let found = texts(&text);
            let wanted: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn a_word_that_is_quoted_reads_back(
            word in "[^\n]{0,20}", before in "[ \n]{0,3}"
        ) {
            let escaped = word.replace('\\', "\\\\").replace('"', "\\\"");
            let found = words(&format!("{before}\"{escaped}\""), 0, 2).unwrap();
            prop_assert_eq!(found, [Token { text: word, offset: before.len(), quoted: true }]);
        }

        #[test]
        fn no_text_makes_the_lexer_panic(text in "([\\\\\"#\n\r a]|.){0,40}") {
            if let Err(error) = words(&text, 0, 20) {
                prop_assert!(error.offset <= text.len());
            }
        }
    }
}
