/*
 * cpu/x86/transfer64.c against gate.c and iret.c: random descriptors, gates,
 * stacks, frames and states. With empty TLBs the general code does the transfer;
 * from the same state, with TLBs that it has filled, the short way must do the
 * same, or nothing.
 */
#include "tests/unit/cpu_fixture.h"

#include "cpu/x86/mmu_internal.h"
#include "cpu/x86/seg_internal.h"

enum { P = 1, W = 2, U = 4 };
#define RAM_BYTES (8 * MiB)
#define PML4 0x1000ull
#define PDPT 0x2000ull
#define PD 0x3000ull
#define PTS 0x10000ull
/* What a transfer reads and writes, compared as a whole. */
#define AREA 0x400000ull
#define AREA_BYTES 0x10000ull
#define GDT (AREA + 0x1000)
#define TSS (AREA + 0x2000)
#define IDT (AREA + 0x3000)
#define STACKS (AREA + 0x8000) /* to the end of the area */
#define DESCRIPTORS 16
#define VECTOR 0x30
#define ROUNDS 30000

static struct fixture f;
static struct x86_vcpu *c;
static struct ram_block *ram;
static struct region memory;
static uint64_t seed;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1dull >> 16;
}

static bool seldom(void)
{
    return rnd() % 24 == 0;
}

static uint64_t *word(gpa_t at)
{
    return (uint64_t *)(ram->host + at);
}

static int start(void **state)
{
    struct error err;

    fixture_start(&f, "max", 1);
    c = f.cpu[0];
    ram = ram_block_create(f.vm, "ram", RAM_BYTES, RAM_NORMAL, &err);
    assert_non_null(ram);
    memory = (struct region){.name = "ram", .size = RAM_BYTES, .ram = ram};
    assert_int_equal(region_add(&f.vm->memory, &memory), 0);
    *word(PML4) = PDPT | P | W | U;
    *word(PDPT) = PD | P | W | U;
    for (unsigned n = 0; n < RAM_BYTES / (2 * MiB); n++)
        *word(PD + n * 8) = (PTS + n * 4096) | P | W | U;
    c->s.cr0 |= CR0_PG | CR0_PE | CR0_WP;
    c->s.cr4 |= CR4_PAE;
    c->s.efer |= EFER_LME | EFER_LMA | EFER_NXE;
    c->s.cr3 = PML4;
    seed = 0x9e3779b97f4a7c15;
    return 0;
}

static int stop(void **state)
{
    fixture_stop(&f);
    return 0;
}

/* ---- something like a system, more or less ---- */

static uint64_t random_descriptor(void)
{
    static const uint16_t usual[] = {0xa09b, 0xc093, 0xa0fb, 0xc0f3, 0xc09b, 0xa0bb, 0xc0b3, 0xa09f,
                                     0xc0fb};
    uint64_t attr = usual[rnd() % (seldom() ? ARRAY_SIZE(usual) : 4)];

    if (seldom())
        attr ^= 1 << rnd() % 16;
    return attr << 40 | 0xffff;
}

static uint16_t random_selector(unsigned rpl)
{
    uint16_t selector = (uint16_t)(rnd() % DESCRIPTORS << 3);

    return (uint16_t)(seldom() ? selector | (rnd() & 7) : selector | rpl);
}

static uint64_t random_rip(void)
{
    return seldom() ? rnd() << 16 : 0xffffffff80000000ull + (rnd() & 0xffffff);
}

static uint64_t random_stack(void)
{
    if (seldom())
        return rnd() % 2 ? 0x800000000000ull : rnd() << 20;
    return STACKS + 256 + rnd() % (AREA_BYTES - 0x8000 - 512);
}

static void random_pages(void)
{
    bool same = rnd() % 4;
    uint64_t usual = rnd() % 2 ? U : 0;

    for (uint64_t page = 0; page < RAM_BYTES; page += 4096)
        *word(PTS + (page >> 12) * 8) = page | P | W | U;
    for (uint64_t page = AREA; page < AREA + AREA_BYTES; page += 4096) {
        uint64_t flags = P | W | (page < STACKS ? 0 : usual);

        if (!same && seldom())
            flags ^= 1 << rnd() % 3;
        *word(PTS + (page >> 12) * 8) = page | flags;
    }
}

