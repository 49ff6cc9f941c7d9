/*
 * The TLBs by hand: what a refill finds, sets and refuses; what each invalidation
 * takes and leaves; what an engine is told; growth. cpu/x86/{fill,tlb,walk}.c.
 */
#include "tests/unit/cpu_fixture.h"

#include "cpu/x86/mmu_internal.h"

enum {
    P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100,
};
#define RAM_BYTES (64 * MiB)
/* Paging structures and data in guest-physical memory. */
#define PML4 0x1000ull
#define PDPT 0x2000ull
#define PD 0x3000ull
#define PTS 0x100000ull /* of the first 64 MiB: 32 page tables */
#define SPARE 0x200000ull
#define DATA 0x400000ull

static struct fixture f;
static struct x86_vcpu *c;
static struct ram_block *ram;
static struct region memory;

/* ---- an engine that writes down what it is told ---- */

static struct {
    unsigned dropped, dropped_global, dropped_pages, all, pages, switches;
    bool global_too;
    gva_t page, dropped_page;
    unsigned slot;
} told;

static void note_tlb(struct x86_vcpu *cpu, bool global_too)
{
    told.dropped++;
    told.dropped_global += global_too;
}

/* Counts as dropped: which page it was, is page's. */
static void note_tlb_page(struct x86_vcpu *cpu, gva_t page)
{
    told.dropped++;
    told.dropped_pages++;
    told.dropped_page = page;
}

static void note_fetch(struct x86_vcpu *cpu, bool all, gva_t page, bool global_too)
{
    told.global_too = global_too;
    if (all) {
        told.all++;
    } else {
        told.pages++;
        told.page = page;
    }
}

static void note_switch(struct x86_vcpu *cpu, unsigned slot)
{
    told.switches++;
    told.slot = slot;
}

static struct x86_engine_ops curious;

static void forget_told(void)
{
    memset(&told, 0, sizeof told);
}

static void expect_told(unsigned dropped, unsigned all, unsigned pages, unsigned switches)
{
    assert_int_equal(told.dropped, dropped);
    assert_int_equal(told.all, all);
    assert_int_equal(told.pages, pages);
    assert_int_equal(told.switches, switches);
    forget_told();
}

/* ---- the machine ---- */

static uint64_t *entry(gpa_t at)
{
    return (uint64_t *)(ram->host + at);
}

static uint64_t *pte(gva_t gva)
{
    return entry(PTS + (gva >> 12) * 8);
}

/* 64 MiB at 0 as they are, by 4 KiB; the second GiB by one entry; 2 MiB pages at
 * 3 GiB. PCIDs on, CPL 0. */
static int start(void **state)
{
    struct error err;

    fixture_start(&f, "max", 1);
    c = f.cpu[0];
    f.vm->deterministic = false;
    ram = ram_block_create(f.vm, "ram", RAM_BYTES, RAM_NORMAL, &err);
    assert_non_null(ram);
    memory = (struct region){.name = "ram", .size = RAM_BYTES, .ram = ram};
    assert_int_equal(region_add(&f.vm->memory, &memory), 0);
    *entry(PML4) = PDPT | P | W | U;
    *entry(PDPT) = PD | P | W | U;
    *entry(PDPT + 8) = P | W | U | PS;
    *entry(PDPT + 24) = SPARE | P | W | U;
    for (unsigned n = 0; n < 32; n++) {
        *entry(PD + n * 8) = (PTS + n * 4096) | P | W | U;
        *entry(SPARE + n * 8) = n * 2 * MiB | P | W | U | PS;
    }
    for (uint64_t page = 0; page < RAM_BYTES; page += 4096)
        *pte(page) = page | P | W | U;
    c->s.cr0 |= CR0_PG | CR0_PE | CR0_WP;
    c->s.cr4 |= CR4_PAE | CR4_PCIDE | CR4_PGE;
    c->s.efer |= EFER_LME | EFER_LMA | EFER_NXE;
    c->s.cr3 = PML4;
    c->s.seg[X86_CS].attr |= SEG_L;
    x86_tlb_reset(c);
    x86_state_changed(c);
    curious = *c->engine_ops;
    curious.tlb_dropped = note_tlb;
    curious.tlb_page_dropped = note_tlb_page;
    curious.fetch_dropped = note_fetch;
    curious.slot_switched = note_switch;
    c->engine_ops = &curious;
    forget_told();
    return 0;
}

