/*
 * "testdev": what hypervisor test suites expect of a test machine.
 *
 *   E0H      32-bit latch, accessed by byte, word or doubleword
 *   E4H      write: all processors drop their translations
 *   E8H      the same latch, accessed byte by byte whatever the width
 *   2000H+n  writes set GSI n (0-23) to level value != 0
 *   FF000000H  64 KiB of memory-mapped scratch, accessed by callbacks
 */
#ifndef DEV_MISC_TESTDEV_H
#define DEV_MISC_TESTDEV_H

#include "vm/vm.h"

#define TESTDEV_GSI_COUNT 24

struct testdev;

struct testdev *testdev_create(struct vm *vm, const struct irq_line gsi[TESTDEV_GSI_COUNT],
                               struct error *err);

#endif
