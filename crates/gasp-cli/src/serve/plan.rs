//! Devices to be served, after all checks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::limits::Limits;
use super::requested::{Requested, Wrong, wrong};
use super::vdev::{self, Vdev};
use crate::quantity::parse_length;

/// The default mode of a socket: for its owner only.
const MODE: u32 = 0o600;

/// A device on a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// The name in reports.
    pub(super) name: String,
    /// Whether the name was given; otherwise it is the kind and a number.
    pub(super) is_named: bool,
    pub(super) kind: Kind,
    pub(super) socket: PathBuf,
    /// The mode of the socket, which decides who may connect.
    pub(super) mode: u32,
    /// The limits on its VMM.
    pub(super) limits: Limits,
}

/// A kind of device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Dma,
    Nvme(Disk),
    VirtioBlk(Disk),
    VirtioRng,
    Vdev(Vdev),
}

impl Kind {
    /// The name in configurations.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Dma => "dma",
            Self::Nvme(_) => "nvme",
            Self::VirtioBlk(_) => "virtio-blk",
            Self::VirtioRng => "virtio-rng",
            Self::Vdev(_) => "vdev",
        }
    }
}

/// The options of a disk; `None` is its own default.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Disk {
    pub(super) backing: Backing,
    /// The size of a block, in bytes.
    pub(super) block_size: Option<u32>,
    /// The number of I/O queue pairs, of an NVMe controller.
    pub(super) queues: Option<u16>,
    pub(super) serial: Option<String>,
}

/// Where a disk's data is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Backing {
    /// Nowhere: writes are dropped, and reads return zeros. With its size in bytes.
    Null(u64),
    /// In memory, until the process ends. With its size in bytes.
    Memory(u64),
    /// In a file or a block device.
    File(PathBuf),
}

impl Plan {
    /// Checks a requested device. `index` is its position among the devices; paths are relative to `folder`.
    pub(super) fn of(requested: &Requested, index: usize, folder: &Path) -> Result<Self, Wrong> {
        let kind = match requested.kind.as_str() {
            "dma" => plain(requested, Kind::Dma)?,
            "nvme" => Kind::Nvme(disk(requested, folder)?),
            "virtio-blk" if requested.queues.is_some() => {
                return wrong("queues", "the kind virtio-blk has no such key");
            }
            "virtio-blk" => Kind::VirtioBlk(disk(requested, folder)?),
            "virtio-rng" => plain(requested, Kind::VirtioRng)?,
            "vdev" => plain(requested, Kind::Vdev(vdev::of(requested, folder)?))?,
            other => {
                let kinds = "nvme, virtio-blk, virtio-rng, vdev or dma";
                return wrong("kind", format!("expected {kinds}, not {other:?}"));
            }
        };
        if !matches!(kind, Kind::Vdev(_)) {
            vdev::refuse_keys(requested, kind.name())?;
        }
        let name = requested.label(index);
        // It becomes the name of a thread, and part of lines of output.
        if name.is_empty() || name.len() > 64 || name.contains(char::is_control) {
            return wrong("name", "expected 1 to 64 bytes without control characters");
        }
        if requested.socket.is_empty() || requested.socket.contains('\0') {
            return wrong("socket", "expected the path of the socket to create");
        }
        let mode = requested.mode.unwrap_or(u64::from(MODE));
        let Some(mode) = u32::try_from(mode).ok().filter(|mode| *mode <= 0o777) else {
            return wrong("mode", "expected the permissions of a file, such as 0o660");
        };
        if mode & 0o222 == 0 {
            return wrong(
                "mode",
                "nobody could connect without write permission; use for example 0o660",
            );
        }
        Ok(Self {
            name,
            is_named: requested.name.is_some(),
            kind,
            socket: folder.join(&requested.socket),
            mode,
            limits: Limits::of(requested)?,
        })
    }

    /// The file with its data.
    pub(super) fn image(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Nvme(disk) | Kind::VirtioBlk(disk) => match &disk.backing {
                Backing::File(path) => Some(path),
                Backing::Null(_) | Backing::Memory(_) => None,
            },
            Kind::Dma | Kind::VirtioRng | Kind::Vdev(_) => None,
        }
    }

    fn serial(&self) -> Option<&str> {
        match &self.kind {
            // Without trailing spaces, because a guest sees it padded with spaces.
            Kind::Nvme(disk) | Kind::VirtioBlk(disk) => disk.serial.as_deref().map(str::trim_end),
            Kind::Dma | Kind::VirtioRng | Kind::Vdev(_) => None,
        }
    }
}

/// A kind without options of its own.
fn plain(requested: &Requested, kind: Kind) -> Result<Kind, Wrong> {
    let Requested { backing, block_size, queues, serial, .. } = requested;
    let surplus = [
        ("backing", backing.is_some()),
        ("block-size", block_size.is_some()),
        ("queues", queues.is_some()),
        ("serial", serial.is_some()),
    ];
    match surplus.iter().find(|(_, there)| *there) {
        Some((key, _)) => wrong(key, format!("the kind {} has no such key", kind.name())),
        None => Ok(kind),
    }
}

