/*
 * <qvm/abi.h>: the number of the interface between a vdev and the program that hosts it.
 *
 * A vdev passes it to vdev_register_factory(); a host refuses a vdev that was compiled with
 * another. It changes with any structure or prototype of the headers for virtual devices. It
 * also tells the host for which edition a vdev was compiled.
 */
#include <qvm/types.h>

#ifndef QVM_ABI_H
#define QVM_ABI_H

#if QVM_EDITION == 800
/* That of 8.0 is not public; the value is [ours]. */
#define QVM_VDEV_ABI 2026120100u
#else
/* As published for 7.0. */
#define QVM_VDEV_ABI 2019090401u
#endif

#endif
