//! Devices are served, one VMM after another, and events are reported.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;

use crate::serving::{Folder, Serving, attach, gasp, greet, stderr};

#[test]
fn a_device_is_attached_and_detached_again_and_again() {
    let folder = Folder::new();
    let mut serving = folder.dma("a.sock");
    let listening = serving.event("listening");
    assert_eq!(listening["socket"], folder.text("a.sock"));
    assert!(listening["qemu"][2].as_str().unwrap().contains(&folder.text("a.sock")));
    for _ in 0..3 {
        let client = attach(&folder.path("a.sock"));
        assert_eq!(serving.event("attached")["pid"], std::process::id());
        drop(client);
        assert!(serving.event("detached")["why"].is_string());
    }
    serving.signal(Signal::TERM);
    assert_eq!(serving.event("stopped")["connections"], 3);
    assert_eq!(serving.wait(), Some(0));
}

#[test]
fn a_signal_ends_the_process_and_removes_the_sockets_even_with_a_vmm_attached() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        let mut serving = folder.dma("a.sock");
        serving.event("listening");
        let metadata = std::fs::symlink_metadata(folder.path("a.sock")).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "for its owner alone");
        let mut client = attach(&folder.path("a.sock"));
        serving.signal(signal);
        assert_eq!(serving.wait(), Some(0));
        assert!(!folder.path("a.sock").exists());
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the VMM sees the end");
    }
}

