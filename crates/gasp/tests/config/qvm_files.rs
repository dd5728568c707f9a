//! Files of the qvm language that include others, and command lines.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use gasp::Errno;
use gasp::config::Config;

use crate::folder;

/// Writes files, and loads the first.
fn load(folder: &Path, files: &[(&str, &str)]) -> Result<Config, String> {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let (first, _) = files[0];
    let error = |error: gasp::config::ConfigError| {
        error.to_string().replace(&format!("{}/", folder.display()), "")
    };
    Config::load(&folder.join(first)).map_err(error)
}

#[test]
fn a_file_is_read_where_it_is_included_and_paths_in_it_are_relative_to_it() {
    let folder = folder("included");
    let files = [
        ("a.qvmconf", "system a @b/memory.qvmconf\nvdev x"),
        ("b/memory.qvmconf", "ram 1M @../c.qvmconf\nload kernel"),
        ("c.qvmconf", "cpu cpu"),
    ];
    let config = load(&folder, &files).unwrap();
    assert_eq!((config.name(), config.machine().cpus), ("a", 2));
    let kernel = config.machine().kernel.as_ref().unwrap();
    assert_eq!(kernel.path, folder.join("b/kernel"));
    assert_eq!(kernel.place.path(), folder.join("b/memory.qvmconf"));
    assert_eq!(kernel.place.line(), 2);
    assert_eq!(
        config.machine().devices[0].place.to_string(),
        format!("{}/a.qvmconf:2", folder.display())
    );
}

#[test]
fn an_error_in_an_included_file_names_that_file_and_others_by_theirs() {
    let folder = folder("include-errors");
    for (files, error) in [
        (
            [("a.qvmconf", "ram 1M\n@b.qvmconf"), ("b.qvmconf", "\nram 0,1M")],
            "b.qvmconf:2: ram: [0x0, 0xfffff] overlaps [0x0, 0xfffff] of line 1 of a.qvmconf",
        ),
        (
            [("a.qvmconf", "vdev x name n\n@b.qvmconf"), ("b.qvmconf", "\nvdev y name n")],
            "b.qvmconf:2: name: the name `n` is taken on line 1 of a.qvmconf",
        ),
        (
            [("a.qvmconf", "@b.qvmconf"), ("b.qvmconf", "\ncmdline \"a")],
            "b.qvmconf:2: the quote is not closed",
        ),
        // An argument is of the same file as its option, and a context ends with its file.
        (
            [("a.qvmconf", "@b.qvmconf\n1M"), ("b.qvmconf", "ram")],
            "b.qvmconf:1: ram: the argument is missing: expected `[START,]LENGTH`",
        ),
        (
            [("a.qvmconf", "vdev a @b.qvmconf"), ("b.qvmconf", "loc 0")],
            "b.qvmconf:1: loc: this option is only valid after `vdev`, `pass` or `reserve`",
        ),
        (
            [("a.qvmconf", "@b.qvmconf\nloc 0"), ("b.qvmconf", "vdev a")],
            "a.qvmconf:2: loc: this option is only valid after `vdev`, `pass` or `reserve`",
        ),
        (
            [("a.qvmconf", "pass @b.qvmconf loc 0,4K,r"), ("b.qvmconf", "")],
            "a.qvmconf:1: pass: a `loc` must follow",
        ),
        // A controller is defined before, in whatever file.
        (
            [("a.qvmconf", "vdev a intr p:1\n@b.qvmconf"), ("b.qvmconf", "vdev p")],
            "a.qvmconf:1: intr: the controller `p` is defined on line 1 of b.qvmconf; move it before the devices that use it",
        ),
    ] {
        assert_eq!(
            load(&folder, &files).unwrap_err().replace(&format!("{}/", folder.display()), ""),
            error
        );
    }
    let files = [("a.qvmconf", "@b.qvmconf\nvdev a intr p:1"), ("b.qvmconf", "vdev x name p")];
    load(&folder, &files).unwrap();
}

#[test]
fn includes_that_cannot_end_or_be_read_are_refused_where_they_are() {
    let folder = folder("include-bounds");
    let fails = |files: &[(&str, &str)]| load(&folder, files).unwrap_err();
    assert_eq!(
        fails(&[("a.qvmconf", "\n@a.qvmconf")]),
        "a.qvmconf:2: @: a.qvmconf includes itself"
    );
    assert_eq!(
        fails(&[("a.qvmconf", "@b.qvmconf"), ("b.qvmconf", "@./../include-bounds/a.qvmconf")]),
        "b.qvmconf:1: @: ./../include-bounds/a.qvmconf includes itself"
    );
    assert_eq!(
        fails(&[("a.qvmconf", "@ b")]),
        "a.qvmconf:1: @: expected a path right after it: `@other.qvmconf`"
    );
    assert_eq!(
        fails(&[("a.qvmconf", "@none")]),
        "a.qvmconf:1: @: none: cannot read the file: No such file or directory"
    );
    let error = fails(&[("a.qvmconf", "\n@.")]);
    assert!(error.starts_with("a.qvmconf:2: @: ") && error.contains("a directory"), "{error}");
    fs::write(folder.join("latin"), b"\n\xe9").unwrap();
    assert_eq!(fails(&[("a.qvmconf", "@latin")]), "latin:2: the text is not UTF-8");
    // Seven includes deep are accepted, and eight are not.
    let names: Vec<String> = (0..9).map(|number| format!("{number}.qvmconf")).collect();
    let texts: Vec<String> = (1..10).map(|number| format!("@{number}.qvmconf")).collect();
    let mut files: Vec<(&str, &str)> =
        names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files[7].1 = "ram 1M";
    load(&folder, &files).unwrap();
    files[7].1 = &texts[7];
    assert_eq!(fails(&files), "7.qvmconf:1: @: includes are nested more than 8 deep");
    // The same file many times, one after the other.
    let sixty_three = "@b.qvmconf\n".repeat(63);
    load(&folder, &[("a.qvmconf", &sixty_three), ("b.qvmconf", "cpu")]).unwrap();
    let sixty_four = "@b.qvmconf\n".repeat(64);
    let error = fails(&[("a.qvmconf", &sixty_four), ("b.qvmconf", "cpu")]);
    assert_eq!(error, "a.qvmconf:64: @: more than 64 files are included");
}

