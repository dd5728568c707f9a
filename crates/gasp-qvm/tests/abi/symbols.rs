//! What the headers declare and what the program exports.

use std::collections::BTreeSet;
use std::process::Command;

use crate::compiler::preprocessed;

/// The families of functions for vdevs. Those of `<qvm/gasp.h>` and `<gasp/guest.h>` are compared by
/// libgasp's own tests.
const FAMILIES: [&str; 8] = ["vdev_", "guest_", "qvm_", "vpci_", "cdev_", "wdog_", "vio_", "vq_"];

/// Functions that a header declares and that are not there yet. It must be empty.
const MISSING: [&str; 0] = [];

fn is_for_vdevs(name: &str) -> bool {
    FAMILIES.iter().any(|family| name.starts_with(family))
}

/// The declarations at file scope, without definitions.
fn declarations(text: &str) -> Vec<String> {
    let (mut all, mut current, mut depth) = (Vec::new(), String::new(), 0);
    for character in text.chars() {
        match character {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                // The body of a function ends its definition; that of a type is part of one.
                if depth == 0 && current.contains("static") {
                    current.clear();
                }
            }
            ';' if depth == 0 => all.push(core::mem::take(&mut current)),
            other if depth == 0 => current.push(other),
            _ => {}
        }
    }
    assert_eq!(depth, 0, "braces that do not match");
    all
}

/// Name and symbol of each function for vdevs that the headers of an edition declare.
pub(crate) fn declared(edition: u32) -> BTreeSet<(String, String)> {
    let text = preprocessed(edition);
    let mut all = BTreeSet::new();
    for declaration in declarations(&text).iter().filter(|it| !it.contains("typedef")) {
        let (declaration, label) = match declaration.split_once("__asm__") {
            Some((declaration, label)) => (declaration, Some(label)),
            None => (declaration.as_str(), None),
        };
        let declaration = match declaration.trim().strip_prefix("__attribute__((") {
            Some(rest) => rest.split_once("))").unwrap().1,
            None => declaration,
        };
        let Some((head, _)) = declaration.split_once('(') else { continue };
        let name = head.trim().rsplit([' ', '*', '\n']).next().unwrap_or_default();
        if is_for_vdevs(name) {
            // A label is a sequence of literals.
            let literals = label.map(|label| label.split('"').skip(1).step_by(2).collect());
            all.insert((name.to_owned(), literals.unwrap_or_else(|| name.to_owned())));
        }
    }
    assert!(all.len() > 40, "{all:?}");
    all
}

/// The symbols that vdevs find in this program.
fn exported() -> BTreeSet<String> {
    let program = std::env::current_exe().unwrap();
    let nm = Command::new("nm").args(["-D", "--defined-only"]).arg(program).output();
    let output = nm.expect("nm, of binutils");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    names.filter(|name| is_for_vdevs(name)).map(str::to_owned).collect()
}

#[test]
fn what_the_headers_declare_is_exported_and_nothing_else() {
    let mut expected: BTreeSet<String> =
        [800, 710].into_iter().flat_map(declared).map(|(_, symbol)| symbol).collect();
    for missing in MISSING {
        assert!(expected.remove(missing), "{missing} is not declared");
    }
    let exported = exported();
    let missing: Vec<_> = expected.difference(&exported).collect();
    let strange: Vec<_> = exported.difference(&expected).collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");
    assert!(strange.is_empty(), "not declared: {strange:?}");
}

#[test]
fn the_editions_share_a_symbol_only_if_they_share_the_prototype() {
    // Of a function with a symbol of its own in 7.x the plain one is that of 8.0.
    let (new, old) = (declared(800), declared(710));
    assert!(new.iter().all(|(name, symbol)| name == symbol), "{new:?}");
    for (name, symbol) in &old {
        assert!(symbol == name || *symbol == format!("{name}_710"), "{name}: {symbol}");
    }
}
