/* The local APIC: cpu/x86/apic.c, apic_timer.c, apic_bus.c. */
#include "tests/unit/cpu_fixture.h"

#include <pthread.h>

#include "cpu/x86/apic_internal.h"

#define CPUS 4

static struct fixture f;
static struct lapic *l, *all[CPUS];
static uint8_t eoi_vector[16];
static unsigned eoi_count;

static void on_eoi(void *ctx, uint8_t vector)
{
    if (eoi_count < ARRAY_SIZE(eoi_vector))
        eoi_vector[eoi_count] = vector;
    eoi_count++;
}

static void wr(struct lapic *a, unsigned reg, uint32_t value)
{
    lapic_mmio_write(a, reg << 4, value, 4);
}

static uint32_t rd(struct lapic *a, unsigned reg)
{
    return lapic_mmio_read(a, reg << 4, 4);
}

static void msr_wr(struct lapic *a, unsigned reg, uint64_t value)
{
    assert_true(lapic_msr_write(a, 0x800 + reg, value));
}

static uint64_t msr_rd(struct lapic *a, unsigned reg)
{
    uint64_t value = 0;

    assert_true(lapic_msr_read(a, 0x800 + reg, &value));
    return value;
}

static uint32_t base_of(struct lapic *a)
{
    return 0xfee00000u | (a == all[0] ? APIC_BASE_BSP : 0);
}

static void to_x2apic(struct lapic *a)
{
    assert_true(lapic_set_base_msr(a, base_of(a) | APIC_BASE_EN | APIC_BASE_EXTD));
}

static int start(void **state)
{
    fixture_start(&f, "max", CPUS);
    eoi_count = 0;
    apic_bus_on_eoi(f.bus, on_eoi, NULL);
    for (unsigned n = 0; n < CPUS; n++) {
        all[n] = f.cpu[n]->lapic;
        wr(all[n], REG_SVR, 0x1ff);
        atomic_store(&f.cpu[n]->vcpu.events, 0);
    }
    l = all[0];
    return 0;
}

static int stop(void **state)
{
    fixture_stop(&f);
    return 0;
}

static uint32_t events(unsigned n)
{
    return atomic_exchange(&f.cpu[n]->vcpu.events, 0);
}

/* The next vector that a processor takes, or -1. */
static int take(struct lapic *a)
{
    return lapic_has_interrupt(a) ? lapic_accept(a) : -1;
}

/* Who got the vector: one bit a processor; they finish it. */
static unsigned receivers(uint8_t vector)
{
    unsigned mask = 0;

    for (unsigned n = 0; n < CPUS; n++) {
        int v = take(all[n]);

        if (v < 0)
            continue;
        assert_int_equal(v, vector);
        mask |= 1u << n;
        if (all[n]->base & APIC_BASE_EXTD)
            msr_wr(all[n], REG_EOI, 0);
        else
            wr(all[n], REG_EOI, 0);
        assert_int_equal(take(all[n]), -1);
    }
    return mask;
}

static void ipi(struct lapic *a, uint8_t dest, uint32_t icr)
{
    wr(a, REG_ICR_HIGH, (uint32_t)dest << 24);
    wr(a, REG_ICR, icr);
}

static void message(uint32_t dest, bool logical, bool redirect, uint32_t data)
{
    struct irq_message_port port = apic_bus_port(f.bus);

    irq_message_send(&port,
                     (struct irq_message){
                         0xfee00000u | dest << 12 | redirect << 3 | (uint32_t)logical << 2, data});
}

static bool message_waits(uint32_t dest, bool logical, uint32_t data)
{
    struct irq_message_port port = apic_bus_port(f.bus);

    return port.waiting(
        port.ctx,
        (struct irq_message){0xfee00000u | dest << 12 | (uint32_t)logical << 2, data});
}

/* A message waits until its receiver looks. */
static void test_waiting(void **state)
{
    wr(l, REG_SVR, 0x1ff);
    assert_false(message_waits(0, false, 0x41));
    message(0, false, false, 0x41);
    assert_true(message_waits(0, false, 0x41));
    assert_true(message_waits(0xff, false, 0x41));
    assert_false(message_waits(0, false, 0x42));
    assert_false(message_waits(1, false, 0x41));
    assert_int_equal(take(l), 0x41);
    assert_false(message_waits(0, false, 0x41));
    wr(l, REG_EOI, 0);
}

static void test_reset(void **state)
{
    lapic_reset(l);
    assert_int_equal(lapic_base_msr(l), 0xfee00900);
    assert_int_equal(lapic_base_msr(all[1]), 0xfee00800);
    assert_int_equal(rd(all[2], REG_ID), 2u << 24);
    assert_int_equal(rd(l, REG_VERSION), 0x01050015);
    assert_int_equal(rd(l, REG_SVR), 0xff);
    assert_int_equal(rd(l, REG_DFR), 0xffffffff);
    assert_int_equal(rd(l, REG_LVT + LVT_TIMER), LVT_MASKED);
    assert_true(lapic_accepts_extint(l));
    assert_false(lapic_accepts_extint(all[1]));
    assert_true(lapic_page_match(l, 0xfee00ffc));
    assert_false(lapic_page_match(l, 0xfee01000));
    assert_int_equal(eoi_count, 0);
}

