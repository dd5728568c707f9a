//! A factory: what it says, and what is wrong with that.

use std::collections::BTreeSet;
use std::path::Path;

use gasp_qvm::Factory;
use gasp_qvm::abi::*;

use super::report::{self, Finding, Kind, VdevOption};

/// The flags, each with its name and what it says.
const FLAGS: [(u32, &str, &str); 10] = [
    (VFF_INTR_NO, "VFF_INTR_NO", "has no interrupt"),
    (VFF_INTR_REQ, "VFF_INTR_REQ", "needs an interrupt"),
    (VFF_INTR_NONPCI, "VFF_INTR_NONPCI", "needs an interrupt, unless on the PCI bus"),
    (VFF_LOC_NO, "VFF_LOC_NO", "has no location"),
    (VFF_VDEV_MEM, "VFF_VDEV_MEM", "registers in memory"),
    (VFF_VDEV_X86_IO, "VFF_VDEV_X86_IO", "registers at ports"),
    (VFF_VDEV_PCI, "VFF_VDEV_PCI", "a PCI function"),
    (VFF_MUTEX, "VFF_MUTEX", "v_mtx is initialized"),
    (VFF_MUTEX_RECURSIVE, "VFF_MUTEX_RECURSIVE", "as a recursive mutex"),
    (VFF_MANUAL_REGION, "VFF_MANUAL_REGION", "creates its regions itself"),
];
/// Flags that have a meaning, and are refused elsewhere.
const REFUSED: u32 = VFF_RC;

/// The widths of accesses, in bytes.
pub(super) const WIDTHS: [u32; 4] = [1, 2, 4, 8];

/// Options that every vdev has, in the configuration.
const COMMON: [&str; 7] = ["loc", "intr", "name", "log", "sched", "vdev", "pass"];

/// What a flag says, by its name.
pub(super) fn meaning(name: &str) -> &'static str {
    FLAGS.iter().find(|flag| flag.1 == name).map_or("", |flag| flag.2)
}

/// A factory, as it is reported.
pub(super) fn described(factory: &Factory) -> report::Factory {
    let named = FLAGS.iter().filter(|(flag, ..)| factory.has(*flag));
    let widths = WIDTHS.into_iter().filter(|&width| factory.allows(width as usize));
    report::Factory {
        name: factory.name().to_owned(),
        file: factory.file().to_owned(),
        edition: match factory.edition() {
            Edition::V800 => "8.0".into(),
            Edition::V710 => "7.x".into(),
        },
        options: factory.options().iter().map(|option| parsed(option)).collect(),
        flags: named.map(|(_, name, _)| (*name).to_owned()).collect(),
        access_widths: widths.collect(),
        extra_space: factory.extra_space(),
        callbacks: factory.callbacks().into_iter().map(Into::into).collect(),
    }
}

fn parsed(option: &str) -> VdevOption {
    match option.strip_prefix('0') {
        Some(name) => VdevOption { name: name.into(), argument: false },
        None => VdevOption { name: option.into(), argument: true },
    }
}

/// What is wrong with it, as far as that is seen without a call.
pub(super) fn findings(factory: &Factory) -> Vec<Finding> {
    let all = [
        controller(factory),
        flags(factory),
        kind(factory),
        callbacks(factory),
        widths(factory),
        name(factory),
    ];
    all.into_iter().flatten().chain(options(factory)).collect()
}

/// A vdev that hosts refuse, whatever it does.
fn controller(factory: &Factory) -> Option<Finding> {
    let what = match () {
        () if factory.is_controller() => "it has `pic`: it is an interrupt controller",
        () if factory.has(VFF_RC) => "it has VFF_RC: it is a PCI root complex",
        () => return None,
    };
    let finding = Finding::new(Kind::Controller, format!("{what}, and guests have the host's"));
    Some(finding.advice("leave it out of the configuration: the guest has one already"))
}

fn flags(factory: &Factory) -> Option<Finding> {
    let known = FLAGS.iter().fold(REFUSED, |all, (flag, ..)| all | flag);
    let unknown = factory.flags() & !known;
    (unknown != 0).then(|| {
        let message = format!("factory_flags has {unknown:#x}, which has no meaning");
        Finding::new(Kind::Flags, message).advice("use the names of enum vdev_factory_flags alone")
    })
}

