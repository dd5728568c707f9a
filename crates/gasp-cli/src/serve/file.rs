//! The configuration file: a list of devices.

use std::path::Path;
use std::{fs, io};

use gasp::ffi::explained;
use serde::Deserialize;
use toml::Spanned;

use super::plan::{Plan, check_apart};
use super::requested::{Requested, Wrong};

/// The largest file that is read, in bytes.
const SIZE_MAX: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    device: Vec<Spanned<Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    kind: Spanned<String>,
    name: Option<Spanned<String>>,
    socket: Spanned<String>,
    backing: Option<Spanned<String>>,
    block_size: Option<Spanned<u64>>,
    queues: Option<Spanned<u64>>,
    serial: Option<Spanned<String>>,
    vdev: Option<Spanned<String>>,
    path: Option<Spanned<String>>,
    loc: Option<Spanned<String>>,
    options: Option<Spanned<Vec<String>>>,
    mode: Option<Spanned<u64>>,
    unsealed: Option<Spanned<String>>,
    max_memory: Option<Spanned<String>>,
    max_dma_maps: Option<Spanned<u64>>,
    max_descriptors: Option<Spanned<u64>>,
    max_drains: Option<Spanned<u64>>,
}

impl Table {
    fn requested(&self) -> Requested {
        let number = |value: &Option<Spanned<u64>>| value.as_ref().map(|value| *value.get_ref());
        let text =
            |value: &Option<Spanned<String>>| value.as_ref().map(|value| value.get_ref().clone());
        Requested {
            kind: self.kind.get_ref().clone(),
            name: text(&self.name),
            socket: self.socket.get_ref().clone(),
            backing: text(&self.backing),
            block_size: number(&self.block_size),
            queues: number(&self.queues),
            serial: text(&self.serial),
            vdev: text(&self.vdev),
            path: text(&self.path),
            loc: text(&self.loc),
            options: self.options.as_ref().map(|options| options.get_ref().clone()),
            mode: number(&self.mode),
            unsealed: text(&self.unsealed),
            max_memory: text(&self.max_memory),
            max_dma_maps: number(&self.max_dma_maps),
            max_descriptors: number(&self.max_descriptors),
            max_drains: number(&self.max_drains),
        }
    }

    /// The offset of a key's value, if the key is present.
    fn offset_of(&self, key: &str) -> Option<usize> {
        let of = |value: &Option<Spanned<u64>>| value.as_ref().map(|value| value.span().start);
        let text = |value: &Option<Spanned<String>>| value.as_ref().map(|value| value.span().start);
        match key {
            "kind" => Some(self.kind.span().start),
            "name" => text(&self.name),
            "socket" => Some(self.socket.span().start),
            "backing" => text(&self.backing),
            "block-size" => of(&self.block_size),
            "queues" => of(&self.queues),
            "serial" => text(&self.serial),
            "vdev" => text(&self.vdev),
            "path" => text(&self.path),
            "loc" => text(&self.loc),
            "options" => self.options.as_ref().map(|value| value.span().start),
            "mode" => of(&self.mode),
            "unsealed" => text(&self.unsealed),
            "max-memory" => text(&self.max_memory),
            "max-dma-maps" => of(&self.max_dma_maps),
            "max-descriptors" => of(&self.max_descriptors),
            "max-drains" => of(&self.max_drains),
            _ => None,
        }
    }
}

/// Reads a file. Paths in it are relative to its directory.
///
/// # Errors
/// A message that names the line, the device and the key.
pub(super) fn load(path: &Path) -> Result<Vec<Plan>, String> {
    let cannot = |error: io::Error| format!("{}: cannot read the file: {error}", path.display());
    let metadata = fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() || metadata.len() > SIZE_MAX {
        let message = "a configuration must be a regular file of at most 1 MiB";
        return Err(format!("{}: {message}", path.display()));
    }
    let text = String::from_utf8(fs::read(path).map_err(cannot)?).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        format!("{}:{}: the text is not UTF-8", path.display(), line_after(valid))
    })?;
    parse(&text, path)
}

