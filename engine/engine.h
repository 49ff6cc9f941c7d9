/*
 * The engines by name.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "base/error.h"
#include "base/log.h"
#include "cpu/x86/vcpu.h"

extern const struct x86_engine_ops interp_engine;
extern const struct x86_engine_ops jit_engine;

/* "interp", "jit", or "auto": the fastest that this host can run, with a line in
 * the log (or NULL) if that is not the JIT. NULL and an error when there is none
 * of that name. */
const struct x86_engine_ops *engine_find(const char *name, struct log *log, struct error *err);

#endif
