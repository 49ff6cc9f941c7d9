/*
 * A processor's life: creation, reset, INIT, the state derived from its
 * registers, and what the machine asks of it (struct vcpu_ops).
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu/x86/apic.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/decode.h"
#include "cpu/x86/insn.h"
#include "cpu/x86/interrupt.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/msr.h"
#include "cpu/x86/vec/vec.h"

/* ---- derived state ---- */

static bool alignment_checks(const struct x86_cpu *s)
{
    return s->cpl == 3 && (s->cr0 & CR0_AM) && (s->rflags & FLAG_AC);
}

void x86_seg_changed(struct x86_vcpu *c, enum x86_seg_index n)
{
    const struct x86_seg *d = &c->s.seg[n];
    bool is_flat = (c->mode & MODE_SIZE) == MODE_64;
    int64_t last = (int64_t)(uint64_t)d->limit;

    if (n == X86_SS && !is_flat)
        c->sp_mask = d->attr & SEG_DB ? 0xffffffff : 0xffff;
    /* Bases of ES, CS, SS, DS are zero in 64-bit mode (SDM Vol. 3, 3.4.4). */
    c->seg_base[n] = is_flat && n != X86_FS && n != X86_GS ? 0 : d->base;
    if (!is_flat) {
        /* Linear addresses wrap at 4 GiB, and the TLB may know 64-bit code's pages
         * beyond: what wraps takes the slow way. */
        c->seg_base[n] = (uint32_t)d->base;
        last = MIN(last, (int64_t)(UINT32_MAX - c->seg_base[n]));
    }
    if (alignment_checks(&c->s) || (c->s.dr7 & DR7_ENABLES)) {
        c->seg_read_last[n] = c->seg_write_last[n] = INT64_MIN;
        return;
    }
    if (is_flat) {
        c->seg_read_last[n] = c->seg_write_last[n] = INT64_MAX;
        return;
    }
    if (c->mode & MODE_REAL) {
        c->seg_read_last[n] = c->seg_write_last[n] = last;
        return;
    }
    c->seg_read_last[n] = c->seg_write_last[n] = INT64_MIN;
    if (d->attr & SEG_UNUSABLE)
        return;
    if (d->attr & SEG_CODE) {
        if (d->attr & SEG_READABLE)
            c->seg_read_last[n] = last;
    } else if (!(d->attr & SEG_EXPAND_DOWN)) {
        c->seg_read_last[n] = last;
        if (d->attr & SEG_WRITABLE)
            c->seg_write_last[n] = last;
    }
}

void x86_state_changed(struct x86_vcpu *c)
{
    struct x86_cpu *s = &c->s;
    bool long64 = x86_64bit_mode(s);
    uint32_t mode;

    if (long64) {
        mode = MODE_64;
        c->ip_mask = c->sp_mask = ~0ull;
    } else {
        mode = s->seg[X86_CS].attr & SEG_DB ? MODE_32 : MODE_16;
        c->ip_mask = mode == MODE_32 ? 0xffffffff : 0xffff; /* sp_mask: with SS */
    }
    if (x86_real_mode(s))
        mode |= MODE_REAL;
    else if (x86_v86_mode(s))
        mode |= MODE_REAL | MODE_V86;
    c->mode = mode;
    if (long64) {
        /* Canonical: adding half the span maps both halves to one range. */
        unsigned bits = s->cr4 & CR4_LA57 ? 57 : 48;
        c->code_bias = 1ull << (bits - 1);
        c->code_span = (1ull << bits) - 1;
    } else {
        c->code_bias = 0;
        c->code_span = MIN((uint64_t)s->seg[X86_CS].limit, c->ip_mask);
    }
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        x86_seg_changed(c, n);
    c->gate_blocked = vec_gates(s);
    c->slow = s->shadow || x86_debug_slow(s);
    x86_tlb_select(c);
}

void x86_ring_changed(struct x86_vcpu *c)
{
    const struct x86_cpu *s = &c->s;
    bool watched = alignment_checks(s) || (s->dr7 & DR7_ENABLES);

    if (unlikely(c->mode != MODE_64 || !x86_64bit_mode(s) ||
                 watched != (c->seg_read_last[X86_DS] != INT64_MAX))) {
        x86_state_changed(c);
        return;
    }
    c->slow = s->shadow || x86_debug_slow(s);
    x86_tlb_select(c);
}