static void test_modes(void **state)
{
    uint64_t v;

    assert_false(lapic_set_base_msr(l, 0xfee00000 | APIC_BASE_EXTD));
    assert_false(lapic_set_base_msr(l, 0xfee00801));
    assert_false(lapic_set_base_msr(l, 0xfee00a00));
    assert_false(lapic_set_base_msr(l, BIT(f.model.phys_bits) | APIC_BASE_EN));
    assert_false(lapic_msr_read(l, 0x802, &v));

    /* Moves; xAPIC to x2APIC keeps the registers. */
    assert_true(lapic_set_base_msr(l, 0xd0000000 | APIC_BASE_BSP | APIC_BASE_EN));
    assert_true(lapic_page_match(l, 0xd0000020));
    assert_false(lapic_page_match(l, 0xfee00020));
    wr(l, REG_TPR, 0x35);
    to_x2apic(l);
    assert_false(lapic_page_match(l, 0xfee00020));
    assert_int_equal(msr_rd(l, REG_TPR), 0x35);
    assert_int_equal(msr_rd(l, REG_ID), 0);
    to_x2apic(all[3]);
    assert_int_equal(msr_rd(all[3], REG_ID), 3);
    assert_int_equal(msr_rd(all[3], REG_LDR), 8);

    /* Back only through disabled; from there only to xAPIC. */
    assert_false(lapic_set_base_msr(l, base_of(l) | APIC_BASE_EN));
    assert_true(lapic_set_base_msr(l, base_of(l)));
    assert_false(lapic_page_match(l, 0xfee00020));
    assert_false(lapic_set_base_msr(l, base_of(l) | APIC_BASE_EN | APIC_BASE_EXTD));
    assert_true(lapic_accepts_extint(l));
    assert_true(lapic_set_base_msr(l, base_of(l) | APIC_BASE_EN));
    assert_int_equal(rd(l, REG_TPR), 0); /* its state was lost */
    assert_int_equal(rd(l, REG_SVR), 0xff);
}

static void test_x2apic_faults(void **state)
{
    static const struct {
        unsigned reg;
        uint64_t value;
    } bad[] = {
        {REG_ID, 0},
        {REG_VERSION, 0},
        {REG_PPR, 0},
        {REG_LDR, 0},
        {REG_DFR, ~0u},
        {REG_ICR_HIGH, 0},
        {REG_LVT_CMCI, 0},
        {REG_TPR, 0x100},
        {REG_TPR, BIT(32)},
        {REG_EOI, 1},
        {REG_ESR, 1},
        {REG_SVR, 0x2000},
        {REG_IRR, 0},
        {REG_ISR + 7, 0},
        {REG_TMR, 0},
        {REG_TIMER_CURRENT, 0},
        {REG_TIMER_DIVIDE, 4},
        {REG_LVT + LVT_TIMER, 1 << 19},
        {REG_LVT, 3 << 17},
        {REG_LVT + LVT_ERROR, 1 << 8},
        {REG_SELF_IPI, 256},
        {REG_ICR, 1 << 12},
        {REG_ICR, 1 << 20},
        {0x00, 0},
        {0x3a, 0},
        {0x40, 0},
        {0xff, 0},
    };
    uint64_t v;

    to_x2apic(l);
    for (unsigned n = 0; n < ARRAY_SIZE(bad); n++)
        assert_false(lapic_msr_write(l, 0x800 + bad[n].reg, bad[n].value));
    assert_false(lapic_msr_read(l, 0x800 + REG_EOI, &v));
    assert_false(lapic_msr_read(l, 0x800 + REG_DFR, &v));
    assert_false(lapic_msr_read(l, 0x800 + REG_SELF_IPI, &v));
    assert_false(lapic_msr_read(l, 0x800 + REG_ICR_HIGH, &v));
    assert_false(lapic_msr_read(l, 0x800 + 0x09, &v));
    msr_wr(l, REG_ICR, 0x300000045ull);
    assert_int_equal(msr_rd(l, REG_ICR), 0x300000045ull);
    assert_int_equal(receivers(0x45), 8);
}

