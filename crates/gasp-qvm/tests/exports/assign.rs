//! Interrupts that vdevs assign by themselves.

use std::sync::Arc;

use gasp_qvm::{Instance, VdevError};

use crate::board::{Board, compiled};
use crate::support::{Event, Guests};

/// Assigns as its option says. Its interrupt is in its state, if it is `own`.
const SOURCE: &str = r#"
static const char *const options[] = { "how", "line", NULL };
struct state { char how[16]; struct guest_intr own; };
static void assign(vdev_t *pic, unsigned pin, unsigned type, struct guest_intr *gip)
{
#if QVM_EDITION == 800
    guest_intr_assign(gip, type, pic, pin);
#else
    guest_intr_assign(pic, pin, (enum guest_intr_assign_type)type, gip);
#endif
}
static char *parse(vdev_t *vdp, const char *text, struct guest_intr *gip)
{
#if QVM_EDITION == 800
    (void)vdp;
    return guest_intr_from_conf_str(gip, (char *)text);
#else
    return qvm_parse_intr(vdp->v_gsp, text, gip);
#endif
}
static int is_named(const struct guest_intr *gip, const char *expected)
{
    char text[32] = "", cut[4] = "xxx";
    const size_t length = strlen(expected);
    return guest_intr_string(gip, NULL, 0) == length
        && guest_intr_string(gip, text, sizeof(text)) == length && strcmp(text, expected) == 0
        && guest_intr_string(gip, cut, sizeof(cut)) == length && strncmp(cut, expected, 3) == 0
        && cut[3] == 0;
}
static int at_assign(vdev_t *vdp, const char *how)
{
    struct state *const state = vdp->v_device;
    struct guest_intr *const gip = &vdp->v_intr;
    CHECK(guest_intr_num_pins(NULL) == 24 && guest_intr_num_pins(vdp) == 0);
    CHECK(guest_intr_num_pins(MADE_UP) == 0 && guest_intr_level(gip) == (gip->src_id ? 1 : -EINVAL));
    if (strcmp(how, "pin") == 0 || strcmp(how, "shared") == 0) {
        assign(NULL, 7, *how == 'p' ? GIAT_EXCLUSIVE : GIAT_SHARED, gip);
        CHECK(gip->pic != NULL && gip->param == 7 && gip->src_id != 0);
        CHECK(guest_intr_num_pins(gip->pic) == 24 && guest_intr_level(gip) == 1);
        CHECK(is_named(gip, "ioapic:7"));
        /* The same one again is that one. */
        assign(gip->pic, 7, GIAT_EXCLUSIVE, &state->own);
        CHECK(memcmp(&state->own, gip, sizeof(*gip)) == 0);
        assign(NULL, 7, GIAT_EXCLUSIVE, NULL);
    } else if (strcmp(how, "twice") == 0) {
        assign(NULL, 7, GIAT_EXCLUSIVE, &state->own);
        CHECK(state->own.pic != NULL);
        assign(NULL, 8, GIAT_EXCLUSIVE, &state->own);
        CHECK(state->own.pic == NULL && vdp->v_intr.param == 7);
    } else if (strcmp(how, "retry") == 0) {
        assign(NULL, 7, GIAT_EXCLUSIVE, gip);
        CHECK(gip->pic == NULL && gip->src_id == 0);
        assign(NULL, 8, GIAT_EXCLUSIVE, gip);
        CHECK(gip->pic != NULL && gip->param == 8);
    } else if (strcmp(how, "taken") == 0) {
        assign(NULL, 7, GIAT_SHARED, gip);
    } else if (strcmp(how, "far") == 0) {
        assign(NULL, 24, GIAT_EXCLUSIVE, gip);
    } else if (strcmp(how, "pic") == 0) {
        assign(vdp, 7, GIAT_EXCLUSIVE, gip);
    } else if (strcmp(how, "type") == 0) {
        assign(NULL, 7, 2, gip);
#if QVM_EDITION == 800
    } else if (strcmp(how, "any") == 0) {
        guest_intr_assign_auto(&state->own, GIAT_EXCLUSIVE);
        CHECK(state->own.pic != NULL && state->own.src_id != 0);
        guest_intr_assign_auto(NULL, GIAT_EXCLUSIVE);
#endif
    }
    return EOK;
}
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    const struct guest_intr none = { NULL, 1, 2 };
    struct guest_intr intr = none;
    char *end;
    switch (ctrl) {
    case VDEV_CTRL_FIRST_OPTIDX: strncpy(state->how, arg, sizeof state->how - 1); break;
    case VDEV_CTRL_FIRST_OPTIDX + 1:
        end = parse(vdp, arg, &vdp->v_intr);
        if (end == NULL) return EINVAL;
        CHECK(*end == ',' && vdp->v_intr.pic != NULL && is_named(&vdp->v_intr, "ioapic:11"));
        CHECK(parse(vdp, arg, NULL) == end);
        break;
    case VDEV_CTRL_OPTIONS_END:
        CHECK(parse(vdp, NULL, &intr) == NULL && parse(vdp, "", &intr) == NULL);
        CHECK(parse(vdp, "gic:1", &intr) == NULL && parse(vdp, "ioapic", &intr) == NULL);
        CHECK(parse(vdp, "ioapic:24", &intr) == NULL && parse(vdp, "ioapic:-1", &intr) == NULL);
        CHECK(memcmp(&intr, &none, sizeof(intr)) == 0);
#if QVM_EDITION != 800
        CHECK(qvm_parse_intr(NULL, "ioapic:1", &intr) == NULL);
        CHECK(qvm_parse_intr(MADE_UP, "ioapic:1", &intr) == NULL);
#endif
        break;
    case VDEV_CTRL_ASSIGN: return at_assign(vdp, state->how);
    case VDEV_CTRL_GUEST_STARTING:
        if (strcmp(state->how, "late") == 0) {
            assign(NULL, 7, GIAT_EXCLUSIVE, &intr);
            CHECK(intr.pic == NULL && vdp->v_intr.src_id == 0);
            CHECK(parse(vdp, "ioapic:1", &intr) == NULL);
        }
        if (strcmp(state->how, "any") == 0) {
            CHECK(is_named(&state->own, "ioapic:9"));
            CHECK(guest_intr_signal(&state->own, GIS_ON) == EOK);
        }
        if (strcmp(state->how, "pin") == 0) {
            CHECK(guest_intr_signal(&vdp->v_intr, GIS_ON) == EOK);
            CHECK(guest_intr_signal(&vdp->v_intr, GIS_OFF) == EOK);
        }
        break;
    default: break;
    }
    return EOK;
}
VDEV(.control = control, .option_list = options, .extra_space = sizeof(struct state))
"#;

