/*
 * A machine with processors that nobody runs, for tests that drive a
 * processor's system side by hand: the clock is the test's to move, faults
 * come back as values.
 */
#ifndef TESTS_UNIT_CPU_FIXTURE_H
#define TESTS_UNIT_CPU_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/x86/apic.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/insn.h"
#include "cpu/x86/msr.h"
#include "cpu/x86/vcpu.h"
#include "vm/vm.h"

struct fixture {
    struct vm *vm;
    struct x86_model model;
    struct apic_bus *bus;
    unsigned count;
    struct x86_vcpu *cpu[8];
};

static int fixture_engine_create(struct x86_vcpu *c, struct error *err)
{
    return 0;
}

static void fixture_engine_destroy(struct x86_vcpu *c)
{
}

static enum vcpu_exit fixture_engine_run(struct x86_vcpu *c, uint64_t budget)
{
    return VCPU_EXIT_EVENT;
}

static void fixture_code_written(struct x86_vcpu *c, struct ram_block *block, uint64_t offset,
                                 uint64_t bytes)
{
}

static void fixture_end_block(struct x86_vcpu *c)
{
}

static const struct x86_engine_ops fixture_engine = {
    .name = "none",
    .create = fixture_engine_create,
    .destroy = fixture_engine_destroy,
    .run = fixture_engine_run,
    .code_written = fixture_code_written,
    .end_block = fixture_end_block,
};

/* f stays where it is: processors point to its model. */
static inline void fixture_start(struct fixture *f, const char *model, unsigned count)
{
    struct vm_config config = {.deterministic = true, .seed = 1};
    struct error err = {""};

    memset(f, 0, sizeof *f);
    f->count = count;
    assert_int_equal(x86_model_parse(&f->model, model, &err), 0);
    f->model.cpu_count = count;
    f->vm = vm_create(&config, &err);
    assert_non_null(f->vm);
    f->bus = apic_bus_create(f->vm);
    assert_non_null(f->bus);
    for (unsigned n = 0; n < count; n++) {
        f->cpu[n] = x86_vcpu_create(f->vm, &f->model, &fixture_engine, NULL, &err);
        assert_non_null(f->cpu[n]);
        apic_bus_add(f->bus, f->cpu[n]);
        atomic_store(&f->cpu[n]->vcpu.events, 0);
    }
}

static inline void fixture_stop(struct fixture *f)
{
    vm_destroy(f->vm);
    apic_bus_destroy(f->bus);
}

static inline void fixture_set_time(struct fixture *f, uint64_t ns)
{
    f->vm->clock.turn_base_ns = ns;
}

/* Runs call; the vector of the fault it raised, or -1. */
static inline int fixture_fault(struct x86_vcpu *c, void (*call)(struct x86_vcpu *c, uint64_t a),
                                uint64_t a)
{
    static const struct x86_insn insn = {.length = 3};

    c->cur = &insn;
    c->in_insn = true;
    if (x86_catch(&c->unwind)) {
        c->in_insn = false;
        c->cur = NULL;
        return c->fault_vector;
    }
    call(c, a);
    c->in_insn = false;
    c->cur = NULL;
    return -1;
}

#endif