static void test_priority(void **state)
{
    message(0, false, false, 0x31);
    message(0, false, false, 0x35);
    message(0, false, false, 0x80);
    assert_int_equal(events(0), EVENT_INTERRUPT);
    assert_int_equal(take(l), 0x80);
    assert_int_equal(rd(l, REG_PPR), 0x80);
    assert_int_equal(rd(l, REG_IRR + 1), 1u << 0x11 | 1u << 0x15);
    assert_int_equal(rd(l, REG_ISR + 4), 1);
    assert_int_equal(take(l), -1);
    message(0, false, false, 0x8f); /* the same class waits */
    assert_int_equal(take(l), -1);
    message(0, false, false, 0x90); /* a higher one does not */
    assert_int_equal(take(l), 0x90);
    events(0);
    wr(l, REG_EOI, 0);
    assert_int_equal(events(0), 0);
    wr(l, REG_EOI, 0);
    assert_int_equal(events(0), EVENT_INTERRUPT); /* look again */
    assert_int_equal(take(l), 0x8f);
    wr(l, REG_EOI, 0);
    wr(l, REG_TPR, 0x3f);
    assert_int_equal(rd(l, REG_PPR), 0x3f);
    assert_int_equal(take(l), -1);
    events(0);
    lapic_set_cr8(l, 2);
    assert_int_equal(rd(l, REG_TPR), 0x20);
    assert_int_equal(lapic_cr8(l), 2);
    assert_int_equal(events(0), EVENT_INTERRUPT);
    assert_int_equal(take(l), 0x35);
    assert_int_equal(take(l), -1); /* 31H is of the class in service */
    wr(l, REG_EOI, 0);
    assert_int_equal(take(l), 0x31);
    wr(l, REG_EOI, 0);
    wr(l, REG_EOI, 0); /* of nothing */
    assert_int_equal(eoi_count, 0);
}

static void test_eoi_broadcast(void **state)
{
    message(0, false, false, 0x51 | 1 << 15);
    assert_int_equal(take(l), 0x51);
    assert_int_equal(rd(l, REG_TMR + 2), 1u << 0x11);
    wr(l, REG_EOI, 0);
    assert_int_equal(eoi_count, 1);
    assert_int_equal(eoi_vector[0], 0x51);
    /* The same vector as an edge. */
    message(0, false, false, 0x51);
    assert_int_equal(take(l), 0x51);
    assert_int_equal(rd(l, REG_TMR + 2), 0);
    wr(l, REG_EOI, 0);
    assert_int_equal(eoi_count, 1);
    /* Suppressed. */
    wr(l, REG_SVR, 0x11ff);
    message(0, false, false, 0x51 | 1 << 15);
    assert_int_equal(take(l), 0x51);
    wr(l, REG_EOI, 0);
    assert_int_equal(eoi_count, 1);
}

static void test_physical_and_shorthand(void **state)
{
    ipi(l, 2, 0x40);
    assert_int_equal(receivers(0x40), 4);
    ipi(l, 9, 0x40);
    assert_int_equal(receivers(0x40), 0);
    ipi(l, 0xff, 0x41);
    assert_int_equal(receivers(0x41), 0xf);
    ipi(l, 0, 0x42 | SHORTHAND_SELF << ICR_SHORTHAND_SHIFT);
    assert_int_equal(receivers(0x42), 1);
    ipi(all[1], 0, 0x43 | SHORTHAND_ALL << ICR_SHORTHAND_SHIFT);
    assert_int_equal(receivers(0x43), 0xf);
    ipi(all[1], 0, 0x44 | SHORTHAND_OTHERS << ICR_SHORTHAND_SHIFT);
    assert_int_equal(receivers(0x44), 0xd);
    /* A software-disabled or switched-off APIC accepts none. */
    wr(all[2], REG_SVR, 0xff);
    assert_true(lapic_set_base_msr(all[3], base_of(all[3])));
    ipi(l, 0xff, 0x45);
    assert_int_equal(receivers(0x45), 3);
    message(0xff, false, false, 0x46);
    assert_int_equal(receivers(0x46), 3);
}

static void test_logical(void **state)
{
    for (unsigned n = 0; n < CPUS; n++)
        wr(all[n], REG_LDR, 1u << n << 24);
    ipi(l, 0x5, 0x50 | ICR_LOGICAL);
    assert_int_equal(receivers(0x50), 5);
    message(0xa, true, false, 0x51);
    assert_int_equal(receivers(0x51), 0xa);
    message(0xf0, true, false, 0x51);
    assert_int_equal(receivers(0x51), 0);

    /* Clusters: 0 and 1 in cluster 1, 2 and 3 in cluster 2. */
    for (unsigned n = 0; n < CPUS; n++) {
        wr(all[n], REG_DFR, 0x0fffffff);
        assert_int_equal(rd(all[n], REG_DFR), 0x0fffffff);
        wr(all[n], REG_LDR, ((n / 2 + 1) << 4 | 1u << n % 2) << 24);
    }
    ipi(l, 0x13, 0x52 | ICR_LOGICAL);
    assert_int_equal(receivers(0x52), 3);
    ipi(l, 0x22, 0x52 | ICR_LOGICAL);
    assert_int_equal(receivers(0x52), 8);
    ipi(l, 0xf1, 0x52 | ICR_LOGICAL);
    assert_int_equal(receivers(0x52), 5);
    ipi(l, 0xff, 0x52 | ICR_LOGICAL);
    assert_int_equal(receivers(0x52), 0xf);
}

