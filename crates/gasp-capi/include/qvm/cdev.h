/*
 * <qvm/cdev.h>: a character device of the host behind a virtual one: terminals, serial ports,
 * pipes and files.
 *
 * What is not documented publicly, and so is our own choice, is marked [ours]. The functions that
 * are not `static` are in the program that hosts the vdev, not in libgasp.
 *
 * | functions                                  | phase            | threads |
 * |--------------------------------------------|------------------|---------|
 * | cdev_control                               | startup, running | that of the callback |
 * | cdev_setup                                 | startup          | that of the callback |
 * | the others                                 | running          | any     |
 *
 * A vdev has a struct cdev_state in its v_device, the options CDEV_OPTIONS first in its
 * option_list, calls cdev_setup() for VDEV_CTRL_OPTIONS_START, and cdev_control() at the end of
 * control(), every time. Output goes to cdev_write(). When the host device has input,
 * pulse() is called with CDEV_INPUT_AVAILABLE_PULSE_CODE, and calls cdev_input_receive(); when
 * output that did not fit can be written, with CDEV_OUTPUT_AVAILABLE_PULSE_CODE, and calls
 * cdev_write_buffer().
 *
 * Nothing here waits: the host device is opened with O_NONBLOCK [ours].
 */
#include <qvm/posix.h>
#include <qvm/types.h>

#include <qvm/vdev-core.h>
#include <termios.h>

#ifndef QVM_CDEV_H
#define QVM_CDEV_H

#ifdef __cplusplus
extern "C" {
#endif

/* The indices of its options in the vdev's option_list. */
enum {
    CDEV_OPT_HOSTDEV_IDX, /* hostdev [<|>]path: the host device, of input or output alone */
    CDEV_OPT_DELAYED_IDX, /* delayed seconds|forever: open it when the guest first needs it */
    CDEV_OPT_BATCH_IDX,   /* batch microseconds: collect output for so long */
    CDEV_OPT_NUM_OPTS     /* the index of the vdev's first own option */
};

/* Those options, as the first initializers of an option_list. [ours] */
#define CDEV_OPTIONS "hostdev", "delayed", "batch"

/* The codes of the pulses. The names are published, the values are [ours]. */
#define CDEV_INPUT_AVAILABLE_PULSE_CODE 126
#define CDEV_OUTPUT_AVAILABLE_PULSE_CODE 125

/* A callback of the host; private. The members are [ours]. */
struct qvm_callback {
    void *reserved[2];
};

/*
 * The state of a character device. It is the host's; a vdev gives it space, zeroed, and reads
 * `out.buff` and `in.buff` if it must. Published for 7.x; here the same in 8.0. The meaning of
 * the members is [ours].
 */
struct cdev_state {
    struct qvm_callback cb;
    struct vdev_s *vdev;
    struct {
        const char *name; /* path of the host device */
        uint8_t *buff;    /* [pos, avail) is what has been received and not been read yet */
        unsigned size;    /* of buff in bytes */
        unsigned avail;
        unsigned pos;
        int fd; /* -1 if it is not open */
    } in;
    struct {
        const char *name;
        uint8_t *buff;  /* [begin, pos) is what has not been written to the host device yet */
        unsigned size;
        unsigned begin;
        unsigned pos;
        int fd;
        timer_t flush_timer;
        long flush_timeout; /* in microseconds; 0 for none */
    } out;
    struct termios save_termio; /* the host terminal's settings, restored at the end */
    unsigned delayed_count;
    unsigned flags;
    int priority;
    struct sigevent ev_in;
    struct sigevent ev_out;
};

/*
 * Does for each command of control() what a character device needs: reads its options, opens and
 * closes the host device. Returns EOK or an error number, which control() returns: EINVAL for an
 * option's argument, or an error of opening the host device. EOK for commands that it does
 * not know.
 */
#if QVM_EDITION == 800
int cdev_control(struct cdev_state *cds, vdev_ctrl_options_t ctrl, const char *arg);
#else
int cdev_control(struct cdev_state *cds, unsigned ctrl, const char *arg);
#endif

/*
 * Initializes *cds, with buffers of `size` bytes for each direction. 0: no buffers: cdev_read()
 * and cdev_write() access the host device directly; deprecated since 8.0. Returns EOK; EINVAL if
 * a pointer is NULL, vdev is not a vdev, or size is more than 1 MiB; ENOMEM. The buffers live as
 * long as the vdev. [ours]
 */
int cdev_setup(struct cdev_state *cds, struct vdev_s *vdev, unsigned size);

/*
 * Reads what the host device has into the free part of the input buffer. Returns the number of
 * bytes, 0 if there is nothing or no room; -1 with errno set if reading fails, or the device has
 * ended (EPIPE). The prototype is [ours].
 */
int cdev_input_receive(struct cdev_state *cds);

/*
 * Takes up to nbytes of input: from the buffer, or from the host device if there is none.
 * Returns the number of bytes, 0 if there is nothing; -1 with errno set. The prototype is [ours].
 */
int cdev_read(struct cdev_state *cds, void *buf, unsigned nbytes);

/*
 * Outputs up to nbytes: at once if the host device takes them and no batch is collected, else
 * into the buffer as far as there is room. Returns the number of bytes accepted; -1 with errno
 * set. Without a host device all output is discarded. The prototype is [ours].
 */
int cdev_write(struct cdev_state *cds, const void *buf, unsigned nbytes);

/*
 * Writes the output buffer to the host device, as far as that takes it. Returns the number of
 * bytes written; -1 with errno set.
 */
int cdev_write_buffer(struct cdev_state *cds);

/*
 * The state of the buffers, without a call. They look at members that other threads change: what
 * they return can be out of date, unless v_mtx is locked by all that use *cds. Without buffers
 * nothing is pending or available.
 */

/* The number of bytes of output that the host device has not taken yet. */
static inline unsigned cdev_output_num_pending(const struct cdev_state *const cds)
{
    unsigned begin = __atomic_load_n(&cds->out.begin, __ATOMIC_ACQUIRE);
    unsigned pos = __atomic_load_n(&cds->out.pos, __ATOMIC_ACQUIRE);
    return pos > begin ? pos - begin : 0;
}

/* Whether no output is pending. */
static inline int cdev_output_empty(const struct cdev_state *const cds)
{
    return cdev_output_num_pending(cds) == 0;
}

/* Whether no further byte fits into the output buffer. The prototype is [ours]. */
static inline int cdev_output_full(const struct cdev_state *const cds)
{
    unsigned size = __atomic_load_n(&cds->out.size, __ATOMIC_ACQUIRE);
    return size != 0 && cdev_output_num_pending(cds) >= size;
}

/* Whether output is pending. The prototype is [ours]. */
static inline int cdev_output_busy(const struct cdev_state *const cds)
{
    return !cdev_output_empty(cds);
}

/* The number of bytes of input in the buffer. The prototype is [ours]. */
static inline unsigned cdev_input_num_available(const struct cdev_state *const cds)
{
    unsigned pos = __atomic_load_n(&cds->in.pos, __ATOMIC_ACQUIRE);
    unsigned avail = __atomic_load_n(&cds->in.avail, __ATOMIC_ACQUIRE);
    return avail > pos ? avail - pos : 0;
}

/* Whether there is input in the buffer. The prototype is [ours]. */
static inline int cdev_input_available(const struct cdev_state *const cds)
{
    return cdev_input_num_available(cds) != 0;
}

#ifdef __cplusplus
}
#endif

#endif