fn kind(factory: &Factory) -> Option<Finding> {
    let has_kind = factory.flags() & VFF_VDEV_LOC_TYPES != 0;
    match (has_kind, factory.has(VFF_LOC_NO)) {
        (false, false) => Some(
            Finding::new(
                Kind::LocationType,
                "factory_flags has no VFF_VDEV_*, so a configuration may put it anywhere: in \
                 memory, at ports, or on the PCI bus",
            )
            .advice(
                "set those that it is written for, such as VFF_VDEV_MEM, or VFF_LOC_NO if it has \
                 no registers",
            ),
        ),
        (true, true) => Some(
            Finding::new(
                Kind::LocationType,
                "factory_flags has VFF_LOC_NO, and a VFF_VDEV_* as well",
            )
            .advice("remove one of them: VFF_LOC_NO is a vdev without registers"),
        ),
        _ => None,
    }
}

fn callbacks(factory: &Factory) -> Option<Finding> {
    let (reads, writes) = factory.answers();
    let finding = |message: &str| Finding::new(Kind::Callbacks, message);
    match (reads || writes, factory.has(VFF_LOC_NO), factory.has(VFF_MANUAL_REGION)) {
        (false, false, _) => Some(
            finding("it has a location, and neither `vread` nor `vwrite`")
                .advice("set one of them, or VFF_LOC_NO if it has no registers"),
        ),
        (true, true, false) => Some(
            finding("it has VFF_LOC_NO, so nothing calls its `vread` or `vwrite`")
                .advice("remove VFF_LOC_NO, or create regions with VFF_MANUAL_REGION"),
        ),
        _ => None,
    }
}

fn widths(factory: &Factory) -> Option<Finding> {
    const ADVICE: &str = "set a bit for each width in bytes: 1u << sizeof(uint32_t) for 4 bytes";
    let sizes = factory.access_sizes();
    let known = WIDTHS.into_iter().fold(0, |all, width| all | 1 << width);
    let (reads, writes) = factory.answers();
    let message = match sizes {
        0 if reads || writes => {
            "acc_sizes is 0: its functions get accesses of 1, 2, 4 and 8 bytes, \
                                 wherever the guest aligns them"
                .into()
        }
        0 => return None,
        sizes if sizes & known == 0 => {
            format!("acc_sizes is {sizes:#x}, which allows no access: none has such a width")
        }
        sizes if sizes & !known != 0 => {
            format!("acc_sizes has {:#x}, and no access has such a width", sizes & !known)
        }
        _ => return None,
    };
    Some(Finding::new(Kind::AccessWidths, message).advice(ADVICE))
}

fn name(factory: &Factory) -> Option<Finding> {
    let file = Path::new(factory.file()).file_name()?.to_string_lossy().into_owned();
    let expected = format!("vdev-{}.so", factory.name());
    (file != expected).then(|| {
        let message = format!("it is called `{}`, and its file {file}", factory.name());
        Finding::new(Kind::Name, message).advice(format!(
            "call the file {expected}, where `vdev {}` looks for it",
            factory.name()
        ))
    })
}

fn options(factory: &Factory) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for option in factory.options() {
        let VdevOption { name, .. } = parsed(option);
        let finding = |message: String| Finding::new(Kind::OptionList, message);
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if name.is_empty() {
            let advice = "give it a name; NULL ends the list, and \"0\" before a name says that \
                          the option takes no argument";
            all.push(
                finding(format!("option_list has {option:?}, which has no name")).advice(advice),
            );
        } else if COMMON.contains(&name.as_str()) {
            let message =
                format!("its option `{name}` is one that every vdev has, which comes first");
            all.push(finding(message).advice("rename it"));
        } else if !name.chars().all(is_word) {
            let message = format!("no configuration can have its option {name:?}");
            all.push(finding(message).advice("use letters, digits, `-` and `_`"));
        }
        if !seen.insert(name.clone()) {
            let message = format!("option_list has `{name}` twice: the second one is never passed");
            all.push(finding(message).advice("remove one"));
        }
    }
    all
}