static void test_x2apic_destinations(void **state)
{
    for (unsigned n = 0; n < CPUS; n++)
        to_x2apic(all[n]);
    msr_wr(l, REG_ICR, 2ull << 32 | 0x60);
    assert_int_equal(receivers(0x60), 4);
    msr_wr(l, REG_ICR, 0xffffffffull << 32 | 0x61);
    assert_int_equal(receivers(0x61), 0xf);
    msr_wr(l, REG_ICR, 0xffull << 32 | 0x61); /* no broadcast here */
    assert_int_equal(receivers(0x61), 0);
    msr_wr(l, REG_ICR, 0xaull << 32 | 0x62 | ICR_LOGICAL);
    assert_int_equal(receivers(0x62), 0xa);
    msr_wr(l, REG_ICR, 0x1000aull << 32 | 0x62 | ICR_LOGICAL); /* cluster 1 */
    assert_int_equal(receivers(0x62), 0);
    msr_wr(l, REG_ICR, 0xffffffffull << 32 | 0x62 | ICR_LOGICAL);
    assert_int_equal(receivers(0x62), 0xf);
    msr_wr(all[3], REG_SELF_IPI, 0x63);
    assert_int_equal(receivers(0x63), 8);
    message(1, false, false, 0x64);
    assert_int_equal(receivers(0x64), 2);
}

static void test_lowest_priority(void **state)
{
    unsigned seen = 0;

    for (unsigned n = 0; n < CPUS; n++) {
        wr(all[n], REG_LDR, 1u << n << 24);
        wr(all[n], REG_TPR, 0x40 - (n == 2 ? 0x20 : 0));
    }
    message(0xf, true, false, 0x70 | DELIVERY_LOWEST << 8);
    assert_int_equal(receivers(0x70), 4);
    message(0xb, true, true, 0x71); /* by the redirection hint */
    assert_int_equal(__builtin_popcount(receivers(0x71)), 1);
    ipi(l, 0xf, 0x72 | DELIVERY_LOWEST << 8 | ICR_LOGICAL);
    assert_int_equal(receivers(0x72), 4);
    /* A handler raises the priority. */
    message(4, true, false, 0x90);
    assert_int_equal(take(all[2]), 0x90);
    message(0xf, true, false, 0xa0 | DELIVERY_LOWEST << 8);
    assert_int_not_equal(receivers(0xa0), 4);
    wr(all[2], REG_EOI, 0);
    /* Equals share the vectors, and only enabled ones. */
    for (unsigned n = 0; n < CPUS; n++)
        wr(all[n], REG_TPR, 0);
    wr(all[3], REG_SVR, 0xff);
    for (unsigned v = 0x80; v < 0x90; v++) {
        unsigned who;

        message(0xf, true, false, v | DELIVERY_LOWEST << 8);
        who = receivers((uint8_t)v);
        assert_int_equal(__builtin_popcount(who), 1);
        seen |= who;
    }
    assert_int_equal(seen, 7);
}

static void test_init_and_startup(void **state)
{
    struct x86_cpu *s = &f.cpu[1]->s;

    s->init_pending = s->sipi_pending = 0;
    ipi(l, 1, DELIVERY_INIT << 8 | ICR_ASSERT);
    assert_int_equal(events(1), EVENT_INIT);
    lapic_take_startup(all[1]);
    assert_int_equal(s->init_pending, 1);
    assert_int_equal(s->sipi_pending, 0);
    s->init_pending = 0;
    ipi(l, 1, DELIVERY_INIT << 8 | ICR_LEVEL); /* de-assert: nothing */
    assert_int_equal(events(1), 0);
    ipi(l, 1, DELIVERY_STARTUP << 8 | 0x9a);
    assert_int_equal(events(1), EVENT_STARTUP);
    lapic_take_startup(all[1]);
    assert_int_equal(s->sipi_pending, 1);
    assert_int_equal(s->sipi_vector, 0x9a);
    s->sipi_pending = 0;

    /* Both before the other looks: INIT, then the SIPI. */
    ipi(l, 1, DELIVERY_STARTUP << 8 | 0x11);
    ipi(l, 1, DELIVERY_INIT << 8 | ICR_ASSERT);
    ipi(l, 1, DELIVERY_STARTUP << 8 | 0x12);
    events(1);
    lapic_take_startup(all[1]);
    assert_int_equal(s->init_pending, 1);
    assert_int_equal(s->sipi_pending, 0);
    s->init_pending = 0;
    lapic_init(all[1]);
    assert_true(events(1) & EVENT_STARTUP);
    lapic_take_startup(all[1]);
    assert_int_equal(s->init_pending, 0);
    assert_int_equal(s->sipi_vector, 0x12);
    s->sipi_pending = 0;
    /* An INIT drops the SIPI before it. */
    ipi(l, 1, DELIVERY_STARTUP << 8 | 0x13);
    ipi(l, 1, DELIVERY_INIT << 8 | ICR_ASSERT);
    lapic_take_startup(all[1]);
    lapic_take_startup(all[1]);
    assert_int_equal(s->sipi_pending, 0);
    s->init_pending = 0;

    /* The pin: what port 92H and the keyboard controller pull. */
    lapic_init_pin(all[1]);
    assert_true(events(1) & EVENT_INIT);
    lapic_take_startup(all[1]);
    assert_int_equal(s->init_pending, 1);
    s->init_pending = 0;

    /* INIT keeps id and mode, resets the rest. */
    to_x2apic(all[1]);
    msr_wr(all[1], REG_TPR, 0x50);
    lapic_init(all[1]);
    assert_int_equal(msr_rd(all[1], REG_TPR), 0);
    assert_int_equal(msr_rd(all[1], REG_ID), 1);
    for (unsigned n = 0; n < CPUS; n++)
        events(n);
    /* Software-disabled processors get INIT and SIPI all the same. */
    ipi(l, 0, DELIVERY_INIT << 8 | ICR_ASSERT | SHORTHAND_OTHERS << ICR_SHORTHAND_SHIFT);
    assert_int_equal(events(1), EVENT_INIT);
    assert_int_equal(events(3), EVENT_INIT);
    assert_int_equal(events(0) & EVENT_INIT, 0);
}

