//! Each function with arguments that are none: NULL, the `vdev_t` of a vdev that is gone, made-up
//! addresses, the largest numbers. The process lives, and the results are the documented ones.

use std::sync::Arc;

use crate::board::{Board, compiled, start};
use crate::support::Guests;

/// The first instance leaves its address; the second calls everything with it, and with others.
const SOURCE: &str = r#"
static vdev_t *gone;
static struct guest_intr gone_intr;
static struct guest_timer *gone_timer;
static struct sigevent gone_event;
static struct cdev_state gone_cdev;
static struct guest_cpu *gone_cpu;
static int is_first = 1;
static void *thread(void *arg) { return arg; }
static void changed(struct guest_power_state_notify *qpnp, void *data)
{ (void)qpnp, (void)data; abort(); }
static vdev_ref_status_t instruction(vdev_t *vdp, struct guest_cpu *gcp, guest_instr_type_t git,
                                     unsigned qualifier)
{ (void)vdp, (void)gcp, (void)git, (void)qualifier; abort(); }
#if QVM_EDITION == 800
#define GSP(...)
static void deliver(vdev_t *pic, const vdev_t *src, uint64_t addr, uint32_t data, uint32_t id)
{ (void)pic, (void)src, (void)addr, (void)data, (void)id; abort(); }
#else
#define GSP(...) __VA_ARGS__,
static void deliver(vdev_t *pic, const vdev_t *src, uint64_t addr, unsigned data, unsigned cookie)
{ (void)pic, (void)src, (void)addr, (void)data, (void)cookie; abort(); }
#endif
static void timer(vdev_t *vdp, void *data, const struct guest_timer_data *tdp, struct guest_cpu *gcp)
{ (void)vdp, (void)data, (void)tdp, (void)gcp; }

static int with_vdev(vdev_t *vdp, vdev_t *bad)
{
    struct sigevent event;
    struct cdev_state cdev;
    struct wdog_state dog;
    struct vpci_rw_state rw;
    uint64_t resolution = 0;
    char text[64];
    pthread_t id;
    memset(&event, 0, sizeof(event));
    memset(&cdev, 0, sizeof(cdev));
    memset(&rw, 0, sizeof(rw));
    vdev_log_text(QL_QVM_INFO, bad, "of a vdev that is none");
    vdev_log_text(UINT32_MAX, bad, NULL);
    CHECK(guest_timer_create(NULL, bad, NULL, &resolution) == NULL && resolution == EINVAL);
    CHECK(guest_button_register(bad) == EINVAL);
    CHECK(guest_instr_register(bad, GIT_X86_HLT, 0, instruction) == EINVAL);
    CHECK(guest_intr_num_pins(bad) == (bad == NULL ? 24 : 0));
    guest_intr_notify(bad, UINT32_MAX, (guest_intr_notifications_t)3);
#if QVM_EDITION == 800
    guest_msi_signal(bad, UINT64_MAX, UINT32_MAX);
    CHECK(guest_msi_register_range(bad, 0, UINT64_MAX, deliver, 0) == EINVAL);
#else
    CHECK(guest_msi_signal(bad, UINT64_MAX, UINT32_MAX) == EINVAL
          || guest_msi_signal(bad, UINT64_MAX, UINT32_MAX) == ENXIO);
    guest_msi_register(bad, 0, UINT64_MAX, deliver, 0);
#endif
    CHECK(vdev_thread_create(bad, "t", &id, NULL, thread, NULL) == EINVAL);
    event.sigev_signo = 77;
    vdev_pulse(bad, 1, 1, &event, 1);
    CHECK(event.sigev_signo == 77);
    vdev_string(text, sizeof(text), bad);
    vdev_path(text, sizeof(text), bad);
    CHECK(cdev_setup(&cdev, bad, 16) == EINVAL);
    cdev.vdev = bad;
    CHECK(cdev_control(&cdev, VDEV_CTRL_TERMINATE, NULL) == EINVAL);
    CHECK(cdev_write(&cdev, "x", 1) == -1 && errno == EINVAL);
    CHECK(cdev_read(&cdev, text, 1) == -1 && errno == EINVAL);
    CHECK(cdev_input_receive(&cdev) == -1 && errno == EINVAL);
    CHECK(cdev_write_buffer(&cdev) == -1 && errno == EINVAL);
    rw.command = PCI_CMD_MEMORY;
    vpci_region_update(bad, &rw);
    CHECK(rw.bars[0].vb_mapping.guest.location == QSL_NO_LOCATION);
    if (bad != NULL) {
        wdog_init(&dog, bad);
        wdog_bite(&dog); /* a line in the log */
    }
    return EOK;
}

