//! Vdevs in C, from their options to their end.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::{Duration, Instant};

use gasp_qvm::{Access, Answer, Cause, End, Instance, Space, VdevError};
use support::{Event, Guests, Library};

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/vdev/vdev-trace.c");

fn at(addr: u64) -> Access {
    Access { space: Space::Memory, addr, cookie: 0 }
}

/// Starts a vdev, up to the running guest.
fn started(guest: &Guests, library: &Library, text: &str) -> Instance {
    let vdev = guest.create(library, text).unwrap();
    vdev.assign().unwrap();
    vdev.configured().unwrap();
    vdev.starting().unwrap();
    vdev
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The sample of both editions answers its guest's accesses.
#[test]
fn the_trace_device_counts_writes() {
    for edition in [800, 710] {
        let library = Library::of_file(TRACE, edition, "trace");
        let guest = Guests::new();
        let vdev = started(&guest, &library, "vdev trace loc 0xfa000000 period 20");
        let placed = vdev.placed().unwrap();
        assert_eq!((placed.start, placed.len), (Some(0xfa00_0000), 4));
        let mut data = [0; 4];
        assert_eq!(vdev.write(at(0xfa00_0000), &7_u32.to_le_bytes()), Answer::Done);
        assert_eq!(vdev.write(at(0xfa00_0000), &8_u32.to_le_bytes()), Answer::Done);
        assert_eq!(vdev.read(at(0xfa00_0000), &mut data), Answer::Done);
        assert_eq!(u32::from_le_bytes(data), 2);
        // Another address is a bus error of this device, and another width is none of its own.
        assert_eq!(vdev.write(at(0xfa00_0004), &[0; 4]), Answer::Failed);
        assert_eq!(vdev.read(at(0xfa00_0000), &mut data[..2]), Answer::Unsupported);
        assert_eq!(data[..2], [0xff, 0xff]);
        let began = Instant::now();
        assert!(vdev.terminate().is_empty(), "its thread ends");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}

/// What a vdev sees of its options, in order; it writes it into its state, and a read returns it.
const ORDER: &str = r#"
#include <support.h>
static const char *const options[] = { "first", "0flag", "second", NULL };
struct state { unsigned char seen[8]; unsigned count; };
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    unsigned char mark = 0xee;
    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        mark = state->count == 0 && vdp->v_block.location == QSL_NO_LOCATION ? 1 : 0xed;
        break;
    case VDEV_CTRL_FIRST_OPTIDX + 0: mark = arg && strcmp(arg, "one") == 0 ? 2 : 0xec; break;
    case VDEV_CTRL_FIRST_OPTIDX + 1: mark = arg == NULL ? 3 : 0xeb; break;
    case VDEV_CTRL_FIRST_OPTIDX + 2: mark = arg && strcmp(arg, "a b") == 0 ? 4 : 0xea; break;
    case VDEV_CTRL_OPTIONS_END: mark = vdp->v_intr.param == 5 ? 5 : 0xe9; break;
    case VDEV_CTRL_ASSIGN: mark = vdp->v_block.location == 0xfa000000 ? 6 : 0xe8; break;
    case VDEV_CTRL_GUEST_CONFIGURED: mark = 7; break;
    case VDEV_CTRL_GUEST_STARTING: mark = 8; break;
    default: return EOK;
    }
    if (state->count < 8)
        state->seen[state->count++] = mark;
    return EOK;
}
static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;
    (void)cookie;
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, state->seen, vopnd->length));
}
VDEV(.control = control, .vread = vread, .option_list = options, .extra_space = sizeof(struct state))
"#;

#[test]
fn control_is_called_in_the_documented_order() {
    for edition in [800, 710] {
        let library = Library::of_text(ORDER, edition, "order");
        let guest = Guests::new();
        let text = "vdev order loc 0xfa000000 intr ioapic:5 first one flag second \"a b\"";
        let vdev = started(&guest, &library, text);
        let mut seen = [0; 8];
        assert_eq!(vdev.read(at(0xfa00_0000), &mut seen), Answer::Done);
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8]);
        // There is no vwrite.
        assert_eq!(vdev.write(at(0xfa00_0000), &[1]), Answer::Unsupported);
    }
}