static int stop(void **state)
{
    fixture_stop(&f);
    return 0;
}

/* Does a lookup of the current TLB hit, and where? */
static uint8_t *lookup(gva_t gva, bool write)
{
    const struct tlb_entry *e = tlb_slot(c, gva);

    return (write ? e->write : e->read) == (gva & PAGE_MASK) ? (uint8_t *)(gva + e->addend) : NULL;
}

static bool hits(gva_t gva)
{
    return lookup(gva, false);
}

static void touch(gva_t gva)
{
    assert_true(x86_tlb_refill(c, gva, false));
    assert_non_null(lookup(gva, false));
}

static void fetch_raises(struct x86_vcpu *cpu, uint64_t gva)
{
    x86_fetch_page(cpu, gva);
}

static void fetch(gva_t gva)
{
    assert_int_equal(fixture_fault(c, fetch_raises, gva), -1);
}

static bool fetch_hits(gva_t gva)
{
    return itlb_slot(&c->mmu->slot[c->mmu->current].itlb, gva)->tag == (gva & PAGE_MASK);
}

/* ---- refills ---- */

static void test_refill_sets_bits(void **state)
{
    gva_t at = DATA + 0x123;

    assert_true(x86_tlb_refill(c, at, false));
    assert_ptr_equal(lookup(at, false), ram->host + at);
    assert_null(lookup(at, true)); /* D is clear */
    assert_int_equal(*pte(at) & (A | D), A);
    assert_int_equal(*entry(PML4) & (A | D), A);
    assert_int_equal(*entry(PD + 16) & (A | D), A);
    assert_true(x86_tlb_refill(c, at, true));
    assert_ptr_equal(lookup(at, true), ram->host + at);
    assert_int_equal(*pte(at) & (A | D), A | D);
}

static void test_refill_refuses(void **state)
{
    gva_t at = DATA;

    /* Faults set nothing. */
    *pte(at) &= ~(uint64_t)W;
    assert_false(x86_tlb_refill(c, at, true));
    assert_int_equal(*pte(at) & (A | D), 0);
    *pte(at) = 0;
    assert_false(x86_tlb_refill(c, at, false));
    assert_int_equal(*entry(PML4) & A, 0);
    assert_false(x86_tlb_refill(c, 1ull << 47, false));
    /* The page before the hole: the operand may reach into it. */
    assert_false(x86_tlb_refill(c, (1ull << 47) - 4096, false));
    /* Not memory. */
    *pte(at) = 0x10000000 | P | W | U;
    assert_false(x86_tlb_refill(c, at, false));
    assert_int_equal(*pte(at) & (A | D), A);
    /* The APIC's page, though there were memory. */
    *pte(at) = 0xfee00000 | P | W | U;
    assert_false(x86_tlb_refill(c, at, false));
    /* Pages with code are read. */
    at = DATA + 0x1000;
    atomic_store(&ram->code_lines[at >> 12], 2);
    assert_false(x86_tlb_refill(c, at, true));
    assert_true(x86_tlb_refill(c, at, false));
    assert_null(lookup(at, true));
    /* A bits beside code are for the slow way, and so are devices. */
    at = DATA + 0x2000;
    x86_tlb_flush_all(c);
    atomic_store(&ram->code_lines[(PTS + (at >> 12) * 8) >> 12], 1);
    assert_false(x86_tlb_refill(c, at, false));
    assert_int_equal(*pte(at) & A, 0);
    *pte(at) |= A;
    assert_true(x86_tlb_refill(c, at, false));
    *entry(PD + 16) = 0x10000000 | P | W | U | A;
    x86_tlb_flush_all(c);
    assert_false(x86_tlb_refill(c, at, false));
    /* Breakpoints are looked for. */
    c->s.dr7 |= 1;
    assert_false(x86_tlb_refill(c, 0x5000, false));
    c->s.dr7 &= ~1ull;
    assert_true(x86_tlb_refill(c, 0x5000, false));
}

