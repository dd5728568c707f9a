/*
 * A UART of the host's terminal, 8.0, without FIFOs: registers are ports, or memory. Options:
 * those of <qvm/cdev.h>, and baud NUMBER.
 */
#include <stdint.h>
#include <stdlib.h>

#include <qvm/vdev-core.h>
#include <qvm/8250.h>
#include <qvm/cdev.h>

enum { OPT_BAUD = CDEV_OPT_NUM_OPTS, OPT_COUNT };

struct uart_state {
    struct cdev_state cdev; /* first */
    uint8_t regs[SER8250_NUM_REGS];
    uint8_t divisor[2];
    unsigned baud;
};

static void update(vdev_t *vdp, struct uart_state *state)
{
    const int input = cdev_input_available(&state->cdev);
    const int room = !cdev_output_full(&state->cdev);
    const unsigned enabled = state->regs[SER8250_IER];
    const int on = (input && (enabled & SER8250_IER_RDA) != 0) ||
                   (room && (enabled & SER8250_IER_THRE) != 0);

    state->regs[SER8250_LSR] = (uint8_t)((input ? SER8250_LSR_DR : 0u) |
                                         (room ? SER8250_LSR_THRE : 0u));
    if (cdev_output_empty(&state->cdev))
        state->regs[SER8250_LSR] |= SER8250_LSR_TEMT;
    (void)guest_intr_signal(&vdp->v_intr, on ? GIS_ON : GIS_OFF);
}

static int uart_control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct uart_state *const state = vdp->v_device;
    int err;

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        vdp->v_block.qst_type = QST_X86_IO;
        vdp->v_block.length = SER8250_NUM_REGS;
        state->baud = 115200;
        err = cdev_setup(&state->cdev, vdp, 4096);
        if (err != EOK)
            return err;
        break;
    case VDEV_CTRL_FIRST_OPTIDX + OPT_BAUD:
        state->baud = (unsigned)strtoul(arg, NULL, 0);
        break;
    case VDEV_CTRL_STATUS:
        qvm_report("%u baud, %u bytes of input, %u of output\n", state->baud,
                   cdev_input_num_available(&state->cdev),
                   cdev_output_num_pending(&state->cdev));
        break;
    default:
        break;
    }
    return cdev_control(&state->cdev, ctrl, arg);
}

static int uart_pulse(vdev_t *vdp, const struct _pulse *pulse)
{
    struct uart_state *const state = vdp->v_device;

    pthread_mutex_lock(&vdp->v_mtx);
    if (pulse->code == CDEV_INPUT_AVAILABLE_PULSE_CODE)
        (void)cdev_input_receive(&state->cdev);
    else if (pulse->code == CDEV_OUTPUT_AVAILABLE_PULSE_CODE && cdev_output_busy(&state->cdev))
        (void)cdev_write_buffer(&state->cdev);
    update(vdp, state);
    pthread_mutex_unlock(&vdp->v_mtx);
    return EOK;
}

static vdev_ref_status_t uart_vread(vdev_t *vdp, unsigned cookie,
                                    const struct qvm_state_block *vopnd,
                                    const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct uart_state *const state = vdp->v_device;
    const unsigned reg = (unsigned)(vopnd->location - vdp->v_block.location) % SER8250_NUM_REGS;
    uint8_t data;

    (void)cookie;
    pthread_mutex_lock(&vdp->v_mtx);
    data = state->regs[reg];
    if ((state->regs[SER8250_LCR] & SER8250_LCR_DLAB) != 0 && reg <= SER8250_DLM)
        data = state->divisor[reg];
    else if (reg == SER8250_RBR && cdev_read(&state->cdev, &data, 1) != 1)
        data = 0;
    update(vdp, state);
    pthread_mutex_unlock(&vdp->v_mtx);
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &data, sizeof(data)));
}

static vdev_ref_status_t uart_vwrite(vdev_t *vdp, unsigned cookie,
                                     const struct qvm_state_block *vopnd,
                                     const struct qvm_state_block *oopnd,
                                     struct guest_cpu *gcp)
{
    struct uart_state *const state = vdp->v_device;
    const unsigned reg = (unsigned)(vopnd->location - vdp->v_block.location) % SER8250_NUM_REGS;
    uint8_t data = 0;
    const int err = guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &data, sizeof(data));

    (void)cookie;
    if (err != EOK)
        return guest_cpu_to_vrs(err);
    pthread_mutex_lock(&vdp->v_mtx);
    if ((state->regs[SER8250_LCR] & SER8250_LCR_DLAB) != 0 && reg <= SER8250_DLM)
        state->divisor[reg] = data;
    else if (reg == SER8250_THR)
        (void)cdev_write(&state->cdev, &data, 1);
    else
        state->regs[reg] = data;
    update(vdp, state);
    pthread_mutex_unlock(&vdp->v_mtx);
    return VRS_NORMAL;
}

static void __attribute__((constructor)) uart_register(void)
{
    static const char *const options[] = { CDEV_OPTIONS, [OPT_BAUD] = "baud", NULL };
    static struct vdev_factory factory = {
        .next = NULL,
        .control = uart_control,
        .vread = uart_vread,
        .vwrite = uart_vwrite,
        .pulse = uart_pulse,
        .option_list = options,
        .name = NULL,
        .factory_flags = VFF_VDEV_X86_IO | VFF_VDEV_MEM | VFF_INTR_REQ | VFF_MUTEX,
        .acc_sizes = 1u << 1,
        .extra_space = sizeof(struct uart_state),
    };
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
