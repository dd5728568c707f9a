/* The parts that the vdevs of the tests have in common. */
#include <string.h>
#include <unistd.h>
#include <time.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <qvm/vdev-core.h>
#if QVM_EDITION == 710
#include <qvm/outpipe.h>
typedef unsigned vdev_ctrl_options_t;
typedef enum vdev_ref_status vdev_ref_status_t;
#endif
#define UNUSED __attribute__((unused))
#define VDEV(...)                                                                             \
    static struct vdev_factory factory = { __VA_ARGS__ };                                     \
    static void __attribute__((constructor)) load(void)                                       \
    {                                                                                         \
        vdev_register_factory(&factory, QVM_VDEV_ABI);                                        \
    }
