/*
 * The engines by name. See engine.h.
 */
#include "engine/engine.h"

#include <errno.h>
#include <string.h>

static const struct x86_engine_ops *const engines[] = {&interp_engine, &jit_engine};

const struct x86_engine_ops *engine_find(const char *name, struct error *err)
{
    if (!strcmp(name, "auto"))
        return &interp_engine;
    for (size_t n = 0; n < ARRAY_SIZE(engines); n++) {
        if (!strcmp(engines[n]->name, name))
            return engines[n];
    }
    error_set(err, -EINVAL, "unknown engine '%.64s': use --engine auto, jit or interp", name);
    return NULL;
}
