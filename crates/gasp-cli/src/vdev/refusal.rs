//! Errors of a vdev, as findings.

use gasp_qvm::{Factory, VdevError};

use super::report::{Finding, Kind};
use crate::failure::plain;

/// A file that cannot be loaded.
pub(super) fn of_load(error: &VdevError) -> Finding {
    let (kind, advice) = match error {
        VdevError::NoFactory { .. } => (
            Kind::NoFactory,
            Some(
                "call vdev_register_factory(&factory, QVM_VDEV_ABI) in a function with \
                  __attribute__((constructor))",
            ),
        ),
        VdevError::Abi { .. } => (Kind::Abi, None),
        VdevError::Factory { .. } | VdevError::Twice { .. } | VdevError::Other { .. } => {
            (Kind::Factory, None)
        }
        _ => (Kind::NotLoaded, None),
    };
    let finding = Finding::new(kind, plain(&error.to_string()));
    match advice {
        Some(advice) => finding.advice(advice),
        None => finding,
    }
}

/// A vdev that does not start.
pub(super) fn of_start(error: &VdevError, factory: &Factory) -> Finding {
    match error {
        VdevError::Refused { phase, message, errno, .. } => {
            let name = gasp::errno_name(*errno);
            let says = match message.as_str() {
                "" => format!("returned {name}: {errno}"),
                message => format!("returned {name}: {message}"),
            };
            let finding = Finding::new(Kind::Refused, plain(&says)).in_call(phase);
            let names = factory.options().iter().map(|it| it.strip_prefix('0').unwrap_or(it));
            let names: Vec<&str> = names.collect();
            let options = match &*names {
                [] => String::new(),
                names => format!("pass what it needs with --option: it has {}", names.join(", ")),
            };
            let log =
                "have it log the cause with vdev_logf(QL_QVM_ERR, …), which is what users see";
            match (message.is_empty(), options.is_empty()) {
                (true, true) => finding.advice(log),
                (true, false) => finding.advice(format!("{options}; and {log}")),
                (false, true) => finding,
                (false, false) => finding.advice(options),
            }
        }
        VdevError::Config(error) => Finding::new(Kind::OptionRefused, plain(error.message())),
        VdevError::Misbehaved { why, .. } => Finding::new(Kind::Place, why.clone())
            .advice("set v_block in OPTIONS_START, and check what ASSIGN changes"),
        error => Finding::new(Kind::Interrupt, plain(&error.to_string())),
    }
}
