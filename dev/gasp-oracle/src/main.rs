//! The checks as a program that runs inside a guest.

use std::process::ExitCode;
use std::time::Duration;

use gasp_oracle::{Failure, addresses, report_line, stress};

const USAGE: &str = "usage: oracle addresses | oracle stress [--pressure]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match report(&words) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("oracle: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(words: &[&str]) -> Result<String, Failure> {
    let pressure = match words {
        ["addresses"] => return report_line(&addresses::check()?),
        ["stress"] => false,
        ["stress", "--pressure"] => true,
        _ => return Err(USAGE.into()),
    };
    let report = stress::run(&stress::Options { time: Duration::from_secs(25), pressure })?;
    eprintln!("{report}");
    report_line(&report)
}