#[test]
fn options_that_are_wrong_are_refused_with_their_line() {
    let library = Library::of_file(TRACE, 800, "trace");
    let guest = Guests::new();
    for (text, parts) in [
        ("vdev trace perod 5", &["test.qvmconf:2", "`perod`", "did you mean `period`"][..]),
        ("vdev trace\nquiet\nperiod", &["test.qvmconf:4", "requires an argument"]),
        ("vdev trace\nperiod 0", &["test.qvmconf:3", "`period 0`", "Invalid argument"]),
        ("vdev trace intr ioapic:5", &["test.qvmconf:2", "has no interrupt", "remove `intr`"]),
        ("vdev trace loc io:0x300", &["cannot be at ports", "in memory"]),
        ("vdev trace loc 0xfa000000 loc 0xfb000000", &["one location"]),
    ] {
        let error = guest.create(&library, text).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

/// Misbehaves as its option says.
const ODD: &str = r#"
#include <support.h>
static const char *const options[] = { "how", NULL };
struct state { char how[32]; pthread_t thread; volatile int value; struct guest_timer *timer; };
static void *forever(void *arg) { (void)arg; for (;;) usleep(1000); return NULL; }
static void *noisy(void *arg) { vdev_logf(QL_QVM_ERR, arg, "a noise"); return NULL; }
static void *ends(void *arg) { (void)arg; guest_terminate(33); return NULL; }
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    const char *const how = state->how;
    switch (ctrl) {
    case VDEV_CTRL_FIRST_OPTIDX: strncpy(state->how, arg, sizeof state->how - 1); break;
    case VDEV_CTRL_OPTIONS_END:
        if (strcmp(how, "error") == 0) return ENODEV;
        if (strcmp(how, "negative") == 0) return -7;
        if (strcmp(how, "fatal") == 0) qvm_fatal(QLS_CNF, "no %s today", "flux");
        break;
    case VDEV_CTRL_GUEST_STARTING:
        if (strcmp(how, "late") == 0) {
            uint64_t hz;
            guest_intr_signal(&vdp->v_intr, GIS_ON);
            state->timer = guest_timer_create(NULL, vdp, (void *)&state->value, &hz);
            guest_timer_notify(state->timer, NULL, hz / 20);
            qvm_fatal(QLS_QVM, "too late");
        }
        break;
    case VDEV_CTRL_ASSIGN:
        if (strcmp(how, "length") == 0) { vdp->v_block.location = UINT64_MAX - 3; vdp->v_block.length = 8; }
#if QVM_EDITION == 800
        if (strcmp(how, "type") == 0) vdp->v_block.qst_type = QST_HOST;
#endif
        break;
    case VDEV_CTRL_GUEST_CONFIGURED:
        if (strcmp(how, "message") == 0) { vdev_logf(QL_QVM_ERR, vdp, "the %s is closed", "door"); return EACCES; }
        if (strcmp(how, "noisy") == 0) {
            if (vdev_thread_create(vdp, "noisy", &state->thread, NULL, noisy, vdp) != EOK) return EIO;
            pthread_join(state->thread, NULL);
            return ENODEV;
        }
        if (strcmp(how, "thread") == 0) return vdev_thread_create(vdp, "stays", &state->thread, NULL, forever, vdp);
        if (strcmp(how, "ends") == 0) return vdev_thread_create(vdp, NULL, &state->thread, NULL, ends, vdp);
        if (strcmp(how, "timer") == 0) {
            uint64_t hz;
            state->timer = guest_timer_create(NULL, vdp, (void *)&state->value, &hz);
            if (state->timer == NULL || hz != 1000000000) return EIO;
            return guest_timer_notify(state->timer, NULL, hz / 100);
        }
        if (strcmp(how, "pulse") == 0) {
            struct sigevent event;
            timer_t timer;
            struct itimerspec soon = { .it_value = { 0, 10000000 } };
            vdev_pulse(vdp, 42, -1, &event, 7);
            if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) return errno;
            timer_settime(timer, 0, &soon, NULL);
            return vdev_pulse_deliver(&event);
        }
        break;
    case VDEV_CTRL_STATUS:
        if (strcmp(how, "status") == 0) qvm_fatal(QLS_QVM, "no more");
        qvm_report("value %d\n", state->value); break;
    case VDEV_CTRL_TERMINATE:
        if (strcmp(how, "ends") == 0) pthread_join(state->thread, NULL);
        break;
    default: break;
    }
    return EOK;
}
static int pulse(vdev_t *vdp, const struct _pulse *pulse)
{
    struct state *const state = vdp->v_device;
    if (pulse->code == 42 && pulse->scoid == 7) state->value++;
    return EOK;
}
static void timer(vdev_t *vdp, void *data, const struct guest_timer_data *tdp, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;
    (void)gcp;
    if (data == &state->value && tdp->guest_current >= tdp->guest_notify_start) state->value++;
    if (state->value < 3) guest_timer_notify(state->timer, tdp, 10000000);
    if (state->value == 3 && guest_timer_notify(state->timer, tdp, 1000000000) == EOK)
        guest_timer_notify(state->timer, NULL, 0); /* stopped */
}
static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    const uint64_t number = vopnd->location & 0xff;
    struct qvm_state_block wrong = *oopnd;
    char data[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    (void)cookie;
    switch (number) {
    case 0: return VRS_NORMAL; /* supplies nothing */
    case 1: return 77;
    case 2: return VRS_ERRNO + EIO;
    case 3: return VRS_BUS_ERROR;
    case 4: return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, data, 2)); /* too short */
    case 5: return guest_cpu_read(gcp, GXF_NONE, oopnd, 1, data, 8) == EINVAL
                && guest_cpu_write(NULL, GXF_NONE, oopnd, 1, data, 8) == EINVAL
                && guest_cpu_write((struct guest_cpu *)data, GXF_NONE, oopnd, 1, data, 8) == EINVAL
                && guest_cpu_write(gcp, 0x8000, oopnd, 1, data, 8) == EINVAL
                && guest_cpu_write(gcp, GXF_NONE, NULL, 1, data, 8) == EINVAL
                && guest_cpu_write(gcp, GXF_NONE, oopnd, 0, data, 8) == EINVAL ?
            guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, "\xaa", 1)) : VRS_ABORT;
    case 6: /* guest memory: written, read back, and where there is none */
        wrong.qst_type = QST_MEMORY; wrong.location = 0x1000; wrong.length = 8;
        if (guest_cpu_write(gcp, GXF_NONE, &wrong, 1, data, 8) != EOK) return VRS_ABORT;
        memset(data, 0, 8);
        if (guest_cpu_read(NULL, GXF_NONE, &wrong, 1, data, 8) != EOK) return VRS_ABORT;
        wrong.location = 0x123456789000;
        if (guest_cpu_write(gcp, GXF_NONE, &wrong, 1, data, 8) != ENXIO) return VRS_ABORT;
        return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, data, vopnd->length));
    case 7: guest_intr_signal(&vdp->v_intr, GIS_ON); guest_intr_signal(&vdp->v_intr, GIS_ON);
            guest_intr_signal(&vdp->v_intr, GIS_OFF); guest_msi_signal(vdp, 0xfee00000, 0x4041);
            return guest_intr_signal(&vdp->v_intr, 8) == EINVAL
                && guest_intr_signal(&vdp->v_intr, GIS_ISR) == -ENOTSUP ? VRS_NORMAL : VRS_ABORT;
    default: return VRS_NORMAL;
    }
}
VDEV(.control = control, .vread = vread, .pulse = pulse, .timer = timer, .option_list = options,
     .extra_space = sizeof(struct state))
