/*
 * The JIT engine: the interpreter's loop and block cache, with host code for
 * blocks that are hot. Interface: jit_engine in engine/engine.h.
 */
#include "engine/engine.h"
#include "engine/interp/cache.h"
#include "engine/interp/interp.h"

const struct x86_engine_ops jit_engine = {
    .name = "jit",
    .create = cache_create,
    .destroy = cache_destroy,
    .run = interp_run,
    .code_written = interp_code_written,
    .end_block = interp_end_block,
};
