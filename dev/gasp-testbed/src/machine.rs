//! The machine that all guests here use.
//!
//! Its memory is a shared memfd, so that a device in another process can map it. Parts that
//! no test needs are left out, as each costs time under software emulation.

use std::process::Command;

use crate::testbed::Testbed;

/// QEMU with this machine, `memory` bytes of memory, and this accelerator.
pub(crate) fn machine(testbed: &Testbed, accelerator: &str, memory: u64) -> Command {
    let mut command = testbed.qemu();
    let size = format!("{}K", memory >> 10);
    command.args(["-accel", accelerator, "-M", "q35,hpet=off,smm=off,memory-backend=m0"]);
    command.arg("-object").arg(format!("memory-backend-memfd,id=m0,size={size},share=on"));
    command.args(["-m", &size, "-nodefaults", "-no-user-config", "-display", "none"]);
    command
}
