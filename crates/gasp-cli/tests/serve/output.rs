//! Output that cannot be written does not end the service.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::serving::{Folder, Serving, attach, exchange};

/// A pipe without a reader.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Checks the service of VMMs that come and go, of wrong ones, which are logged, and of one that
/// stays longer than a report waits. Then ends it.
fn is_served_well(serving: &mut Serving, folder: &Folder) {
    let path = folder.path("a.sock");
    folder.wait_for("a.sock");
    for _ in 0..3 {
        drop(attach(&path));
        let mut wrong = UnixStream::connect(&path).unwrap();
        wrong.write_all(&[0xff; 64]).unwrap();
        // It is rejected, with a reply or without.
        let _ = wrong.read_to_end(&mut Vec::new());
    }
    let mut client = attach(&path);
    for _ in 0..15 {
        std::thread::sleep(Duration::from_millis(100));
        exchange(&mut client);
    }
    serving.signal(Signal::TERM);
    assert_eq!(serving.wait(), Some(0));
    assert!(!path.exists());
}

#[test]
fn devices_are_still_served_if_reports_cannot_be_written() {
    for mode in [&["--json"][..], &[]] {
        for (stdout, stderr) in [
            (closed_pipe(), Stdio::null()),
            (closed_pipe(), closed_pipe()),
            (full_disk(), full_disk()),
            (Stdio::null(), closed_pipe()),
        ] {
            let folder = Folder::new();
            let mut command = folder.command("a.sock");
            command.args(mode).stdout(stdout).stderr(stderr);
            is_served_well(&mut Serving::of(command), &folder);
        }
    }
}

#[test]
fn a_log_at_the_file_size_limit_does_not_end_the_process() {
    let folder = Folder::new();
    let log = File::create(folder.path("log")).unwrap();
    log.set_len(1 << 20).unwrap();
    let mut command = Command::new("sh");
    // The file is past the limit from the start: SIGXFSZ would end the process at the first report.
    let script = "ulimit -f 1; exec \"$@\"";
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_gasp"), "serve", "--json"]);
    command.args(["--device", "dma", "--socket", &folder.text("a.sock")]);
    command.stdout(File::options().append(true).open(folder.path("log")).unwrap());
    is_served_well(&mut Serving::of(command), &folder);
    assert_eq!(log.metadata().unwrap().len(), 1 << 20);
}

/// A server on a terminal of its own, 60 columns wide: `script` forwards what is drawn, and
/// closes the terminal when it ends.
fn on_a_terminal(folder: &Folder, output: Stdio) -> Serving {
    let mut command = Command::new("script");
    let gasp = format!(
        "stty cols 60 rows 20; exec {} serve --device dma --socket {}",
        env!("CARGO_BIN_EXE_gasp"),
        folder.text("a.sock")
    );
    command.args(["--quiet", "--command", &gasp, "/dev/null"]).env("TERM", "xterm");
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
    let serving = Serving::of(command);
    folder.wait_for("a.sock");
    serving
}

#[test]
fn a_closed_terminal_does_not_end_the_process() {
    let folder = Folder::new();
    let mut terminal = on_a_terminal(&folder, Stdio::null());
    let mut client = attach(&folder.path("a.sock"));
    let pid = rustix::net::sockopt::socket_peercred(&client).unwrap().pid;
    terminal.signal(Signal::KILL);
    terminal.wait();
    for _ in 0..15 {
        std::thread::sleep(Duration::from_millis(100));
        exchange(&mut client);
    }
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    folder.wait_for_no("a.sock");
}

/// The lines on a terminal and in its history, with the control sequence that deletes lines,
/// `\r\x1b[nA\x1b[mM`, carried out.
#[derive(Default)]
struct Screen(Vec<String>);

impl Screen {
    fn draw(&mut self, line: &str) {
        let mut line = line.trim_end_matches('\r').replace("\x1b[1m", "").replace("\x1b[0m", "");
        while let Some((before, erase)) = line.split_once("\r\x1b[") {
            assert!(!before.contains('\x1b'), "{before:?}");
            let (numbers, rest) = erase.split_once('M').unwrap();
            let up = numbers.split_once('A').map_or(0, |(up, _)| up.parse().unwrap());
            self.0.truncate(self.0.len() - up);
            line = rest.to_owned();
        }
        self.0.push(line);
    }
}

