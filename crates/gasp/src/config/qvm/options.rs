//! The options of the qvm language: those that are supported, and those that are known.

/// The meaning of a word in the place of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    System,
    Ram,
    Rom,
    Load,
    Cmdline,
    Set,
    Unsupported,
    Logger,
    DryRun,
    /// Begins a context.
    Begin(Context),
    /// Belongs to a context.
    Loc,
    Intr,
    Name,
    Log,
    /// Known, and not supported, with the reason.
    Refused(&'static str),
    /// The same, and an option only of `cpu`.
    RefusedOfCpu(&'static str),
}

/// What the options that follow belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Context {
    None,
    Cpu,
    Pass,
    Reserve,
    Vdev,
}

/// A type of content, before `load` or `pass`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// The image that the machine starts.
    Guest,
    Initrd,
    Data,
    /// Known, and not supported, with the reason.
    Refused(&'static str),
}

use Meaning::{Begin, Refused, RefusedOfCpu};

const OPTIONS: &[(&str, Meaning)] = &[
    ("system", Meaning::System),
    ("ram", Meaning::Ram),
    ("rom", Meaning::Rom),
    ("load", Meaning::Load),
    ("cmdline", Meaning::Cmdline),
    ("cpu", Begin(Context::Cpu)),
    ("pass", Begin(Context::Pass)),
    ("reserve", Begin(Context::Reserve)),
    ("vdev", Begin(Context::Vdev)),
    ("loc", Meaning::Loc),
    ("intr", Meaning::Intr),
    ("name", Meaning::Name),
    ("log", Meaning::Log),
    ("logger", Meaning::Logger),
    ("set", Meaning::Set),
    ("unsupported", Meaning::Unsupported),
    ("dryrun", Meaning::DryRun),
    ("sched", Refused("vCPU threads inherit the scheduling of the process: use `chrt`")),
    ("hostvector", Refused("host interrupts are not passed through")),
    ("safety", Refused("nothing here is safety-certified")),
    ("dump", Refused("guest dumps are not supported")),
    (
        "runmask",
        RefusedOfCpu("vCPU threads inherit the CPU affinity of the process: use `taskset`"),
    ),
    ("partition", RefusedOfCpu("the host has no scheduling partitions")),
    ("cluster", RefusedOfCpu("CPU clusters are not supported")),
];

const CONTENTS: &[(&str, Content)] = &[
    ("guest", Content::Guest),
    ("initrd", Content::Initrd),
    ("data", Content::Data),
    ("acpi", Content::Refused("the guest's ACPI tables are generated")),
    ("fdt", Content::Refused("an x86-64 guest has ACPI tables, and no device tree")),
];

/// What becomes of a variable of `set`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Variable {
    ExitOnHalt,
    /// Known, and not supported, with the reason.
    Refused(&'static str),
}

const NO_MESSAGES: &str = "there are no messages to servers that could block";
const NO_GIC: &str = "an x86-64 machine has no GIC";

const VARIABLES: &[(&str, Variable)] = &[
    ("exit-on-halt", Variable::ExitOnHalt),
    ("counter-offset", Variable::Refused("the guest's time-stamp counter starts at 0")),
    ("debug", Variable::Refused("every device is in the status reports")),
    ("fdt-dump-file", Variable::Refused("an x86-64 guest has ACPI tables, and no device tree")),
    ("grow-heap", Variable::Refused("the heap grows as needed")),
    ("message-block-timeout", Variable::Refused(NO_MESSAGES)),
    ("vdev-message-block-timeout", Variable::Refused(NO_MESSAGES)),
    ("slog-buffer", Variable::Refused("there is no slog on this host")),
    ("gic-hwassist", Variable::Refused(NO_GIC)),
    ("host-paddr-gicd", Variable::Refused(NO_GIC)),
    ("host-paddr-gich", Variable::Refused(NO_GIC)),
];

/// The option of a name, with the name.
pub(super) fn option(name: &str) -> Option<(&'static str, Meaning)> {
    OPTIONS.iter().find(|(known, _)| *known == name).copied()
}

/// The type of content of a name.
pub(super) fn content(name: &str) -> Option<Content> {
    CONTENTS.iter().find(|(known, _)| *known == name).map(|&(_, content)| content)
}

/// The variable of a name.
pub(super) fn variable(name: &str) -> Option<Variable> {
    VARIABLES.iter().find(|(known, _)| *known == name).map(|&(_, variable)| variable)
}

/// Whether a word is an option of the language, or a type of content before one.
pub(in crate::config) fn is_option(word: &str) -> bool {
    option(word).is_some() || content(word).is_some()
}

/// The names of all options and types of content, for suggestions.
pub(super) fn names() -> Vec<&'static str> {
    let options = OPTIONS.iter().map(|(name, _)| *name);
    options.chain(CONTENTS.iter().map(|(name, _)| *name)).collect()
}

/// The names of all variables, for suggestions.
pub(super) fn variables() -> Vec<&'static str> {
    VARIABLES.iter().map(|(name, _)| *name).collect()
}
