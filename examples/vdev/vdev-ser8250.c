/*
 * ser8250: a serial port, the 16550A UART that Linux's driver 8250 expects.
 *
 *   vdev ser8250 loc io:0x2f8 intr ioapic:3 hostdev /dev/pts/5
 *   vdev ser8250 loc mem:0xfa002000 intr ioapic:11 hostdev >console.log
 *
 * `hostdev` is what the other end of the line is connected to: a terminal, a pipe or a file. With
 * `>` output goes there, to its end, and there is no input; with `<` input comes from there, and
 * output is discarded. Without the option nothing is connected.
 *
 *   cc -shared -fPIC -o vdev-ser8250.so vdev-ser8250.c $(pkg-config --cflags gasp)
 *
 * For the 7.x edition add -DQVM_EDITION=710.
 *
 * Registers as in the public data sheet of the PC16550D. Bytes take no time on the line, whatever
 * the divisor says: the transmitter waits for the host device alone. The line has no errors and
 * no breaks. OUT2 does not gate the interrupt, which is the INTR pin of the chip.
 *
 * The file shows a level-triggered interrupt of several causes, and a thread that waits for the
 * host, so that the guest's processors do not.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <unistd.h>

#include <qvm/8250.h>

#include "edition.h"

/* Bytes in the order of their arrival. */
struct fifo {
    uint8_t bytes[SER8250_FIFO_SIZE];
    unsigned first;
    unsigned len;
};

struct uart {
    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    bool has_overrun;      /* LSR: a byte was received that found no room */
    bool is_thre_pending;  /* the transmitter has become empty, and the guest has not seen it */
    uint8_t modem_changes; /* the lower half of MSR */
    struct fifo rx, tx;
    /* The transmitter's shift register: what the thread is writing to the host device. */
    uint8_t shift[SER8250_FIFO_SIZE];
    unsigned shift_len;

    char *path; /* of the host device, with `<` or `>`; NULL: none */
    int fd;     /* -1: nothing is connected */
    bool reads, writes;
    bool is_terminal;
    struct termios settings; /* of the terminal, to be restored */

    int wake; /* an eventfd for the thread: there is something to send, room, or the end */
    bool is_over;
    bool has_thread;
    pthread_t thread;
};

static const char *const options[] = { "hostdev", NULL };
enum { HOSTDEV };

/* ---- FIFOs ---------------------------------------------------------------------------------- */

static bool put(struct fifo *fifo, unsigned depth, uint8_t byte)
{
    if (fifo->len >= depth)
        return false;
    fifo->bytes[(fifo->first + fifo->len++) % SER8250_FIFO_SIZE] = byte;
    return true;
}

static bool take(struct fifo *fifo, uint8_t *byte)
{
    if (fifo->len == 0)
        return false;
    *byte = fifo->bytes[fifo->first];
    fifo->first = (fifo->first + 1) % SER8250_FIFO_SIZE;
    fifo->len--;
    return true;
}

/* ---- What the registers say: v_mtx is locked, here and up to the thread --------------------- */

static bool has_fifos(const struct uart *uart)
{
    return (uart->fcr & SER8250_FCR_ENABLE) != 0;
}

static unsigned depth(const struct uart *uart)
{
    return has_fifos(uart) ? SER8250_FIFO_SIZE : 1;
}

static bool is_looped(const struct uart *uart)
{
    return (uart->mcr & SER8250_MCR_LOOP) != 0;
}

/* The bytes received at which the guest wants to know at once. */
static unsigned trigger(const struct uart *uart)
{
    if (!has_fifos(uart))
        return 1;
    switch (uart->fcr & SER8250_FCR_TRIGGER_MASK) {
    case SER8250_FCR_TRIGGER_1:
        return 1;
    case SER8250_FCR_TRIGGER_4:
        return 4;
    case SER8250_FCR_TRIGGER_8:
        return 8;
    default:
        return 14;
    }
}