static void test_rights(void **state)
{
    gva_t at = DATA;

    *pte(at) &= ~(uint64_t)U;
    touch(at);
    c->s.cpl = 3;
    x86_tlb_select(c);
    assert_false(hits(at));
    assert_false(x86_tlb_refill(c, at, false));
    touch(at + 4096);
    *entry(PD + 16) &= ~(uint64_t)U; /* above, and told of */
    x86_tlb_flush_page(c, 0);
    assert_false(x86_tlb_refill(c, at + 0x2000, false));
    assert_true(hits(at + 4096));
    x86_tlb_flush_page(c, at + 4096);
    assert_false(x86_tlb_refill(c, at + 4096, false));
}

/* ---- invalidation ---- */

static void test_invlpg_exact(void **state)
{
    touch(DATA);
    touch(DATA + 0x1000);
    fetch(DATA);
    fetch(DATA + 0x1000);
    forget_told();
    x86_tlb_flush_page(c, DATA + 0x345);
    assert_false(hits(DATA));
    assert_true(hits(DATA + 0x1000));
    assert_false(fetch_hits(DATA));
    assert_true(fetch_hits(DATA + 0x1000));
    assert_int_equal(told.page, DATA);
    assert_int_equal(told.dropped_page, DATA);
    assert_int_equal(told.dropped_pages, 1);
    expect_told(1, 0, 1, 0);
    /* A page that only data came from. */
    touch(DATA + 0x10000);
    x86_tlb_flush_page(c, DATA + 0x10000);
    expect_told(1, 0, 0, 0);
}

/* The engine knows of fetches whose ITLB entry is gone. */
static void test_invlpg_evicted_fetch(void **state)
{
    fetch(DATA);
    fetch(DATA + ITLB_ENTRIES * PAGE_SIZE);
    assert_false(fetch_hits(DATA));
    x86_tlb_flush_page(c, DATA);
    assert_true(fetch_hits(DATA + ITLB_ENTRIES * PAGE_SIZE));
    assert_int_equal(told.page, DATA);
    expect_told(1, 0, 1, 0);
    fetch(DATA);
    x86_tlb_flush_nonglobal(c);
    assert_false(told.global_too);
    expect_told(1, 1, 0, 0);
    x86_tlb_flush_page(c, DATA);
    expect_told(1, 0, 0, 0);
    x86_tlb_flush_all(c);
    expect_told(1, 0, 0, 0); /* nothing was fetched since */
}

static void test_invlpg_large(void **state)
{
    gva_t two = 3 * GiB + 4 * MiB, one = GiB + 8 * MiB + 0x11000;

    touch(two + 0x3000);
    touch(two + 0x5000);
    touch(two + 2 * MiB);
    touch(one);
    touch(one + 0x1406000);
    touch(DATA);
    fetch(two + 0x9000);
    fetch(two + 2 * MiB + 0x1000);
    fetch(DATA);
    forget_told();
    x86_tlb_flush_page(c, two + 0x100000);
    assert_false(hits(two + 0x3000));
    assert_false(hits(two + 0x5000));
    assert_true(hits(two + 2 * MiB));
    assert_true(hits(one));
    assert_true(hits(DATA));
    assert_false(fetch_hits(two + 0x9000));
    assert_true(fetch_hits(two + 2 * MiB + 0x1000));
    assert_true(fetch_hits(DATA));
    assert_int_equal(told.dropped_pages, 0); /* more than a page */
    expect_told(1, 1, 0, 0);
    x86_tlb_flush_page(c, GiB);
    assert_false(hits(one));
    assert_false(hits(one + 0x1406000));
    assert_true(hits(two + 2 * MiB));
    expect_told(1, 0, 0, 0);
    /* What it shows now is what the tables say now. */
    *entry(SPARE + 16) = 32 * MiB | P | W | U | PS;
    touch(two + 0x3000);
    assert_ptr_equal(lookup(two + 0x3000, false), ram->host + 32 * MiB + 0x3000);
}

