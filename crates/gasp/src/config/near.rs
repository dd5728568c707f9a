//! Suggestions of known words, for messages about unknown ones.

/// Maximum number of known words in a message.
const LISTED: usize = 16;

/// The known word that is nearest to an unknown one, if one is near: at most a third of the
/// letters differ, or the unknown word has at least three letters and begins the known one.
/// Case is ignored.
///
/// ```
/// use gasp::ffi::nearest;
/// assert_eq!(nearest("dsik", ["net", "disk"]), Some("disk"));
/// assert_eq!(nearest("colour", ["net", "disk"]), None);
/// ```
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let unknown = unknown.to_lowercase();
    let letters = unknown.chars().count();
    let near = known.into_iter().filter_map(|word| {
        let other = word.to_lowercase();
        let begins = letters >= 3 && other.starts_with(&unknown);
        let others = other.chars().count();
        if !begins && letters.abs_diff(others) * 3 > letters.max(others) {
            // Too far apart, and a word of a file can be as long as the file.
            return None;
        }
        let distance = strsim::osa_distance(&unknown, &other);
        (begins || distance * 3 <= letters.max(others)).then_some((distance, word))
    });
    near.min_by_key(|&(distance, _)| distance).map(|(_, word)| word)
}

/// The end of a message about an unknown word: the nearest known word, or else all of them, up
/// to 16.
///
/// ```
/// use gasp::ffi::hint;
/// assert_eq!(hint("dsik", &["net", "disk"]), "; did you mean `disk`?");
/// assert_eq!(hint("gpu", &["net", "disk"]), "; there are `net`, `disk`");
/// assert_eq!(hint("gpu", &[]), "; there is none");
/// ```
pub fn hint(unknown: &str, known: &[&str]) -> String {
    if let Some(word) = nearest(unknown, known.iter().copied()) {
        return format!("; did you mean `{word}`?");
    }
    let words: Vec<String> = known.iter().take(LISTED).map(|word| format!("`{word}`")).collect();
    let more = if known.len() > LISTED { ", …" } else { "" };
    match words.as_slice() {
        [] => "; there is none".into(),
        [one] => format!("; there is {one}"),
        words => format!("; there are {}{more}", words.join(", ")),
    }
}

/// Rewrites a message of the TOML parser, if it is about an unknown key (which gets a
/// [`hint`]), a missing key, or a value that is not a whole number; returns any other message
/// unchanged.
pub fn explained(message: &str) -> String {
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {key} is missing");
    }
    if let Some(wrong) = message.strip_suffix(", expected u64") {
        // In backticks, or a string in quotation marks, or the name of a type.
        let quoted = || wrong.find('"').and_then(|start| wrong.get(start..));
        let named = || wrong.split_once(": ").map_or(wrong, |(_, what)| what);
        let value = wrong.split('`').nth(1).or_else(quoted).unwrap_or_else(named);
        return format!("expected a whole number from 0 on, not {value}");
    }
    let key = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    let Some((key, rest)) = key else { return message.to_owned() };
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    format!("unknown key `{key}`{}", hint(key, &known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_are_wrong_missing_or_exchanged_are_near_and_other_words_are_not() {
        let known = ["size", "start", "access", "host-contiguous", "on-demand", "d", "net"];
        for (unknown, near) in [
            ("siez", "size"),
            ("nt", "net"),
            ("Size", "size"),
            ("sizes", "size"),
            ("acess", "access"),
            ("on_demand", "on-demand"),
            ("host-cont", "host-contiguous"),
        ] {
            assert_eq!(nearest(unknown, known), Some(near), "{unknown}");
        }
        for unknown in ["", "s", "x", "length", "colour"] {
            assert_eq!(nearest(unknown, known), None, "{unknown}");
        }
    }

    #[test]
    fn a_message_about_an_unknown_key_is_explained_and_any_other_left_alone() {
        let message = "unknown field `siez`, expected one of `start`, `size`";
        assert_eq!(explained(message), "unknown key `siez`; did you mean `size`?");
        let message = "unknown field `x`, expected `unattached`";
        assert_eq!(explained(message), "unknown key `x`; there is `unattached`");
        assert_eq!(
            explained("unknown field `x`, there are no fields"),
            "unknown key `x`; there is none"
        );
        assert_eq!(explained("missing field `size`"), "the key `size` is missing");
        assert_eq!(explained("duplicate key"), "duplicate key");
        for (message, value) in [
            ("invalid value: integer `-1`, expected u64", "-1"),
            ("invalid type: floating point `1.5`, expected u64", "1.5"),
            ("invalid type: string \"4\", expected u64", "\"4\""),
            ("invalid type: map, expected u64", "map"),
        ] {
            assert_eq!(
                explained(message),
                format!("expected a whole number from 0 on, not {value}")
            );
        }
    }
}