/* The state of the modem: that of the UART's own outputs in loopback mode. */
static uint8_t modem(const struct uart *uart)
{
    uint8_t lines = 0;

    if (!is_looped(uart))
        return uart->fd < 0 ? 0 : SER8250_MSR_CTS | SER8250_MSR_DSR | SER8250_MSR_DCD;
    if ((uart->mcr & SER8250_MCR_RTS) != 0)
        lines |= SER8250_MSR_CTS;
    if ((uart->mcr & SER8250_MCR_DTR) != 0)
        lines |= SER8250_MSR_DSR;
    if ((uart->mcr & SER8250_MCR_OUT1) != 0)
        lines |= SER8250_MSR_RI;
    if ((uart->mcr & SER8250_MCR_OUT2) != 0)
        lines |= SER8250_MSR_DCD;
    return lines;
}

static uint8_t line_status(const struct uart *uart)
{
    uint8_t status = 0;

    if (uart->rx.len != 0)
        status |= SER8250_LSR_DR;
    if (uart->has_overrun)
        status |= SER8250_LSR_OE;
    if (uart->tx.len == 0)
        status |= SER8250_LSR_THRE;
    if (uart->tx.len == 0 && uart->shift_len == 0)
        status |= SER8250_LSR_TEMT;
    return status;
}

/* The cause of an interrupt that comes first, or SER8250_IIR_NONE. */
static uint8_t cause(const struct uart *uart)
{
    if ((uart->ier & SER8250_IER_RLS) != 0 && uart->has_overrun)
        return SER8250_IIR_RLS;
    /* Fewer bytes than the trigger wait for others to follow; here none are on their way. */
    if ((uart->ier & SER8250_IER_RDA) != 0 && uart->rx.len != 0)
        return uart->rx.len >= trigger(uart) ? SER8250_IIR_RDA : SER8250_IIR_TIMEOUT;
    if ((uart->ier & SER8250_IER_THRE) != 0 && uart->is_thre_pending)
        return SER8250_IIR_THRE;
    if ((uart->ier & SER8250_IER_MS) != 0 && uart->modem_changes != 0)
        return SER8250_IIR_MS;
    return SER8250_IIR_NONE;
}

static void signal_level(vdev_t *vdp)
{
    const bool level = cause(vdp->v_device) != SER8250_IIR_NONE;

    guest_intr_signal(&vdp->v_intr, level ? GIS_ON : GIS_OFF);
}

static void wake(const struct uart *uart)
{
    /* It fails only if it is already so high that the thread is about to wake. */
    (void)!write(uart->wake, &(uint64_t){ 1 }, sizeof(uint64_t));
}

/* ---- The thread ----------------------------------------------------------------------------- */

static void receive(struct uart *uart, uint8_t byte)
{
    if (!put(&uart->rx, depth(uart), byte))
        uart->has_overrun = true;
}

/* Moves what is to be sent into the shift register if that is empty. */
static void shift(struct uart *uart)
{
    if (uart->shift_len != 0 || uart->tx.len == 0)
        return;
    while (take(&uart->tx, &uart->shift[uart->shift_len]))
        uart->shift_len++;
    if (!uart->writes)
        uart->shift_len = 0; /* nobody listens */
    uart->is_thre_pending = true;
}

/* Receives what the host device has, without waiting. Returns false at its end. Without v_mtx. */
static bool read_host(vdev_t *vdp, unsigned room)
{
    struct uart *const uart = vdp->v_device;
    uint8_t bytes[SER8250_FIFO_SIZE];
    const ssize_t count = read(uart->fd, bytes, room);

    if (count <= 0)
        return count < 0 && (errno == EAGAIN || errno == EINTR);
    pthread_mutex_lock(&vdp->v_mtx);
    for (ssize_t i = 0; i < count; i++)
        receive(uart, bytes[i]);
    signal_level(vdp);
    pthread_mutex_unlock(&vdp->v_mtx);
    return true;
}

