//! Errors name the device, the key, and what would help.

use std::fs::File;

use serde_json::Value;

use crate::serving::{Folder, Serving, attach, gasp, stderr};

/// The error of a wrong configuration, and the exit status.
fn refused(folder: &Folder, config: &str) -> (String, Option<i32>) {
    std::fs::write(folder.path("a.toml"), config).unwrap();
    let output = gasp(&["--config", &folder.text("a.toml")]);
    let json = gasp(&["--config", &folder.text("a.toml"), "--json"]);
    assert_eq!(json.status.code(), output.status.code());
    let reported: Value = serde_json::from_slice(&json.stdout).unwrap();
    let message = reported["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(stderr(&output), format!("error: {message}\n"));
    let errno = reported["error"]["errno"].as_str().unwrap();
    assert!(errno.starts_with('E') && errno != "E?", "{reported}");
    for name in ["a.sock", "b.sock"] {
        assert!(!folder.path(name).exists(), "{name} is left");
    }
    (message, output.status.code())
}

#[test]
fn a_device_that_cannot_be_served_is_named_with_its_key_and_a_remedy() {
    let folder = Folder::new();
    File::create(folder.path("empty.img")).unwrap();
    File::create(folder.path("tail.img")).unwrap().set_len(1_000_000).unwrap();
    let long = "x".repeat(120);
    for (socket, backing, key, words) in [
        ("a.sock", "file:none.img", "backing", &["none.img", "does not exist", "truncate"][..]),
        ("a.sock", "file:empty.img", "backing", &["empty.img", "empty", "truncate"]),
        ("a.sock", "file:tail.img", "backing", &["tail.img", "truncate -s 1000448"]),
        ("a.sock", "file:.", "backing", &["directory"]),
        ("a.sock", "mem:100T", "backing", &["100 TiB", "available", "file:PATH"]),
        ("none/a.sock", "null:1M", "socket", &["none/a.sock: there is no directory", "create it"]),
        ("a.toml/a.sock", "null:1M", "socket", &["a.toml is not a directory"]),
        ("a.toml", "null:1M", "socket", &["no socket", "remove it"]),
        (&long, "null:1M", "socket", &["107", "shorter"]),
    ] {
        let config = format!(
            "[[device]]\nkind = \"nvme\"\nname = \"disk\"\nsocket = {socket:?}\nbacking = {backing:?}\n"
        );
        let (message, status) = refused(&folder, &config);
        assert!(message.starts_with(&format!("device \"disk\": {key}: ")), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert!(!message.contains(".lock:") && !message.contains("os error"), "{message}");
        assert_eq!(status, Some(1));
    }
}

#[test]
fn a_locked_image_is_reported_with_the_process_that_holds_it() {
    let folder = Folder::new();
    File::create(folder.path("i.img")).unwrap().set_len(1 << 20).unwrap();
    std::os::unix::fs::symlink(folder.path("i.img"), folder.path("symlink.img")).unwrap();
    std::fs::hard_link(folder.path("i.img"), folder.path("link.img")).unwrap();
    let device = format!("nvme,backing=file:{}", folder.text("i.img"));
    let args = ["--json", "--device", &device, "--socket", &folder.text("first.sock")];
    let mut serving = Serving::start(&args);
    serving.event("listening");
    let disk = |socket: &str, image: &str| {
        format!(
            "[[device]]\nkind = \"nvme\"\nname = \"{socket}\"\nsocket = \"{socket}.sock\"\n\
             backing = \"file:{image}\"\n"
        )
    };
    let (message, status) = refused(&folder, &disk("b", "i.img"));
    let holder = format!("locked by process {} (gasp); end that", serving.child.id());
    assert!(
        message.starts_with("device \"b\": backing: ") && message.contains(&holder),
        "{message}"
    );
    assert_eq!(status, Some(1));
    drop(attach(&folder.path("first.sock")));
    drop(serving);
    // By its own process, whether the configuration shows that or not.
    for image in ["i.img", "symlink.img"] {
        let (message, status) = refused(&folder, &(disk("a", "i.img") + &disk("b", image)));
        let reported = "a.toml:10: device \"b\": backing: it is the image of device \"a\"";
        assert!(message.contains(reported), "{message}");
        assert_eq!(status, Some(2));
    }
    let (message, status) = refused(&folder, &(disk("a", "i.img") + &disk("b", "link.img")));
    assert!(
        message.contains("device \"b\": backing: ") && message.contains("another device of this")
    );
    assert_eq!(status, Some(1));
}

#[test]
fn two_disks_with_one_serial_are_refused() {
    let folder = Folder::new();
    let disk = |name: &str, serial: &str| {
        format!(
            "[[device]]\nkind = \"nvme\"\nname = \"{name}\"\nsocket = \"{name}.sock\"\n\
             backing = \"null:4M\"\nserial = \"{serial}\"\n"
        )
    };
    let (message, status) = refused(&folder, &(disk("a", "same") + &disk("b", "same  ")));
    assert!(
        message.contains("a.toml:12: device \"b\": serial: it is the serial of device \"a\", too"),
        "{message}"
    );
    assert_eq!(status, Some(2));
    // One that is given, and one that is derived from the file.
    File::create(folder.path("i.img")).unwrap().set_len(1 << 20).unwrap();
    let image = "[[device]]\nkind = \"nvme\"\nname = \"a\"\nsocket = \"a.sock\"\n\
                 backing = \"file:i.img\"\n";
    let made = gasp_nvme::Nvme::new(
        &gasp_nvme::Backing::file(folder.path("i.img")),
        gasp_nvme::Options::default(),
    );
    let serial = made.unwrap().serial().to_owned();
    let (message, status) = refused(&folder, &(image.to_owned() + &disk("b", &serial)));
    assert!(message.starts_with("device \"b\": serial: "), "{message}");
    assert!(message.contains("device \"a\""), "{message}");
    assert_eq!(status, Some(1));
}

#[test]
fn the_usage_line_says_what_is_needed() {
    let usage = stderr(&gasp(&[]));
    assert!(usage.contains("<--config <FILE>|--device <KIND[,KEY=VALUE...]>>"), "{usage}");
    let help = gasp(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    let line = help.lines().find(|line| line.starts_with("Usage:")).unwrap();
    assert_eq!(
        line,
        "Usage: gasp serve [OPTIONS] <--config <FILE>|--device <KIND[,KEY=VALUE...]>>"
    );
}