"#;

#[test]
fn a_vdev_that_refuses_stops_the_start_with_its_name_and_its_message() {
    let library = Library::of_text(ODD, 800, "odd");
    let guest = Guests::new();
    for (how, parts) in [
        ("error", &["vdev `odd`", "OPTIONS_END", "No such device"][..]),
        ("negative", &["vdev `odd`", "Argument list too long"]),
        ("fatal", &["vdev `odd`", "OPTIONS_END", "no flux today"]),
    ] {
        let error = guest.create(&library, &format!("vdev odd how {how}")).unwrap_err();
        assert!(matches!(error, VdevError::Refused { .. }), "{error}");
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    for (how, part) in [("length", "past the last address"), ("type", "no place of a vdev")] {
        let vdev = guest.create(&library, &format!("vdev odd how {how}")).unwrap();
        let text = vdev.assign().unwrap_err().to_string();
        assert!(text.contains("vdev `odd`") && text.contains(part), "{text}");
    }
    let vdev = guest.create(&library, "vdev odd how message").unwrap();
    let text = vdev.configured().unwrap_err().to_string();
    assert!(text.contains("the door is closed") && text.contains("Permission denied"), "{text}");
    let vdev = guest.create(&library, "vdev odd how noisy").unwrap();
    let text = vdev.configured().unwrap_err().to_string();
    assert!(text.contains("No such device") && !text.contains("noise"), "of a thread: {text}");
}

#[test]
fn callbacks_that_return_nonsense_end_the_guest_or_read_as_ones() {
    let library = Library::of_text(ODD, 800, "odd");
    let guest = Guests::new();
    let vdev = started(&guest, &library, "vdev odd loc 0xfa000000");
    let read = |number: u64| {
        let mut data = [0; 4];
        let answer = vdev.read(at(0xfa00_0000 + number), &mut data);
        (answer, data)
    };
    let ones = [0xff; 4];
    assert_eq!(read(0), (Answer::Failed, ones));
    assert_eq!(read(3), (Answer::Failed, ones));
    assert_eq!(guest.events(), []);
    for (number, status) in [(1, 77), (2, 0x100 + 5)] {
        assert_eq!(read(number), (Answer::Failed, ones));
        let end = End { vdev: "odd".into(), cause: Cause::Status(status) };
        assert_eq!(guest.events(), [Event::End(end)]);
    }
    assert_eq!(read(4), (Answer::Done, [1, 2, 0, 0]));
    assert_eq!(read(5), (Answer::Done, [0xaa, 0, 0, 0]), "what is no access is refused");
    assert_eq!(read(6), (Answer::Done, [1, 2, 3, 4]), "guest memory");
    let mut long = [0; 9];
    assert_eq!(vdev.read(at(0xfa00_0006), &mut long), Answer::Unsupported);
}

#[test]
fn interrupts_reach_the_host_as_levels() {
    let library = Library::of_text(ODD, 800, "odd");
    let guest = Guests::new();
    let vdev = started(&guest, &library, "vdev odd loc 0xfa000000 intr ioapic:5");
    assert_eq!((vdev.line(), vdev.read(at(0xfa00_0007), &mut [0; 4])), (Some(5), Answer::Failed));
    let expected =
        [Event::Interrupt(true), Event::Interrupt(false), Event::Message(0xfee0_0000, 0x4041)];
    assert_eq!(guest.events(), expected);
}

#[test]
fn a_thread_that_outlives_the_end_is_named_and_does_no_harm() {
    let library = Library::of_text(ODD, 800, "odd");
    let guest = Guests::new();
    let vdev = started(&guest, &library, "vdev odd how thread");
    assert_eq!(vdev.terminate(), ["stays"]);
    // It goes on: what it uses is still there.
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn a_thread_of_a_vdev_ends_the_guest() {
    let library = Library::of_text(ODD, 800, "odd");
    let guest = Guests::new();
    let vdev = started(&guest, &library, "vdev odd how ends");
    let mut events = Vec::new();
    until("the guest ends", || {
        events.extend(guest.events());
        !events.is_empty()
    });
    assert_eq!(events, [Event::End(End { vdev: "odd".into(), cause: Cause::Terminated(33) })]);
    assert!(vdev.terminate().is_empty());
}

#[test]
fn pulses_and_timers_arrive_and_the_status_is_collected() {
    let library = Library::of_text(ODD, 800, "odd");
    let guest = Guests::new();
    for (how, value) in [("pulse", "value 2\n"), ("timer", "value 3\n")] {
        let vdev = started(&guest, &library, &format!("vdev odd how {how}"));
        until(how, || vdev.status() == value);
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(vdev.status(), value, "and not more");
        assert!(vdev.terminate().is_empty());
    }
}

/// A vdev that fails in the middle of a call is not called again, and holds nothing up.
#[test]
fn a_vdev_that_has_failed_is_called_no_more() {
    let library = Library::of_text(ODD, 800, "odd");
    let guest = Guests::new();
    let vdev = guest.create(&library, "vdev odd how late loc 0xfa000000 intr ioapic:5").unwrap();
    vdev.assign().unwrap();
    vdev.make_region().unwrap();
    vdev.configured().unwrap();
    let text = vdev.starting().unwrap_err().to_string();
    assert!(text.contains("too late"), "{text}");
    assert_eq!(vdev.read(at(0xfa00_0004), &mut [0; 4]), Answer::Unsupported);
    let again = vdev.configured().unwrap_err().to_string();
    assert!(again.contains("it has failed before"), "{again}");
    assert!(vdev.terminate().is_empty());
    assert_eq!(guest.events(), [Event::Interrupt(true), Event::Interrupt(false)]);
    // Its timer would have called it, and its registers are nobody's.
    std::thread::sleep(Duration::from_millis(100));
    let region = guest.listed.region_at(gasp_capi::embed::Space::Memory, 0xfa00_0000);
    assert!(region.is_none());
    let vdev = started(&guest, &library, "vdev odd how status");
    assert_eq!(vdev.status(), "");
    let end = End { vdev: "odd".into(), cause: Cause::Fatal("no more".into()) };
    assert_eq!(guest.events(), [Event::End(end)]);
}

/// A thread that outlives its vdev does not take the engine's device from the next one.
#[test]
fn after_a_thread_that_stays_the_device_can_be_used_again() {
    let library = Library::of_text(ODD, 800, "odd");
    let guest = Guests::new();
    let engine = guest.guest.vdev("odd").unwrap();
    let vdev = guest.create_on(&engine, &library, "vdev odd how thread").unwrap();
    vdev.configured().unwrap();
    assert_eq!(vdev.terminate(), ["stays"]);
    let again = guest.create_on(&engine, &library, "vdev odd how none").unwrap();
    assert!(guest.guest.find_vdev("odd").is_some_and(|found| found.same(&engine)));
    assert!(again.terminate().is_empty());
}
