/*
 * An engine's side of the instruction tests: a machine with one processor in
 * user mode, with the tables that the host's kernel would have.
 * Every interrupt vector leads to a HLT of its own on a supervisor page, so
 * that a case ends as a guest kernel would see it: the frame on the stack of
 * ring 0, CR2, and where the processor stands tells the vector.
 */
#include "tests/insn/insn.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu/x86/apic.h"
#include "cpu/x86/mmu.h"
#include "cpu/x86/vcpu.h"
#include "engine/engine.h"
#include "vm/vm.h"

#define GUEST_RAM (1 * MiB)
#define GUEST_BUDGET 100000

/* Where things lie in guest-physical memory. */
enum guest_map {
    GPA_PML4 = 0x1000,
    GPA_TABLES = 0x2000, /* further page tables, as many as needed */
    GPA_TABLES_END = 0x20000,
    GPA_SYSTEM = 0x20000, /* one large supervisor area at SYSTEM_BASE */
    GPA_SYSTEM_END = 0x30000,
    GPA_CODE = 0x40000,
    GPA_DATA = 0x50000, /* DATA_PAGES pages in a row */
};

/* Offsets in the system area. */
enum system_map {
    SYS_GDT = 0,
    SYS_LDT = 0x400,
    SYS_TSS = 0x800,
    SYS_IDT = 0x1000,
    SYS_GATES = 0x2000, /* 256 times 16 bytes, each a HLT */
    SYS_STACK = 0x8000, /* grows down from here */
};
#define SYSTEM_BASE 0xffffc00000000000ull
#define GATE_BYTES 16

enum pte_bits {
    PTE_P = 1 << 0,
    PTE_W = 1 << 1,
    PTE_U = 1 << 2,
    PTE_A = 1 << 5,
    PTE_D = 1 << 6,
};
#define PTE_NX (1ull << 63)

/* The host kernel's GDT as far as user code can tell (LAR, LSL, VERR, VERW). */
static const uint64_t host_gdt[16] = {
    [1] = 0x00cf9b000000ffff, /* 32-bit code, ring 0 */
    [2] = 0x00af9b000000ffff, /* 64-bit code, ring 0 */
    [3] = 0x00cf93000000ffff, /* data, ring 0 */
    [4] = 0x00cffb000000ffff, /* 32-bit code, ring 3 */
    [5] = 0x00cff3000000ffff, /* data, ring 3 */
    [6] = 0x00affb000000ffff, /* 64-bit code, ring 3 */
};
#define GUEST_TSS 0x40
#define GUEST_LDT 0x50

struct guest {
    struct vm *vm;
    struct x86_model model;
    struct apic_bus *bus;
    struct ram_block *ram;
    struct region region;
    struct x86_vcpu *cpu;
    const uint8_t (*background)[4096];
    unsigned tables; /* pages used */
    struct x86_cpu start;
};

/* No two pages follow each other in physical memory as they do in linear memory,
 * so that what goes on into the next page has to find it. */
static uint64_t data_gpa(unsigned page)
{
    return GPA_DATA + (DATA_PAGES - 1 - page) * 0x1000ull;
}

/* Of code, linear. */
static uint64_t code_gpa(uint64_t address)
{
    if (address >= SELF_BASE)
        return data_gpa(PLAIN_PAGES + (unsigned)(address - SELF_BASE) / 0x1000) + address % 0x1000;
    return GPA_CODE + (CODE_PAGES - 1 - (address - CODE_BASE) / 0x1000) * 0x1000 + address % 0x1000;
}

static uint64_t *physical(struct guest *g, uint64_t gpa)
{
    return (uint64_t *)(g->ram->host + gpa);
}

static void map_page(struct guest *g, uint64_t gva, uint64_t gpa, uint64_t bits)
{
    uint64_t table = GPA_PML4;

    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t *e = physical(g, table) + (gva >> shift & 511);

        if (!*e) {
            uint64_t page = GPA_TABLES + g->tables++ * 0x1000;

            *e = page | PTE_P | PTE_W | PTE_U;
        }
        table = *e & 0xffffff000;
    }
    physical(g, table)[gva >> 12 & 511] = gpa | bits | PTE_P | PTE_A | PTE_D;
}