static void test_global_and_pcids(void **state)
{
    gva_t global = DATA, own = DATA + 0x1000;

    *pte(global) |= G;
    touch(global);
    touch(own);
    fetch(global);
    fetch(own);
    forget_told();
    x86_load_cr3(c, PML4); /* the same PCID: all but global ones */
    assert_true(hits(global));
    assert_false(hits(own));
    assert_true(fetch_hits(global));
    assert_false(told.global_too);
    assert_int_equal(told.dropped_global, 0);
    expect_told(1, 1, 0, 0);
    touch(own);
    /* There and back, nothing lost. */
    x86_load_cr3(c, PML4 | 5);
    assert_false(hits(own));
    assert_int_equal(told.slot, c->mmu->current);
    forget_told();
    touch(own);
    x86_load_cr3(c, PML4 | BIT(63));
    assert_true(hits(own));
    assert_true(hits(global));
    assert_int_equal(told.dropped_global, 0);
    expect_told(1, 0, 0, 1);
    /* INVLPG of a global page works in other PCIDs too, and the engine hears of it
     * at once, since what it knows of global pages is of all PCIDs. */
    x86_load_cr3(c, PML4 | 5 | BIT(63));
    forget_told();
    x86_tlb_flush_page(c, global);
    assert_int_equal(told.dropped_pages, 1); /* global or not */
    assert_int_equal(told.dropped_page, global);
    assert_int_equal(told.page, global);
    assert_true(told.global_too);
    expect_told(1, 0, 1, 0);
    x86_tlb_flush_page(c, own); /* and of another page does not */
    expect_told(1, 0, 0, 0);
    x86_load_cr3(c, PML4 | BIT(63));
    assert_false(hits(global));
    assert_false(fetch_hits(global));
    assert_true(hits(own));
    fetch(global);
    fetch(own);
    x86_load_cr3(c, PML4 | 5 | BIT(63));
    forget_told();
    /* All of it, from there; what is not global waits until its slot is current. */
    x86_tlb_flush_all(c);
    assert_true(told.global_too);
    expect_told(1, 1, 0, 0);
    x86_load_cr3(c, PML4 | BIT(63));
    assert_false(told.global_too);
    expect_told(1, 1, 0, 1);
    touch(own);
    /* INVPCID of one page, of one PCID. */
    x86_load_cr3(c, PML4 | 5 | BIT(63));
    x86_tlb_flush_pcid(c, 0, true, own);
    touch(own);
    x86_load_cr3(c, PML4 | BIT(63));
    assert_false(hits(own));
    touch(own);
    x86_tlb_flush_pcid(c, 5, false, 0);
    assert_true(hits(own));
    x86_load_cr3(c, PML4 | 5 | BIT(63));
    assert_false(hits(own));
}

/* More PCIDs than slots: the oldest makes room and is forgotten. */
static void test_slots(void **state)
{
    for (unsigned n = 1; n <= TLB_PCID_SLOTS; n++) {
        x86_load_cr3(c, PML4 | n | BIT(63));
        assert_false(hits(DATA));
        touch(DATA);
    }
    for (unsigned n = TLB_PCID_SLOTS; n >= 2; n--) {
        x86_load_cr3(c, PML4 | n | BIT(63));
        assert_true(hits(DATA));
    }
    x86_load_cr3(c, PML4 | BIT(63)); /* the first has gone long ago */
    assert_false(hits(DATA));
}

static void test_revoke(void **state)
{
    gva_t at = DATA;

    assert_true(x86_tlb_refill(c, at, true));
    assert_true(x86_tlb_refill(c, at + 0x1000, true));
    atomic_store(&ram->code_lines[at >> 12], 1);
    forget_told();
    x86_tlb_revoke_writes(c);
    assert_null(lookup(at, true));
    assert_non_null(lookup(at, false));
    assert_non_null(lookup(at + 0x1000, true));
    expect_told(1, 0, 0, 0);
}

/* ---- paging-structure caches ---- */

/* INVLPG of any page voids what is known of upper levels (4.10.4.1). */
static void test_upper_levels(void **state)
{
    gva_t at = DATA + 0x1000;

    touch(at);
    /* Another table of 2 MiB, in which all shows page 7. */
    for (unsigned n = 0; n < 512; n++)
        *entry(SPARE + 0x1000 + n * 8) = 0x7000 | P | W | U;
    *entry(PD + 16) = (SPARE + 0x1000) | P | W | U;
    x86_tlb_flush_page(c, 0x9000);
    touch(at + 0x1000);
    assert_ptr_equal(lookup(at + 0x1000, false), ram->host + 0x7000);
    assert_int_equal(*entry(PD + 16) & A, A);
    assert_true(hits(at)); /* the entry itself was not asked for */
    /* The same by MOV to CR3, with upper entries without P. */
    *entry(PDPT) &= ~(uint64_t)P;
    x86_load_cr3(c, PML4);
    assert_false(x86_tlb_refill(c, at, false));
    *entry(PDPT) |= P;
    touch(at);
    assert_ptr_equal(lookup(at, false), ram->host + 0x7000);
}