static void test_esr(void **state)
{
    wr(l, REG_LVT + LVT_ERROR, 0xe0);
    ipi(l, 1, 0x0f);
    assert_int_equal(take(all[1]), -1);
    assert_int_equal(rd(l, REG_ESR), 0); /* a write latches */
    wr(l, REG_ESR, 0x1234);
    assert_int_equal(rd(l, REG_ESR), ESR_SEND_VECTOR);
    assert_int_equal(take(l), 0xe0);
    wr(l, REG_EOI, 0);
    wr(l, REG_ESR, 0);
    assert_int_equal(rd(l, REG_ESR), 0);

    message(0, false, false, 0x08);
    assert_int_equal(take(l), 0xe0);
    wr(l, REG_EOI, 0);
    wr(l, REG_ESR, 0);
    assert_int_equal(rd(l, REG_ESR), ESR_RECEIVE_VECTOR);

    assert_int_equal(rd(l, 0x3a), 0);
    assert_int_equal(take(l), 0xe0);
    wr(l, REG_EOI, 0);
    wr(l, 0x00, 5); /* not armed again yet */
    assert_int_equal(take(l), -1);
    wr(l, REG_ESR, 0);
    assert_int_equal(rd(l, REG_ESR), ESR_REGISTER);
    wr(l, REG_LVT_CMCI, 0);
    assert_int_equal(take(l), 0xe0);
    wr(l, REG_EOI, 0);

    /* An error interrupt with an illegal vector of its own ends. */
    wr(l, REG_ESR, 0);
    wr(l, REG_LVT + LVT_ERROR, 3);
    wr(l, 0x00, 5);
    assert_int_equal(take(l), -1);
    wr(l, REG_ESR, 0);
    assert_int_equal(rd(l, REG_ESR), ESR_REGISTER | ESR_RECEIVE_VECTOR);

    /* Read-only registers are no error. */
    wr(l, REG_ID, 0x07000000);
    wr(l, REG_VERSION, 0);
    wr(l, REG_IRR, ~0u);
    wr(l, REG_ESR, 0);
    assert_int_equal(rd(l, REG_ESR), 0);
    assert_int_equal(rd(l, REG_ID), 0);
}

static void test_software_disable(void **state)
{
    wr(l, REG_LVT + LVT_LINT1, DELIVERY_NMI << 8);
    message(0, false, false, 0x55);
    assert_true(lapic_has_interrupt(l));
    wr(l, REG_SVR, 0xff);
    assert_int_equal(rd(l, REG_LVT + LVT_LINT1), DELIVERY_NMI << 8 | LVT_MASKED);
    wr(l, REG_LVT + LVT_LINT1, DELIVERY_NMI << 8);
    assert_int_equal(rd(l, REG_LVT + LVT_LINT1), DELIVERY_NMI << 8 | LVT_MASKED);
    /* What was accepted before is still there. */
    assert_int_equal(take(l), 0x55);
}

static void test_access_sizes(void **state)
{
    wr(l, REG_TPR, 0x12);
    assert_int_equal(lapic_mmio_read(l, 0x80, 1), 0x12);
    assert_int_equal(lapic_mmio_read(l, 0x84, 4), 0);
    assert_int_equal(lapic_mmio_read(l, 0x31, 1), 0);
    assert_int_equal(lapic_mmio_read(l, 0x32, 2), 0x105);
    lapic_mmio_write(l, 0x80, 0x55, 1);
    lapic_mmio_write(l, 0x84, 0x55, 4);
    assert_int_equal(rd(l, REG_TPR), 0x12);
    for (unsigned offset = 0; offset < 0x1000; offset++) {
        lapic_mmio_read(l, offset, 4);
        lapic_mmio_write(l, offset, 0xffffffff, 4);
        lapic_mmio_write(l, offset, 0, 4);
    }
}

