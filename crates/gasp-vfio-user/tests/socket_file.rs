//! The socket file: who owns it, who may connect, and when it is removed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use gasp_vdev::Shell;
use gasp_vfio_user::{BindError, Options, Server};
use support::device::Holder;
use support::{serve, wait_for};

fn shell() -> Shell {
    Shell::new("device", Holder::default()).unwrap()
}

#[test]
fn only_its_owner_may_connect_unless_the_options_say_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    for mode in [0o600, 0o660] {
        let path = folder.path().join(format!("{mode:o}"));
        let _server = Server::bind(&path, shell(), Options { mode, ..Options::default() }).unwrap();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        // The process's umask applies, as always.
        let more = metadata.permissions().mode() & 0o777 & !mode;
        assert_eq!(more, 0, "{:o}", metadata.permissions().mode());
    }
}

#[test]
fn a_live_servers_socket_is_not_taken_and_it_goes_on() {
    let served = serve(Holder::default(), Options::default());
    let mut client = served.client();
    let refused = Server::bind(&served.path, shell(), Options::default()).unwrap_err();
    assert!(matches!(refused, BindError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("device.sock"));
    client.read64(0, 0x100);
    drop(client);
    wait_for("the next client", || !served.status().attached);
    served.client().read64(0, 0x100);
}

#[test]
fn a_stale_socket_is_replaced_and_other_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stale");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(Server::bind(&path, shell(), Options::default()).unwrap());
    assert!(!path.exists(), "removed at the end");
    std::fs::write(&path, "precious").unwrap();
    let refused = Server::bind(&path, shell(), Options::default()).unwrap_err();
    assert!(matches!(refused, BindError::NotASocket { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_socket_that_somebody_else_put_there_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moved");
    let server = Server::bind(&path, shell(), Options::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
}

#[test]
fn paths_that_cannot_be_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("no/such"), folder.path().join("x".repeat(200))] {
        assert!(Server::bind(path, shell(), Options::default()).is_err());
    }
}

#[test]
fn of_many_that_start_at_once_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = folder.path().join(format!("{round}"));
        drop(UnixListener::bind(&path).unwrap());
        let results: Vec<_> = std::thread::scope(|scope| {
            let bind = || Server::bind(&path, shell(), Options::default());
            let all: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    }
}

#[test]
fn a_lock_that_somebody_holds_is_an_error_and_a_lock_of_the_folder_is_nobodys_business() {
    use rustix::fs::{FlockOperation, flock};
    let folder = tempfile::tempdir().unwrap();
    let held = std::fs::File::open(folder.path()).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let path = folder.path().join("one");
    let server = Server::bind(&path, shell(), Options::default()).unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "nothing but the socket");
    drop(server);
    let lock = std::fs::File::create(folder.path().join("one.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let since = std::time::Instant::now();
    let refused = Server::bind(&path, shell(), Options::default()).unwrap_err();
    assert!(refused.to_string().contains("one.lock: another process holds this lock"), "{refused}");
    assert!(since.elapsed().as_secs() < 5);
    // A lock file that was left behind is held by nobody.
    drop(lock);
    drop(Server::bind(&path, shell(), Options::default()).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    std::os::unix::fs::symlink("elsewhere", folder.path().join("one.lock")).unwrap();
    assert!(Server::bind(&path, shell(), Options::default()).is_err());
    assert!(!folder.path().join("elsewhere").exists());
}