fn disk(requested: &Requested, folder: &Path) -> Result<Disk, Wrong> {
    let Some(backing) = &requested.backing else {
        let message =
            format!("the kind {} requires it: null:64M, mem:64M or file:PATH", requested.kind);
        return wrong("backing", message);
    };
    let block_size = match requested.block_size {
        None => None,
        Some(512) => Some(512),
        Some(4096) => Some(4096),
        Some(other) => return wrong("block-size", format!("expected 512 or 4096, not {other}")),
    };
    let queues = match requested.queues.map(|queues| (queues, u16::try_from(queues))) {
        None => None,
        Some((_, Ok(queues @ 1..=128))) => Some(queues),
        Some((other, _)) => return wrong("queues", format!("expected 1 to 128, not {other}")),
    };
    let serial = requested.serial.clone();
    let printable = |text: &String| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let fits = |text: &String| (1..=20).contains(&text.len()) && printable(text);
    if serial.as_ref().is_some_and(|text| !fits(text) || text.trim().is_empty()) {
        return wrong("serial", "expected 1 to 20 printable ASCII characters, not only spaces");
    }
    Ok(Disk { backing: backing_of(backing, folder)?, block_size, queues, serial })
}

fn backing_of(text: &str, folder: &Path) -> Result<Backing, Wrong> {
    let size = |text: &str| match parse_length(text) {
        Ok(0) => wrong("backing", "expected more than 0 bytes"),
        Ok(size) => Ok(size),
        Err(message) => wrong("backing", message),
    };
    match text.split_once(':') {
        Some(("null", text)) => size(text).map(Backing::Null),
        Some(("mem", text)) => size(text).map(Backing::Memory),
        Some(("file", path)) if !path.is_empty() && !path.contains('\0') => {
            Ok(Backing::File(folder.join(path)))
        }
        _ => wrong("backing", format!("expected null:SIZE, mem:SIZE or file:PATH, not {text:?}")),
    }
}

/// Checks that no two plans have the same name, socket, image or serial. The error has the index
/// of the second one, and the reason.
pub(super) fn check_apart(plans: &[Plan]) -> Result<(), (usize, Wrong)> {
    for (index, plan) in plans.iter().enumerate() {
        let before = plans.get(..index).unwrap_or_default();
        let fail = |key, message: String| Err((index, Wrong { key, message }));
        if before.iter().any(|other| other.name == plan.name) {
            return fail("name", "another device has this name, too; give each its own".into());
        }
        let with = |same: &dyn Fn(&Plan) -> bool| {
            before.iter().find(|other| same(other)).map(|other| other.name.as_str())
        };
        if let Some(name) = with(&|other| canonical(&other.socket) == canonical(&plan.socket)) {
            return fail("socket", format!("device {name:?} is on it, too; give each its own"));
        }
        let image = plan.image().map(canonical);
        if let Some(name) = with(&|other| image.is_some() && other.image().map(canonical) == image)
        {
            let message = format!("it is the image of device {name:?}, too; give each its own");
            return fail("backing", message);
        }
        if let Some(name) =
            with(&|other| plan.serial().is_some() && other.serial() == plan.serial())
        {
            let message = format!(
                "it is the serial of device {name:?}, too, and a guest would take both for one \
                 disk; give each its own, or none"
            );
            return fail("serial", message);
        }
    }
    Ok(())
}