/* ---- reset ---- */

static void set_segment(struct x86_seg *d, uint16_t selector, uint64_t base, uint32_t attr)
{
    *d = (struct x86_seg){.selector = selector, .base = base, .limit = 0xffff, .attr = attr};
}

/* What RESET and INIT have in common (SDM Vol. 3, table 9-1). */
static void reset_common(struct x86_vcpu *c)
{
    struct x86_cpu *s = &c->s;
    uint32_t out[4];

    for (unsigned n = 0; n < X86_REG_COUNT; n++)
        s->reg[n] = 0;
    x86_cpuid(c, 1, 0, out);
    s->reg[X86_RDX] = out[CPUID_EAX];
    s->reg[X86_RIP] = 0xfff0;
    s->rflags = FLAG_R1;
    s->cc = CC_ONE;
    s->shadow = 0;
    s->cpl = 0;
    s->nmi_masked = s->nmi_pending = 0;
    s->init_pending = s->sipi_pending = 0;
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        set_segment(&s->seg[n], 0, 0, SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED);
    set_segment(&s->seg[X86_CS], 0xf000, 0xffff0000,
                SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED);
    set_segment(&s->ldtr, 0, 0, SEG_P | 2);
    set_segment(&s->tr, 0, 0, SEG_P | 11);
    s->gdtr = s->idtr = (struct x86_dtr){.base = 0, .limit = 0xffff};
    s->cr2 = s->cr3 = s->cr4 = 0;
    s->efer = 0;
    memset(s->dr, 0, sizeof s->dr);
    s->dr6 = DR6_ONES;
    s->dr7 = DR7_ONE;
    s->pending_db = 0;
    memset(s->pdpte, 0, sizeof s->pdpte);
    s->monitor_gpa = UINT64_MAX;
    /* The bootstrap processor starts; the others wait (8.4.1). */
    s->activity = c->vcpu.index == 0 ? X86_RUNNING : X86_WAIT_SIPI;
    c->recheck = true;
    c->fault_depth = 0;
    atomic_store(&c->nmi_inbox, 0);
    x86_tlb_flush_all(c);
}

void x86_vcpu_reset(struct x86_vcpu *c)
{
    vec_reset(c);
    reset_common(c);
    c->s.cr0 = CR0_CD | CR0_NW | CR0_ET;
    c->s.xcr0 = XCR0_X87;
    c->s.icount = 0;
    c->s.ferr_line = 0;
    atomic_store(&c->intr_level, 0);
    x86_msr_reset(c, false);
    lapic_reset(c->lapic);
    x86_state_changed(c);
}

void x86_vcpu_init(struct x86_vcpu *c)
{
    uint64_t cr0 = c->s.cr0;

    vec_sync(c);
    reset_common(c);
    c->s.cr0 = (cr0 & (CR0_CD | CR0_NW)) | CR0_ET; /* caches stay as they are */
    x86_msr_reset(c, true);
    lapic_init(c->lapic);
    x86_state_changed(c);
}

void x86_set_intr(struct x86_vcpu *c, bool level)
{
    atomic_store_explicit(&c->intr_level, level, memory_order_release);
    lapic_lint(c->lapic, 0, level); /* LINT0 in other modes than ExtINT */
    if (level)
        vcpu_post(&c->vcpu, EVENT_INTERRUPT);
}

void x86_post_nmi(struct x86_vcpu *c)
{
    atomic_store_explicit(&c->nmi_inbox, 1, memory_order_release);
    vcpu_post(&c->vcpu, EVENT_INTERRUPT);
}

/* ---- what the machine asks ---- */

static enum vcpu_exit op_run(struct vcpu *v, uint64_t budget)
{
    struct x86_vcpu *c = v->self;

    return c->engine_ops->run(c, budget);
}

static uint64_t op_retired(struct vcpu *v)
{
    struct x86_vcpu *c = v->self;

    return c->s.icount + (c->block ? c->cur->number : 0);
}

