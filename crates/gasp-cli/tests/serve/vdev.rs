//! Virtual devices in C, on sockets.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::compile;
use crate::serving::{Folder, Serving, attach, gasp, stderr};

/// SIGABRT and SIGSEGV.
const ABORT: i32 = 6;
const SEGMENTATION: i32 = 11;

const ODD: &str = "tests/serve/odd.c";

/// A folder with the vdev `odd`.
fn folder() -> Folder {
    let folder = Folder::new();
    let file = folder.path("vdev-odd.so");
    compile::vdev(ODD, &file, &["-DNAME=\"odd\""]);
    folder
}

/// Serves a vdev on `a.sock`.
fn serve(folder: &Folder, device: &str) -> Serving {
    let (path, socket) = (folder.text(""), folder.text("a.sock"));
    let args = ["--json", "--vdev-path", &path, "--device", device, "--socket", &socket];
    Serving::start(&args)
}

#[test]
fn each_vmm_has_a_vdev_of_its_own_whose_state_a_signal_reports() {
    let folder = folder();
    let mut serving = serve(&folder, "vdev,name=odd");
    let listening = serving.event("listening");
    assert_eq!((&listening["device"], &listening["kind"]), (&"odd".into(), &"vdev".into()));
    // The first instance was in front of no guest, at the start.
    for instance in [2, 3] {
        let client = attach(&folder.path("a.sock"));
        serving.event("attached");
        serving.signal(Signal::USR2);
        assert_eq!(serving.event("status")["text"], format!("instance {instance}"));
        assert_eq!(serving.event("status")["text"], "second line");
        drop(client);
        serving.event("detached");
    }
    serving.signal(Signal::USR2);
    assert!(serving.event("status")["text"].as_str().unwrap().contains("no VMM"));
    serving.signal(Signal::TERM);
    let stopped = serving.event("stopped");
    assert_eq!((&stopped["connections"], &stopped["failed"]), (&2.into(), &false.into()));
    assert_eq!(serving.wait(), Some(0));
}

#[test]
fn a_vdev_that_fails_is_reported_and_its_device_goes_on() {
    for (how, why) in [("once", "GUEST_CONFIGURED"), ("ends", "guest_terminate(33)")] {
        let folder = folder();
        let mut serving = serve(&folder, &format!("vdev,name=odd,option=how={how}"));
        serving.event("listening");
        for _ in 0..2 {
            let client = attach(&folder.path("a.sock"));
            let failed = serving.event("vdev-failed");
            assert_eq!(failed["device"], "odd");
            assert!(failed["why"].as_str().unwrap().contains(why), "{failed}");
            assert_eq!(serving.event("totals")["failed"], true);
            drop(client);
            serving.event("detached");
        }
        serving.signal(Signal::TERM);
        assert_eq!(serving.event("stopped")["failed"], false, "{how}");
        assert_eq!(serving.wait(), Some(0));
    }
}

#[test]
fn a_fatal_error_of_a_vdev_ends_the_process_with_its_status_and_leaves_no_socket() {
    let folder = folder();
    let mut serving = serve(&folder, "vdev,name=odd,option=how=fatal");
    serving.event("listening");
    let _client = attach(&folder.path("a.sock"));
    assert!(serving.event("vdev-failed")["why"].as_str().unwrap().contains("no flux"));
    assert_eq!(serving.wait(), Some(96));
    assert!(!folder.path("a.sock").exists());
}

