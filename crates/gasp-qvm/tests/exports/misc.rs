//! Locations, processors, instructions, messages, core files, the end of a guest.

use std::sync::Arc;

use gasp_qvm::{Cause, End};

use crate::board::{Board, check, compiled, start};
use crate::support::{Event, Guests};

const PARSE: &str = r#"
static char *parse(const char *text, struct qvm_state_block *block, int *is_id)
{
#if QVM_EDITION == 800
    (void)is_id;
    return qvm_parse_block(text, block);
#else
    return qvm_parse_block(text, block, is_id);
#endif
}
static int parses(const char *text, struct qvm_state_block *block, int *is_id, unsigned length)
{
    return parse(text, block, is_id) == text + length;
}
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    const struct qvm_state_block before = { .location = 1, .length = 2, .BLOCK_TYPE = QST_HOST };
    struct qvm_state_block block = before;
    const char *const text = "mem:0xfa000000 x";
    int is_id = 7;
    (void)arg;
    if (ctrl == VDEV_CTRL_GUEST_STARTING) {
        CHECK(parse(text, &block, &is_id) == NULL);
        return EOK;
    }
    if (ctrl != VDEV_CTRL_OPTIONS_END)
        return EOK;
    CHECK(parses(text, &block, &is_id, 14));
    CHECK(block.location == 0xfa000000 && block.BLOCK_TYPE == QST_MEMORY && block.length == 2);
    CHECK(parses("io:0x3f8,8;", &block, NULL, 10));
    CHECK(block.location == 0x3f8 && block.BLOCK_TYPE == QST_X86_IO && block.length == 8);
    CHECK(parses("0x10", &block, &is_id, 4));
    CHECK(block.location == 0x10 && block.BLOCK_TYPE == QST_X86_IO && block.length == 8);
    CHECK(parses("pci:1:4.2", &block, &is_id, 9));
    CHECK(block.location == QSL_PCI_MAKE_LOC(1, 4, 2, 0) && block.BLOCK_TYPE == QST_PCI);
    block = before;
    CHECK(parse("here", &block, &is_id) == NULL && parse("", &block, &is_id) == NULL);
    CHECK(parse(NULL, &block, &is_id) == NULL && parse("1", NULL, &is_id) == NULL);
#if QVM_EDITION == 800
    CHECK(parse("pci:0x1c05/2", &block, NULL) == NULL);
    CHECK(memcmp(&block, &before, sizeof(block)) == 0);
    CHECK(parses("mem:0,0x100000000", &block, NULL, 17));
    CHECK(block.length == 0x100000000);
#else
    CHECK(is_id == 0);
    CHECK(parse("mem:0,0x100000000", &block, &is_id) == NULL);
    CHECK(memcmp(&block, &before, sizeof(block)) == 0);
    CHECK(parses("pci:0x1c05/2", &block, &is_id, 12));
    CHECK(is_id == 1 && block.location == 0x1c050002 && block.BLOCK_TYPE == QST_PCI);
    CHECK(parses("pci:0x1c05/2", &block, NULL, 12));
#endif
    return EOK;
}
VDEV(.control = control)
"#;

#[test]
fn locations_are_read_as_the_configuration_writes_them() {
    check(PARSE, 800, "parse");
    check(PARSE, 710, "parse");
}

const LIMITS: &str = r#"
#if QVM_EDITION == 800
#define CURRENT(cmd, base, n, result) guest_power_state_current(cmd, base, n, result)
#define CREATE() guest_power_state_notify_create()
#define CORE(path) guest_write_core_file(path)
static void deliver(vdev_t *pic, const vdev_t *src, uint64_t addr, uint32_t data, uint32_t id)
{ (void)pic, (void)src, (void)addr, (void)data, (void)id; abort(); }
#else
#define CURRENT(cmd, base, n, result)                                                         \
    guest_power_state_current(vdp->v_gsp, (enum guest_power_state_cmd)(cmd), base, n, result)