static void random_system(void)
{
    unsigned type = rnd() % 2 ? SYS_INT_GATE32 : SYS_TRAP_GATE32;
    uint64_t offset = random_rip(), gate, high;

    random_pages();
    for (unsigned n = 0; n < DESCRIPTORS; n++)
        *word(GDT + n * 8) = random_descriptor();
    for (unsigned n = 0; n < 13; n++)
        memcpy(ram->host + TSS + 4 + n * 8, &(uint64_t){random_stack()}, 8);
    if (seldom())
        type = rnd() & 15;
    gate = (offset & 0xffff) | (uint64_t)random_selector(0) << 16 |
           (rnd() % 3 ? 0 : rnd() & 7) << 32 | (uint64_t)type << 40 | (rnd() & 3) << 45 |
           (uint64_t)!seldom() << 47 | (offset & 0xffff0000) << 32;
    high = offset >> 32 | (seldom() ? rnd() << 32 : 0);
    *word(IDT + VECTOR * 16) = gate;
    *word(IDT + VECTOR * 16 + 8) = high;
    c->s.gdtr = (struct x86_dtr){.base = GDT, .limit = seldom() ? rnd() & 0xff : 0xff};
    c->s.idtr = (struct x86_dtr){.base = IDT, .limit = seldom() ? rnd() & 0x3ff : 0xfff};
    c->s.tr = (struct x86_seg){.base = TSS, .limit = seldom() ? rnd() & 0x7f : 0x67,
                               .attr = SEG_P | SYS_TSS32_BUSY, .selector = 0x40};
}

static void random_state(void)
{
    static const uint32_t data_attr[] = {SEG_UNUSABLE, 0xc093, 0xc0f3, 0xc0fb};
    struct x86_cpu *s = &c->s;
    uint64_t raw;

    for (unsigned n = 0; n < 16; n++)
        s->reg[n] = rnd();
    s->reg[X86_RSP] = random_stack();
    s->reg[X86_RIP] = random_rip();
    s->cpl = rnd() % 2 ? 0 : 3;
    flags_set(c, (rnd() & (FLAG_STATUS | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_ID)) |
                     (seldom() ? rnd() & (FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VIF | FLAG_VIP) : 0) |
                     (rnd() % 4 ? 0 : FLAG_AC));
    raw = seldom() ? 0xc09b : 0xa09b;
    seg_fill(&s->seg[X86_CS], (uint16_t)(0x10 | s->cpl), (raw | s->cpl << 5) << 40 | 0xffff);
    for (unsigned n = X86_ES; n < X86_SEG_COUNT; n++) {
        if (n == X86_CS)
            continue;
        s->seg[n] = (struct x86_seg){.base = n > X86_DS ? rnd() : 0,
                                     .attr = data_attr[rnd() % ARRAY_SIZE(data_attr)],
                                     .limit = 0xffffffff,
                                     .selector = (uint16_t)rnd()};
    }
    s->cr0 = (s->cr0 & ~(uint64_t)CR0_AM) | (rnd() % 2 ? CR0_AM : 0);
    s->cr4 = (s->cr4 & ~(uint64_t)CR4_SMAP) | (rnd() % 2 ? CR4_SMAP : 0);
    s->dr7 = DR7_ONE | (seldom() ? 1 : 0);
    s->nmi_masked = 0;
    s->nmi_pending = seldom();
    s->cr2 = 0;
    s->pending_db = 0;
    s->shadow = 0;
    c->recheck = false;
    c->irq_held = rnd() & 1;
    c->step_trap = false;
    x86_state_changed(c);
}

/* ---- the same twice ---- */

static struct {
    struct x86_vcpu cpu;
    uint8_t area[AREA_BYTES];
} before, general;

static void keep(void *cpu, uint8_t *area)
{
    memcpy(cpu, c, sizeof *c);
    memcpy(area, ram->host + AREA, AREA_BYTES);
}

static void again(void)
{
    c->s = before.cpu.s;
    c->recheck = before.cpu.recheck;
    c->irq_held = before.cpu.irq_held;
    c->step_trap = before.cpu.step_trap;
    memcpy(ram->host + AREA, before.area, AREA_BYTES);
    x86_state_changed(c);
}