static uint64_t ldt_descriptor(const struct ldt_info *l)
{
    uint64_t type = l->code ? 8 | (l->read_exec_only ? 0 : 2)
                            : (l->read_exec_only ? 0 : 2) | (l->expand_down ? 4 : 0);

    return (l->limit & 0xffff) | (uint64_t)(l->base & 0xffffff) << 16 | (type | 1) << 40 |
           1ull << 44 | 3ull << 45 | (uint64_t)!l->not_present << 47 |
           (uint64_t)(l->limit >> 16 & 0xf) << 48 | (uint64_t)l->is_32bit << 54 |
           (uint64_t)l->pages << 55 | (uint64_t)(l->base >> 24) << 56;
}

static void build_tables(struct guest *g)
{
    uint8_t *sys = (uint8_t *)physical(g, GPA_SYSTEM);
    uint64_t *gdt = (uint64_t *)(sys + SYS_GDT), *ldt = (uint64_t *)(sys + SYS_LDT);
    uint64_t tss = SYSTEM_BASE + SYS_TSS, ldt_base = SYSTEM_BASE + SYS_LDT;

    memcpy(gdt, host_gdt, sizeof host_gdt);
    gdt[GUEST_TSS / 8] = 0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56;
    gdt[GUEST_TSS / 8 + 1] = tss >> 32;
    gdt[GUEST_LDT / 8] = (LDT_COUNT * 8 - 1) | (ldt_base & 0xffffff) << 16 | 0x82ull << 40 |
                         (ldt_base >> 24 & 0xff) << 56;
    gdt[GUEST_LDT / 8 + 1] = ldt_base >> 32;
    for (unsigned n = 0; n < LDT_COUNT; n++)
        ldt[n] = ldt_descriptor(&ldt_info[n]);
    le64_put(sys + SYS_TSS + 4, SYSTEM_BASE + SYS_STACK); /* RSP0 */
    le16_put(sys + SYS_TSS + 102, 0x68);                  /* no I/O bitmap */
    for (unsigned n = 0; n < 256; n++) {
        uint64_t gate = SYSTEM_BASE + SYS_GATES + n * GATE_BYTES;
        uint64_t dpl = n == VEC_BP || n == VEC_OF || n == 0x80 ? 3 : 0;
        uint64_t *idt = (uint64_t *)(sys + SYS_IDT) + n * 2;

        idt[0] = (gate & 0xffff) | 0x10ull << 16 | (0x8e | dpl << 5) << 40 |
                 (gate >> 16 & 0xffff) << 48;
        idt[1] = gate >> 32;
        sys[SYS_GATES + n * GATE_BYTES] = 0xf4;
    }
    for (uint64_t at = 0; at < GPA_SYSTEM_END - GPA_SYSTEM; at += 0x1000)
        map_page(g, SYSTEM_BASE + at, GPA_SYSTEM + at, PTE_W);
    for (unsigned n = 0; n < CODE_PAGES; n++)
        map_page(g, CODE_BASE + n * 0x1000, code_gpa(CODE_BASE + n * 0x1000), PTE_U);
    memset(physical(g, GPA_CODE), CODE_FILL, CODE_BYTES);
    for (unsigned n = 0; n < DATA_PAGES; n++) {
        map_page(g, data_page[n].address, data_gpa(n),
                 PTE_U | (data_page[n].right == PAGE_RWX ? 0 : PTE_NX) |
                     (data_page[n].right == PAGE_RO ? 0 : PTE_W));
        memcpy(physical(g, data_gpa(n)), g->background[n], 4096);
    }
}

static struct x86_seg segment(struct guest *g, uint16_t selector)
{
    const uint64_t *table =
        (const uint64_t *)((uint8_t *)physical(g, GPA_SYSTEM) + (selector & 4 ? SYS_LDT : SYS_GDT));
    struct x86_seg s = {.selector = selector, .attr = SEG_UNUSABLE};
    uint64_t d;

    if (selector < 4)
        return s;
    d = table[selector >> 3];
    s.attr = (uint32_t)(d >> 40) & 0xf0ff;
    s.base = (d >> 16 & 0xffffff) | d >> 56 << 24;
    s.limit = (uint32_t)((d & 0xffff) | (d >> 48 & 0xf) << 16);
    if (s.attr & SEG_G)
        s.limit = s.limit << 12 | 0xfff;
    return s;
}

