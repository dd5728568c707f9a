//! What is wrong between `OPTIONS_START` and the end.

use crate::vdev::{Fault, Vdev, expect};

fn control<'a>(control: &'a str) -> Fault<'a> {
    Fault { control, ..Fault::default() }
}

#[test]
fn a_call_that_is_refused_is_a_finding_with_its_message() {
    for name in ["OPTIONS_START", "OPTIONS_END", "ASSIGN", "GUEST_CONFIGURED", "GUEST_STARTING"] {
        let text = format!(
            "if (ctrl == VDEV_CTRL_{name}) {{ vdev_logf(QL_QVM_ERR, vdp, \"no flux\"); return ENODEV; }}"
        );
        let call = format!("control({name})");
        expect(&control(&text), &[], &[("refused", &call, "ENODEV: no flux")]);
    }
    let found = Vdev::new(&control("if (ctrl == VDEV_CTRL_ASSIGN) return ENODEV;")).findings(&[]);
    assert!(found[0]["advice"].as_str().unwrap().contains("vdev_logf"), "{found:#?}");
}

#[test]
fn an_option_that_the_vdev_refuses_is_a_finding_and_one_that_it_lacks_is_wrong_usage() {
    let fault = Fault {
        before: "static const char *const list[] = { \"rate\", \"0quiet\", NULL };",
        control: "if (ctrl == VDEV_CTRL_FIRST_OPTIDX && atoi(arg) > 9) return EINVAL;",
        members: ".option_list = list",
        ..Fault::default()
    };
    expect(&fault, &["--option", "rate=9", "--option", "quiet"], &[]);
    expect(&fault, &["--option", "rate=10"], &[("option-refused", "", "`rate 10`")]);
    let vdev = Vdev::new(&fault);
    for (option, message) in [
        ("rat=9", "--option rat=9: `odd` has no option `rat`; did you mean `rate`"),
        ("rate", "requires an argument"),
        ("ram=16M", "every device has"),
        ("a b", "expected NAME or NAME=VALUE"),
    ] {
        let output = vdev.check(&["--option", option]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(message), "{message}: {text}");
    }
}

#[test]
fn an_error_number_that_stops_nothing_is_a_finding() {
    for name in ["STATUS", "BUTTON", "TERMINATE"] {
        let text = format!("if (ctrl == VDEV_CTRL_{name}) return ENOSYS;");
        let call = format!("control({name})");
        expect(&control(&text), &[], &[("control-result", &call, "returned 38")]);
    }
    let found = [("refused", "ASSIGN", "EPERM"), ("control-result", "ASSIGN", "returned -1")];
    expect(&control("if (ctrl == VDEV_CTRL_ASSIGN) return -1;"), &[], &found);
}

#[test]
fn a_place_that_a_vdev_cannot_have_is_a_finding() {
    for (text, message) in [
        ("vdp->v_block.location = UINT64_MAX - 3;", "past the last address"),
        ("vdp->v_block.location = 0x1000;", "0x1000"),
        ("vdp->v_block.qst_type = QST_HOST;", "no place of a vdev"),
        ("vdp->v_block.qst_type = QST_X86_IO; vdp->v_block.location = 0x300;", "exclude"),
    ] {
        let text = format!("if (ctrl == VDEV_CTRL_ASSIGN) {{ {text} }}");
        expect(&control(&text), &[], &[("place", "", message)]);
    }
}

#[test]
fn a_length_of_0_is_a_finding() {
    let text = "if (ctrl == VDEV_CTRL_OPTIONS_START) vdp->v_block.length = 0;";
    expect(&control(text), &[], &[("length", "", "4 bytes")]);
}

#[test]
fn a_location_that_is_missing_is_noted() {
    let record = Vdev::new(&Fault::default()).json(&[]);
    assert_eq!(record["findings"][0]["kind"], "location", "{record:#}");
    assert_eq!(record["findings"][0]["severity"], "note");
    assert_eq!(record["place"]["chosen"], true);
}

#[test]
fn an_interrupt_that_it_cannot_have_is_a_finding() {
    let text =
        "if (ctrl == VDEV_CTRL_ASSIGN) guest_intr_assign(&vdp->v_intr, GIAT_EXCLUSIVE, NULL, 999);";
    let found = [("interrupt", "", "999"), ("host", "", "999")];
    expect(&control(text), &[], &found);
    let text =
        "if (ctrl == VDEV_CTRL_ASSIGN) guest_intr_assign(&vdp->v_intr, GIAT_EXCLUSIVE, NULL, 7);";
    let record = Vdev::new(&control(text)).json(&["--loc", "0xfa000000"]);
    assert_eq!(record["findings"].as_array().unwrap().len(), 0, "{record:#}");
    assert_eq!(record["place"]["line"], 7);
}

