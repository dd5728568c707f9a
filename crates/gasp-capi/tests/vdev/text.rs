//! The headers as text: the functions and constants that they declare.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::compile::{files, here};

/// The headers for vdevs that are not virtio's. `types.h` and `gasp.h` belong to libgasp.
pub(crate) const HEADERS: [&str; 14] = [
    "8250.h",
    "abi.h",
    "cdev.h",
    "guest.h",
    "hw_pci.h",
    "log.h",
    "outpipe.h",
    "posix.h",
    "types.h",
    "utils.h",
    "vdev-core.h",
    "vpci.h",
    "wdog.h",
    "gasp.h",
];

pub(crate) fn header(name: &str) -> String {
    fs::read_to_string(here("include/qvm").join(name)).unwrap()
}

fn without_comments(text: &str) -> String {
    text.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, rest)| rest)).collect()
}

/// The text without preprocessor lines, and without what is inside braces.
fn declarations(text: &str) -> String {
    let text = without_comments(text).replace("\\\n", " ");
    let mut code = String::new();
    let mut linkage = false;
    for line in text.lines() {
        match line.trim() {
            "#ifdef __cplusplus" => linkage = true,
            "#endif" => linkage = false,
            other if !linkage && !other.starts_with('#') => code += &format!("{other} "),
            _ => {}
        }
    }
    let mut outside = String::new();
    let mut depth = 0;
    for character in code.chars() {
        match character {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                outside.push(';');
            }
            other if depth == 0 => outside.push(other),
            _ => {}
        }
    }
    assert_eq!(depth, 0, "braces that do not match");
    outside
}

/// The functions that a header declares or defines, by their names in C.
pub(crate) fn functions(name: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for statement in declarations(&header(name)).split(';') {
        let mut statement = statement.trim();
        if statement.starts_with("typedef") {
            continue;
        }
        while let Some(rest) = statement.strip_prefix("__attribute__((") {
            let (_, rest) = rest.split_once("))").expect("the end of an attribute");
            // A list of arguments inside the attribute has ended before.
            statement = rest.trim_start_matches(')').trim();
        }
        let Some((head, _)) = statement.split_once('(') else { continue };
        names.insert(head.rsplit([' ', '*']).next().unwrap().to_owned());
    }
    names
}

/// The constants that a header defines: macros with a value and without arguments, enumerators.
pub(crate) fn constants(name: &str) -> BTreeSet<String> {
    let text = without_comments(&header(name)).replace("\\\n", " ");
    let mut names = BTreeSet::new();
    for define in text.lines().filter_map(|line| line.strip_prefix("#define ")) {
        if let Some((name, value)) = define.split_once(' ')
            && !name.contains('(')
            && !value.trim().is_empty()
        {
            names.insert(name.to_owned());
        }
    }
    for part in text.split("enum ").skip(1) {
        let Some((head, rest)) = part.split_once('{') else { continue };
        if head.contains([';', '(', ')', ',']) {
            continue;
        }
        let list = rest.split_once('}').expect("the end of an enumeration").0;
        let list = list.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
        for enumerator in list.split(',') {
            let name = enumerator.split('=').next().unwrap().trim();
            if !name.is_empty() {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// The first arguments of the uses of a macro in the files of assertions.
pub(crate) fn asserted(macro_name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files("tests/vdev/abi", "c").into_iter().chain(files("tests/vdev/abi", "h")) {
        found.extend(uses(&file, macro_name));
    }
    found
}

fn uses(file: &Path, macro_name: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let start = format!("{macro_name}(");
    text.lines()
        .filter_map(|line| line.strip_prefix(start.as_str()))
        .map(|rest| rest.split(',').next().unwrap().to_owned())
        .collect()
}

/// The symbols of `symbols.txt` of an edition.
pub(crate) fn symbols(edition: u32) -> BTreeSet<String> {
    let text = fs::read_to_string(here("tests/vdev/symbols.txt")).unwrap();
    let this = if edition == 800 { "8.0" } else { "7.x" };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(char::is_whitespace).unwrap())
        .filter(|(of, _)| ["both", this].contains(of))
        .map(|(_, symbol)| symbol.trim().to_owned())
        .collect()
}
