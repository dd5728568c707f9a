/* The constants of 8.0. */
#include "constants.h"

VALUE(QVM_VDEV_ABI, 2026120100u);
