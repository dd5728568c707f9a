//! Watchdogs.

use std::sync::Arc;

use gasp_qvm::{Cause, End};

use crate::board::{Board, compiled, start};
use crate::support::{Event, Guests};

/// Bites with the actions of its options, in order.
const SOURCE: &str = r#"
static const char *const options[] = { "action", "0up", "0none", NULL };
struct state { struct wdog_state dog; unsigned up; };
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    struct wdog_state before;
    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        memset(&state->dog, 0xff, sizeof(state->dog));
        wdog_init(&state->dog, vdp);
        CHECK(state->dog.ws_vdev == vdp && state->dog.ws_action == WDOG_ACTION_TERMINATE);
        CHECK(state->dog.ws_flags == 0 && state->dog.ws_reserved[1] == 0);
        before = state->dog;
        CHECK(wdog_parse_action(&state->dog, "bark") == EINVAL);
        CHECK(wdog_parse_action(&state->dog, NULL) == EINVAL);
        CHECK(memcmp(&before, &state->dog, sizeof(before)) == 0);
        break;
    case VDEV_CTRL_FIRST_OPTIDX: return wdog_parse_action(&state->dog, arg);
    case VDEV_CTRL_FIRST_OPTIDX + 1: state->up = 1; break;
    case VDEV_CTRL_FIRST_OPTIDX + 2: state->dog.ws_action = 0x40; break;
    case VDEV_CTRL_GUEST_STARTING:
        if (state->up)
            guest_intr_signal(&vdp->v_intr, GIS_ON);
        wdog_bite(&state->dog);
        if (state->up)
            guest_intr_signal(&vdp->v_intr, GIS_OFF);
        break;
    default: break;
    }
    return EOK;
}
VDEV(.control = control, .option_list = options, .extra_space = sizeof(struct state))
"#;

#[test]
fn a_bite_does_what_the_action_says() {
    use Event::Interrupt;
    let end = || Event::End(End { vdev: "dog".into(), cause: Cause::Terminated(4) });
    for edition in [800, 710] {
        let library = compiled(SOURCE, edition, "dog");
        for (options, expected, cores) in [
            ("", vec![end()], 0),
            ("action terminate", vec![end()], 0),
            ("action dump,terminate", vec![end()], 1),
            ("action \"intr\" intr ioapic:5", vec![Interrupt(true), Interrupt(false)], 0),
            ("action dump,fiq intr ioapic:5", vec![Interrupt(true), Interrupt(false)], 1),
            // Without an interrupt, or an action, there is a line in the log.
            ("action \"intr\"", vec![], 0),
            ("none", vec![], 0),
            // A level that is up is up afterwards.
            (
                "action \"intr\" up intr ioapic:5",
                [true, false, true, false].map(Interrupt).to_vec(),
                0,
            ),
        ] {
            let (guest, board) = (Guests::new(), Arc::<Board>::default());
            let vdev = board.create(&guest, &library, &format!("vdev dog {options}"));
            let vdev = vdev.and_then(start).unwrap_or_else(|error| panic!("{options}: {error}"));
            assert_eq!(board.events(), expected, "{edition}: {options}");
            assert_eq!(board.cores.lock().len(), cores, "{edition}: {options}");
            drop(vdev);
        }
        let (guest, board) = (Guests::new(), Arc::<Board>::default());
        let error = board.create(&guest, &library, "vdev dog action \"dump\"").unwrap_err();
        assert!(error.to_string().contains("test.qvmconf:2"), "{error}");
    }
}