/// The number of the line after these bytes.
fn line_after(before: &[u8]) -> usize {
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn parse(text: &str, path: &Path) -> Result<Vec<Plan>, String> {
    let fail = |at: usize, message: &str| {
        let before = text.as_bytes().get(..at).unwrap_or_default();
        format!("{}:{}: {message}", path.display(), line_after(before))
    };
    let document: Document = toml::from_str(text).map_err(|error| {
        let at = error.span().unwrap_or_default().start;
        if let Some(table) = table_of_a_guest(error.message()) {
            let message = format!(
                "unknown key `{table}`: this file describes a guest, and `gasp serve` needs \
                 devices: write [[device]]"
            );
            return fail(at, &message);
        }
        fail(at, &format!("{}{}", context(text, at), explained(error.message())))
    })?;
    if document.device.is_empty() {
        return Err(fail(0, "the file has no device: write [[device]]"));
    }
    let wrong = |index: usize, table: &Spanned<Table>, Wrong { key, message }: Wrong| {
        let at = table.get_ref().offset_of(key).unwrap_or(table.span().start);
        let label = table.get_ref().requested().label(index);
        fail(at, &format!("device {label:?}: {key}: {message}"))
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let tables = document.device.iter().enumerate();
    let plans = tables.map(|(index, table)| {
        Plan::of(&table.get_ref().requested(), index, folder)
            .map_err(|why| wrong(index, table, why))
    });
    let plans = plans.collect::<Result<Vec<_>, _>>()?;
    match check_apart(&plans) {
        Ok(()) => Ok(plans),
        Err((index, why)) => Err(match document.device.get(index) {
            Some(table) => wrong(index, table, why),
            None => fail(0, &why.message),
        }),
    }
}

/// The unknown key of an error, if it is a table from the description of a guest.
fn table_of_a_guest(message: &str) -> Option<&str> {
    let key = message.strip_prefix("unknown field `")?.strip_suffix("`, expected `device`")?;
    let tables =
        ["guest", "drain", "iommu", "ram", "rom", "reserve", "pass", "mmio", "domain", "vdev"];
    tables.contains(&key).then_some(key)
}

/// The device and the key at a place in the text, as far as they can be seen: the text could
/// not be parsed.
fn context(text: &str, at: usize) -> String {
    let until = text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |end| at + end);
    let mut lines = text.get(..until).unwrap_or_default().lines().map(str::trim);
    let number = lines.clone().filter(|line| line.starts_with("[[device]]")).count();
    let key = lines.next_back().and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
    match (number, key) {
        (0, _) => String::new(),
        (number, Some(key)) if !key.contains(|letter: char| letter.is_whitespace()) => {
            format!("[[device]] number {number}: {key}: ")
        }
        (number, _) => format!("[[device]] number {number}: "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
[[device]]
kind = \"nvme\"
socket = \"disk.sock\"
backing = \"null:64M\"
queues = 4
mode = 0o660

[[device]]
kind = \"dma\"
socket = \"dma.sock\"
";

    fn message(text: &str) -> String {
        parse(text, Path::new("a/b.toml")).unwrap_err()
    }

    #[test]
    fn devices_are_read_in_order() {
        let plans = parse(GOOD, Path::new("a/b.toml")).unwrap();
        let names: Vec<_> = plans.iter().map(|plan| plan.name.as_str()).collect();
        assert_eq!(names, ["nvme0", "dma1"]);
        assert_eq!(plans[0].mode, 0o660);
        assert_eq!(plans[1].socket, Path::new("a/dma.sock"));
    }

    #[test]
    fn the_examples_are_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/serve");
        assert_eq!(load(&folder.join("dma.toml")).unwrap().len(), 1);
        assert_eq!(load(&folder.join("nvme.toml")).unwrap().len(), 2);
    }

    #[test]
    fn errors_name_the_line() {
        for (from, to, expected) in [
            (
                "queues = 4",
                "queue = 4",
                "a/b.toml:5: [[device]] number 1: queue: unknown key `queue`; did you mean `queues`?",
            ),
            ("queues = 4", "colour = 4", "a/b.toml:5: [[device]] number 1: colour: unknown key"),
            (
                "queues = 4",
                "queues = 400",
                "a/b.toml:5: device \"nvme0\": queues: expected 1 to 128",
            ),
            (
                "queues = 4",
                "queues = \"4\"",
                "a/b.toml:5: [[device]] number 1: queues: expected a whole number from 0 on, not \"4\"",
            ),
            (
                "queues = 4",
                "queues = -1",
                "a/b.toml:5: [[device]] number 1: queues: expected a whole number from 0 on, not -1",
            ),
            (
                "backing = \"null:64M\"",
                "",
                "a/b.toml:1: device \"nvme0\": backing: the kind nvme requires it",
            ),
            (
                "kind = \"dma\"",
                "kind = \"edu\"",
                "a/b.toml:9: device \"edu1\": kind: expected nvme, virtio-blk, virtio-rng, vdev or dma",
            ),
            (
                "dma.sock",
                "disk.sock",
                "a/b.toml:10: device \"dma1\": socket: device \"nvme0\" is on it, too",
            ),
            (
                "socket = \"dma.sock\"",
                "",
                "a/b.toml:8: [[device]] number 2: the key `socket` is missing",
            ),
            (
                "queues = 4",
                "unsealed = \"seal\"",
                "a/b.toml:5: device \"nvme0\": unsealed: expected message, trust or refuse",
            ),
            (
                "queues = 4",
                "max-drains = 0",
                "a/b.toml:5: device \"nvme0\": max-drains: expected 1 to 65535, not 0",
            ),
            ("queues = 4", "queues = = 4", "a/b.toml:5: [[device]] number 1: queues: "),
        ] {
            assert!(GOOD.contains(from));
            let message = message(&GOOD.replace(from, to));
            assert!(message.starts_with(expected), "{message}");
        }
        assert!(message("").contains("[[device]]"));
        let guest = message("[[ram]]\nsize = 4096\n");
        assert!(
            guest.starts_with("a/b.toml:1: unknown key `ram`: this file describes a guest"),
            "{guest}"
        );
        assert!(message("[rma]\n").contains("unknown key `rma`"));
    }
}
