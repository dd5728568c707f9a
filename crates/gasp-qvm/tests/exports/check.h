/* What the vdevs of these tests have in common: a check that fails is the vdev's error message. */
#include <support.h>
#include <qvm/cdev.h>
#include <qvm/utils.h>
#include <qvm/vpci.h>
#include <qvm/wdog.h>
#if QVM_EDITION == 800
#define ERROR_LEVEL QL_QVM_ERR
#define BLOCK_TYPE qst_type
#else
#define ERROR_LEVEL QVM_OUTE_QVM
#define BLOCK_TYPE type
#endif
#define CHECK(x)                                                                              \
    do {                                                                                      \
        if (!(x)) {                                                                           \
            vdev_logf(ERROR_LEVEL, vdp, "line %d: %s", __LINE__, #x);                         \
            return EDOM;                                                                      \
        }                                                                                     \
    } while (0)
/* Checks that are compiled twice: with and without an address that is no object's. */
#define MADE_UP ((void *)0x123456789000)