static int with_null(vdev_t *vdp)
{
    struct qvm_state_block block = { .location = 4, .length = 4, .BLOCK_TYPE = QST_PCI };
    const struct qvm_slice_descriptor slices[] = { VPCI_SLICE_COMMAND, VPCI_SLICE_END };
    struct _pci_config_regs image;
    struct vpci_rw_state rw;
    uint32_t value = 0;
    pthread_t id;
    memset(&image, 0, sizeof(image));
    memset(&rw, 0, sizeof(rw));
    CHECK(vpci_cfg_read(&rw, slices, &block, &value, &image) == 1);
    CHECK(vpci_cfg_write(&rw, slices, &block, &value) == 1);
    CHECK(vpci_cfg_read(NULL, slices, &block, &value, &image) == 0);
    CHECK(vpci_cfg_read(&rw, NULL, &block, &value, &image) == 0);
    CHECK(vpci_cfg_read(&rw, slices, NULL, &value, &image) == 0);
    CHECK(vpci_cfg_read(&rw, slices, &block, NULL, &image) == 0);
    CHECK(vpci_cfg_read(&rw, slices, &block, &value, NULL) == 0);
    CHECK(vpci_cfg_write(NULL, slices, &block, &value) == 0);
    CHECK(vpci_cfg_write(&rw, NULL, &block, &value) == 0);
    CHECK(vpci_cfg_write(&rw, slices, NULL, &value) == 0);
    CHECK(vpci_cfg_write(&rw, slices, &block, NULL) == 0);
    block.length = UINT32_MAX;
    CHECK(vpci_cfg_read(&rw, slices, &block, &value, &image) == 0);
    CHECK(vpci_cfg_write(&rw, slices, &block, &value) == 0);
    block.length = 4, block.BLOCK_TYPE = QST_MEMORY;
    CHECK(vpci_cfg_read(&rw, slices, &block, &value, &image) == 0);
    vpci_region_update(vdp, NULL);
    wdog_init(NULL, vdp);
    wdog_bite(NULL);
    CHECK(wdog_parse_action(NULL, "intr") == EINVAL);
    CHECK(cdev_setup(NULL, vdp, 1) == EINVAL && cdev_control(NULL, 0, NULL) == EINVAL);
    CHECK(cdev_write(NULL, "x", 1) == -1 && cdev_read(NULL, &value, 1) == -1);
    CHECK(cdev_input_receive(NULL) == -1 && cdev_write_buffer(NULL) == -1);
    CHECK(guest_intr_signal(NULL, GIS_ON) == EINVAL && guest_intr_level(NULL) == -EINVAL);
    guest_intr_string(NULL, NULL, 0);
    CHECK(guest_timer_notify(NULL, NULL, 1) == EINVAL);
    guest_timer_state(NULL, NULL);
    CHECK(vdev_thread_create(vdp, NULL, &id, NULL, NULL, NULL) == EINVAL);
    vdev_pulse(vdp, 1, 1, NULL, 1);
    CHECK(vdev_pulse_deliver(NULL) == EINVAL);
    CHECK(vdev_string(NULL, 0, vdp) > 0 && vdev_string(NULL, SIZE_MAX, vdp) > 0);
    CHECK(vdev_path(NULL, SIZE_MAX, vdp) > 0);
    vdev_log_text(QL_QVM_WARN, NULL, NULL);
    qvm_report_text(NULL);
    vdev_register_factory(NULL, QVM_VDEV_ABI); /* too late: a line in the log */
    CHECK(guest_cpu_read(NULL, GXF_NONE, NULL, UINT32_MAX, NULL, UINT32_MAX) == EINVAL);
    CHECK(guest_cpu_write(NULL, GXF_NONE, NULL, UINT32_MAX, NULL, UINT32_MAX) == EINVAL);
    CHECK(guest_cpu_read(NULL, GXF_NONE, &block, UINT32_MAX, &value, 4) == EINVAL);
    CHECK(guest_cpu_write(NULL, GXF_NONE, &block, UINT32_MAX, &value, 4) == EINVAL);
    CHECK(guest_write_all_ones(NULL, GXF_NONE, NULL) == EINVAL);
    guest_power_state_notify_register(NULL, (guest_power_state_cmd_t)3, UINT32_MAX, UINT64_MAX,
                                      UINT64_MAX, NULL, NULL);
    return EOK;
}

