//! Every kind of error that the command prints: it says what was requested, what there is and
//! what to do, in the same words as text and as JSON. `--nocapture` shows them all.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A guest whose lines can each be replaced with a wrong one.
const GUEST: &str = r#"
[guest]
name = "g"
[iommu]
unattached = "deny"
[[ram]]
size = "16M"
[[rom]]
start = 0xfffff000
file = "rom.bin"
[[reserve]]
start = "1G"
size = "4K"
[[domain]]
name = "d"
kind = "identity"
grant-identity = [
    { start = 0, size = "1M", access = "r" },
    { start = 0xfffff000, size = "4K", access = "rw" },
    { start = "1G", size = "8K", access = "rw", hole = true },
]
[[vdev]]
name = "disk"
domain = "d"
"#;

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rom.bin"), [0x90; 4096]).unwrap();
        fs::write(folder.path().join("empty"), []).unwrap();
        fs::write(folder.path().join("latin1.toml"), b"[guest]\nname = \"\xe9\"\n").unwrap();
        fs::write(folder.path().join("guest.toml"), GUEST).unwrap();
        Self { folder }
    }

    /// The message of a command that must fail, after a check that it is the same in JSON.
    fn message(&self, args: &[&str]) -> String {
        let run = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_gasp"));
            command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
            command.env_remove("RUST_LOG").output().unwrap()
        };
        let output = run(args);
        let status = output.status.code();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(status, Some(1 | 2)), "{args:?}: {status:?}: {text}");
        let message = text.strip_prefix("error: ").unwrap_or_else(|| panic!("{args:?}: {text}"));
        let message = message.trim_end();
        println!("$ gasp {}\n{text}", args.join(" "));
        assert!(!message.contains("os error"), "an error number does not help: {text}");
        for (at, _) in message.match_indices(" bytes") {
            let number = message[..at].rsplit(' ').next().unwrap_or_default();
            assert!(!number.starts_with("0x"), "sizes are not hexadecimal: {text}");
        }
        let has_json = ["demo", "probe", "map", "audit", "serve"].contains(&args[0]);
        if has_json {
            let output = run(&[args, &["--json"]].concat());
            assert_eq!(output.status.code(), status, "{args:?}");
            assert!(output.stderr.is_empty(), "{args:?}: {:?}", output.stderr);
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            let error = &json["error"];
            let json_message = error["message"].as_str().unwrap();
            // What is available can have changed between the two runs.
            let (all, start) = (without_digits(message), without_digits(json_message));
            assert!(all.starts_with(&start), "{json_message:?} is not in {message:?}");
            assert!(error["errno"].as_str().is_some_and(|name| name.len() > 2), "{json}");
            assert!(!error["reason"].as_str().unwrap().is_empty(), "{json}");
        }
        message.to_owned()
    }

    /// Checks that the message contains every part, in this order.
    fn expect(&self, args: &[&str], parts: &[&str]) {
        let message = self.message(args);
        let mut rest = message.as_str();
        for part in parts {
            let found = rest.find(part);
            let at = found.unwrap_or_else(|| panic!("{args:?}: {part:?} is not in: {message}"));
            rest = &rest[at + part.len()..];
        }
    }

    fn map(&self, config: &str, rest: &[&str], parts: &[&str]) {
        let args = ["map", "--config", config, "--vdev", "disk"];
        self.expect(&[&args, rest].concat(), parts);
    }

    /// Checks the error about a configuration file, to which a device is added if it has none.
    fn config(&self, text: &str, parts: &[&str]) {
        let device = if text.contains("[[vdev]]") { "" } else { "[[vdev]]\nname = \"disk\"\n" };
        fs::write(self.folder.path().join("c.toml"), format!("{text}{device}")).unwrap();
        self.map("c.toml", &["--addr", "0", "--len", "4K", "--access", "r"], parts);
    }
}

