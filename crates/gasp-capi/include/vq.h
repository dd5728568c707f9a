/* The name by which sources of virtual devices include it. */
#include <qvm/vq.h>