/* Sends the shift register, as far as the host device takes it. Without v_mtx. */
static void write_host(vdev_t *vdp)
{
    struct uart *const uart = vdp->v_device;
    const ssize_t count = write(uart->fd, uart->shift, uart->shift_len);

    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    /* What cannot be written is lost, as on a line that is not connected. */
    const unsigned sent = count < 0 ? uart->shift_len : (unsigned)count;
    pthread_mutex_lock(&vdp->v_mtx);
    uart->shift_len -= sent;
    memmove(uart->shift, uart->shift + sent, uart->shift_len);
    pthread_mutex_unlock(&vdp->v_mtx);
}

/*
 * Carries bytes between the FIFOs and the host device. The thread alone changes the shift
 * register, and so reads it without a lock.
 */
static void *carry(void *arg)
{
    vdev_t *const vdp = arg;
    struct uart *const uart = vdp->v_device;
    bool reads = uart->reads;

    for (;;) {
        pthread_mutex_lock(&vdp->v_mtx);
        const bool is_over = uart->is_over;
        const unsigned room = is_looped(uart) ? 0 : depth(uart) - uart->rx.len;
        shift(uart);
        signal_level(vdp);
        pthread_mutex_unlock(&vdp->v_mtx);
        if (is_over)
            return NULL;

        const short in = reads && room != 0 ? POLLIN : 0;
        const short out = uart->shift_len != 0 ? POLLOUT : 0;
        struct pollfd waits[] = { { .fd = uart->wake, .events = POLLIN },
                                  { .fd = in || out ? uart->fd : -1, .events = in | out } };
        if (poll(waits, 2, -1) < 0)
            continue;
        if ((waits[0].revents & POLLIN) != 0)
            (void)!read(uart->wake, &(uint64_t){ 0 }, sizeof(uint64_t));
        /* A line that is cut is not read any more; what is sent is lost. */
        const bool is_cut = (waits[1].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
        if (in && (waits[1].revents & POLLIN) != 0)
            reads = read_host(vdp, room);
        else if (is_cut)
            reads = false;
        if (out && ((waits[1].revents & POLLOUT) != 0 || is_cut))
            write_host(vdp);
    }
}

/* ---- Registers: v_mtx is locked ------------------------------------------------------------- */

static uint8_t get(struct uart *uart, uint64_t offset)
{
    const bool has_divisor = (uart->lcr & SER8250_LCR_DLAB) != 0;
    uint8_t result = 0;

    switch (offset) {
    case SER8250_RBR:
        if (has_divisor)
            return uart->dll;
        if (take(&uart->rx, &result))
            wake(uart); /* there is room */
        return result;
    case SER8250_IER:
        return has_divisor ? uart->dlm : uart->ier;
    case SER8250_IIR:
        result = cause(uart);
        if (result == SER8250_IIR_THRE)
            uart->is_thre_pending = false;
        return result | (has_fifos(uart) ? SER8250_IIR_FIFO : 0);
    case SER8250_LCR:
        return uart->lcr;
    case SER8250_MCR:
        return uart->mcr;
    case SER8250_LSR:
        result = line_status(uart);
        uart->has_overrun = false;
        return result;
    case SER8250_MSR:
        result = modem(uart) | uart->modem_changes;
        uart->modem_changes = 0;
        return result;
    default:
        return uart->scr;
    }
}

static void transmit(struct uart *uart, uint8_t byte)
{
    if (is_looped(uart)) {
        receive(uart, byte);
        uart->is_thre_pending = true;
        return;
    }
    /* A byte that finds no room replaces the last one, as in the chip's holding register. */
    if (!put(&uart->tx, depth(uart), byte))
        uart->tx.bytes[(uart->tx.first + uart->tx.len - 1) % SER8250_FIFO_SIZE] = byte;
    uart->is_thre_pending = false;
    wake(uart);
}

static void set_ier(struct uart *uart, uint8_t ier)
{
    const bool enables_thre = (ier & ~uart->ier & SER8250_IER_THRE) != 0;

    uart->ier = ier & 0x0f;
    if (enables_thre && uart->tx.len == 0)
        uart->is_thre_pending = true;
}

static void set_fcr(struct uart *uart, uint8_t fcr)
{
    const bool switches = ((fcr ^ uart->fcr) & SER8250_FCR_ENABLE) != 0;

    if (switches || (fcr & SER8250_FCR_CLEAR_RX) != 0) {
        uart->rx.len = 0;
        wake(uart); /* there is room */
    }
    if ((switches || (fcr & SER8250_FCR_CLEAR_TX) != 0) && uart->tx.len != 0) {
        uart->tx.len = 0;
        uart->is_thre_pending = true;
    }
    /* The other bits have a meaning only with the FIFOs. */
    uart->fcr = (fcr & SER8250_FCR_ENABLE) != 0 ?
                    fcr & (SER8250_FCR_ENABLE | SER8250_FCR_TRIGGER_MASK) : 0;
}

static void set_mcr(struct uart *uart, uint8_t mcr)
{
    const uint8_t before = modem(uart);

    uart->mcr = mcr & 0x1f;
    const uint8_t after = modem(uart);
    const uint8_t changes = before ^ after;
    uart->modem_changes |= (changes & (SER8250_MSR_CTS | SER8250_MSR_DSR | SER8250_MSR_DCD)) >> 4;
    if ((before & ~after & SER8250_MSR_RI) != 0)
        uart->modem_changes |= SER8250_MSR_TERI;
    wake(uart); /* the host device is read again after a loopback */
}

static void set(struct uart *uart, uint64_t offset, uint8_t byte)
{
    const bool has_divisor = (uart->lcr & SER8250_LCR_DLAB) != 0;

    switch (offset) {
    case SER8250_THR:
        if (has_divisor)
            uart->dll = byte;
        else
            transmit(uart, byte);
        break;
    case SER8250_IER:
        if (has_divisor)
            uart->dlm = byte;
        else
            set_ier(uart, byte);
        break;
    case SER8250_FCR:
        set_fcr(uart, byte);
        break;
    case SER8250_LCR:
        uart->lcr = byte;
        break;
    case SER8250_MCR:
        set_mcr(uart, byte);
        break;
    case SER8250_SCR:
        uart->scr = byte;
        break;
    default: /* LSR and MSR are read only */
        break;
    }
}

static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    const uint64_t offset = vopnd->location - vdp->v_block.location;

    (void)cookie;
    if (offset >= SER8250_NUM_REGS)
        return VRS_BUS_ERROR;
    pthread_mutex_lock(&vdp->v_mtx);
    const uint8_t byte = get(vdp->v_device, offset);
    signal_level(vdp);
    pthread_mutex_unlock(&vdp->v_mtx);
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &byte, sizeof(byte)));
}

