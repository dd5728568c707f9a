/*
 * edition.h: what differs between the 8.0 and the 7.x edition of the API, for the samples here.
 *
 * They are written with the names of 8.0. Copy from here what a vdev for both editions needs;
 * a vdev for one edition needs none of it.
 */
#ifndef EDITION_H
#define EDITION_H

#include <qvm/vdev-core.h>

#if QVM_EDITION == 800

#define LOG_ERR QL_QVM_ERR
#define LOG_WARN QL_QVM_WARN
#define LOG_INFO QL_QVM_INFO
#define LOG_DEBUG QL_QVM_DEBUG

#else

#include <qvm/outpipe.h>

typedef unsigned vdev_ctrl_options_t;

#define LOG_ERR QVM_OUTE_QVM
#define LOG_WARN QVM_OUTW_QVM
#define LOG_INFO QVM_OUTI_QVM
#define LOG_DEBUG QVM_OUTD_QVM

#endif

#endif
