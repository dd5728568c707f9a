//! The tests and examples in C, built as C programmers build them.
//!
//! Every `tests/c/*.c`, every folder of `tests/c` with C files and every `examples/c/*.c` is a
//! program. It is built with `$CC` (default `cc`) as strict C11 and linked with the static library
//! that cargo has built next to this test; each of its tests is a trial. Further trials run all
//! tests of a program at once: linked with the shared library, with the sanitizers for addresses,
//! leaks and undefined behaviour, under valgrind, and without the privilege to read host-physical
//! addresses. Each header is compiled alone, as C99, C11 and C++17.
//!
//! A file whose name ends in `_710` is built for the 7.x edition.
//!
//! Trials that need what this machine does not have are ignored, with the reason in their names.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "c/harness/build.rs"]
mod build;
#[path = "c/harness/source.rs"]
mod source;

use std::process::{Command, ExitCode};
use std::sync::Arc;

use build::{Built, Language, Link, Toolchain, output_of, tool_lack};
use libtest_mimic::{Arguments, Failed, Trial};
use source::{Source, headers, sources};

/// The time limit for one run of a program, in seconds.
const LIMIT: &str = "300";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tools = Arc::new(Toolchain::find());
    let valgrind = tool_lack("valgrind");
    let unprivileged =
        output_of(Command::new(UNPRIVILEGED[0]).args(&UNPRIVILEGED[1..]).arg("true"))
            .err()
            .map(|_| "this process has no privilege to drop".to_owned());
    let sanitizers = tools.sanitizer_lack();
    let mut trials = Vec::new();
    for (source, built) in tools.build_all(sources()) {
        let built = match built {
            Ok(built) => Arc::new(built),
            Err(why) => {
                let name = format!("{}::builds", source.name);
                trials.push(trial(name, None, move || Err(why.into())));
                continue;
            }
        };
        let source = Arc::new(source);
        trials.extend(plain_trials(&source, &built));
        for (variant, link) in [("shared", Link::Shared), ("asan+ubsan", Link::Sanitized)] {
            let lack = sanitizers.as_ref().filter(|_| link == Link::Sanitized);
            let name = format!("{variant}: {}", source.name);
            let (tools, source) = (Arc::clone(&tools), Arc::clone(&source));
            let run = move || run_all(&source, &tools.build(&source, link)?, &[]);
            trials.push(trial(name, lack, run));
        }
        let tools =
            [("valgrind", VALGRIND, &valgrind), ("unprivileged", UNPRIVILEGED, &unprivileged)];
        for (variant, under, lack) in tools {
            let name = format!("{variant}: {}", source.name);
            let (source, built) = (Arc::clone(&source), Arc::clone(&built));
            trials.push(trial(name, lack.as_ref(), move || run_all(&source, &built, under)));
        }
    }
    trials.extend(static_trial(&tools));
    trials.extend(header_trials(&tools));
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    // `exit` would not remove the folder with the programs.
    drop(tools);
    code
}

const VALGRIND: &[&str] = &[
    "valgrind",
    "--quiet",
    "--error-exitcode=99",
    "--leak-check=full",
    "--fair-sched=yes",
    concat!("--suppressions=", env!("CARGO_MANIFEST_DIR"), "/tests/c/harness/valgrind.supp"),
];

/// Without the capability to read host-physical addresses.
const UNPRIVILEGED: &[&str] = &["setpriv", "--bounding-set=-sys_admin"];

fn trial(
    name: String,
    lack: Option<&String>,
    run: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let name = lack.map_or_else(|| name.clone(), |why| format!("{name} [skipped: {why}]"));
    Trial::test(name, run).with_ignored_flag(lack.is_some())
}

/// A trial for each test of a program; one for an example.
fn plain_trials(source: &Arc<Source>, built: &Arc<Built>) -> Vec<Trial> {
    if source.expected.is_some() {
        let (source, built) = (Arc::clone(source), Arc::clone(built));
        return vec![trial(source.name.clone(), None, move || run_all(&source, &built, &[]))];
    }
    let list = match output_of(Command::new(&built.program).arg("--list")) {
        Ok(list) => list,
        Err(why) => {
            let name = format!("{}::lists_its_tests", source.name);
            return vec![trial(name, None, move || Err(why.into()))];
        }
    };
    let one = |line: &str| {
        let (test, lack) = line.split_once('\t').unwrap_or((line, ""));
        let lack = Some(lack.to_owned()).filter(|lack| !lack.is_empty());
        let (test, built) = (test.to_owned(), Arc::clone(built));
        trial(format!("{}::{test}", source.name), lack.as_ref(), move || {
            let mut command = Command::new("timeout");
            output_of(command.arg(LIMIT).arg(&built.program).arg(test))?;
            Ok(())
        })
    };
    list.lines().map(one).collect()
}

/// Runs all tests of a program, directly or under a tool that makes it slow.
fn run_all(source: &Source, built: &Built, under: &[&str]) -> Result<(), Failed> {
    let mut command = Command::new("timeout");
    command.arg(LIMIT).args(under).arg(&built.program);
    command.env("ASAN_OPTIONS", "detect_leaks=1").env("UBSAN_OPTIONS", "print_stacktrace=1");
    if !under.is_empty() || built.link == Link::Sanitized {
        command.env("CHECK_SLOW", "1");
    }
    let output = output_of(&mut command)?;
    let mut lines = output.lines();
    for wanted in source.expected.iter().flat_map(|expected| expected.lines()) {
        if !lines.any(|line| line.contains(wanted)) {
            return Err(format!("`{wanted}` is missing, or out of order, in:\n{output}").into());
        }
    }
    Ok(())
}

/// A fully static program, as it runs without any shared library.
fn static_trial(tools: &Arc<Toolchain>) -> Option<Trial> {
    let source = sources().into_iter().find(|source| source.name == "examples/first_map")?;
    let (tools, lack) = (Arc::clone(tools), tools.static_lack());
    let run = move || run_all(&source, &tools.build(&source, Link::AllStatic)?, &[]);
    Some(trial("all static: examples/first_map".to_owned(), lack.as_ref(), run))
}

/// Each header alone, in each language and edition.
fn header_trials(tools: &Arc<Toolchain>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for header in headers() {
        for edition in ["800", "710"] {
            for language in [Language::C99, Language::C11, Language::Cxx17] {
                let lack = tools.cxx_lack.as_ref().filter(|_| language == Language::Cxx17);
                let name = format!("header alone: {header} as {language:?}, edition {edition}");
                let (tools, header) = (Arc::clone(tools), header.clone());
                let run = move || Ok(tools.check(&header, edition, language)?);
                trials.push(trial(name, lack, run));
            }
        }
    }
    trials
}
