/*
 * The interpreter: the strict reference. Runs decoded blocks, one handler
 * after the other. Interface: interp_engine in engine/engine.h.
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
struct marks *interp_marks(struct x86_vcpu *c);

/* May the bytes [rip, rip + bytes) be fetched, as far as CS or canonical addresses go? */
static inline bool interp_fetch_allowed(const struct x86_vcpu *c, uint64_t bytes)
{
    uint64_t rip = c->s.reg[X86_RIP];

    return rip + c->code_bias <= c->code_span && rip + c->code_bias + bytes - 1 <= c->code_span;
}

/* The engine's operations: the JIT uses them too. */
enum vcpu_exit interp_run(struct x86_vcpu *c, uint64_t budget);
void interp_code_written(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                         uint64_t bytes);
void interp_end_block(struct x86_vcpu *c);
void interp_code_stored(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                        uint64_t bytes);

#endif