static void compare(const struct x86_vcpu *other, const uint8_t *area)
{
    assert_memory_equal(&c->s, &other->s, sizeof c->s);
    assert_memory_equal(ram->host + AREA, area, AREA_BYTES);
    assert_int_equal(c->ip_mask, other->ip_mask);
    assert_int_equal(c->sp_mask, other->sp_mask);
    assert_memory_equal(c->seg_base, other->seg_base, sizeof c->seg_base);
    assert_memory_equal(c->seg_read_last, other->seg_read_last, sizeof c->seg_read_last);
    assert_memory_equal(c->seg_write_last, other->seg_write_last, sizeof c->seg_write_last);
    assert_int_equal(c->code_bias, other->code_bias);
    assert_int_equal(c->code_span, other->code_span);
    assert_int_equal(c->mode, other->mode);
    assert_int_equal(c->gate_blocked, other->gate_blocked);
    assert_int_equal(c->slow, other->slow);
    assert_int_equal(c->tlb_class, other->tlb_class);
    assert_int_equal(c->recheck, other->recheck);
}

static struct event {
    enum x86_event_kind kind;
    bool has_error;
    uint32_t error;
    uint64_t rip;
} event;

static void run_event(struct x86_vcpu *cpu, uint64_t unused)
{
    x86_interrupt(cpu, event.kind, VECTOR, event.has_error, event.error, event.rip);
}

static void run_iret(struct x86_vcpu *cpu, uint64_t unused)
{
    x86_iret(cpu, 8);
}

/* The general way; true if it got through. */
static bool run_generally(void (*call)(struct x86_vcpu *cpu, uint64_t unused))
{
    bool through;

    keep(&before.cpu, before.area);
    x86_tlb_flush_all(c);
    through = fixture_fault(c, call, 0) < 0;
    keep(&general.cpu, general.area);
    again();
    return through;
}

static void check(bool done, bool through)
{
    if (!done) {
        compare(&before.cpu, before.area);
        return;
    }
    assert_true(through);
    compare(&general.cpu, general.area);
}

static void test_events(void **state)
{
    static const enum x86_event_kind kinds[] = {X86_EVENT_EXTERNAL, X86_EVENT_FAULT,
                                                X86_EVENT_TRAP, X86_EVENT_SOFT_INT};
    unsigned short_way = 0, refused = 0;

    for (unsigned n = 0; n < ROUNDS; n++) {
        bool through, done;

        random_system();
        random_state();
        event = (struct event){kinds[rnd() % ARRAY_SIZE(kinds)], rnd() & 1, (uint32_t)rnd(), rnd()};
        through = run_generally(run_event);
        done = event_through_gate64(c, VECTOR, event.kind == X86_EVENT_SOFT_INT, event.has_error,
                                    event.error, event.rip, x86_event_flags(c, event.kind));
        check(done, through);
        short_way += done;
        refused += through && !done;
    }
    /* Most of what gets through is as usual, or this tests nothing. */
    assert_true(short_way > ROUNDS / 10);
    assert_true(short_way > refused / 2);
}

static void test_iret(void **state)
{
    unsigned short_way = 0, refused = 0;

    for (unsigned n = 0; n < ROUNDS; n++) {
        const uint64_t always = FLAG_STATUS | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_RF | FLAG_AC |
                                FLAG_ID;
        unsigned rpl = rnd() % 2 ? 3 : 0;
        uint64_t frame[5], mask;
        bool through, done;

        random_system();
        random_state();
        frame[0] = random_rip();
        frame[1] = random_selector(rpl);
        frame[2] = rnd() & 0x3fffff;
        frame[3] = rnd();
        frame[4] = rnd() % 3 ? random_selector(rpl) : rpl;
        if (c->s.reg[X86_RSP] - STACKS < AREA_BYTES - 0x8000 - sizeof frame)
            memcpy(ram->host + c->s.reg[X86_RSP], frame, sizeof frame);
        mask = always | (c->s.cpl <= x86_iopl(&c->s) ? FLAG_IF : 0) |
               (c->s.cpl ? 0 : FLAG_IOPL | FLAG_VIF | FLAG_VIP);
        through = run_generally(run_iret);
        if (c->s.nmi_pending) /* iret.c's, before it asks the short way */
            c->recheck = before.cpu.recheck = true;
        done = iretq_to_code64(c, mask);
        check(done, through);
        short_way += done;
        refused += through && !done;
    }
    assert_true(short_way > ROUNDS / 100);
    assert_true(short_way > refused / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events, start, stop),
        cmocka_unit_test_setup_teardown(test_iret, start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