struct Case {
    board: Arc<Board>,
    outcome: Result<Instance, VdevError>,
    _guest: Guests,
}

fn run(edition: u32, options: &str, board: Board) -> Case {
    let (library, guest) = (compiled(SOURCE, edition, "lines"), Guests::new());
    let board = Arc::new(board);
    let outcome = board.create(&guest, &library, &format!("vdev lines {options}"));
    let outcome = outcome.and_then(|vdev| vdev.assign().map(|()| vdev));
    Case { board, outcome, _guest: guest }
}

/// Takes a vdev, which has its line, up to the running guest.
fn go(vdev: &Instance) {
    vdev.configured().and_then(|()| vdev.starting()).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_vdev_assigns_itself_a_line_and_signals_it() {
    for edition in [800, 710] {
        let case = run(edition, "how pin", Board::default());
        let vdev = case.outcome.unwrap_or_else(|error| panic!("{edition}: {error}"));
        assert_eq!((vdev.line(), vdev.wants_line()), (Some(7), false));
        assert_eq!(*case.board.assigned.lock(), [(Some(7), true)]);
        go(&vdev);
        assert_eq!(case.board.events(), [Event::Interrupt(true), Event::Interrupt(false)]);
        let case = run(edition, "how shared", Board::default());
        case.outcome.unwrap_or_else(|error| panic!("{edition}: {error}"));
        assert_eq!(*case.board.assigned.lock(), [(Some(7), false)]);
    }
}

#[test]
fn a_vdev_that_asks_for_any_line_gets_one_at_once_or_later() {
    let case = run(800, "how any", Board::default());
    let vdev = case.outcome.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((vdev.line(), vdev.wants_line()), (None, true));
    vdev.set_line(9);
    assert_eq!((vdev.line(), vdev.wants_line()), (Some(9), false));
    go(&vdev);
    assert_eq!(case.board.events(), [Event::Interrupt(true)]);
    drop(vdev);
    let case = run(800, "how any", Board { chooses: Some(9), ..Board::default() });
    let vdev = case.outcome.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((vdev.line(), vdev.wants_line()), (Some(9), false));
    go(&vdev);
    assert_eq!(*case.board.assigned.lock(), [(None, true)]);
}

#[test]
fn a_line_that_cannot_be_assigned_stops_the_start_unless_another_can() {
    for edition in [800, 710] {
        for (how, taken, parts) in [
            ("twice", vec![], &["has the line 7 already", "not 8"][..]),
            ("taken", vec![7], &["the line 7 of `ioapic`", "busy"]),
            ("far", vec![], &["no `ioapic:24`", "0 to 23"]),
            ("pic", vec![], &["no interrupt controller"]),
            ("type", vec![], &["2 is no GIAT_*"]),
        ] {
            let board = Board { taken, ..Board::default() };
            let error = run(edition, &format!("how {how}"), board).outcome.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, VdevError::Host { .. }), "{how}: {text}");
            assert!(text.contains("vdev `lines`"), "{text}");
            for part in parts {
                assert!(text.contains(part), "{how}: {text}");
            }
        }
        let case = run(edition, "how retry", Board { taken: vec![7], ..Board::default() });
        let vdev = case.outcome.unwrap_or_else(|error| panic!("{edition}: {error}"));
        assert_eq!(vdev.line(), Some(8));
    }
}

#[test]
fn lines_are_assigned_before_the_guest_is_complete() {
    for edition in [800, 710] {
        let vdev = run(edition, "how late", Board::default()).outcome.unwrap();
        go(&vdev);
    }
}

#[test]
fn an_option_names_a_line_as_the_configuration_does() {
    for edition in [800, 710] {
        let case = run(edition, "line ioapic:11,rest", Board::default());
        let vdev = case.outcome.unwrap_or_else(|error| panic!("{edition}: {error}"));
        assert_eq!(vdev.line(), Some(11));
        let board = Board { taken: vec![11], ..Board::default() };
        let text = run(edition, "line ioapic:11,x", board).outcome.unwrap_err().to_string();
        for part in ["test.qvmconf:2", "`line ioapic:11,x`", "the line 11 of `ioapic`"] {
            assert!(text.contains(part), "{edition}: {text}");
        }
    }
}