#[test]
fn a_second_server_on_a_socket_is_refused_and_the_first_continues() {
    let folder = Folder::new();
    let mut serving = folder.dma("a.sock");
    serving.event("listening");
    let second = gasp(&["--device", "dma", "--socket", &folder.text("a.sock")]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another server listens on this socket"), "{second:?}");
    let second = gasp(&["--device", "dma", "--socket", &folder.text("a.sock"), "--json"]);
    let reported: Value = serde_json::from_slice(&second.stdout).unwrap();
    assert_eq!(reported["error"]["errno"], "EADDRINUSE");
    attach(&folder.path("a.sock"));
    serving.event("attached");
}

#[test]
fn the_socket_of_a_server_that_was_killed_is_taken_over() {
    let folder = Folder::new();
    let mut first = folder.dma("a.sock");
    first.event("listening");
    first.signal(Signal::KILL);
    first.wait();
    assert!(folder.path("a.sock").exists(), "it was left");
    let mut second = folder.dma("a.sock");
    second.event("listening");
    attach(&folder.path("a.sock"));
    second.event("attached");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    std::fs::write(folder.path("a.sock"), "precious").unwrap();
    let output = gasp(&["--device", "dma", "--socket", &folder.text("a.sock")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read(folder.path("a.sock")).unwrap(), b"precious");
}

#[test]
fn devices_of_a_file_are_served_side_by_side() {
    let folder = Folder::new();
    let config = "[[device]]\nkind = \"dma\"\nsocket = \"a.sock\"\nname = \"one\"\n\
                  [[device]]\nkind = \"dma\"\nsocket = \"b.sock\"\nmode = 0o660\n";
    std::fs::write(folder.path("a.toml"), config).unwrap();
    let mut serving = Serving::start(&["--config", &folder.text("a.toml"), "--json"]);
    assert_eq!(serving.event("listening")["device"], "one");
    assert_eq!(serving.event("listening")["device"], "dma1");
    let metadata = std::fs::metadata(folder.path("b.sock")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let clients = ["a.sock", "b.sock"].map(|name| attach(&folder.path(name)));
    serving.event("attached");
    serving.event("attached");
    drop(clients);
}

#[test]
fn a_disk_is_served_and_its_file_is_for_one_server_alone() {
    let folder = Folder::new();
    let file = std::fs::File::create(folder.path("disk")).unwrap();
    let disk = format!("nvme,backing=file:{}", folder.text("disk"));
    let serve = |name: &str| gasp(&["--device", &disk, "--socket", &folder.text(name), "--json"]);
    let reported = |output: Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };
    assert_eq!(reported(serve("a.sock"))["error"]["errno"], "EINVAL", "it is empty");
    file.set_len(1 << 20).unwrap();
    let args = ["--device", &disk, "--socket", &folder.text("a.sock"), "--json"];
    let mut serving = Serving::start(&args);
    serving.event("listening");
    let second = serve("b.sock");
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(reported(second)["error"]["errno"], "EAGAIN");
    assert!(!folder.path("b.sock").exists());
    attach(&folder.path("a.sock"));
    serving.event("attached");
    serving.signal(Signal::TERM);
    assert_eq!(serving.event("stopped")["counters"]["errors"], 0);
}

#[test]
fn errors_of_a_file_name_the_line() {
    let folder = Folder::new();
    std::fs::write(folder.path("a.toml"), "[[device]]\nkind = \"dma\"\ncolour = 1\n").unwrap();
    let output = gasp(&["--config", &folder.text("a.toml")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("a.toml:3: [[device]] number 1: colour: unknown key `colour`"),
        "{output:?}"
    );
    for args in [
        "",
        "--device dma",
        "--socket x",
        "--device edu --socket x",
        "--config x --device dma --socket x",
        "--config no-such-file",
    ] {
        let args: Vec<&str> = args.split_whitespace().collect();
        assert_eq!(gasp(&args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn the_text_output_has_qemus_arguments() {
    let folder = Folder::new();
    let mut serving = Serving::start(&["--device", "dma", "--socket", &folder.text("a.sock")]);
    let mut said = String::new();
    while !said.contains("listening on") {
        said.push_str(&serving.lines.next().unwrap().unwrap());
    }
    for words in ["vfio-user-pci", "memory-backend-memfd", "share=on", "caching-mode=on"] {
        assert!(said.contains(words), "{words} is missing in {said}");
    }
    assert!(!said.contains('\u{1b}'), "no colours without a terminal");
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait(), Some(0));
}

#[test]
fn a_misbehaving_client_is_reported_and_the_next_is_served() {
    let folder = Folder::new();
    let mut serving = folder.dma("a.sock");
    serving.event("listening");
    UnixStream::connect(folder.path("a.sock")).unwrap().write_all(&[0xff; 64]).unwrap();
    assert!(serving.event("turned-away")["why"].is_string());
    attach(&folder.path("a.sock"));
    serving.event("attached");
}

#[test]
fn every_field_of_the_log_is_documented() {
    let folder = Folder::new();
    let help = String::from_utf8(gasp(&["--help"]).stdout).unwrap();
    let mut serving = folder.dma("a.sock");
    let listening = serving.event("listening");
    attach(&folder.path("a.sock"));
    let attached = serving.event("attached");
    serving.signal(Signal::TERM);
    let stopped = serving.event("stopped");
    for event in [listening, attached, stopped] {
        for (field, _) in event.as_object().unwrap() {
            assert!(help.contains(field.as_str()), "{field} is not documented");
        }
    }
}

#[test]
fn limits_of_the_configuration_are_those_of_the_server() {
    let folder = Folder::new();
    let config = "[[device]]\nkind = \"dma\"\nsocket = \"a.sock\"\nmax-dma-maps = 7\n\
                  unsealed = \"refuse\"\nmax-memory = \"64G\"\nmax-descriptors = 32\n\
                  max-drains = 9\n";
    std::fs::write(folder.path("a.toml"), config).unwrap();
    let mut serving = Serving::start(&["--config", &folder.text("a.toml"), "--json"]);
    serving.event("listening");
    let (_client, version) = greet(&folder.path("a.sock"));
    assert_eq!(version["capabilities"]["max_dma_maps"], 7, "{version}");
}

#[test]
fn a_client_that_is_rejected_for_another_is_reported_with_both() {
    let folder = Folder::new();
    let mut serving = folder.dma("a.sock");
    serving.event("listening");
    let _client = attach(&folder.path("a.sock"));
    serving.event("attached");
    let _other = attach(&folder.path("a.sock"));
    let reported = serving.event("in-use");
    let this = std::process::id();
    assert_eq!(
        (&reported["pid"], &reported["by"], &reported["seconds"]),
        (&this.into(), &this.into(), &0.into())
    );
}

#[test]
fn memory_that_is_copied_by_messages_is_not_reported_as_mapped() {
    let folder = Folder::new();
    let mut serving = folder.dma("a.sock");
    serving.event("listening");
    let mut client = attach(&folder.path("a.sock"));
    // DMA_MAP of 1 MiB without a descriptor, to be read and written.
    let mut map = [8_u16, 2].map(u16::to_ne_bytes).concat();
    map.extend([16 + 32_u32, 0, 0, 32, 3].map(u32::to_ne_bytes).concat());
    map.extend([0_u64, 0, 1 << 20].map(u64::to_ne_bytes).concat());
    client.write_all(&map).unwrap();
    let mut reply = [0; 16];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(reply[12..], [0; 4], "no error");
    let totals = serving.event("totals");
    assert_eq!(
        (&totals["window_bytes"], &totals["by_message_bytes"]),
        (&(1 << 20).into(), &(1 << 20).into())
    );
    drop(client);
    serving.event("detached");
    serving.signal(Signal::TERM);
    assert_eq!(serving.event("stopped")["by_message_bytes"], 0);
}

#[test]
fn virtio_devices_are_served_and_a_disk_locks_its_image() {
    let folder = Folder::new();
    let image = folder.text("disk.img");
    std::fs::write(&image, [0; 4096]).unwrap();
    let disk = format!("virtio-blk,backing=file:{image}");
    let mut serving =
        Serving::start(&["--device", &disk, "--socket", &folder.text("blk.sock"), "--json"]);
    assert_eq!(serving.event("listening")["kind"], "virtio-blk");
    attach(&folder.path("blk.sock"));
    serving.event("attached");
    let second = gasp(&["--device", &disk, "--socket", &folder.text("b.sock")]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("disk.img"), "{second:?}");
    let missing = format!("virtio-blk,backing=file:{}", folder.text("no.img"));
    let missing = gasp(&["--device", &missing, "--socket", &folder.text("b.sock")]);
    assert!(stderr(&missing).contains("no.img"), "{missing:?}");
    let mut rng =
        Serving::start(&["--device", "virtio-rng", "--socket", &folder.text("rng.sock"), "--json"]);
    assert_eq!(rng.event("listening")["kind"], "virtio-rng");
    attach(&folder.path("rng.sock"));
    rng.event("attached");
}
