//! The trials once more, under tools that see what C does wrong.

use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::support::{CFLAGS, Guests, Library};

/// In the environment of this program under a tool: its name.
const UNDER: &str = "GASP_TEST_UNDER";
/// The time limit for one run, in seconds.
const LIMIT: &str = "400";
/// A vdev that is as wrong as a tool has to see.
const WRONG: &str = "a vdev that reads past its state";

const SANITIZE: &str =
    "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer";
const VALGRIND: &[&str] = &[
    "valgrind",
    "--quiet",
    "--error-exitcode=99",
    "--leak-check=full",
    // What the process keeps for good, such as libraries, is reached by pointers into its middle.
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
    "--fair-sched=yes",
];

/// Whether this program runs under a tool, which makes it slow.
pub(crate) fn is_under_one() -> bool {
    std::env::var_os(UNDER).is_some()
}

/// The trials of the tools; under one, the vdev that it has to find.
pub(crate) fn trials() -> Vec<Trial> {
    if is_under_one() {
        let run = || {
            wrong();
            Ok(())
        };
        return vec![Trial::test(WRONG, run).with_ignored_flag(true)];
    }
    let mut trials = Vec::new();
    for (tool, lack) in [("asan+ubsan", no_sanitizer()), ("valgrind", no_valgrind())] {
        let finds = if tool == "valgrind" { "Invalid read" } else { "heap-buffer-overflow" };
        let all = move || run(tool, &[]).map(drop);
        let wrong = move || match run(tool, &["--ignored", "--exact", WRONG]) {
            Ok(output) => Err(format!("it is not found:\n{output}").into()),
            Err(output) if output.message().is_some_and(|text| text.contains(finds)) => Ok(()),
            Err(output) => Err(output),
        };
        trials.push(trial(format!("{tool}: all of these"), lack.as_ref(), all));
        trials.push(trial(format!("{tool}: {WRONG} is found"), lack.as_ref(), wrong));
    }
    trials
}

/// A trial that is ignored if something is missing.
pub(crate) fn trial(
    name: String,
    lack: Option<&String>,
    run: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let name = lack.map_or_else(|| name.clone(), |why| format!("{name} [skipped, because {why}]"));
    Trial::test(name, run).with_ignored_flag(lack.is_some())
}

fn compiler() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
}

/// The sanitizer's library, which a program that was built without it loads first.
fn libasan() -> Option<String> {
    let output = compiler().arg("-print-file-name=libasan.so").output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    // A compiler that has none prints the bare name.
    path.contains('/').then_some(path)
}

fn no_sanitizer() -> Option<String> {
    libasan().is_none().then(|| "the compiler has no libasan.so".to_owned())
}

fn no_valgrind() -> Option<String> {
    let works =
        Command::new("valgrind").arg("--version").output().is_ok_and(|it| it.status.success());
    (!works).then(|| "valgrind is not installed".to_owned())
}

/// Runs this program under a tool; its output, or as an error if it fails.
fn run(tool: &str, arguments: &[&str]) -> Result<String, Failed> {
    let this = std::env::current_exe()?;
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT]).env(UNDER, tool);
    if tool == "valgrind" {
        command.args(VALGRIND);
    } else {
        command.arg("env").arg(format!("LD_PRELOAD={}", libasan().unwrap_or_default()));
        command.env(CFLAGS, SANITIZE).env("ASAN_OPTIONS", "detect_leaks=1");
        command.env("UBSAN_OPTIONS", "print_stacktrace=1");
    }
    let output = command.arg(this).arg("--nocapture").args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(text.into_owned()),
        false => Err(format!("{command:?}: {}\n{text}", output.status).into()),
    }
}

/// It reads past the 16 bytes of its state.
fn wrong() {
    let library = Library::of_text(
        r#"
#include <support.h>
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    volatile const char *state = vdp->v_device;
    (void)arg;
    return ctrl == VDEV_CTRL_OPTIONS_END ? state[16] : EOK;
}
VDEV(.control = control, .extra_space = 16)
"#,
        800,
        "wrong",
    );
    drop(Guests::new().create(&library, "vdev wrong"));
    std::thread::sleep(Duration::from_millis(1));
}
