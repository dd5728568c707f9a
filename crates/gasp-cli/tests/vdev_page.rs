//! The commands of `docs/vdevs.md`, run as they are written, with the output that it shows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PAGE: &str = include_str!("../../../docs/vdevs.md");

/// A block of commands, and the output that the page shows after it.
struct Block {
    commands: &'static str,
    output: Option<&'static str>,
}

fn main() {
    let blocks = blocks();
    let mut trials: Vec<Trial> = Vec::new();
    for (number, block) in blocks.into_iter().enumerate() {
        let first = block.commands.lines().next().unwrap_or_default();
        let tool = ["gdb", "valgrind"].into_iter().find(|tool| first.starts_with(tool));
        let lack = tool.filter(|tool| !is_there(tool)).map(|tool| format!("there is no {tool}"));
        let lack = lack.or_else(|| {
            let asan = block.commands.contains("libasan") && !has_sanitizer();
            asan.then(|| "the compiler has no libasan.so".into())
        });
        let words: String = first.chars().take(50).collect();
        let name = match &lack {
            Some(why) => format!("block {number}: {words} [skipped, because {why}]"),
            None => format!("block {number}: {words}"),
        };
        trials.push(Trial::test(name, move || run(&block)).with_ignored_flag(lack.is_some()));
    }
    trials.push(Trial::test("the line for a build script is that of gasp", build_script));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// The blocks of shell commands; the first one compiles what the others use, and is a part of each.
fn blocks() -> Vec<Block> {
    let parts: Vec<&str> = PAGE.split("```").collect();
    // Code is between the fences: each second part.
    let code = |at: usize| parts.get(at).copied().unwrap_or_default();
    let is_code = |at: &usize| at % 2 == 1;
    let shell = (0..parts.len()).filter(is_code).filter_map(|at| {
        let commands = code(at).strip_prefix("sh\n")?;
        // Nothing but an empty line in between.
        let output = code(at + 2).strip_prefix("text\n").filter(|_| code(at + 1).trim().is_empty());
        Some(Block { commands, output })
    });
    let blocks: Vec<Block> = shell.collect();
    assert!(blocks.len() >= 5, "the page has only {} blocks", blocks.len());
    blocks
}

fn is_there(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|it| it.status.success())
}

fn has_sanitizer() -> bool {
    let output = Command::new("cc").arg("-print-file-name=libasan.so").output();
    output.is_ok_and(|it| String::from_utf8_lossy(&it.stdout).contains('/'))
}

/// Runs a block in a folder that looks like the tree, after the first block.
fn run(block: &Block) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    for name in ["crates", "examples"] {
        std::os::unix::fs::symlink(Path::new(ROOT).join(name), folder.path().join(name))?;
    }
    let package = format!(
        "Name: gasp\nDescription: as installed\nVersion: 0\nCflags: -I{ROOT}/crates/gasp-capi/include\n"
    );
    std::fs::write(folder.path().join("gasp.pc"), package)?;
    let compile = blocks().first().map(|first| first.commands).unwrap_or_default();
    execute(folder.path(), compile)?;
    let output = execute(folder.path(), block.commands)?;
    match block.output {
        Some(expected) if expected != output => {
            Err(format!("expected\n{expected}\nand it is\n{output}").into())
        }
        _ if block.commands.contains("'break vread'")
            && !output.contains("in vread (")
            && !output.contains(" vread (") =>
        {
            Err(format!("it has not stopped in vread:\n{output}").into())
        }
        _ => Ok(()),
    }
}

/// Runs commands; what they write to stdout.
fn execute(folder: &Path, commands: &str) -> Result<String, Failed> {
    let gasp = Path::new(env!("CARGO_BIN_EXE_gasp")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-eu", "-o", "pipefail", "-c", commands])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", gasp.display()))
        .env("PKG_CONFIG_PATH", folder)
        .env_remove("COLUMNS")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("{commands}: {}\n{text}\n{errors}", output.status).into())
        }
    }
}

/// The build script that the page shows is that of the command.
fn build_script() -> Result<(), Failed> {
    let shown = PAGE.split("```rust\n").nth(1).and_then(|part| part.split("```").next());
    let own = include_str!("../build.rs");
    let lines = |text: &str| {
        let all = text.lines().filter(|line| !line.starts_with("//") && !line.contains("rerun-if"));
        all.map(str::to_owned).collect::<Vec<_>>()
    };
    match shown.map(lines) {
        Some(shown) if shown == lines(own) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