const FOREVER: &str = "static void *forever(void *arg) { for (;;) usleep(1000); return NULL; }";

#[test]
fn a_thread_that_goes_on_is_a_finding_however_it_was_started() {
    for (text, name) in [
        ("vdev_thread_create(vdp, \"stays\", &state->thread, NULL, forever, vdp);", "`stays`"),
        (
            "pthread_create(&state->thread, NULL, forever, vdp); pthread_setname_np(state->thread, \"rests\");",
            "`rests`",
        ),
    ] {
        let text = format!("if (ctrl == VDEV_CTRL_GUEST_CONFIGURED) {{ {text} }}");
        let fault = Fault { before: FOREVER, control: &text, ..Fault::default() };
        expect(&fault, &[], &[("thread", "control(TERMINATE)", name)]);
    }
}

#[test]
fn a_thread_that_starts_too_early_is_a_finding() {
    let fault = Fault {
        before: FOREVER,
        control: "if (ctrl == VDEV_CTRL_OPTIONS_END) vdev_thread_create(vdp, \"early\", &state->thread, NULL, forever, vdp); \
                  if (ctrl == VDEV_CTRL_TERMINATE) { pthread_cancel(state->thread); pthread_join(state->thread, NULL); }",
        ..Fault::default()
    };
    expect(&fault, &[], &[("early-thread", "control(ASSIGN)", "`early`")]);
}

#[test]
fn a_descriptor_that_stays_open_is_a_finding() {
    let text = "if (ctrl == VDEV_CTRL_GUEST_CONFIGURED) open(\"/dev/null\", O_RDONLY);";
    expect(&control(text), &[], &[("descriptor", "control(TERMINATE)", "/dev/null")]);
}

#[test]
fn memory_that_stays_mapped_is_a_finding() {
    let map = "if (ctrl == VDEV_CTRL_GUEST_CONFIGURED && gasp_map(vdp, 0x2000, 64, GMF_READ, &h) != EOK) return EIO;";
    let fault = Fault { before: "static gasp_map_handle_t h;", control: map, ..Fault::default() };
    expect(&fault, &[], &[("mapping", "control(TERMINATE)", "1 mapping of guest memory left")]);
    let fault = Fault {
        before: "",
        control: "if (ctrl == VDEV_CTRL_GUEST_CONFIGURED) { gasp_map_handle_t h; \
                  if (gasp_map(vdp, 0x2000, 64, GMF_READ, &h) != EOK) return EIO; gasp_unmap_handle(&h); }",
        ..Fault::default()
    };
    expect(&fault, &[], &[]);
}

#[test]
fn a_vdev_that_starts_only_once_is_a_finding() {
    let fault = Fault {
        before: "static int used;",
        control: "if (ctrl == VDEV_CTRL_OPTIONS_END && used++) { used = 1; return EBUSY; } \
                  if (ctrl == VDEV_CTRL_TERMINATE) used = 0;",
        ..Fault::default()
    };
    let call = "control(OPTIONS_END) of a second vdev";
    expect(&fault, &[], &[("second-instance", call, "EBUSY")]);
    let fault = Fault {
        before: "static int used;",
        control: "if (ctrl == VDEV_CTRL_OPTIONS_END && used++ > 1) return EBUSY;",
        ..Fault::default()
    };
    let call = "control(OPTIONS_END), in a second round";
    expect(&fault, &[], &[("second-round", call, "EBUSY")]);
}

#[test]
fn a_timer_or_a_pulse_without_its_function_is_a_finding() {
    let text = "if (ctrl == VDEV_CTRL_GUEST_CONFIGURED) { struct sigevent event; \
                vdev_pulse(vdp, 42, -1, &event, 7); vdev_pulse_deliver(&event); }";
    expect(&control(text), &[], &[("no-pulse", "", "no `pulse`")]);
    let text =
        "if (ctrl == VDEV_CTRL_ASSIGN) { uint64_t hz; guest_timer_create(NULL, vdp, vdp, &hz); }";
    expect(&control(text), &[], &[("no-timer", "", "no `timer`")]);
}

#[test]
fn what_the_functions_that_it_calls_have_to_say_is_a_finding() {
    let fault = Fault {
        before: "static void *ends(void *arg) { guest_terminate(33); return NULL; }",
        control: "if (ctrl == VDEV_CTRL_GUEST_CONFIGURED) { pthread_t thread; \
                  pthread_create(&thread, NULL, ends, NULL); pthread_join(thread, NULL); }",
        ..Fault::default()
    };
    expect(&fault, &[], &[("host", "", "vdev_thread_create()")]);
}