#[test]
fn all_files_together_are_bounded() {
    let folder = folder("include-size");
    let begun = Instant::now();
    let large = "# ".repeat(1 << 20);
    let files = [("a.qvmconf", "@b\n@b\n@b"), ("b", &large)];
    let error = load(&folder, &files).unwrap_err();
    assert_eq!(error, "a.qvmconf:2: @: b: the configuration is larger than 4 MiB");
    let many = "cpu ".repeat(40_000);
    let error = load(&folder, &[("a.qvmconf", "@b\n@b"), ("b", &many)]).unwrap_err();
    assert_eq!(error, "b:1: there are too many words");
    let config = Config::parse(&"cpu ".repeat((1 << 16) + 1), Path::new("a.qvmconf"));
    assert_eq!(config.unwrap_err().errno(), Errno::NOSPC);
    let words = (0..=1 << 16).map(|_| "cpu");
    assert_eq!(Config::from_arguments(words).unwrap_err().errno(), Errno::NOSPC);
    // The most devices of one type, each with a place.
    let devices = Config::parse(&"vdev a\n".repeat(1 << 15), Path::new("a.qvmconf")).unwrap();
    assert_eq!(devices.machine().devices[(1 << 15) - 1].place.line(), 1 << 15);
    // The longest word.
    let error = Config::parse(&"a".repeat(4 << 20), Path::new("a.qvmconf")).unwrap_err();
    assert!(error.message().starts_with("unknown option `aaa"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn the_name_or_the_text_decides_the_form() {
    let folder = folder("forms");
    fs::write(folder.join("plain"), "ram 1M").unwrap();
    fs::write(folder.join("odd.toml"), "ram 1M").unwrap();
    Config::load(&folder.join("plain")).unwrap();
    assert!(Config::load(&folder.join("odd.toml")).is_err());
    let named = format!("@{}/odd.toml", folder.display());
    let config = Config::load(Path::new(&named)).unwrap();
    assert_eq!(config.name(), "guest");
    let error = Config::load(Path::new("@none.qvmconf")).unwrap_err();
    assert_eq!(error.to_string(), "none.qvmconf: cannot read the file: No such file or directory");
}

#[test]
fn a_command_line_has_options_and_files_and_its_lines_are_arguments() {
    let folder = folder("arguments");
    fs::write(folder.join("a.qvmconf"), "system a\nram 1M").unwrap();
    let file = format!("@{}/a.qvmconf", folder.display());
    let config =
        Config::from_arguments([&file, "cmdline", "a  b", "set", "exit-on-halt", "off", "dryrun"]);
    let config = config.unwrap();
    assert_eq!(config.name(), "a");
    assert_eq!(config.machine().cmdline.as_deref(), Some("a  b"));
    assert!(config.machine().dry_run && !config.machine().exit_on_halt);

    let fails =
        |arguments: &[&str]| Config::from_arguments(arguments.to_vec()).unwrap_err().to_string();
    assert_eq!(
        fails(&["cmdline", "a\nb\nc", "rma"]),
        "command line:3: unknown option `rma`; did you mean `ram`?"
    );
    assert_eq!(
        fails(&["ram", "1M", "", "x"]),
        "command line:3: unexpected argument ``: a quoted word is never an option"
    );
    assert_eq!(
        fails(&["vdev", "é", "loc", "é"]),
        "command line:4: loc: expected a location: `mem:ADDRESS`, `io:PORT`, `pci:BUS:DEVICE.FUNCTION` or a number, not `é`"
    );
    let file = folder.join("b c.qvmconf");
    fs::write(&file, "system b").unwrap();
    let spaced = Config::from_arguments([format!("@{}", file.display())]).unwrap();
    assert_eq!(spaced.name(), "b");
    let spaced = Config::from_arguments(["cmdline", "a $asinfo_start{b}"]).unwrap();
    assert_eq!(spaced.machine().cmdline.as_deref(), Some("a $asinfo_start{b}"));
    // A number sign and a quotation mark are those of the shell.
    let config = Config::from_arguments(["cmdline", "a#\"b"]).unwrap();
    assert_eq!(config.machine().cmdline.as_deref(), Some("a#\"b"));
    assert_eq!(Config::from_arguments([""; 0]).unwrap().machine().cpus, 1);
}
