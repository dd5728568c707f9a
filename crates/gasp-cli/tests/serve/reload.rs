//! SIGHUP reloads the configuration.

use std::io::Read;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::serving::{Folder, Serving, attach, exchange};

/// Writes a configuration of disks and engines: sockets, and the backings of disks.
fn configure(folder: &Folder, devices: &[(&str, &str)]) {
    let mut text = String::new();
    for (name, backing) in devices {
        text += &match *backing {
            "" => format!("[[device]]\nkind = \"dma\"\nsocket = \"{name}\"\n"),
            backing => format!(
                "[[device]]\nkind = \"nvme\"\nsocket = \"{name}\"\nbacking = \"{backing}\"\n"
            ),
        };
    }
    std::fs::write(folder.path("a.toml"), text).unwrap();
}

fn start(folder: &Folder, devices: &[(&str, &str)]) -> Serving {
    configure(folder, devices);
    let mut serving = Serving::start(&["--json", "--config", &folder.text("a.toml")]);
    for _ in devices {
        serving.event("listening");
    }
    serving
}

fn reload(serving: &mut Serving) -> Value {
    serving.signal(Signal::HUP);
    serving.event("reloaded")
}

#[test]
fn devices_come_and_go_and_others_are_left_alone() {
    let folder = Folder::new();
    let mut serving = start(&folder, &[("a", ""), ("b", "")]);
    let [mut a, mut b] = ["a", "b"].map(|name| attach(&folder.path(name)));
    // The new one is first, and the others keep their names.
    configure(&folder, &[("c", ""), ("a", "")]);
    serving.signal(Signal::HUP);
    assert_eq!(serving.event("stopped")["device"], "dma1");
    assert_eq!(serving.event("listening")["device"], "dma2");
    let reported = serving.event("reloaded");
    assert_eq!(reported["added"], json!(["dma2"]));
    assert_eq!(reported["removed"], json!(["dma1"]));
    assert_eq!((&reported["replaced"], &reported["kept"]), (&json!([]), &json!([])));
    exchange(&mut a);
    assert_eq!(b.read(&mut [0]).unwrap(), 0, "its device is gone");
    assert!(!folder.path("b").exists());
    exchange(&mut attach(&folder.path("c")));
    exchange(&mut a);
    let reported = reload(&mut serving);
    assert_eq!((&reported["added"], &reported["removed"]), (&json!([]), &json!([])));
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait(), Some(0));
    assert!(["a", "b", "c"].iter().all(|name| !folder.path(name).exists()));
}

#[test]
fn a_configuration_that_cannot_be_applied_changes_nothing() {
    let folder = Folder::new();
    let devices = [("a", ""), ("b", "null:1M")];
    let mut serving = start(&folder, &devices);
    let [mut a, mut b] = ["a", "b"].map(|name| attach(&folder.path(name)));
    std::fs::write(folder.path("c"), "no socket").unwrap();
    for (wrong, why) in [
        (&[("a", "disk:x")][..], "a.toml:4: device \"nvme0\": backing"),
        (&[], "[[device]]"),
        (&[("new", ""), ("x", "file:none.img")], "none.img does not exist"),
        (&[("a", ""), ("new", "null:1M"), ("c", "")], "no socket"),
    ] {
        configure(&folder, wrong);
        serving.signal(Signal::HUP);
        let reported = serving.event("reload-failed");
        assert!(reported["why"].as_str().unwrap().contains(why), "{reported}");
        exchange(&mut a);
        exchange(&mut b);
        assert!(!folder.path("new").exists(), "no part of it is applied");
    }
    std::fs::remove_file(folder.path("a.toml")).unwrap();
    serving.signal(Signal::HUP);
    serving.event("reload-failed");
    exchange(&mut a);
    configure(&folder, &devices);
    assert_eq!(reload(&mut serving)["added"], json!([]));
}

#[test]
fn a_changed_device_is_replaced_when_it_is_not_in_use() {
    let folder = Folder::new();
    let mut serving = start(&folder, &[("a", "null:1M"), ("b", "")]);
    let mut a = attach(&folder.path("a"));
    exchange(&mut a);
    configure(&folder, &[("a", "null:2M"), ("b", "null:1M")]);
    let reported = reload(&mut serving);
    assert_eq!((&reported["kept"], &reported["replaced"]), (&json!(["nvme0"]), &json!(["nvme1"])));
    exchange(&mut a);
    drop(a);
    serving.event("detached");
    assert_eq!(reload(&mut serving)["replaced"], json!(["nvme0"]));
    exchange(&mut attach(&folder.path("a")));
    // One that cannot be created is restored.
    serving.event("detached");
    configure(&folder, &[("a", "file:none.img"), ("b", "null:1M")]);
    let reported = reload(&mut serving);
    assert_eq!(reported["replaced"], json!([]));
    assert!(reported["failed"][0].as_str().unwrap().contains("none.img"), "{reported}");
    exchange(&mut attach(&folder.path("a")));
}

#[test]
fn an_image_may_move_to_another_socket() {
    let folder = Folder::new();
    std::fs::File::create(folder.path("i.img")).unwrap().set_len(1 << 20).unwrap();
    let mut serving = start(&folder, &[("a", "file:i.img"), ("b", "")]);
    for name in ["c", "d", "e"] {
        configure(&folder, &[(name, "file:i.img"), ("b", "")]);
        let reported = reload(&mut serving);
        assert_eq!(reported["failed"], json!([]));
        assert_eq!(reported["added"].as_array().map(Vec::len), Some(1));
        exchange(&mut attach(&folder.path(name)));
    }
    std::thread::sleep(Duration::from_millis(10));
    assert!(!folder.path("d").exists());
}
