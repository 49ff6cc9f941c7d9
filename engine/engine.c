/*
 * The engines by name. See engine.h.
 */
#include "engine/engine.h"

#include <errno.h>
#include <string.h>

#include "base/host.h"

static const struct x86_engine_ops *const engines[] = {&interp_engine, &jit_engine};

/* Hosts may forbid executable memory that was written before. */
static const struct x86_engine_ops *fastest(struct log *log)
{
    struct exec_memory probe;
    struct error why;

    if (exec_memory_create(&probe, 4 * KiB, &why) < 0) {
        vlog(log, ENGINE, WARN, "the guest is interpreted, which is slow: %s", why.text);
        return &interp_engine;
    }
    exec_memory_destroy(&probe);
    return &jit_engine;
}

const struct x86_engine_ops *engine_find(const char *name, struct log *log, struct error *err)
{
    if (!strcmp(name, "auto"))
        return fastest(log);
    for (size_t n = 0; n < ARRAY_SIZE(engines); n++) {
        if (!strcmp(engines[n]->name, name))
            return engines[n];
    }
    error_set(err, -EINVAL, "unknown engine '%.64s': use --engine auto, jit or interp", name);
    return NULL;
}
