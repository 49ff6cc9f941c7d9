/*
 * "debug-exit": a port by which a test inside the guest ends the machine: a
 * write of v powers off with status (v << 1) | 1, never 0.
 */
#ifndef DEV_MISC_DEBUG_EXIT_H
#define DEV_MISC_DEBUG_EXIT_H

#include "vm/vm.h"

#define DEBUG_EXIT_PORT 0xF4
#define DEBUG_EXIT_BYTES 4

struct debug_exit;

/* bytes: 1, 2 or 4 ports. */
struct debug_exit *debug_exit_create(struct vm *vm, uint16_t port, unsigned bytes,
                                     struct error *err);

#endif