static bool op_has_work(struct vcpu *v)
{
    return x86_has_wakeup(v->self);
}

static void op_reset(struct vcpu *v)
{
    x86_vcpu_reset(v->self);
}

static void op_code_written(struct vcpu *v, struct ram_block *block, uint64_t offset,
                            uint64_t bytes)
{
    struct x86_vcpu *c = v->self;

    c->engine_ops->code_written(c, block, offset, bytes);
}

static void op_revoke(struct vcpu *v)
{
    x86_tlb_revoke_writes(v->self);
}

/* The processor between what its engine wants below and above it. */
static size_t processor_bytes(const struct x86_engine_ops *engine)
{
    return align_up(engine->below_bytes, PAGE_SIZE) +
           align_up(align_up(sizeof(struct x86_vcpu), 64) + engine->above_bytes, PAGE_SIZE);
}

static struct x86_vcpu *processor_alloc(const struct x86_engine_ops *engine)
{
    uint8_t *p = host_pages_alloc(processor_bytes(engine), false);
    struct x86_vcpu *c;

    if (!p)
        return NULL;
    c = (struct x86_vcpu *)(p + align_up(engine->below_bytes, PAGE_SIZE));
    c->engine_ops = engine;
    return c;
}

static void processor_free(struct x86_vcpu *c)
{
    const struct x86_engine_ops *engine = c->engine_ops;

    host_pages_free((uint8_t *)c - align_up(engine->below_bytes, PAGE_SIZE),
                    processor_bytes(engine));
}

static void op_destroy(struct vcpu *v)
{
    struct x86_vcpu *c = v->self;

    if (c->engine)
        c->engine_ops->destroy(c);
    if (c->vec)
        vec_destroy(c);
    if (c->lapic)
        lapic_destroy(c->lapic);
    x86_mmu_destroy(c);
    processor_free(c);
}

static const struct vcpu_ops x86_vcpu_ops = {
    .run = op_run,
    .retired = op_retired,
    .has_work = op_has_work,
    .reset = op_reset,
    .destroy = op_destroy,
    .code_written = op_code_written,
    .revoke = op_revoke,
};

static void lapic_device_reset(void *self)
{
    /* x86_vcpu_reset does it, in the order the processor wants. */
}

static const struct dev_type lapic_device = {
    .name = "lapic",
    .reset = lapic_device_reset,
    .state = &lapic_state,
};

struct x86_vcpu *x86_vcpu_create(struct vm *vm, const struct x86_model *model,
                                 const struct x86_engine_ops *engine,
                                 const struct x86_engine_options *options, struct error *err)
{
    struct x86_vcpu *c = processor_alloc(engine);
    unsigned index = vm->vcpu_count;

    if (!c) {
        error_set(err, -12, "out of memory for a processor");
        return NULL;
    }
    c->vm = vm;
    c->model = model;
    if (options)
        c->engine_options = *options;
    c->vcpu.ops = &x86_vcpu_ops;
    c->vcpu.state = &x86_cpu_state;
    c->vcpu.self = c;
    c->vcpu.index = index;
    c->vcpu.vm = vm;
    if (x86_mmu_create(c, err) < 0)
        goto fail;
    if (vec_create(c, err) < 0)
        goto fail;
    c->lapic = lapic_create(c, err);
    if (!c->lapic || engine->create(c, err) < 0)
        goto fail;
    if (vm_add_vcpu(vm, &c->vcpu) < 0) {
        error_set(err, -22, "too many processors: at most %d", VM_MAX_VCPUS);
        goto fail;
    }
    snprintf(c->lapic_name, sizeof c->lapic_name, "lapic%u", index);
    vm_add_device(vm, &lapic_device, c->lapic_name, c->lapic);
    x86_vcpu_reset(c);
    return c;
fail:
    op_destroy(&c->vcpu);
    return NULL;
}

/* ---- state ---- */

static const struct state_field segment_fields[] = {
    STATE_INT(struct x86_seg, base),
    STATE_INT(struct x86_seg, limit),
    STATE_INT(struct x86_seg, attr),
    STATE_INT(struct x86_seg, selector),
    STATE_END,
};
static const struct state_table segment_state = {"segment", 1, segment_fields, NULL, NULL};