#[test]
fn the_live_view_is_below_whole_lines_and_is_erased_at_the_end() {
    let folder = Folder::new();
    let mut terminal = on_a_terminal(&folder, Stdio::piped());
    let mut client = attach(&folder.path("a.sock"));
    let pid = rustix::net::sockopt::socket_peercred(&client).unwrap().pid;
    exchange(&mut client);
    let mut screen = Screen::default();
    let mut until = |screen: &mut Screen, what: &dyn Fn(&[String]) -> bool| {
        while !what(&screen.0) {
            screen.draw(&terminal.lines.next().unwrap().unwrap());
        }
    };
    let attached = format!("dma0    {:>3}", std::process::id());
    until(&mut screen, &|lines| lines.last().is_some_and(|line| line.starts_with(&attached)));
    let header = "device";
    assert!(screen.0[screen.0.len() - 2].starts_with(header), "{:#?}", screen.0);
    assert!(screen.0[screen.0.len() - 2].chars().count() < 60);
    // This is logged.
    let _ = UnixStream::connect(folder.path("a.sock")).unwrap().write_all(&[0xff; 64]);
    until(&mut screen, &|lines| {
        lines.iter().any(|line| line.contains(" WARN "))
            && lines.last().unwrap().starts_with("dma0")
    });
    let headers = screen.0.iter().filter(|line| line.starts_with(header));
    assert_eq!(headers.count(), 1, "{:#?}", screen.0);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    while let Some(Ok(line)) = terminal.lines.next() {
        screen.draw(&line);
    }
    assert!(screen.0.iter().all(|line| !line.starts_with(header)), "{:#?}", screen.0);
    assert!(screen.0.iter().any(|line| line.contains("dma0  stopped: ")), "{:#?}", screen.0);
}

#[test]
fn reports_that_were_not_read_are_counted_and_the_next_ones_are_whole() {
    let folder = Folder::new();
    let mut command = folder.command("a.sock");
    command.arg("--json");
    let mut serving = Serving::with_little_room(command);
    let path = folder.path("a.sock");
    folder.wait_for("a.sock");
    // More reports than there is room for, and for longer than a report waits for its reader.
    for _ in 0..60 {
        drop(attach(&path));
    }
    std::thread::sleep(Duration::from_millis(1500));
    exchange(&mut attach(&path));
    // Something to report, once there is room again.
    let come_and_go = std::thread::spawn(move || {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(100));
            drop(attach(&path));
        }
    });
    // Every line is a report, except one that was cut off.
    let (mut unwritten, mut torn) = (None, 0);
    while unwritten.is_none() {
        let line = serving.lines.next().unwrap().unwrap();
        match serde_json::from_str::<serde_json::Value>(&line) {
            Ok(event) if event["event"] == "unwritten" => unwritten = event["count"].as_u64(),
            Ok(_) => {}
            Err(_) => torn += 1,
        }
    }
    come_and_go.join().unwrap();
    assert!(unwritten > Some(0) && torn <= 1, "{unwritten:?}, {torn}");
}

#[test]
fn a_server_whose_log_is_not_read_ends_all_the_same() {
    for signals in [1, 2] {
        let folder = Folder::new();
        let mut command = folder.command("a.sock");
        command.arg("--json");
        let mut serving = Serving::with_little_room(command);
        folder.wait_for("a.sock");
        for _ in 0..60 {
            drop(attach(&folder.path("a.sock")));
        }
        let since = Instant::now();
        for _ in 0..signals {
            serving.signal(Signal::TERM);
            std::thread::sleep(Duration::from_millis(50));
        }
        let status = serving.wait();
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        assert!(matches!(status, Some(0 | 130)), "{status:?}");
        assert!(!folder.path("a.sock").exists());
    }
}
