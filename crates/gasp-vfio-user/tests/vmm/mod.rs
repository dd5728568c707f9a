//! Shared by the tests with a real VMM: the testbed, visible skips, and devices served by a
//! process of their own.
#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gasp_testbed::{Testbed, Unavailable};
use libtest_mimic::{Arguments, Failed, Trial};

pub type Outcome = Result<(), Failed>;
pub type Body = fn(&Testbed) -> Outcome;

/// The guest's IOMMU, as QEMU emulates it; it must precede the devices behind it.
pub const IOMMU: &str = "intel-iommu,intremap=off,caching-mode=on";

/// QEMU's `-device` option for the device served at `path`.
pub fn vfio_user(path: &Path) -> String {
    let path = path.display();
    format!(r#"{{"driver":"vfio-user-pci","socket":{{"type":"unix","path":"{path}"}}}}"#)
}

/// Runs the trials on a testbed, one at a time: each has the machine to itself. Without a
/// testbed, each is marked as ignored, with the reason in its name, so that it is counted
/// and visible.
pub fn run(bodies: &[(&str, Body)]) -> ! {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let testbed = Testbed::obtain();
    if let Ok(testbed) = &testbed {
        eprintln!("{}", testbed.versions());
    }
    let trials = bodies.iter().map(|(name, body)| trial(name, &testbed, *body)).collect();
    libtest_mimic::run(&arguments, trials).exit()
}

fn trial(name: &str, testbed: &Result<Testbed, Unavailable>, body: Body) -> Trial {
    match testbed {
        Ok(testbed) => {
            let testbed = testbed.clone();
            Trial::test(name, move || body(&testbed))
        }
        Err(why) => {
            Trial::test(format!("{name} [skipped: {why}]"), || Ok(())).with_ignored_flag(true)
        }
    }
}

/// A device served by another process, which is killed at the end, as by a crash.
pub struct Process(Child);

/// The argument that turns this program into such a process.
const SERVE: &str = "--serve";

impl Process {
    /// Starts this program again, to serve `what` at `path`; returns once it listens.
    pub fn serve(what: &str, path: &Path) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args([SERVE, what]).arg(path).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "listens\n");
        Self(child)
    }

    /// If this is such a process, what it is to serve, and where.
    pub fn asked() -> Option<(String, String)> {
        let mut args = std::env::args().skip(1);
        (args.next()? == SERVE).then_some((args.next()?, args.next()?))
    }

    /// Reports to the parent process that it listens.
    pub fn listens() {
        println!("listens");
    }

    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
