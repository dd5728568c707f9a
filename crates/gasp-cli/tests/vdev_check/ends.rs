//! Crashes, calls that do not return, and vdevs that end the process.

use std::time::{Duration, Instant};

use crate::vdev::{Fault, Vdev, expect, expect_of};

const NULL_WRITE: &str = "*(volatile int *)0 = 1;";

#[test]
fn a_crash_is_a_finding_with_its_signal_and_its_place() {
    for (control, read, call, message) in [
        (
            "if (ctrl == VDEV_CTRL_OPTIONS_END) *(volatile int *)0 = 1;",
            "",
            "control(OPTIONS_END)",
            "SIGSEGV",
        ),
        ("if (ctrl == VDEV_CTRL_TERMINATE) abort();", "", "control(TERMINATE)", "SIGABRT"),
        ("", "__builtin_trap();", "vread", "SIGILL"),
    ] {
        let fault = Fault { control, read, ..Fault::default() };
        expect(&fault, &[], &[("crash", call, message)]);
    }
    let text = format!("static void __attribute__((constructor)) load(void) {{ {NULL_WRITE} }}");
    expect_of(&Vdev::of_text(&text), &[], &[("crash", "its constructor", "SIGSEGV")]);
}

#[test]
fn a_crash_of_a_thread_is_the_threads_and_not_of_the_call_meanwhile() {
    let fault = Fault {
        before: "static void *fall(void *arg) { *(volatile int *)0 = 1; return NULL; }",
        control: "if (ctrl == VDEV_CTRL_GUEST_CONFIGURED) \
                  vdev_thread_create(vdp, \"falls\", &state->thread, NULL, fall, vdp);",
        ..Fault::default()
    };
    expect(&fault, &[], &[("crash", "its thread `falls`", "SIGSEGV")]);
}

#[test]
fn a_crash_for_lack_of_extra_space_says_so() {
    let fault = Fault {
        control: "if (ctrl == VDEV_CTRL_OPTIONS_START) state->last = 7;",
        members: ".extra_space = 0",
        ..Fault::default()
    };
    let found = Vdev::new(&fault).findings(&[]);
    assert_eq!(found[0]["kind"], "crash");
    assert!(found[0]["advice"].as_str().unwrap().contains("extra_space is 0"), "{found:#?}");
}

#[test]
fn a_call_that_does_not_return_is_a_finding_however_much_it_logs() {
    for (control, read, call) in [
        (
            "if (ctrl == VDEV_CTRL_GUEST_CONFIGURED) for (;;) pause();",
            "",
            "control(GUEST_CONFIGURED)",
        ),
        (
            "if (ctrl == VDEV_CTRL_STATUS) for (;;) { usleep(100000); vdev_logf(QL_QVM_INFO, vdp, \"wait\"); }",
            "",
            "control(STATUS)",
        ),
        ("", "for (;;) pause();", "vread of 4 bytes at 0xfa000000"),
    ] {
        let vdev = Vdev::new(&Fault { control, read, ..Fault::default() });
        let began = Instant::now();
        expect_of(&vdev, &["--limit", "3"], &[("hang", call, "after 3 s")]);
        assert!(began.elapsed() < Duration::from_secs(15), "after {:?}", began.elapsed());
    }
}

#[test]
fn a_vdev_that_ends_the_process_is_a_finding() {
    let fault = Fault { control: "if (ctrl == VDEV_CTRL_ASSIGN) exit(0);", ..Fault::default() };
    expect(&fault, &[], &[("exit", "control(ASSIGN)", "exit status 0")]);
    let fault = Fault { read: "qvm_fatal(QLS_QVM, \"no flux\");", ..Fault::default() };
    expect(&fault, &[], &[("ends-guest", "", "no flux")]);
}

#[test]
fn a_vdev_that_ends_its_guest_by_itself_is_a_finding() {
    let fault = Fault {
        before: "static void *ends(void *arg) { guest_terminate(33); return NULL; }",
        control: "if (ctrl == VDEV_CTRL_GUEST_CONFIGURED) \
                  vdev_thread_create(vdp, NULL, &state->thread, NULL, ends, vdp); \
                  if (ctrl == VDEV_CTRL_TERMINATE) pthread_join(state->thread, NULL);",
        ..Fault::default()
    };
    let found = Vdev::new(&fault).findings(&[]);
    assert!(found.iter().all(|one| one["kind"] == "ends-guest"), "{found:#?}");
    assert!(found[0]["message"].as_str().unwrap().contains("guest_terminate(33)"), "{found:#?}");
}
