/*
 * The interpreter: the strict reference. Runs decoded blocks, one handler
 * after the other. Interface: interp_engine in cpu/x86/vcpu.h.
 */
#ifndef ENGINE_INTERP_H
#define ENGINE_INTERP_H

#include "cpu/x86/vcpu.h"

struct interp_stats {
    uint64_t blocks;      /* decoded */
    uint64_t decoded;     /* instructions in them */
    uint64_t invalidated; /* blocks, because their bytes changed */
    uint64_t flushes;     /* of the whole cache */
};

struct interp_stats *interp_stats(struct x86_vcpu *c);

#endif