static void build_start(struct guest *g)
{
    struct x86_cpu *s = &g->cpu->s;

    s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    s->cr3 = GPA_PML4;
    s->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    if (x86_model_has(&g->model, X86_FEAT_XSAVE)) {
        s->cr4 |= CR4_OSXSAVE;
        s->xcr0 = g->model.xcr0_mask & ~(uint64_t)XCR0_PKRU;
    }
    if (x86_model_has(&g->model, X86_FEAT_FSGSBASE))
        s->cr4 |= CR4_FSGSBASE;
    if (x86_model_has(&g->model, X86_FEAT_UMIP))
        s->cr4 |= CR4_UMIP;
    s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s->gdtr = (struct x86_dtr){.base = SYSTEM_BASE + SYS_GDT, .limit = sizeof host_gdt - 1};
    s->idtr = (struct x86_dtr){.base = SYSTEM_BASE + SYS_IDT, .limit = 0xfff};
    s->tr = (struct x86_seg){
        .base = SYSTEM_BASE + SYS_TSS, .limit = 0x67, .attr = SEG_P | 11, .selector = GUEST_TSS};
    s->ldtr = (struct x86_seg){.base = SYSTEM_BASE + SYS_LDT,
                               .limit = LDT_COUNT * 8 - 1,
                               .attr = SEG_P | 2,
                               .selector = GUEST_LDT};
    s->cpl = 3;
    x86_state_changed(g->cpu);
    x86_tlb_reset(g->cpu);
    g->start = *s;
}

struct guest *guest_create(const uint8_t background[DATA_PAGES][4096],
                           const struct x86_engine_ops *engine, bool in_real_time)
{
    /* Hot after its first run. */
    const struct x86_engine_options options = {.jit_threshold = 1};
    struct vm_config config = {.deterministic = !in_real_time, .seed = in_real_time ? 0 : 1};
    struct guest *g = aligned_alloc(64, align_up(sizeof *g, 64));
    struct error err = {""};

    memset(g, 0, sizeof *g);
    g->background = background;
    if (x86_model_parse(&g->model, "max", &err))
        goto fail;
    g->vm = vm_create(&config, &err);
    if (!g->vm)
        goto fail;
    g->ram = ram_block_create(g->vm, "ram", GUEST_RAM, RAM_NORMAL, &err);
    if (!g->ram)
        goto fail;
    g->region = (struct region){.name = "ram", .size = GUEST_RAM, .ram = g->ram};
    region_add(&g->vm->memory, &g->region);
    g->bus = apic_bus_create(g->vm);
    g->cpu = x86_vcpu_create(g->vm, &g->model, engine, &options, &err);
    if (!g->bus || !g->cpu)
        goto fail;
    apic_bus_add(g->bus, g->cpu);
    build_tables(g);
    build_start(g);
    return g;
fail:
    fprintf(stderr, "insn: %s\n", err.text);
    exit(2);
}

void guest_destroy(struct guest *g)
{
    vm_destroy(g->vm);
    apic_bus_destroy(g->bus);
    free(g);
}

/* ---- one case ---- */

/* Writes only where that changes something: unchanged code stays translated. */
static void put_code(struct guest *g, uint64_t address, const uint8_t *code, uint64_t bytes)
{
    while (bytes) {
        uint64_t gpa = code_gpa(address), part = MIN(bytes, 0x1000 - address % 0x1000);

        if (memcmp(g->ram->host + gpa, code, part)) {
            memcpy(g->ram->host + gpa, code, part);
            ram_block_written(g->ram, gpa, part);
        }
        address += part;
        code += part;
        bytes -= part;
    }
}

static void load_case(struct guest *g, const struct insn_case *k)
{
    struct x86_vcpu *c = g->cpu;
    struct x86_cpu *s = &c->s;

    if (k->writes_code) {
        uint8_t page[2 * 4096];

        memset(page, CODE_FILL, sizeof page);
        memcpy(page + (k->code_address - SELF_BASE), k->code, k->code_bytes);
        put_code(g, SELF_BASE, page, sizeof page);
    } else {
        put_code(g, k->code_address, k->code, k->code_bytes);
    }
    for (unsigned n = 0; n < PLAIN_PAGES; n++) {
        if (data_page[n].right == PAGE_RW)
            memcpy(physical(g, data_gpa(n)), g->background[n], 4096);
    }
    for (unsigned p = 0; p < k->patches; p++) {
        for (unsigned n = 0; n < DATA_PAGES; n++) {
            uint64_t at = k->patch[p].address - data_page[n].address;

            if (at < 4096)
                memcpy((uint8_t *)physical(g, data_gpa(n)) + at,
                       k->patch_data + k->patch[p].offset, k->patch[p].bytes);
        }
    }
    g->start.icount = s->icount;
    *s = g->start;
    memcpy(s->reg, k->in.gpr, sizeof k->in.gpr);
    s->reg[X86_RIP] = k->in.rip;
    s->rflags = (k->in.rflags & ~(uint64_t)FLAG_STATUS) | FLAG_R1;
    s->cc = x86_rflags_to_cc(k->in.rflags);
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        s->seg[n] = segment(g, k->in.sel[n]);
    if (k->mode == CODE_64) {
        s->seg[X86_FS].base = k->in.fs_base;
        s->seg[X86_GS].base = k->in.gs_base;
    }
    s->x = k->in.x;
    s->x.mxcsr_mask = 0;
    x86_state_changed(c);
}