static void test_lint(void **state)
{
    wr(l, REG_LVT + LVT_LINT0, DELIVERY_EXTINT << 8);
    assert_true(lapic_accepts_extint(l));
    wr(l, REG_LVT + LVT_LINT0, DELIVERY_EXTINT << 8 | LVT_MASKED);
    assert_false(lapic_accepts_extint(l));

    /* Level-triggered: once, until EOI while still asserted. */
    wr(l, REG_LVT + LVT_LINT0, 0x77 | LVT_LEVEL);
    lapic_lint(l, 0, true);
    assert_int_equal(take(l), 0x77);
    assert_int_equal(rd(l, REG_LVT + LVT_LINT0), 0x77 | LVT_LEVEL | LVT_REMOTE_IRR);
    assert_int_equal(take(l), -1);
    wr(l, REG_EOI, 0);
    assert_int_equal(take(l), 0x77);
    lapic_lint(l, 0, false);
    wr(l, REG_EOI, 0);
    assert_int_equal(rd(l, REG_LVT + LVT_LINT0), 0x77 | LVT_LEVEL);
    assert_int_equal(take(l), -1);

    /* Edges. */
    wr(l, REG_LVT + LVT_LINT1, 0x78);
    lapic_lint(l, 1, true);
    lapic_lint(l, 1, true);
    assert_int_equal(take(l), 0x78);
    wr(l, REG_EOI, 0);
    assert_int_equal(take(l), -1);
    lapic_lint(l, 1, false);
    wr(l, REG_LVT + LVT_LINT1, 0x78 | LVT_MASKED);
    lapic_lint(l, 1, true);
    assert_int_equal(take(l), -1);
}

static void test_extint_message(void **state)
{
    wr(l, REG_LVT + LVT_LINT0, LVT_MASKED);
    x86_set_intr(f.cpu[0], true);
    assert_false(lapic_accepts_extint(l));
    message(0, false, false, DELIVERY_EXTINT << 8);
    lapic_has_interrupt(l);
    assert_true(lapic_accepts_extint(l));
    x86_set_intr(f.cpu[0], false); /* acknowledged */
    lapic_has_interrupt(l);
    assert_false(lapic_accepts_extint(l));
}

/* ---- timer ---- */

#define TICK (1000000000ull / X86_CRYSTAL_HZ) /* in ns */

static void fire(void)
{
    l->timer.fire(l->timer.ctx);
}

/* When the machine's timer fires at last: it may be armed for a time before
 * that, and the owner then arms it anew. */
static uint64_t deadline(void)
{
    fire();
    lapic_has_interrupt(l);
    if (l->timer_armed_ns == TIME_NEVER)
        return TIME_NEVER;
    assert_int_equal(l->timer.deadline_ns, l->timer_armed_ns);
    return l->timer_armed_ns;
}

/* Deadlines that are put off are not armed anew, earlier ones are. */
static void test_timer_put_off(void **state)
{
    struct x86_vcpu *c = f.cpu[0];

    wr(l, REG_LVT + LVT_TIMER, 0x32 | TIMER_TSC_DEADLINE << LVT_TIMER_MODE_SHIFT);
    assert_true(x86_msr_write(c, 0x6e0, 5000));
    assert_true(x86_msr_write(c, 0x6e0, 9000));
    assert_int_equal(l->timer.deadline_ns, 5000);
    assert_true(x86_msr_write(c, 0x6e0, 4000));
    assert_int_equal(l->timer.deadline_ns, 4000);
    assert_true(x86_msr_write(c, 0x6e0, 8000));
    fixture_set_time(&f, 4000);
    fire();
    assert_int_equal(take(l), -1);
    assert_int_equal(l->timer.deadline_ns, 8000);
    fixture_set_time(&f, 8000);
    fire();
    assert_int_equal(take(l), 0x32);
    wr(l, REG_EOI, 0);
}

static void test_timer_one_shot(void **state)
{
    wr(l, REG_LVT + LVT_TIMER, 0x30);
    wr(l, REG_TIMER_DIVIDE, 0xb); /* by 1 */
    fixture_set_time(&f, 1000);
    wr(l, REG_TIMER_INITIAL, 100);
    assert_int_equal(deadline(), 1000 + 100 * TICK);
    fixture_set_time(&f, 1000 + 30 * TICK);
    assert_int_equal(rd(l, REG_TIMER_CURRENT), 70);
    fixture_set_time(&f, 1000 + 100 * TICK - 1);
    assert_int_equal(rd(l, REG_TIMER_CURRENT), 1);
    assert_int_equal(take(l), -1);
    fixture_set_time(&f, 1000 + 100 * TICK);
    fire();
    assert_int_equal(events(0), EVENT_INTERRUPT);
    assert_int_equal(take(l), 0x30);
    wr(l, REG_EOI, 0);
    assert_int_equal(rd(l, REG_TIMER_CURRENT), 0);
    assert_int_equal(rd(l, REG_TIMER_INITIAL), 100);
    assert_int_equal(deadline(), TIME_NEVER);
    fixture_set_time(&f, 1000000);
    fire(); /* late and stray */
    assert_int_equal(take(l), -1);
    /* Zero stops. */
    wr(l, REG_TIMER_INITIAL, 100);
    wr(l, REG_TIMER_INITIAL, 0);
    assert_int_equal(deadline(), TIME_NEVER);
}

