//! What the argument parser makes of itself: shell completions and man pages.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::failure::Failure;

/// Writes the completions of one shell to stdout.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gasp", &mut text);
    write_out(&text)
}

/// Writes one man page for the command and one for each subcommand to a folder; or only
/// the first, to stdout.
pub(crate) fn man(folder: Option<&Path>) -> Result<(), Failure> {
    match folder {
        Some(folder) => {
            fs::create_dir_all(folder)?;
            clap_mangen::generate_to(Cli::command(), folder)?;
            Ok(())
        }
        None => {
            let mut text = Vec::new();
            Man::new(Cli::command()).render(&mut text)?;
            write_out(&text)
        }
    }
}

fn write_out(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    Ok(out.flush()?)
}
