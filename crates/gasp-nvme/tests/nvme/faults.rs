//! System calls that fail: a seccomp filter on the test's thread and those that it starts, such as
//! the device's, has the kernel return an error.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// From now on, flushes of this thread and its children fail with `EIO`.
pub(crate) fn fail_flushes() {
    fail(libc::SYS_fdatasync, None, libc::EIO);
}

/// From now on, this system call fails with `errno`; with a `place`, only at that offset in the
/// file. The filters need no privilege; without support for them the test fails.
pub(crate) fn fail(call: i64, place: Option<u64>, errno: i32) {
    let rules = place.map(|place| {
        // The fourth argument of preadv(2) and pwritev(2).
        let (len, equal) = (SeccompCmpArgLen::Qword, SeccompCmpOp::Eq);
        let condition = SeccompCondition::new(3, len, equal, place).unwrap();
        SeccompRule::new(vec![condition]).unwrap()
    });
    let rules = BTreeMap::from([(call, rules.into_iter().collect())]);
    let (pass, fail) = (SeccompAction::Allow, SeccompAction::Errno(errno as u32));
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, pass, fail, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