static int with_made_up(vdev_t *vdp)
{
    struct guest_intr intr = { MADE_UP, UINT32_MAX, UINT32_MAX };
    struct qvm_state_block block = { .location = UINT64_MAX, .length = 8, .BLOCK_TYPE = QST_CPUREGS };
    struct sigevent event;
    struct guest_timer_data data;
    uint64_t value = 0;
    CHECK(guest_intr_signal(&intr, GIS_ON) == EINVAL && guest_intr_level(&intr) == -EINVAL);
    CHECK(guest_intr_signal(&gone_intr, GIS_ON) == EINVAL);
    guest_intr_string(&intr, (char *)&value, sizeof(value));
    CHECK(guest_timer_notify(MADE_UP, NULL, 1) == EINVAL);
    CHECK(guest_timer_notify(gone_timer, NULL, 1) == EINVAL);
    guest_timer_state(MADE_UP, &data);
    guest_timer_state(gone_timer, &data);
    memset(&event, 0xff, sizeof(event));
    CHECK(vdev_pulse_deliver(&event) == EINVAL);
    CHECK(vdev_pulse_deliver(&gone_event) == ENXIO || vdev_pulse_deliver(&gone_event) == EINVAL);
    event = gone_event;
    event.sigev_value.sival_ptr = MADE_UP;
    CHECK(vdev_pulse_deliver(&event) == EINVAL);
    CHECK(cdev_write(&gone_cdev, "x", 1) == -1 && errno == EINVAL);
    CHECK(cdev_control(&gone_cdev, VDEV_CTRL_STATUS, NULL) == EINVAL);
    gone_cdev.vdev = vdp; /* of a vdev that has not set it up */
    CHECK(cdev_read(&gone_cdev, &value, UINT32_MAX) == -1 && errno == EINVAL);
    CHECK(guest_cpu_read(MADE_UP, GXF_NONE, &block, 1, &value, 8) != EOK);
    CHECK(guest_cpu_write(gone_cpu, GXF_NONE, &block, 1, &value, 8) != EOK);
    CHECK(guest_write_all_ones(MADE_UP, GXF_NONE, &block) != EOK);
    block.BLOCK_TYPE = QST_MEMORY;
    CHECK(guest_cpu_read(NULL, GXF_NONE, &block, 1, &value, 8) != EOK);
    CHECK(guest_write_all_ones(NULL, GXF_NONE, &block) != EOK);
    guest_power_state_notify_delete(MADE_UP);
    guest_power_state_notify_register(MADE_UP, GPSC_TO, 0, 1, 1, changed, NULL);
#if QVM_EDITION != 800
    CHECK(guest_power_state_current(MADE_UP, GPSC_OFF, 0, 1, &value) == -ENXIO);
    CHECK(guest_power_state_current(NULL, GPSC_OFF, 0, 1, &value) == -ENXIO);
    CHECK(guest_power_state_notify_create(MADE_UP) == NULL && errno == ENXIO);
    CHECK(guest_write_core_file(MADE_UP, "x") == ENXIO);
    CHECK(guest_write_core_file(NULL, "x") == ENXIO);
#endif
    return EOK;
}

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    uint64_t resolution;
    int error = EOK;
    (void)arg;
    if (ctrl == VDEV_CTRL_OPTIONS_START && gone == NULL)
        CHECK(cdev_setup(&gone_cdev, vdp, 64) == EOK);
    if (ctrl == VDEV_CTRL_ASSIGN && gone == NULL) {
        gone_intr = vdp->v_intr;
        CHECK(guest_intr_level(&gone_intr) == 1);
        gone_timer = guest_timer_create(NULL, vdp, NULL, &resolution);
        CHECK(gone_timer != NULL);
        vdev_pulse(vdp, 1, 0, &gone_event, 0);
    }
    if (ctrl == VDEV_CTRL_TERMINATE) {
        gone = vdp;
        is_first = 0;
    }
    if (!is_first && (ctrl == VDEV_CTRL_OPTIONS_END || ctrl == VDEV_CTRL_GUEST_STARTING)) {
        error = with_vdev(vdp, NULL);
        if (error == EOK) error = with_vdev(vdp, gone);
        if (error == EOK) error = with_vdev(vdp, MADE_UP);
        if (error == EOK) error = with_vdev(vdp, (vdev_t *)((char *)vdp + 8));
        if (error == EOK) error = with_vdev(vdp, (vdev_t *)UINTPTR_MAX);
        if (error == EOK) error = with_null(vdp);
        if (error == EOK) error = with_made_up(vdp);
    }
    return error;
}
static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    (void)vdp, (void)cookie, (void)vopnd, (void)oopnd;
    gone_cpu = gcp;
    return VRS_NORMAL;
}
VDEV(.control = control, .vread = vread, .timer = timer)
"#;