#define CREATE() guest_power_state_notify_create(vdp->v_gsp)
#define CORE(path) guest_write_core_file(vdp->v_gsp, path)
static void deliver(vdev_t *pic, const vdev_t *src, uint64_t addr, unsigned data, unsigned cookie)
{ (void)pic, (void)src, (void)addr, (void)data, (void)cookie; abort(); }
#endif
static vdev_ref_status_t instruction(vdev_t *vdp, struct guest_cpu *gcp, guest_instr_type_t git,
                                     unsigned qualifier)
{ (void)vdp, (void)gcp, (void)git, (void)qualifier; abort(); }
static void changed(struct guest_power_state_notify *qpnp, void *data)
{ (void)qpnp, (void)data; abort(); }
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    uint64_t result = 5;
    (void)arg;
    if (ctrl == VDEV_CTRL_OPTIONS_END) {
        CHECK(guest_instr_register(vdp, GIT_X86_CPUID, 1, instruction) == ENOTSUP);
        CHECK(guest_instr_register(
                  vdp, (guest_instr_type_t)(GIT_X86_HLT | GIT_FLAG_NO_QUALIFIER), 0, instruction)
              == ENOTSUP);
        CHECK(guest_instr_register(vdp, (guest_instr_type_t)0, 0, instruction) == EINVAL);
        CHECK(guest_instr_register(vdp, (guest_instr_type_t)6, 0, instruction) == EINVAL);
        CHECK(guest_instr_register(vdp, GIT_X86_HLT, 0, NULL) == EINVAL);
#if QVM_EDITION == 800
        CHECK(guest_msi_register_range(vdp, 0xfee00000, 0xfeefffff, deliver, 3) == ENOTSUP);
        CHECK(guest_msi_register_range(vdp, 1, 0, deliver, 3) == EINVAL);
        CHECK(guest_msi_register_range(vdp, 0, 1, NULL, 3) == EINVAL);
#else
        guest_msi_register(vdp, 0xfee00000, 0xfff00000, deliver, 3);
#endif
    }
    if (ctrl == VDEV_CTRL_GUEST_STARTING) {
        CHECK(guest_instr_register(vdp, GIT_X86_HLT, 0, instruction) == EPERM);
#if QVM_EDITION == 800
        CHECK(guest_msi_register_range(vdp, 0, 1, deliver, 3) == EPERM);
#endif
    }
    if (ctrl == VDEV_CTRL_OPTIONS_END || ctrl == VDEV_CTRL_GUEST_STARTING) {
        CHECK(CURRENT(GPSC_WAIT, 0, 1, &result) == -ENOTSUP);
        CHECK(CURRENT(GPSC_WAIT | GPSC_OFF, 0, 1, &result) == -ENOTSUP);
        CHECK(CURRENT(0, 0, 1, &result) == -EINVAL && CURRENT(GPSC_TO, 0, 1, &result) == -EINVAL);
        CHECK(CURRENT(GPSC_OFF, 1, 1, &result) == -EINVAL);
        CHECK(CURRENT(GPSC_OFF, 0, 0, &result) == -EINVAL);
        CHECK(CURRENT(GPSC_OFF, 0, UINT32_MAX, NULL) == -EINVAL && result == 5);
        errno = 0;
        CHECK(CREATE() == NULL && errno == ENOTSUP);
        guest_power_state_notify_register(NULL, GPSC_TO, 0, 1, 1, changed, NULL);
        guest_power_state_notify_delete(NULL);
        guest_intr_notify(vdp, 3, GIN_ACK);
        CHECK(CORE("/tmp/core") == EOK && CORE(NULL) == EOK && CORE("/full") == ENOSPC);
        CHECK(CORE("") == ENOENT);
    }
    return EOK;
}
VDEV(.control = control)
"#;

#[test]
fn what_the_host_does_not_have_is_said() {
    for edition in [800, 710] {
        let (library, guest) = (compiled(LIMITS, edition, "limits"), Guests::new());
        let board = Arc::<Board>::default();
        let vdev = board.create(&guest, &library, "vdev limits").and_then(start);
        drop(vdev.unwrap_or_else(|error| panic!("{edition}: {error}")));
        let paths = [Some("/tmp/core".into()), None, Some("/full".into())];
        assert_eq!(*board.cores.lock(), [&paths[..], &paths[..]].concat());
    }
}

const ENDS: &str = r#"
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    static const unsigned causes[] = { GTC_POWER_CUT, GTC_MAX, 0, GTC_MAX + 1, UINT32_MAX };
    unsigned i;
    (void)vdp, (void)arg;
    for (i = 0; ctrl == VDEV_CTRL_GUEST_STARTING && i < sizeof(causes) / sizeof(*causes); i++)
#if QVM_EDITION == 800
        guest_terminate((guest_termination_cause_t)causes[i]);
#else
        guest_terminate(vdp->v_gsp, causes[i]);
#endif
    return EOK;
}
VDEV(.control = control)
"#;

#[test]
fn a_cause_that_is_none_counts_as_an_error() {
    for edition in [800, 710] {
        let (library, guest) = (compiled(ENDS, edition, "ends"), Guests::new());
        let board = Arc::<Board>::default();
        start(board.create(&guest, &library, "vdev ends").unwrap()).unwrap();
        let end = |cause| Event::End(End { vdev: "ends".into(), cause: Cause::Terminated(cause) });
        assert_eq!(board.events(), [3, 63, 7, 7, 7].map(end));
    }
}