static void test_timer_periodic(void **state)
{
    wr(l, REG_LVT + LVT_TIMER, 0x31 | TIMER_PERIODIC << LVT_TIMER_MODE_SHIFT);
    wr(l, REG_TIMER_DIVIDE, 0x3); /* by 16 */
    wr(l, REG_TIMER_INITIAL, 10);
    assert_int_equal(deadline(), 160 * TICK);
    for (unsigned n = 1; n < 5; n++) {
        fixture_set_time(&f, deadline() + 3);
        fire();
        assert_int_equal(take(l), 0x31);
        wr(l, REG_EOI, 0);
        assert_int_equal(take(l), -1);
        assert_int_equal(deadline(), (n + 1) * 160 * TICK); /* no drift */
        assert_int_equal(rd(l, REG_TIMER_CURRENT), 10);
    }
    /* Asleep for long: one interrupt, then in step again. */
    fixture_set_time(&f, 1000 * 160 * TICK + 80 * TICK);
    fire();
    assert_int_equal(take(l), 0x31);
    wr(l, REG_EOI, 0);
    assert_int_equal(take(l), -1);
    assert_int_equal(deadline(), 1001 * 160 * TICK);
    assert_int_equal(rd(l, REG_TIMER_CURRENT), 5);
    /* Masked: it goes on, silently and without waking anybody. */
    wr(l, REG_LVT + LVT_TIMER, 0x31 | TIMER_PERIODIC << LVT_TIMER_MODE_SHIFT | LVT_MASKED);
    assert_int_equal(deadline(), TIME_NEVER);
    fixture_set_time(&f, 2000 * 160 * TICK + 16 * TICK);
    assert_int_equal(rd(l, REG_TIMER_CURRENT), 9);
    wr(l, REG_LVT + LVT_TIMER, 0x31 | TIMER_PERIODIC << LVT_TIMER_MODE_SHIFT);
    assert_int_equal(take(l), -1);
    assert_int_equal(deadline(), 2001 * 160 * TICK);
}

static void test_timer_divides(void **state)
{
    static const struct {
        uint8_t value, by;
    } divides[] = {{0x0, 2},  {0x1, 4},  {0x2, 8},   {0x3, 16},
                   {0x8, 32}, {0x9, 64}, {0xa, 128}, {0xb, 1}};

    wr(l, REG_LVT + LVT_TIMER, 0x30);
    for (unsigned n = 0; n < ARRAY_SIZE(divides); n++) {
        fixture_set_time(&f, 0);
        wr(l, REG_TIMER_DIVIDE, divides[n].value);
        assert_int_equal(rd(l, REG_TIMER_DIVIDE), divides[n].value);
        wr(l, REG_TIMER_INITIAL, 1000);
        assert_int_equal(deadline(), 1000 * TICK * divides[n].by);
    }
    /* Another pace while it runs. */
    fixture_set_time(&f, 600 * TICK);
    wr(l, REG_TIMER_DIVIDE, 0);
    assert_int_equal(rd(l, REG_TIMER_CURRENT), 400);
    assert_int_equal(deadline(), 600 * TICK + 800 * TICK);
    /* The longest there is. */
    wr(l, REG_TIMER_DIVIDE, 0xa);
    wr(l, REG_TIMER_INITIAL, 0xffffffff);
    assert_int_equal(deadline(), 600 * TICK + 0xffffffffull * 128 * TICK);
}

static void test_tsc_deadline(void **state)
{
    struct x86_vcpu *c = f.cpu[0];
    uint64_t v;

    fixture_set_time(&f, 1000);
    assert_true(x86_msr_write(c, 0x6e0, 5000)); /* not the mode: ignored */
    assert_true(x86_msr_read(c, 0x6e0, &v));
    assert_int_equal(v, 0);
    wr(l, REG_TIMER_INITIAL, 100);
    wr(l, REG_LVT + LVT_TIMER, 0x32 | TIMER_TSC_DEADLINE << LVT_TIMER_MODE_SHIFT);
    assert_int_equal(deadline(), TIME_NEVER); /* the change disarms */
    assert_true(x86_msr_write(c, 0x6e0, 5000));
    assert_int_equal(deadline(), 5000);
    wr(l, REG_TIMER_INITIAL, 100); /* ignored in this mode */
    assert_int_equal(rd(l, REG_TIMER_CURRENT), 0);
    assert_int_equal(deadline(), 5000);
    fixture_set_time(&f, 4999);
    fire();
    assert_int_equal(take(l), -1); /* woken too early */
    assert_int_equal(deadline(), 5000);
    fixture_set_time(&f, 5000);
    assert_true(x86_msr_read(c, 0x6e0, &v));
    assert_int_equal(v, 0);
    fire();
    assert_int_equal(take(l), 0x32);
    wr(l, REG_EOI, 0);
    /* The past fires at once. */
    assert_true(x86_msr_write(c, 0x6e0, 1));
    assert_int_equal(take(l), 0x32);
    wr(l, REG_EOI, 0);
    assert_int_equal(take(l), -1);
    /* The deadline is in the guest's TSC. */
    assert_true(x86_msr_write(c, 0x6e0, 9000));
    assert_true(x86_msr_write(c, 0x3b, 1000));
    assert_int_equal(deadline(), 8000);
    assert_true(x86_msr_write(c, 0x10, 10000));
    assert_int_equal(take(l), 0x32);
    wr(l, REG_EOI, 0);
    /* Far, farther, and off. */
    assert_true(x86_msr_write(c, 0x6e0, ~0ull));
    assert_int_equal(deadline(), TIME_NEVER);
    assert_true(x86_msr_read(c, 0x6e0, &v));
    assert_int_equal(v, ~0ull);
    assert_true(x86_msr_write(c, 0x6e0, 0));
    assert_int_equal(deadline(), TIME_NEVER);
    assert_true(x86_msr_write(c, 0x6e0, 99000));
    wr(l, REG_LVT + LVT_TIMER, 0x32);
    assert_int_equal(deadline(), TIME_NEVER);
    /* Reserved mode 11 is none. */
    wr(l, REG_LVT + LVT_TIMER, 0x32 | TIMER_RESERVED << LVT_TIMER_MODE_SHIFT);
    assert_int_not_equal(rd(l, REG_LVT + LVT_TIMER) & LVT_TIMER_MODE, LVT_TIMER_MODE);
}