/// A canonical path, as far as the file or its directory exists, so that two names of one file
/// are equal.
fn canonical(path: &Path) -> PathBuf {
    if let Ok(whole) = path.canonicalize() {
        return whole;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize();
    match (folder, path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// Names the plans without a name: as the device that is on their socket now, or else by a free
/// name. So a device does not change because others come or go.
pub(super) fn keep_names(plans: &mut [Plan], now: &[&Plan]) {
    let kept: Vec<Option<String>> = plans
        .iter()
        .map(|plan| {
            let there = now.iter().find(|there| there.socket == plan.socket)?;
            let is_same = !there.is_named && there.kind.name() == plan.kind.name();
            let is_free = !plans.iter().any(|other| other.is_named && other.name == there.name);
            (!plan.is_named && is_same && is_free).then(|| there.name.clone())
        })
        .collect();
    let mut taken: BTreeSet<String> =
        plans.iter().filter(|plan| plan.is_named).map(|plan| plan.name.clone()).collect();
    // Also those of devices that are removed, because reports are distinguished by names.
    taken.extend(now.iter().map(|there| there.name.clone()));
    for (index, (plan, kept)) in plans.iter_mut().zip(kept).enumerate() {
        if let Some(name) = kept {
            plan.name = name;
        } else if !plan.is_named {
            let kind = plan.kind.name();
            let mut names = (index..).map(|number| format!("{kind}{number}"));
            plan.name = names.find(|name| !taken.contains(name)).unwrap_or_default();
            taken.insert(plan.name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(kind: &str, backing: Option<&str>) -> Requested {
        Requested {
            kind: kind.into(),
            socket: "a.sock".into(),
            backing: backing.map(Into::into),
            ..Requested::default()
        }
    }

    #[test]
    fn paths_are_relative_to_the_folder_unless_they_are_absolute() {
        let folder = Path::new("/etc/gasp");
        let plan = Plan::of(&requested("nvme", Some("file:disk.img")), 3, folder).unwrap();
        assert_eq!(plan.socket, Path::new("/etc/gasp/a.sock"));
        assert_eq!((plan.name.as_str(), plan.mode), ("nvme3", 0o600));
        let Kind::Nvme(nvme) = plan.kind else { panic!() };
        assert_eq!(nvme.backing, Backing::File("/etc/gasp/disk.img".into()));
        let plan = Plan::of(&requested("nvme", Some("file:/dev/sda")), 0, folder).unwrap();
        assert!(
            matches!(plan.kind, Kind::Nvme(nvme) if nvme.backing == Backing::File("/dev/sda".into()))
        );
    }

    #[test]
    fn impossible_values_are_refused_with_their_key() {
        let plan = |requested: Requested| {
            Plan::of(&requested, 0, Path::new("")).map_err(|wrong| wrong.key)
        };
        for backing in ["", "null", "null:0", "mem:x", "file:", "disk:1M"] {
            assert_eq!(plan(requested("nvme", Some(backing))), Err("backing"), "{backing}");
        }
        let good = requested("nvme", Some("null:1M"));
        assert!(plan(good.clone()).is_ok());
        assert_eq!(plan(requested("nvme", None)), Err("backing"));
        assert_eq!(plan(requested("dma", Some("null:1M"))), Err("backing"));
        assert_eq!(plan(requested("edu", None)), Err("kind"));
        assert_eq!(plan(Requested { queues: Some(0), ..good.clone() }), Err("queues"));
        assert_eq!(plan(Requested { serial: Some("é".into()), ..good.clone() }), Err("serial"));
        assert_eq!(plan(Requested { block_size: Some(1000), ..good.clone() }), Err("block-size"));
        assert_eq!(plan(Requested { mode: Some(0o1777), ..good.clone() }), Err("mode"));
        assert_eq!(plan(Requested { name: Some("a\nb".into()), ..good.clone() }), Err("name"));
        assert_eq!(plan(Requested { socket: String::new(), ..good }), Err("socket"));
    }

    #[test]
    fn devices_without_a_name_keep_theirs_while_others_come_and_go() {
        let plan = |socket: &str, name: Option<&str>, index| {
            let (socket, name) = (socket.into(), name.map(Into::into));
            let requested = Requested { kind: "dma".into(), socket, name, ..Requested::default() };
            Plan::of(&requested, index, Path::new("")).unwrap()
        };
        let names = |mut plans: Vec<Plan>, now: &[Plan]| {
            keep_names(&mut plans, &now.iter().collect::<Vec<_>>());
            plans.into_iter().map(|plan| plan.name).collect::<Vec<_>>()
        };
        let now = [plan("a", None, 0), plan("b", None, 1), plan("c", Some("x"), 2)];
        assert_eq!(names(now.to_vec(), &[]), ["dma0", "dma1", "x"]);
        let plans = vec![plan("new", None, 0), plan("b", None, 1), plan("a", None, 2)];
        assert_eq!(names(plans, &now), ["dma2", "dma1", "dma0"]);
        let plans = vec![plan("new", Some("dma1"), 0), plan("b", None, 1), plan("c", None, 2)];
        assert_eq!(names(plans, &now), ["dma1", "dma2", "dma3"]);
    }

    #[test]
    fn values_that_two_devices_cannot_share_are_refused_with_the_other_device() {
        let file = |name: &str, serial: Option<&str>| {
            let requested = Requested {
                name: Some(name.into()),
                socket: format!("{name}.sock"),
                serial: serial.map(Into::into),
                ..requested("nvme", Some(&format!("file:{name}.img")))
            };
            Plan::of(&requested, 0, Path::new("")).unwrap()
        };
        let fails = |second: Plan| {
            let (index, Wrong { key, message }) =
                check_apart(&[file("a", Some("one")), second]).unwrap_err();
            assert_eq!(index, 1);
            (key, message.contains("device \"a\""))
        };
        assert!(check_apart(&[file("a", None), file("b", None)]).is_ok());
        assert_eq!(fails(Plan { name: "a".into(), ..file("b", None) }), ("name", false));
        assert_eq!(fails(Plan { socket: "a.sock".into(), ..file("b", None) }), ("socket", true));
        for other in ["./a.sock", "../gasp-cli/a.sock", "src/../a.sock"] {
            let same = Plan { socket: other.into(), ..file("b", None) };
            assert_eq!(fails(same), ("socket", true), "{other}");
        }
        assert_eq!(
            fails(Plan { kind: file("a", None).kind, ..file("b", None) }),
            ("backing", true)
        );
        assert_eq!(fails(file("b", Some("one"))), ("serial", true));
        assert_eq!(fails(file("b", Some("one  "))), ("serial", true), "padding is not seen");
    }
}
