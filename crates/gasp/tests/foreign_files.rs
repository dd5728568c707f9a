//! Files whose pages come from a server that need not answer, and files that this host keeps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "mounts a file system")]

#[path = "support/fuse.rs"]
mod fuse;
mod support;
#[path = "support/trials.rs"]
mod trials;

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use fuse::Fuse;
use gasp::ffi::close;
use gasp::{Access, Adopt, Errno, MemoryObject};
use libtest_mimic::Arguments;
use support::*;
use trials::*;

fn main() {
    let lacks = [Fuse::mount().err().map(|error| format!("FUSE cannot be mounted: {error}"))];
    let mut trials = vec![
        trial("a_file_of_a_server_that_does_not_answer_is_refused_at_once", &lacks, silent),
        trial("descriptors_are_closed_by_a_bounded_number_of_threads", &lacks, aside),
        trial("a_socket_that_lingers_is_closed_at_once", &[], lingering),
        trial("a_file_of_a_trusted_server_is_adopted", &lacks, trusted),
    ];
    for folder in ["/dev/shm".into(), std::env::temp_dir(), "/var/tmp".into()] {
        let folder = folder.display().to_string();
        let lacks = [kept_here(&folder)];
        let name = format!("a_file_that_the_host_keeps_is_adopted ({folder})");
        trials.push(trial(name, &lacks, move || kept(&folder)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn silent() {
    let fuse = Fuse::mount().unwrap();
    let fd = fuse.open();
    fuse.fall_silent();
    let before = fuse.requests();
    // Closing a descriptor is a request, too: another thread waits for its reply.
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(error(MemoryObject::adopt(fd, how()))));
    // If it waits, the unmount ends the wait, and the process can end.
    let refused = finished.recv_timeout(Duration::from_secs(5)).expect("it waits for the server");
    assert_eq!(refused.errno(), Errno::NODEV);
    assert!(refused.to_string().contains("trusted"), "{refused}");
    assert!(eventually(|| fuse.requests() > before));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(fuse.requests(), before + 1, "the server saw the close only");
}

fn aside() {
    let fuse = Fuse::mount().unwrap();
    let fd = fuse.open();
    let copies: Vec<_> = (0..70).map(|_| fd.try_clone().unwrap()).collect();
    fuse.fall_silent();
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        copies.into_iter().chain([fd]).for_each(close);
        // A file that the host keeps is closed at once.
        let memory = memfd(PAGE);
        let number = memory.as_raw_fd();
        close(memory);
        done.send(std::fs::read_link(format!("/proc/self/fd/{number}")))
    });
    let link = finished.recv_timeout(Duration::from_secs(5)).expect("it waits for the server");
    assert!(link.is_err(), "{link:?}");
    assert!(eventually(|| threads_that_close() == 64), "{}", threads_that_close());
    drop(fuse);
    assert!(eventually(|| threads_that_close() == 0), "they end with the server");
}

fn lingering() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.write(&[0; 1 << 16]).is_ok() {}
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::from_secs(60))).unwrap();
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        close(socket.into());
        done.send(())
    });
    finished.recv_timeout(Duration::from_secs(5)).expect("it waits for the reader");
    drop(reader);
}

fn threads_that_close() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    tasks.filter_map(|task| name(task).ok()).filter(|name| name == "gasp-close\n").count()
}

fn trusted() {
    let fuse = Fuse::mount().unwrap();
    let object = MemoryObject::adopt(fuse.open(), Adopt { trusted: true, ..how() }).unwrap();
    let mut bytes = [0; 8];
    object.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"fusefuse");
}

fn how() -> Adopt<'static> {
    Adopt { access: Access::READ, ..whole(fuse::LEN) }
}

/// Why files of a folder may not be kept by this host; `None` if they are.
fn kept_here(folder: &str) -> Lack {
    use std::os::unix::fs::MetadataExt;
    const TMPFS: i64 = 0x0102_1994;
    let Ok(metadata) = std::fs::metadata(folder) else { return Some("there is none".into()) };
    let tmpfs = rustix::fs::statfs(folder).is_ok_and(|stat| stat.f_type == TMPFS);
    let device = libc::major(metadata.dev()) != 0;
    (!tmpfs && !device).then(|| "it is neither tmpfs nor on a block device".into())
}

fn kept(folder: &str) {
    let path = format!("{folder}/gasp-kept-{}", std::process::id());
    std::fs::write(&path, b"kept".repeat(1024)).unwrap();
    let file: OwnedFd = File::open(&path).unwrap().into();
    std::fs::remove_file(&path).unwrap();
    let object = MemoryObject::adopt(file, how()).unwrap();
    let mut bytes = [0; 4];
    object.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
    assert!(object.is_guarded(), "its owner can truncate it");
}