#[test]
fn arguments_that_are_none_are_refused() {
    for edition in [800, 710] {
        let library = compiled(SOURCE, edition, "hostile");
        let (guest, board) = (Guests::new(), Arc::<Board>::default());
        let create = || board.create(&guest, &library, "vdev hostile loc 0xfa000000 intr ioapic:5");
        let first = create().and_then(start).unwrap_or_else(|error| panic!("{error}"));
        first.read(crate::board::at(gasp_qvm::Space::Memory, 0xfa00_0000), &mut [0; 4]);
        assert!(first.terminate().is_empty());
        let second = create().and_then(start).unwrap_or_else(|error| panic!("{edition}: {error}"));
        assert!(second.terminate().is_empty());
        assert_eq!(board.events(), []);
    }
}

/// Threads that are no vdev's, and of no guest.
#[test]
fn calls_of_no_vdev_are_refused() {
    const SOURCE: &str = r#"
#if QVM_EDITION == 800
#define GSP(...)
#else
#define GSP(...) NULL,
#endif
static int failed;
#define SEE(x) do { if (!(x)) failed = __LINE__; } while (0)
static void *outside(void *arg)
{
    struct qvm_state_block block = { .location = 0, .length = 8, .BLOCK_TYPE = QST_CPUREGS };
    struct guest_intr intr = { NULL, 0, 0 };
    struct wdog_state dog;
    uint64_t value;
    (void)arg;
    guest_terminate(GSP(NULL) 33);
    SEE(guest_intr_num_pins(NULL) == 0);
    SEE(guest_write_core_file(GSP(NULL) NULL) == ENXIO);
    SEE(guest_power_state_current(GSP(NULL) GPSC_OFF, 0, 1, &value) < 0);
    SEE(guest_power_state_notify_create(GSP(NULL)) == NULL);
    SEE(guest_cpu_read(NULL, GXF_NONE, &block, 1, &value, 8) != EOK);
    qvm_report_text("nobody's");
    wdog_init(&dog, NULL);
    wdog_bite(&dog);
#if QVM_EDITION == 800
    guest_intr_assign(&intr, GIAT_EXCLUSIVE, NULL, 1);
    SEE(intr.pic == NULL && guest_intr_from_conf_str(&intr, (char *)"ioapic:1") == NULL);
    guest_intr_assign_auto(&intr, GIAT_EXCLUSIVE);
#else
    guest_intr_assign(NULL, 1, GIAT_EXCLUSIVE, &intr);
    SEE(qvm_parse_intr(NULL, "ioapic:1", &intr) == NULL);
#endif
    SEE(intr.pic == NULL && intr.src_id == 0);
    return NULL;
}
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    pthread_t id;
    (void)arg;
    if (ctrl == VDEV_CTRL_GUEST_STARTING) {
        CHECK(pthread_create(&id, NULL, outside, NULL) == 0 && pthread_join(id, NULL) == 0);
        if (failed) vdev_logf(ERROR_LEVEL, vdp, "line %d", failed);
    }
    return failed ? EDOM : EOK;
}
VDEV(.control = control)
"#;
    for edition in [800, 710] {
        let source = SOURCE.replace(
            "notify_create(GSP(NULL))",
            match edition {
                800 => "notify_create()",
                _ => "notify_create(NULL)",
            },
        );
        let library = compiled(&source, edition, "outside");
        let (guest, board) = (Guests::new(), Arc::<Board>::default());
        let vdev = board.create(&guest, &library, "vdev outside").and_then(start);
        drop(vdev.unwrap_or_else(|error| panic!("{edition}: {error}")));
        assert_eq!(board.events(), []);
    }
}