static void save_case(struct guest *g, const struct insn_case *k, struct insn_result *r)
{
    struct x86_cpu *s = &g->cpu->s;
    uint64_t gate = s->reg[X86_RIP] - (SYSTEM_BASE + SYS_GATES);
    uint64_t frame[6];

    memcpy(r->out.gpr, s->reg, sizeof r->out.gpr);
    r->error = 0;
    r->cr2 = 0;
    r->retired = s->icount - g->start.icount;
    r->dr6 = s->dr6;
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        r->out.sel[n] = s->seg[n].selector;
    r->out.fs_base = s->seg[X86_FS].base;
    r->out.gs_base = s->seg[X86_GS].base;
    r->out.x = s->x;
    for (unsigned n = 0; n < DATA_PAGES; n++) {
        if (case_writes(k, n))
            memcpy(r->mem[n], physical(g, data_gpa(n)), 4096);
    }
    if (s->activity != X86_HALTED || s->cpl != 0 || gate >= 256 * GATE_BYTES) {
        r->vector = s->cpl == 3 ? VECTOR_TIMEOUT : VECTOR_LOST;
        r->out.rip = s->reg[X86_RIP];
        r->out.rflags = x86_rflags(s);
        return;
    }
    r->vector = (int32_t)(gate / GATE_BYTES);
    /* The frame lies below the top of the stack: SS, RSP, RFLAGS, CS, RIP, error. */
    memcpy(frame, (uint8_t *)physical(g, GPA_SYSTEM) + SYS_STACK - sizeof frame, sizeof frame);
    if (s->reg[X86_RSP] == SYSTEM_BASE + SYS_STACK - sizeof frame)
        r->error = (uint32_t)frame[0];
    r->out.rip = frame[1];
    r->out.sel[X86_CS] = (uint16_t)frame[2];
    r->out.rflags = frame[3];
    r->out.gpr[X86_RSP] = frame[4];
    r->out.sel[X86_SS] = (uint16_t)frame[5];
    if (r->vector == VEC_PF)
        r->cr2 = s->cr2;
}

static void run_case(struct guest *g, const struct insn_case *k, struct insn_result *r)
{
    struct x86_vcpu *c = g->cpu;

    load_case(g, k);
    for (uint64_t end = c->s.icount + GUEST_BUDGET; c->s.icount < end;) {
        if (c->engine_ops->run(c, end - c->s.icount) != VCPU_EXIT_EVENT)
            break;
    }
    save_case(g, k, r);
}

static void remove_code(struct guest *g, const struct insn_case *k)
{
    uint8_t fill[INSN_CODE_MAX];

    memset(fill, CODE_FILL, sizeof fill);
    put_code(g, k->code_address, fill, k->code_bytes);
}

void guest_run(struct guest *g, const struct insn_case *k, struct insn_result *r)
{
    run_case(g, k, r);
    remove_code(g, k);
}

unsigned guest_repeat(struct guest *g, const struct insn_case *k, unsigned times,
                      const struct insn_result *expected, struct insn_result *out)
{
    unsigned different = 0;

    for (unsigned run = 1; run <= times && !different; run++) {
        run_case(g, k, out);
        if (!result_identical(k, expected, out))
            different = run;
    }
    remove_code(g, k);
    return different;
}

size_t guest_host_code(struct guest *g, const struct insn_case *k, unsigned times, uint8_t *out,
                       size_t most)
{
    struct insn_result *r = calloc(1, sizeof *r);
    const uint8_t *code = NULL;
    size_t bytes = 0;

    if (!r || !g->cpu->engine_ops->host_code)
        goto out;
    while (times--)
        run_case(g, k, r);
    /* It is found by the state that it was made for. */
    load_case(g, k);
    bytes = MIN(g->cpu->engine_ops->host_code(g->cpu, k->code_address, &code), most);
    if (bytes)
        memcpy(out, code, bytes);
    remove_code(g, k);
out:
    free(r);
    return bytes;
}