static vdev_ref_status_t vwrite(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                                const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    const uint64_t offset = vopnd->location - vdp->v_block.location;
    uint8_t byte;

    (void)cookie;
    if (offset >= SER8250_NUM_REGS)
        return VRS_BUS_ERROR;
    const int err = guest_cpu_read(gcp, GXF_NONE, oopnd, 1, &byte, sizeof(byte));
    if (err != EOK)
        return guest_cpu_to_vrs(err);
    pthread_mutex_lock(&vdp->v_mtx);
    set(vdp->v_device, offset, byte);
    signal_level(vdp);
    pthread_mutex_unlock(&vdp->v_mtx);
    return VRS_NORMAL;
}

/* ---- Life ----------------------------------------------------------------------------------- */

/* Keeps the argument, which is valid only during the call. The last one wins. */
static int set_hostdev(struct uart *uart, const char *arg)
{
    char *const path = strdup(arg);

    if (path == NULL)
        return ENOMEM;
    free(uart->path);
    uart->path = path;
    return arg[strspn(arg, "<>")] == '\0' ? EINVAL : EOK;
}

static int open_host(vdev_t *vdp)
{
    struct uart *const uart = vdp->v_device;
    const char *path = uart->path;
    int mode = O_RDWR;

    if (path == NULL)
        return EOK;
    if (*path == '<')
        mode = O_RDONLY, path++;
    else if (*path == '>')
        mode = O_WRONLY | O_APPEND | O_CREAT, path++;
    uart->reads = mode == O_RDONLY || mode == O_RDWR;
    uart->writes = mode != O_RDONLY;
    uart->fd = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    if (uart->fd < 0) {
        const int err = errno;
        vdev_logf(LOG_ERR, vdp, "ser8250: hostdev %s: %s", path, strerror(err));
        return err;
    }
    if (tcgetattr(uart->fd, &uart->settings) == 0) {
        struct termios raw = uart->settings;
        uart->is_terminal = true;
        cfmakeraw(&raw);
        tcsetattr(uart->fd, TCSANOW, &raw);
    }
    return EOK;
}