/* ---- state ---- */

static void test_state(void **state)
{
    struct state_stream s = {0};
    struct error err = {""};

    fixture_set_time(&f, 1000);
    wr(l, REG_LVT + LVT_TIMER, 0x30);
    wr(l, REG_TIMER_DIVIDE, 0xb);
    wr(l, REG_TIMER_INITIAL, 100);
    wr(l, REG_TPR, 0x20);
    message(0, false, false, 0x61);
    assert_int_equal(take(l), 0x61);
    /* Still in the inbox: */
    message(0, false, false, 0x83 | 1 << 15);
    ipi(all[1], 0, DELIVERY_STARTUP << 8 | 0x44);
    state_save(&s, &lapic_state, "lapic0", l);
    assert_false(s.failed);

    lapic_reset(l);
    message(0, false, false, 0x99);
    events(0);
    s.position = 0;
    assert_int_equal(state_load(&s, &lapic_state, "lapic0", l, &err), 0);
    assert_int_equal(events(0), EVENT_INTERRUPT | EVENT_STARTUP);
    assert_int_equal(deadline(), 1000 + 100 * TICK);
    assert_int_equal(rd(l, REG_TIMER_CURRENT), 100);
    assert_int_equal(rd(l, REG_TPR), 0x20);
    assert_int_equal(take(l), 0x83);
    wr(l, REG_EOI, 0);
    assert_int_equal(eoi_count, 1);
    wr(l, REG_EOI, 0);
    assert_int_equal(take(l), -1);
    lapic_take_startup(l);
    assert_int_equal(f.cpu[0]->s.sipi_vector, 0x44);
    /* It answers to its address again. */
    message(0, false, false, 0x62);
    assert_int_equal(take(l), 0x62);
    state_stream_free(&s);
}

/* ---- other threads ---- */

enum { SENDS = 20000 };

static void *sender(void *arg)
{
    unsigned base = *(unsigned *)arg;

    for (unsigned n = 0; n < SENDS; n++)
        message(0, false, false, (base + n % 16) | (n & 1) << 15);
    return NULL;
}

/* No vector is lost: after the last send each of them is there once more. */
static void test_inbox_threads(void **state)
{
    unsigned bases[2] = {0x40, 0xc0};
    pthread_t threads[2];
    uint64_t seen[4] = {0};

    for (unsigned n = 0; n < 2; n++)
        assert_int_equal(pthread_create(&threads[n], NULL, sender, &bases[n]), 0);
    for (unsigned n = 0; n < SENDS; n++) {
        int v = take(l);

        if (v >= 0) {
            seen[v >> 6] |= BIT(v & 63);
            wr(l, REG_EOI, 0);
        }
    }
    for (unsigned n = 0; n < 2; n++)
        pthread_join(threads[n], NULL);
    for (int v; (v = take(l)) >= 0;) {
        seen[v >> 6] |= BIT(v & 63);
        wr(l, REG_EOI, 0);
    }
    assert_int_equal(seen[0], 0);
    assert_int_equal(seen[1], 0xffff);
    assert_int_equal(seen[2], 0);
    assert_int_equal(seen[3], 0xffff);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reset),
        TEST(test_modes),
        TEST(test_x2apic_faults),
        TEST(test_priority),
        TEST(test_eoi_broadcast),
        TEST(test_physical_and_shorthand),
        TEST(test_logical),
        TEST(test_x2apic_destinations),
        TEST(test_lowest_priority),
        TEST(test_init_and_startup),
        TEST(test_esr),
        TEST(test_software_disable),
        TEST(test_access_sizes),
        TEST(test_waiting),
        TEST(test_lint),
        TEST(test_extint_message),
        TEST(test_timer_one_shot),
        TEST(test_timer_put_off),
        TEST(test_timer_periodic),
        TEST(test_timer_divides),
        TEST(test_tsc_deadline),
        TEST(test_state),
        TEST(test_inbox_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
