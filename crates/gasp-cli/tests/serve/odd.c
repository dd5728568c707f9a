/* A vdev for tests: does what the option `how` says. NAME is that of its factory. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <qvm/vdev-core.h>

static const char *const options[] = { "how", NULL };

struct state {
    char how[16];
    pthread_t thread;
    int instance;
};
static int instances;

static void *ends(void *arg)
{
    (void)arg;
    guest_terminate(GTC_CUSTOM_MIN + 1);
    return NULL;
}

static void *fails(void *arg)
{
    (void)arg;
    qvm_fatal(QLS_QVM, "no flux");
    return NULL;
}

static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    const char *const how = state->how;

    switch (ctrl) {
    case VDEV_CTRL_OPTIONS_START:
        state->instance = ++instances;
        vdp->v_block.length = 16;
        break;
    case VDEV_CTRL_FIRST_OPTIDX:
        strncpy(state->how, arg, sizeof state->how - 1);
        break;
    case VDEV_CTRL_GUEST_CONFIGURED:
        if (strcmp(how, "refuse") == 0) {
            vdev_logf(QL_QVM_ERR, vdp, "the door is closed");
            return EACCES;
        }
        if (strcmp(how, "once") == 0 && state->instance > 1)
            return EBUSY;
        if (strcmp(how, "crash") == 0)
            *(volatile int *)16 = 1;
        if (strcmp(how, "ends") == 0 && state->instance > 1)
            return vdev_thread_create(vdp, "ends", &state->thread, NULL, ends, vdp);
        if (strcmp(how, "fatal") == 0 && state->instance > 1)
            return vdev_thread_create(vdp, "fails", &state->thread, NULL, fails, vdp);
        break;
    case VDEV_CTRL_STATUS:
        qvm_report("instance %d\nsecond line\n", state->instance);
        break;
    case VDEV_CTRL_TERMINATE:
        if (strcmp(how, "ends") == 0 && state->instance > 1)
            pthread_join(state->thread, NULL);
        break;
    default:
        break;
    }
    return EOK;
}

static struct vdev_factory factory = {
    .control = control,
    .option_list = options,
    .name = NAME,
#ifdef FLAGS
    .factory_flags = FLAGS,
#endif
    .extra_space = sizeof(struct state),
};

#ifndef ABI
#define ABI QVM_VDEV_ABI
#endif

static void __attribute__((constructor)) load(void)
{
#ifdef CRASH
    abort();
#endif
#ifdef NONE
    (void)factory;
#else
    vdev_register_factory(&factory, ABI);
#endif
}
