//! One QEMU process that cannot outlive its test.
//!
//! A thread of its own starts QEMU, keeps its standard error, kills it at its deadline, and
//! collects its exit status. The thread has to live as long as QEMU: the kernel's parent-death
//! signal refers to the parent *thread*.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Error, Result};

/// The most bytes of QEMU's error messages that are kept.
const MESSAGES_KEPT: usize = 64 << 10;

/// A running QEMU; killed when dropped.
pub(crate) struct Process {
    pid: u32,
    handle: Arc<OwnedFd>,
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
    started: Instant,
    deadline: Instant,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    status: Option<ExitStatus>,
    messages: String,
}

struct Started {
    pid: u32,
    handle: Arc<OwnedFd>,
    input: ChildStdin,
    output: ChildStdout,
}

impl Process {
    /// Starts QEMU, which is killed after `limit`. Returns its standard input and output.
    pub(crate) fn start(
        mut command: Command,
        limit: Duration,
    ) -> Result<(Self, ChildStdin, ChildStdout)> {
        command.args(["-run-with", "exit-with-parent=on"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let deadline = started + limit;
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = mpsc::channel();
        let keeper = {
            let shared = shared.clone();
            let keep = move || keep(command, deadline, &sender, &shared);
            std::thread::Builder::new().name("qemu".into()).spawn(keep).map_err(Error::Start)?
        };
        let gone = |_| Err(std::io::Error::other("its thread ended"));
        let Started { pid, handle, input, output } =
            receiver.recv().unwrap_or_else(gone).map_err(Error::Start)?;
        let process = Self { pid, handle, shared, keeper: Some(keeper), started, deadline };
        Ok((process, input, output))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The end of a wait of `timeout`, at most a little later than QEMU's own deadline, so that the
    /// waiting thread sees QEMU's end.
    pub(crate) fn until(&self, timeout: Duration) -> Instant {
        let last = self.deadline + Duration::from_secs(5);
        Instant::now().checked_add(timeout).map_or(last, |until| until.min(last))
    }

    pub(crate) fn kill(&self) {
        // An error means that it has ended already.
        let _ = pidfd_send_signal(&*self.handle, Signal::KILL);
    }

    /// Its exit status, if it ends in time.
    pub(crate) fn wait_end(&self, until: Instant) -> Option<ExitStatus> {
        let left = until.saturating_duration_since(Instant::now());
        let mut state = lock(&self.shared);
        self.shared.ended.wait_while_for(&mut state, |state| state.status.is_none(), left);
        state.status
    }

    /// QEMU's standard error so far.
    pub(crate) fn messages(&self) -> String {
        lock(&self.shared).messages.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock()
}

/// The body of the keeper thread, from before QEMU's start until after its end.
fn keep(
    mut command: Command,
    deadline: Instant,
    sender: &mpsc::Sender<std::io::Result<Started>>,
    shared: &Shared,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = sender.send(Err(error));
            return;
        }
    };
    let handle = match introduce(&mut child) {
        Ok(started) => {
            let handle = started.handle.clone();
            let _ = sender.send(Ok(started));
            handle
        }
        Err(error) => {
            let _ = (child.kill(), child.wait());
            let _ = sender.send(Err(error));
            return;
        }
    };
    watch(&mut child, &handle, deadline, shared);
    let status = child.wait().ok();
    lock(shared).status = status;
    shared.ended.notify_all();
}

fn introduce(child: &mut Child) -> std::io::Result<Started> {
    let missing = || std::io::Error::other("no handle");
    let pid = child.id();
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(missing)?;
    let handle = Arc::new(pidfd_open(raw, PidfdFlags::empty())?);
    let input = child.stdin.take().ok_or_else(missing)?;
    let output = child.stdout.take().ok_or_else(missing)?;
    Ok(Started { pid, handle, input, output })
}

/// Keeps QEMU's messages until it has ended; kills it at the deadline.
fn watch(child: &mut Child, handle: &OwnedFd, deadline: Instant, shared: &Shared) {
    let Some(mut stderr) = child.stderr.take() else { return };
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(&stderr, PollFlags::IN), PollFd::new(handle, PollFlags::IN)];
        let ready = poll(&mut fds, timeout.as_ref());
        let [said, ended] = fds.map(|fd| !fd.revents().is_empty());
        if said {
            match stderr.read(&mut buffer) {
                Ok(0) | Err(_) => return, // Closed: it has ended, or is about to.
                Ok(count) => keep_message(shared, buffer.get(..count).unwrap_or_default()),
            }
        } else if ended {
            return;
        } else if ready == Ok(0) {
            keep_message(shared, b"killed: its whole-run timeout has expired\n");
            let _ = child.kill();
            return;
        }
    }
}

fn keep_message(shared: &Shared, bytes: &[u8]) {
    let mut state = lock(shared);
    if state.messages.len() < MESSAGES_KEPT {
        let text = String::from_utf8_lossy(bytes).into_owned();
        state.messages.push_str(&text);
    }
}
