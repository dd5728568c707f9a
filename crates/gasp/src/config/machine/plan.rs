//! Checks the machine of a configuration.

use std::collections::HashMap;

use toml::Spanned;

use super::device::{DeviceConfig, Word};
use super::interrupt::Interrupt;
use super::location::Location;
use super::machine_config::{ImageConfig, MachineConfig};
use super::settings::{LogConfig, Unsupported};
use crate::addr::GuestPhys;
use crate::config::check::Check;
use crate::config::error::ConfigError;
use crate::config::file::{LogTable, MachineTable, VdevTable};
use crate::config::size::Bytes;
use crate::config::source::Mark;
use crate::error::Errno;

/// Maximum number of processors: as many as have an 8-bit APIC identifier.
const CPUS_MAX: u64 = 255;

/// Checks the table of the machine, and its devices, whose names were checked to be unique.
pub(in crate::config) fn plan_machine(
    check: &Check<'_>,
    table: &MachineTable,
    vdevs: &[Spanned<VdevTable>],
) -> Result<MachineConfig, ConfigError> {
    let cpus = match &table.cpus {
        None => 1,
        Some(cpus) => match u32::try_from(cpus.get_ref().0) {
            Ok(count) if (1..=CPUS_MAX).contains(&cpus.get_ref().0) => count,
            _ => {
                let message = format!("expected 1 to {CPUS_MAX} processors");
                return Err(check.source.wrong(Mark::of(cpus, "machine.cpus"), &message));
            }
        },
    };
    let devices = Devices::new(check, vdevs);
    let usual = Unsupported::default();
    let unsupported = &table.unsupported;
    Ok(MachineConfig {
        cpus,
        kernel: image(
            check,
            table.kernel.as_ref(),
            table.kernel_address.as_ref(),
            ["machine.kernel", "machine.kernel-address"],
        )?,
        initrd: image(
            check,
            table.initrd.as_ref(),
            table.initrd_address.as_ref(),
            ["machine.initrd", "machine.initrd-address"],
        )?,
        cmdline: table.cmdline.as_ref().map(|text| text.get_ref().clone()),
        devices: devices.plan()?,
        exit_on_halt: table.exit_on_halt.unwrap_or(true),
        unsupported: Unsupported {
            instruction: unsupported.instruction.map_or(usual.instruction, |word| word.0),
            reference: unsupported.reference.map_or(usual.reference, |word| word.0),
            register: unsupported.register.map_or(usual.register, |word| word.0),
        },
        logs: logs(check, &table.log, "machine.log")?,
        dry_run: table.dry_run,
    })
}

fn image(
    check: &Check<'_>,
    file: Option<&Spanned<String>>,
    address: Option<&Spanned<Bytes>>,
    [file_key, address_key]: [&'static str; 2],
) -> Result<Option<ImageConfig>, ConfigError> {
    let Some(file) = file else {
        return match address {
            None => Ok(None),
            Some(address) => {
                let message = "this is the address of a file, and there is none";
                Err(check.source.wrong(Mark::of(address, address_key), message))
            }
        };
    };
    let at = Mark::of(file, file_key);
    if file.get_ref().is_empty() {
        return Err(check.source.wrong(at, "expected the path of a file"));
    }
    let address = match address {
        None => None,
        Some(address) => {
            let address_at = Mark::of(address, address_key);
            let start = address.get_ref().0;
            Some(check.span::<GuestPhys>((start, address_at), (1, at))?.start())
        }
    };
    let path = check.source.resolve(at, file.get_ref());
    Ok(Some(ImageConfig { path, address, place: check.source.place(at) }))
}

fn logs(
    check: &Check<'_>,
    tables: &[Spanned<LogTable>],
    key: &'static str,
) -> Result<Vec<LogConfig>, ConfigError> {
    let log = |table: &Spanned<LogTable>| {
        let LogTable { levels, to } = table.get_ref();
        match levels.is_empty() {
            true => Err(check.source.wrong(Mark::of(table, key), "expected at least one level")),
            false => Ok(LogConfig { levels: levels.iter().map(|word| word.0).collect(), to: to.0 }),
        }
    };
    tables.iter().map(log).collect()
}

/// The devices of a machine, and the places of their names.
struct Devices<'a> {
    check: &'a Check<'a>,
    tables: &'a [Spanned<VdevTable>],
    /// The names, with their numbers in the order of the text, and their marks.
    names: HashMap<&'a str, (usize, Mark)>,
}