static const struct state_field table_fields[] = {
    STATE_INT(struct x86_dtr, base),
    STATE_INT(struct x86_dtr, limit),
    STATE_END,
};
static const struct state_table table_state = {"descriptor-table", 1, table_fields, NULL, NULL};

static void before_save(void *self)
{
    struct x86_vcpu *c = self;

    vec_sync(c);
    if (atomic_exchange(&c->nmi_inbox, 0))
        c->s.nmi_pending = 1;
    c->s.intr_pin = atomic_load(&c->intr_level);
    c->s.xinuse = vec_xinuse(&c->s);
}

/* A saved state may come from anywhere: what indexes or steers the host must
 * be in range. */
static int after_load(void *self, unsigned version)
{
    struct x86_vcpu *c = self;
    struct x86_cpu *s = &c->s;

    if (s->cpl > 3 || s->activity > X86_SHUTDOWN || s->shadow > 3 || s->reg[X86_ZERO] != 0 ||
        (s->xcr0 & ~c->model->xcr0_mask) || (s->x.mxcsr & ~c->model->mxcsr_mask) ||
        (s->cc & ~(CC_OF | CC_CF | CC_PF | CC_AF | CC_ZF | CC_SF | CC_ONE)))
        return -22;
    if (x86_long_mode(s) && !(s->cr4 & CR4_PAE))
        return -22;
    atomic_store(&c->intr_level, s->intr_pin);
    x86_tlb_reset(c);
    c->engine_ops->code_written(c, NULL, 0, 0);
    c->recheck = true;
    x86_state_changed(c);
    return 0;
}

#define FIELD(member) STATE_INT(struct x86_vcpu, s.member)
#define FIELDS(member) STATE_INTS(struct x86_vcpu, s.member)

static const struct state_field cpu_fields[] = {
    FIELDS(reg),
    FIELD(rflags),
    FIELD(cc),
    FIELD(shadow),
    FIELD(activity),
    FIELD(cpl),
    FIELD(nmi_masked),
    FIELD(nmi_pending),
    FIELD(init_pending),
    FIELD(sipi_pending),
    FIELD(sipi_vector),
    FIELD(intr_pin),
    FIELD(ferr_line),
    STATE_STRUCTS(struct x86_vcpu, s.seg, &segment_state),
    STATE_STRUCT(struct x86_vcpu, s.ldtr, &segment_state),
    STATE_STRUCT(struct x86_vcpu, s.tr, &segment_state),
    STATE_STRUCT(struct x86_vcpu, s.gdtr, &table_state),
    STATE_STRUCT(struct x86_vcpu, s.idtr, &table_state),
    FIELD(cr0),
    FIELD(cr2),
    FIELD(cr3),
    FIELD(cr4),
    FIELD(efer),
    FIELD(xcr0),
    FIELDS(dr),
    FIELD(dr6),
    FIELD(dr7),
    FIELD(pending_db),
    FIELDS(pdpte),
    FIELD(star),
    FIELD(lstar),
    FIELD(cstar),
    FIELD(fmask),
    FIELD(kernel_gs_base),
    FIELD(sysenter_cs),
    FIELD(sysenter_esp),
    FIELD(sysenter_eip),
    FIELD(tsc_aux),
    FIELD(tsc_adjust),
    FIELD(pat),
    FIELD(misc_enable),
    FIELD(spec_ctrl),
    FIELD(mtrr_def_type),
    FIELDS(mtrr_fixed),
    FIELDS(mtrr_base),
    FIELDS(mtrr_mask),
    FIELD(mcg_status),
    FIELD(mcg_ctl),
    FIELDS(mc_ctl),
    FIELDS(mc_status),
    FIELDS(mc_addr),
    FIELDS(mc_misc),
    FIELD(bios_sign_id),
    FIELD(feature_control),
    FIELD(monitor_gpa),
    FIELD(icount),
    FIELD(random),
    STATE_BYTES(struct x86_vcpu, s.x),
    FIELD(xinuse),
    STATE_END,
};

const struct state_table x86_cpu_state = {"x86-cpu", 1, cpu_fields, before_save, after_load};