/* A is set anew after an invalidation, by a walk from the top. */
static void test_accessed_again(void **state)
{
    touch(DATA);
    *pte(DATA) &= ~(uint64_t)A;
    *entry(PD + 16) &= ~(uint64_t)A;
    *entry(PML4) &= ~(uint64_t)A;
    x86_tlb_flush_page(c, DATA);
    touch(DATA);
    assert_int_equal(*pte(DATA) & A, A);
    assert_int_equal(*entry(PD + 16) & A, A);
    assert_int_equal(*entry(PML4) & A, A);
}

/* Other rights behind the same tables: read-only above, user above. */
static void test_rights_of_upper_levels(void **state)
{
    *entry(PD + 16) &= ~(uint64_t)W;
    touch(DATA);
    assert_false(x86_tlb_refill(c, DATA, true));
    assert_false(x86_tlb_refill(c, DATA + 0x1000, true));
    assert_int_equal(*pte(DATA + 0x1000) & (A | D), 0);
    assert_true(x86_tlb_refill(c, DATA + 2 * MiB, true));
    c->s.cpl = 3;
    x86_tlb_select(c);
    touch(DATA);
    *entry(PD + 24) &= ~(uint64_t)U;
    x86_tlb_flush_page(c, 0);
    assert_false(x86_tlb_refill(c, DATA + 2 * MiB, false));
    touch(DATA + 0x1000);
}

/* ---- size ---- */

static void test_growth(void **state)
{
    uint64_t first = c->tlb_index_mask;
    unsigned found = 0;

    for (unsigned round = 0; round < 8; round++)
        for (gva_t at = DATA; at < RAM_BYTES; at += 4096)
            touch(at);
    assert_true(c->tlb_index_mask > first);
    assert_int_equal(c->tlb_index_mask, c->tlb->index_mask);
    for (gva_t at = DATA; at < RAM_BYTES; at += 4096) {
        if (hits(at)) {
            assert_ptr_equal(lookup(at, false), ram->host + at);
            found++;
        }
    }
    assert_int_equal(found, (RAM_BYTES - DATA) / 4096);
    x86_tlb_flush_nonglobal(c);
    for (gva_t at = DATA; at < RAM_BYTES; at += 4096)
        assert_false(hits(at));
    /* Little used from now on. */
    for (unsigned n = 0; n < 100; n++) {
        touch(DATA);
        touch(DATA + 0x5000);
        x86_tlb_flush_nonglobal(c);
    }
    assert_int_equal(c->tlb_index_mask, first);
    assert_int_equal(c->tlb->filled_count, 0);
    for (gva_t at = 0; at < RAM_BYTES; at += 4096)
        assert_false(hits(at));
}

/* An engine in a deterministic machine hears of entries that make room. */
static void test_evictions_told(void **state)
{
    touch(DATA);
    touch(DATA + TLB_MIN_ENTRIES * PAGE_SIZE);
    expect_told(0, 0, 0, 0);
    f.vm->deterministic = true;
    touch(DATA);
    expect_told(1, 0, 0, 0);
    fetch(DATA);
    fetch(DATA + 2 * ITLB_ENTRIES * PAGE_SIZE);
    assert_int_equal(told.page, DATA);
    expect_told(0, 0, 1, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_refill_sets_bits),
        TEST(test_refill_refuses),
        TEST(test_rights),
        TEST(test_invlpg_exact),
        TEST(test_invlpg_evicted_fetch),
        TEST(test_invlpg_large),
        TEST(test_global_and_pcids),
        TEST(test_slots),
        TEST(test_revoke),
        TEST(test_upper_levels),
        TEST(test_accessed_again),
        TEST(test_rights_of_upper_levels),
        TEST(test_growth),
        TEST(test_evictions_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
