//! `--device`: a device as one argument, with the keys of the file.

use std::collections::BTreeSet;
use std::path::Path;

use gasp::ffi::hint;

use super::plan::Plan;
use super::requested::{Requested, Wrong};
use crate::failure::Failure;

/// All keys.
const KEYS: [&str; 15] = [
    "backing",
    "block-size",
    "queues",
    "serial",
    "vdev",
    "path",
    "loc",
    "option",
    "mode",
    "name",
    "unsealed",
    "max-memory",
    "max-dma-maps",
    "max-descriptors",
    "max-drains",
];

/// Parses an argument such as `nvme,backing=null:64M`.
pub(super) fn parse(spec: &str, socket: &Path) -> Result<Plan, Failure> {
    let fail =
        |Wrong { key, message }: Wrong| Failure::Usage(format!("--device: {key}: {message}"));
    let mut words = spec.split(',');
    let kind = words.next().unwrap_or_default().to_owned();
    let Some(socket) = socket.to_str() else {
        return Err(Failure::Usage("--socket: the path is not UTF-8".into()));
    };
    let mut requested = Requested { kind, socket: socket.into(), ..Requested::default() };
    let mut given = BTreeSet::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(Failure::Usage(format!("--device: expected KEY=VALUE, not {word:?}")));
        };
        // A vdev has as many options as it likes.
        if !given.insert(key) && key != "option" {
            return Err(Failure::Usage(format!("--device: {key}: the key is given twice")));
        }
        set(&mut requested, key, value)
            .map_err(|message| Failure::Usage(format!("--device: {key}: {message}")))?;
    }
    Plan::of(&requested, 0, Path::new("")).map_err(fail)
}

fn set(requested: &mut Requested, key: &str, value: &str) -> Result<(), String> {
    let number = || value.parse().map_err(|_| format!("expected a number, not {value:?}"));
    match key {
        "name" => requested.name = Some(value.into()),
        "backing" => requested.backing = Some(value.into()),
        "block-size" => requested.block_size = Some(number()?),
        "queues" => requested.queues = Some(number()?),
        "serial" => requested.serial = Some(value.into()),
        "vdev" => requested.vdev = Some(value.into()),
        "path" => requested.path = Some(value.into()),
        "loc" => requested.loc = Some(value.into()),
        "option" => requested.options.get_or_insert_default().push(value.into()),
        "unsealed" => requested.unsealed = Some(value.into()),
        "max-memory" => requested.max_memory = Some(value.into()),
        "max-dma-maps" => requested.max_dma_maps = Some(number()?),
        "max-descriptors" => requested.max_descriptors = Some(number()?),
        "max-drains" => requested.max_drains = Some(number()?),
        "mode" => {
            let digits = value.trim_start_matches("0o");
            let mode = u64::from_str_radix(digits, 8);
            requested.mode =
                Some(mode.map_err(|_| format!("expected octal digits, not {value:?}"))?);
        }
        _ => {
            return Err(format!("unknown key{}", hint(key, &KEYS)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::plan::{Backing, Disk, Kind};

    #[test]
    fn a_device_is_parsed_from_one_argument() {
        let spec = "nvme,backing=mem:1M,block-size=4096,queues=3,mode=660,name=disk";
        let plan = parse(spec, Path::new("a.sock")).unwrap();
        let nvme = Disk {
            backing: Backing::Memory(1 << 20),
            block_size: Some(4096),
            queues: Some(3),
            serial: None,
        };
        assert_eq!((plan.kind, plan.mode, plan.name.as_str()), (Kind::Nvme(nvme), 0o660, "disk"));
        assert_eq!(parse("dma", Path::new("a.sock")).unwrap().kind, Kind::Dma);
        assert_eq!(parse("virtio-rng", Path::new("a.sock")).unwrap().kind, Kind::VirtioRng);
        let plan = parse("virtio-blk,backing=mem:1M,serial=7", Path::new("a.sock")).unwrap();
        let (backing, serial) = (Backing::Memory(1 << 20), Some("7".into()));
        let disk = Disk { backing, block_size: None, queues: None, serial };
        assert_eq!((plan.kind, plan.name.as_str()), (Kind::VirtioBlk(disk), "virtio-blk0"));
    }

    #[test]
    fn a_vdev_has_as_many_options_as_it_likes() {
        let plan = |spec| parse(spec, Path::new("a.sock")).unwrap();
        let one = plan("vdev,name=trace,option=period=50,option=quiet,loc=0xfa000000");
        assert_eq!((one.name.as_str(), one.kind.name()), ("trace", "vdev"));
        assert_ne!(one, plan("vdev,name=trace,option=period=50,loc=0xfa000000"));
        assert_eq!(one, plan("vdev,option=period=50,loc=0xfa000000,option=quiet,name=trace"));
    }

    #[test]
    fn every_listed_key_is_known() {
        for key in KEYS {
            let known = set(&mut Requested::default(), key, "1");
            assert_eq!(known, Ok(()), "{key}");
        }
    }

    #[test]
    fn a_meaningless_word_is_named() {
        for (spec, named) in [
            ("", "kind"),
            ("nvme", "backing"),
            ("dma,", "KEY=VALUE"),
            ("dma,colour=red", "colour: unknown key; there are `backing`"),
            ("nvme,queue=2", "queue: unknown key; did you mean `queues`?"),
            ("dma,mode=9", "octal"),
            ("virtio-blk", "the kind virtio-blk requires it"),
            ("virtio-blk,backing=null:1M,queues=2", "queues: the kind virtio-blk has no such key"),
            ("virtio-rng,backing=null:1M", "backing: the kind virtio-rng has no such key"),
            ("virtio,backing=null:1M", "expected nvme, virtio-blk, virtio-rng, vdev or dma"),
            ("vdev", "vdev: the kind vdev requires it"),
            ("vdev,name=trace,backing=null:1M", "backing: the kind vdev has no such key"),
            ("vdev,name=trace,option=ram", "options: \"ram\": "),
            ("vdev,name=trace,loc=0x1,loc=0x2", "loc: the key is given twice"),
            ("dma,option=quiet", "options: the kind dma has no such key"),
            ("nvme,backing=null:1M,queues=many", "queues: expected a number"),
        ] {
            let Err(Failure::Usage(message)) = parse(spec, Path::new("a")) else {
                panic!("{spec}")
            };
            assert!(message.contains(named), "{spec}: {message}");
        }
    }
}