#[test]
fn a_vdev_that_cannot_be_served_is_named_with_its_key_and_a_remedy() {
    let folder = folder();
    for (name, more) in [
        ("abi", &["-DABI=7"][..]),
        ("none", &["-DNONE"]),
        ("manual", &["-DFLAGS=VFF_VDEV_MEM | VFF_MANUAL_REGION"]),
        ("ports", &["-DFLAGS=VFF_VDEV_X86_IO | VFF_LOC_NO"]),
    ] {
        let define = format!("-DNAME=\"{name}\"");
        let more = [&[define.as_str()], more].concat();
        compile::vdev(ODD, &folder.path(&format!("vdev-{name}.so")), &more);
    }
    std::fs::write(folder.path("vdev-text.so"), "no library").unwrap();
    let start = format!("device \"x\": path: {}", folder.text(""));
    for (device, parts) in [
        ("vdev=nosuch", &["vdev: there is no vdev-nosuch.so", "--vdev-path"][..]),
        ("vdev=text", &["vdev: ", "no shared object", "cc -shared"]),
        ("vdev=abi", &["vdev-abi.so: its ABI number is 7", "headers of this version"]),
        ("vdev=none", &["vdev-none.so: it is no vdev", "vdev_register_factory()"]),
        ("vdev=odd,option=hew=5", &["options: `odd` has no option `hew`; did you mean `how`?"]),
        ("vdev=odd,option=how", &["options: the option `how` of `odd` requires an argument"]),
        ("vdev=odd,option=how=refuse", &["vdev: ", "GUEST_CONFIGURED", "the door is closed"]),
        ("vdev=manual", &["VFF_MANUAL_REGION", "gasp vm"]),
        ("vdev=ports,loc=io:0x300", &["loc: `ports` has no location; remove `loc`"]),
    ] {
        let (path, socket) = (folder.text(""), folder.text("a.sock"));
        let device = format!("vdev,name=x,{device}");
        let args = ["--vdev-path", &path, "--device", &device, "--socket", &socket];
        let output = gasp(&args);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{device}: {message}");
        assert!(message.contains("device \"x\": "), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{device}: {message}");
        assert!(!folder.path("a.sock").exists());
    }
    let text = folder.text("vdev-text.so");
    let (device, socket) = (format!("vdev,name=x,path={text}"), folder.text("a.sock"));
    let message = stderr(&gasp(&["--device", &device, "--socket", &socket]));
    assert!(message.contains(&start) && message.contains("cc -shared"), "{message}");
}

#[test]
fn a_file_has_vdevs_with_their_options_and_errors_name_its_lines() {
    let folder = folder();
    std::fs::create_dir(folder.path("other")).unwrap();
    let copy = folder.path("other/vdev-odd.so");
    compile::vdev(ODD, &copy, &["-DNAME=\"odd\"", "-DABI=QVM_VDEV_ABI "]);
    let config = |second: &str| {
        let first = "[[device]]\nkind = \"vdev\"\npath = \"vdev-odd.so\"\nsocket = \"a.sock\"\n\
                     options = [\"how=nothing\"]\n";
        std::fs::write(folder.path("a.toml"), format!("{first}{second}")).unwrap();
        folder.text("a.toml")
    };
    // One file twice is loaded once; its devices are apart.
    let twice = "[[device]]\nkind = \"vdev\"\npath = \"vdev-odd.so\"\nsocket = \"b.sock\"\n";
    let mut serving = Serving::start(&["--json", "--config", &config(twice)]);
    assert_eq!(serving.event("listening")["device"], "vdev0");
    assert_eq!(serving.event("listening")["device"], "vdev1");
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait(), Some(0));
    for (second, parts) in [
        (
            "[[device]]\nkind = \"vdev\"\npath = \"other/vdev-odd.so\"\nsocket = \"b.sock\"\n",
            &["device \"vdev1\": path: ", "two factories are called `odd`", "other/vdev-odd.so"][..],
        ),
        (
            "[[device]]\nkind = \"vdev\"\nsocket = \"b.sock\"\nvdev = \"odd\"\noptions = [\"a b\"]\n",
            &["a.toml:10: device \"vdev1\": options: expected OPTION or OPTION=ARGUMENT"],
        ),
        (
            "[[device]]\nkind = \"vdev\"\nsocket = \"b.sock\"\nvdev = \"odd\"\nloc = \"usb:1\"\n",
            &["a.toml:10: device \"vdev1\": loc: "],
        ),
        (
            "[[device]]\nkind = \"dma\"\nsocket = \"b.sock\"\noptions = []\n",
            &["a.toml:9: device \"dma1\": options: the kind dma has no such key"],
        ),
    ] {
        let message = stderr(&gasp(&["--config", &config(second)]));
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn a_crash_is_reported_with_the_vdev_and_what_it_did() {
    let folder = folder();
    compile::vdev(ODD, &folder.path("vdev-bad.so"), &["-DNAME=\"bad\"", "-DCRASH"]);
    let path = folder.text("");
    for (device, signal, what) in [
        ("vdev,name=bad", ABORT, "SIGABRT in its constructor"),
        ("vdev,name=odd,option=how=crash", SEGMENTATION, "SIGSEGV in control(GUEST_CONFIGURED)"),
    ] {
        let socket = folder.text("a.sock");
        let output = gasp(&["--vdev-path", &path, "--device", device, "--socket", &socket]);
        let message = stderr(&output);
        assert_eq!(output.status.signal(), Some(signal), "{message}");
        assert!(message.contains("has crashed: ") && message.contains(what), "{message}");
    }
}
