/*
 * Ports that firmware prints on: 402H (reads E9H, so that SeaBIOS and OVMF
 * find it), E9H (Bochs' port, reads E9H too), and 80H, the POST code latch.
 *
 * Bytes go to the back end, if there is one, and line by line to the log,
 * area "firmware".
 */
#ifndef DEV_MISC_DEBUG_PORT_H
#define DEV_MISC_DEBUG_PORT_H

#include "backend/char/char.h"
#include "vm/vm.h"

struct debug_port;

struct debug_port *debug_port_create(struct vm *vm, struct char_backend *chars, struct error *err);
/* The last POST code. */
uint8_t debug_port_post_code(const struct debug_port *d);

#endif
