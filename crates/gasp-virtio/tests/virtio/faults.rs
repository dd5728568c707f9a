//! System calls that fail: a seccomp filter on the test's thread and those that it starts, such as
//! the device's, has the kernel return an error.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// From now on, this system call fails with `errno`. The filters need no privilege; without support
/// for them the test fails.
pub(crate) fn fail(call: i64, errno: i32) {
    let (pass, fail) = (SeccompAction::Allow, SeccompAction::Errno(errno as u32));
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let rules = BTreeMap::from([(call, Vec::new())]);
    let filter = SeccompFilter::new(rules, pass, fail, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
