//! Texts in the qvm language that nobody has checked, for the fuzzer and the tests.

use std::path::Path;

use gasp::config::Config;

/// Reads a text as a file, and its lines as the arguments of a command line. Whatever it is, it is
/// described, or refused with a line that it has.
pub(crate) fn read(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let described = Config::parse(&text, Path::new("any.qvmconf"));
    check(described, text.split('\n').count());
    let arguments: Vec<&str> = text.split('\n').collect();
    let count = arguments.len();
    check(Config::from_arguments(arguments), count);
}

fn check(described: Result<Config, gasp::config::ConfigError>, lines: usize) {
    match described {
        Ok(config) => {
            let machine = config.machine();
            assert!((1..=255).contains(&machine.cpus) && !config.name().is_empty());
            for device in &machine.devices {
                assert!(config.vdevs().any(|name| name == device.name));
                let options = device.options(&["hostdev", "0readonly"]);
                assert!(options.is_err() || device.words.len() <= 2 * options.unwrap().len());
            }
        }
        Err(error) => {
            // A text that is too large has no line.
            let known = error.line().is_none_or(|line| (1..=lines).contains(&line));
            let included = error.path() != Path::new("any.qvmconf")
                && error.path() != Path::new("command line");
            assert!(known || included, "{error}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }
}