#[test]
fn errors_about_memory_say_what_is_requested_what_is_available_and_what_to_do() {
    let fixture = Fixture::new();
    let huge = ["500 GiB", "the host has ", "GiB of memory; ask for less"];
    if host_memory() < 500 << 30 {
        fixture.expect(&["demo", "--ram", "500G"], &huge);
        fixture.config("[[ram]]\nsize = \"500G\"\n", &["c.toml:2: ram.size: ", huge[0], huge[1]]);
    } else {
        println!("skipped in part, because this host has 500 GiB of memory");
    }
    let wide =
        "[guest]\naddress-width = 52\n[[ram]]\nresidency = \"on-demand\"\nsize = \"4000T\"\n";
    fixture.config(wide, &["c.toml:5", "creation of 4000 TiB of memory", "ask for less"]);
    let pool = "[[ram]]\nsize = \"4T\"\nresidency = \"on-demand\"\nbacking = [\"1G\"]\n";
    fixture
        .config(pool, &["creation of 4 TiB", "1 GiB pages has ", "it takes 4096", "nr_hugepages"]);
    let short = "[[ram]]\nsize = \"1M\"\nbacking = [\"2M\", \"thp\"]\n";
    fixture.config(short, &["creation of 1 MiB", "less than a huge page; allow"]);
    let placed =
        "[[ram]]\nsize = \"64M\"\nresidency = \"on-demand\"\nhost-contiguous = \"at least 64M\"\n";
    fixture.config(placed, &["64 MiB", "on demand", "resident or pinned"]);
    let memory = ["serve", "--socket", "a.sock", "--device", "nvme,backing=mem:1000T"];
    fixture.expect(&memory, &["1000 TiB", "ask for less"]);
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn host_memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

#[test]
fn errors_about_maps_name_device_range_and_reason() {
    let fixture = Fixture::new();
    let map = |addr: &str, len: &str, access: &str, any: bool, parts: &[&str]| {
        let mut args = vec!["--addr", addr, "--len", len, "--access", access];
        args.extend(any.then_some("--any"));
        fixture.map("guest.toml", &args, parts);
    };
    map("0", "0", "r", false, &["'--len <LEN>'", "expected at least one byte"]);
    map("-1", "4K", "r", false, &["'-1'", "'--addr <ADDR>'", "64K, 2M or 1G"]);
    map("0", "2M", "r", false, &["2 MiB at device address 0x0", "refuses 0x100000", "no grant"]);
    map("0", "4K", "w", false, &["4 KiB", "allows only r--", "-w- was requested", "EFAULT"]);
    map("0xfffff000", "4K", "w", true, &["0xfffff000 offers only r-x", "EACCES"]);
    map("0xfffff000", "4K", "r", false, &["not system RAM; use the `any` flag", "ENXIO"]);
    map("1G", "8K", "r", true, &["8 KiB", "no memory at guest-physical 0x40000000", "ENXIO"]);
    map("0xffffffffffff", "4K", "r", false, &["extends past", "48 bits", "ENXIO"]);
    map("0xffffffffffffffff", "4K", "r", false, &["extend past the end of the 64-bit", "ENXIO"]);
    map("0", "4K", "q", false, &["'--access <ACCESS>'", "expected r, w, x or several"]);
    map("5X", "4K", "r", false, &["'--addr <ADDR>'", "64K, 2M or 1G"]);
    let args = ["--addr", "0", "--len", "4K", "--access", "r", "--hold", "x"];
    fixture.map("guest.toml", &args, &["expected a number of seconds, such as 60"]);
    let spin = ["audit", "--config", "guest.toml", "--every", "0"];
    fixture.expect(&spin, &["'--every <SECONDS>'", "expected at least 0.01 seconds"]);
    // In a directory that does not exist: without the check it would fail, and not serve.
    let twice =
        ["serve", "--socket", "none/a.sock", "--device", "nvme,queues=2,backing=null:1M,queues=3"];
    fixture.expect(&twice, &["--device: queues: the key is given twice"]);
    let locked = ["serve", "--socket", "none/a.sock", "--device", "dma,mode=0444"];
    fixture.expect(&locked, &["--device: mode: nobody could connect"]);
    fixture.expect(
        &[
            "map",
            "--config",
            "guest.toml",
            "--vdev",
            "dsik",
            "--addr",
            "0",
            "--len",
            "1",
            "--access",
            "r",
        ],
        &["--vdev: the guest `g` has no device `dsik`; did you mean `disk`?"],
    );
}

#[test]
fn errors_about_a_configuration_name_file_line_key_and_what_is_expected() {
    let fixture = Fixture::new();
    // A name is checked before the memory is created, which can take long.
    let vast = "[[ram]]\nsize = \"200T\"\n[[vdev]]\nname = \"net\"\n";
    fixture.config(vast, &["--vdev: the guest `guest` has no device `disk`; there is `net`"]);
    for (from, to, parts) in [
        (
            "name = \"g\"",
            "nmae = \"g\"",
            &["c.toml:3: guest.nmae: ", "did you mean `name`?"] as &[_],
        ),
        ("name = \"g\"", "name = ", &["c.toml:3"]),
        ("name = \"g\"", "name = 5", &["c.toml:3: guest.name: ", "expected a string"]),
        ("[iommu]\nunattached = \"deny\"", "", &["add an [iommu] table"]),
        ("\"deny\"", "\"dany\"", &["c.toml:5: iommu.unattached: ", "did you mean \"deny\"?"]),
        ("[[ram]]", "[ram]", &["c.toml:6: ram: ", "write [[ram]]"]),
        ("size = \"16M\"", "", &["c.toml:6: ram.size: the key `size` is missing"]),
        (
            "\"16M\"",
            "\"16Mb\"",
            &["c.toml:7: ram.size: ", "expected bytes below 2^64", "(K, M, G, T)"],
        ),
        ("\"16M\"", "\"16M\"\nsize = 1", &["c.toml:8", "duplicate key"]),
        ("\"16M\"", "100", &["c.toml:7", "expected a multiple of 4 KiB, not 100 bytes"]),
        ("\"16M\"", "\"512T\"", &["512 TiB from 0x0 on", "48 bits (`address-width`)"]),
        ("rom.bin", "nope.bin", &["c.toml:10: rom.file: ", "nope.bin: No such file"]),
        ("rom.bin", "empty", &["c.toml:10", "is empty; it must have at least one byte"]),
        ("rom.bin", ".", &["c.toml:10", "is a directory"]),
        (
            "start = \"1G\"\n",
            "start = 0\n",
            &["c.toml:12: reserve.start: ", "overlaps", "of line 6"],
        ),
        (
            "kind = \"identity\"",
            "kind = \"identiti\"",
            &["c.toml:16", "did you mean \"identity\"?"],
        ),
        ("kind = \"identity\"", "kind = \"translate\"", &["takes `grant`"]),
        (
            "kind = \"identity\"",
            "kind = \"identity\"\nlimit = 1",
            &["the limit of 1 table entries"],
        ),
        (", hole = true", "", &["c.toml:20", "no RAM, ROM", "`hole = true`"]),
        ("domain = \"d\"", "domain = \"b\"", &["c.toml:24: vdev.domain: ", "`b`; there is `d`"]),
        ("[[vdev]]", "[[vdev]]\nname = \"disk\"\n[[vdev]]", &["c.toml:25", "taken on line 23"]),
        ("[[vdev]]", "[[vdex]]", &["c.toml:22: vdex: ", "did you mean `vdev`?"]),
    ] {
        assert!(GUEST.contains(from), "{from}");
        fixture.config(&GUEST.replacen(from, to, 1), parts);
    }
    let window = |path| format!("[[pass]]\nstart = 0\nsize = \"8K\"\nhost = 0\npath = {path:?}\n");
    fixture.config(&window("nope"), &["c.toml:5: pass.path: ", "nope: No such file"]);
    fixture.config(&window("."), &["c.toml:5: pass.path: ", "Is a directory"]);
    fixture.config(&window("rom.bin"), &["8 KiB", "the file holds only 4 KiB"]);
    let rest = ["--addr", "0", "--len", "4K", "--access", "r"];
    fixture.map(
        "nope.toml",
        &rest,
        &["nope.toml: cannot read the file: No such file or directory"],
    );
    fixture.map(".", &rest, &["expected a configuration file, and this is a directory"]);
    fixture.map("/dev/null", &rest, &["/dev/null: ", "no regular file"]);
    fixture.map("latin1.toml", &rest, &["latin1.toml:2: the text is not UTF-8"]);
}

#[test]
fn errors_about_arguments_files_and_sockets_name_them() {
    let fixture = Fixture::new();
    fixture.expect(&["demo", "--ram", "1M"], &["--ram", "from 32M to 1023G"]);
    fixture.expect(&["demo", "--jsn"], &["'--jsn'", "'--json'"]);
    fixture.expect(&["completions", "bsh"], &["'bsh'", "bash"]);
    let parts = ["cannot create the directory empty: File exists; choose another path"];
    fixture.expect(&["man", "--out", "empty"], &parts);
    let layout = |svg, parts: &[&str]| {
        fixture.expect(&["layout", "--config", "guest.toml", "--svg", svg], parts);
    };
    let missing = "cannot write no/such.svg: No such file or directory; create its directory";
    layout("no/such.svg", &[missing]);
    layout(".", &["cannot write .: Is a directory; choose another path"]);
    layout("/dev/full", &["cannot write /dev/full: No space left on device"]);
    let audit = ["audit", "--config", "nope.toml", "--every", "soon"];
    fixture.expect(&audit, &["--every", "expected a number of seconds"]);
    let serve = |device, socket, parts: &[&str]| {
        fixture.expect(&["serve", "--device", device, "--socket", socket], parts);
    };
    serve("nvme,backing=file:nope", "a.sock", &["nope"]);
    serve("nvme,backing=null:1M", "no/a.sock", &["no"]);
    serve("nvme,backing=null:1M", "empty", &["empty", "choose another path"]);
    serve("nvme,backing=null:1M,queues=900", "a", &["queues: expected 1 to 128, not 900"]);
    serve("nvme,backing=null:1M,block-size=1", "a", &["expected 512 or 4096, not 1"]);
    fixture
        .expect(&["serve", "--config", "latin1.toml"], &["latin1.toml:2: the text is not UTF-8"]);
    if Path::new("/proc/self/pagemap").exists() && rustix::process::geteuid().is_root() {
        let broker =
            |socket, parts: &[&str]| fixture.expect(&["broker", "--socket", socket], parts);
        broker("no/a.sock", &["cannot listen at no/a.sock: there is no directory no; create it"]);
        let long = "x".repeat(120);
        fixture.expect(&["broker", "--socket", &long], &["cannot listen at x", "120 bytes"]);
        broker("empty", &["cannot listen at empty: a file that is no socket is there; remove it"]);
        let user = ["broker", "--socket", "a", "--user", "rooot"];
        fixture.expect(&user, &["no user `rooot`", "did you mean `root`?"]);
    } else {
        println!("skipped in part, because only root can be a broker");
    }
}
