/*
 * Reports for people who debug what runs in the machine.
 */
#ifndef DEBUG_REPORT_H
#define DEBUG_REPORT_H

#include "cpu/x86/vcpu.h"

/*
 * What led to a shutdown (triple fault): the first fault, the one met while
 * delivering it, the third, and the processor as it stands. Call it before
 * the reset, from vm.on_shutdown. Lines come without newline.
 */
void report_triple_fault(struct x86_vcpu *c, void (*line)(void *ctx, const char *text), void *ctx);

#endif