static int start(vdev_t *vdp)
{
    struct uart *const uart = vdp->v_device;

    uart->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (uart->wake < 0)
        return errno;
    const int err = vdev_thread_create(vdp, "ser8250", &uart->thread, NULL, carry, vdp);
    uart->has_thread = err == EOK;
    return err;
}

static void end(vdev_t *vdp)
{
    struct uart *const uart = vdp->v_device;

    if (uart->has_thread) {
        pthread_mutex_lock(&vdp->v_mtx);
        uart->is_over = true;
        pthread_mutex_unlock(&vdp->v_mtx);
        wake(uart);
        pthread_join(uart->thread, NULL);
    }
    if (uart->is_terminal)
        tcsetattr(uart->fd, TCSANOW, &uart->settings);
    if (uart->fd >= 0)
        close(uart->fd);
    if (uart->wake >= 0)
        close(uart->wake);
    free(uart->path);
}

static void report(vdev_t *vdp)
{
    const struct uart *const uart = vdp->v_device;

    pthread_mutex_lock(&vdp->v_mtx);
    qvm_report("hostdev %s; IER %#x, LCR %#x, MCR %#x, LSR %#x; %u received, %u to send\n",
               uart->path == NULL ? "none" : uart->path, uart->ier, uart->lcr, uart->mcr,
               line_status(uart), uart->rx.len, uart->tx.len + uart->shift_len);
    pthread_mutex_unlock(&vdp->v_mtx);
}

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct uart *const uart = vdp->v_device;

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        uart->fd = uart->wake = -1;
        vdp->v_block.location = QSL_NO_LOCATION;
        vdp->v_block.length = SER8250_NUM_REGS;
        return EOK;
    case VDEV_CTRL_FIRST_OPTIDX + HOSTDEV:
        return set_hostdev(uart, arg);
    case VDEV_CTRL_OPTIONS_END:
        return open_host(vdp);
    case VDEV_CTRL_GUEST_CONFIGURED:
        return start(vdp);
    case VDEV_CTRL_STATUS:
        report(vdp);
        return EOK;
    case VDEV_CTRL_TERMINATE:
        end(vdp);
        return EOK;
    default:
        return EOK;
    }
}

static struct vdev_factory factory = {
    .control = control,
    .vread = vread,
    .vwrite = vwrite,
    .option_list = options,
    .factory_flags = VFF_INTR_REQ | VFF_VDEV_MEM | VFF_VDEV_X86_IO | VFF_MUTEX,
    .acc_sizes = 1u << sizeof(uint8_t),
    .extra_space = sizeof(struct uart),
};

static void __attribute__((constructor)) load(void)
{
    vdev_register_factory(&factory, QVM_VDEV_ABI);
}