impl<'a> Devices<'a> {
    fn new(check: &'a Check<'a>, tables: &'a [Spanned<VdevTable>]) -> Self {
        let name = |(number, table): (usize, &'a Spanned<VdevTable>)| {
            let name = &table.get_ref().name;
            (name.get_ref().as_str(), (number, Mark::of(name, "vdev.name")))
        };
        Self { check, tables, names: tables.iter().enumerate().map(name).collect() }
    }

    fn plan(&self) -> Result<Vec<DeviceConfig>, ConfigError> {
        let devices = self
            .tables
            .iter()
            .enumerate()
            .map(|(number, table)| self.device(number, table.get_ref()));
        devices.filter_map(Result::transpose).collect()
    }

    /// The device of a table; `None` if it is only a name for maps.
    fn device(&self, number: usize, vdev: &VdevTable) -> Result<Option<DeviceConfig>, ConfigError> {
        let source = self.check.source;
        let Some(kind) = &vdev.r#type else {
            let settings = [
                (vdev.loc.first(), "vdev.loc"),
                (vdev.intr.as_ref(), "vdev.intr"),
                (vdev.options.first(), "vdev.options"),
            ];
            let setting = settings.into_iter().find_map(|(value, key)| Some((value?, key)));
            let setting = setting.map(|(value, key)| Mark::of(value, key));
            let log = vdev.log.first().map(|log| Mark::of(log, "vdev.log"));
            return match setting.or(log) {
                None => Ok(None),
                Some(at) => Err(source.wrong(at, "a device without a `type` cannot have this")),
            };
        };
        let location = |text: &Spanned<String>| {
            let wrong = |message: String| source.wrong(Mark::of(text, "vdev.loc"), &message);
            Location::parse(text.get_ref()).map_err(wrong)
        };
        Ok(Some(DeviceConfig {
            name: vdev.name.get_ref().clone(),
            kind: self.check.name(kind, "vdev.type")?,
            locations: vdev.loc.iter().map(location).collect::<Result<_, _>>()?,
            interrupt: match &vdev.intr {
                None => None,
                Some(text) => Some(self.interrupt(number, text)?),
            },
            logs: logs(self.check, &vdev.log, "vdev.log")?,
            words: self.words(vdev),
            place: source.place(Mark::of(kind, "vdev.type")),
        }))
    }

    /// An interrupt whose controller, if it is a device, is before this one.
    fn interrupt(&self, number: usize, text: &Spanned<String>) -> Result<Interrupt, ConfigError> {
        let source = self.check.source;
        let at = Mark::of(text, "vdev.intr");
        let interrupt =
            Interrupt::parse(text.get_ref()).map_err(|message| source.wrong(at, &message))?;
        let name = &interrupt.controller;
        match self.names.get(name.as_str()) {
            Some((other, controller)) if *other >= number => {
                let line = source.line(*controller, at);
                let message = format!(
                    "the controller `{name}` is defined on {line}; move it before the devices that \
                     use it"
                );
                Err(source.wrong(at, &message).with_errno(Errno::NOENT))
            }
            _ => Ok(interrupt),
        }
    }

    fn words(&self, vdev: &VdevTable) -> Vec<Word> {
        let place =
            |text: &Spanned<String>| self.check.source.place(Mark::of(text, "vdev.options"));
        let word = |text: &str, place, argument| Word { text: text.into(), place, argument };
        let split = |option: &Spanned<String>| {
            let text = option.get_ref().trim();
            let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            let argument = rest.trim_start();
            let argument = (!argument.is_empty()).then(|| word(argument, place(option), true));
            [Some(word(name, place(option), false)), argument].into_iter().flatten()
        };
        let words =
            vdev.words.iter().map(|(text, quoted)| word(text.get_ref(), place(text), *quoted));
        words.chain(vdev.options.iter().flat_map(split)).collect()
    }
}
