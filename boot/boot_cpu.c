/*
 * The state of the first processor at a kernel's entry point. The descriptors
 * lie in memory as the segment registers say, because a kernel may reload
 * them (SDM Vol. 3, 3.4.5 and 9.9 "Mode Switching").
 */
#include "boot/loader.h"
#include "cpu/x86/vcpu.h"
#include "vm/vm.h"

/* Selectors; Linux asks for these two (boot protocol: __BOOT_CS, __BOOT_DS). */
enum boot_selector {
    BOOT_CS = 0x10,
    BOOT_DS = 0x18,
    BOOT_TSS = 0x20,
    BOOT_GDT_BYTES = 0x30, /* the TSS takes two entries in long mode */
};

#define SEG_TYPE_CODE (SEG_CODE | SEG_READABLE | SEG_ACCESSED)
#define SEG_TYPE_DATA (SEG_WRITABLE | SEG_ACCESSED)
#define SEG_TYPE_TSS_BUSY 0xb
#define TSS_LIMIT 0x67

#define PTE_PRESENT_WRITE 3ull
#define PDE_LARGE (1ull << 7)

/* The 8-byte descriptor of attributes and limit, base 0 (SDM Vol. 3, 3.4.5). */
static uint64_t descriptor(uint32_t attr, uint32_t limit)
{
    uint64_t field = attr & SEG_G ? limit >> 12 : limit;

    return (field & 0xffff) | (uint64_t)(attr & 0xff) << 40 | (field >> 16 & 0xf) << 48 |
           (uint64_t)(attr >> 12 & 0xf) << 52;
}

static void segments_set(struct boot_target *t, uint32_t code_attr)
{
    struct x86_cpu *s = &t->cpu->s;
    const uint32_t data_attr = SEG_TYPE_DATA | SEG_S | SEG_P | SEG_DB | SEG_G;
    const uint32_t tss_attr = SEG_TYPE_TSS_BUSY | SEG_P;
    uint64_t gdt[BOOT_GDT_BYTES / 8] = {
        [BOOT_CS / 8] = descriptor(code_attr, UINT32_MAX),
        [BOOT_DS / 8] = descriptor(data_attr, UINT32_MAX),
        [BOOT_TSS / 8] = descriptor(tss_attr, TSS_LIMIT),
    };

    boot_info_update(t, BOOT_GDT, gdt, sizeof gdt);
    s->gdtr = (struct x86_dtr){.base = BOOT_GDT, .limit = sizeof gdt - 1};
    s->idtr = (struct x86_dtr){.base = 0, .limit = 0};
    for (unsigned n = 0; n < X86_SEG_COUNT; n++)
        s->seg[n] = (struct x86_seg){.limit = UINT32_MAX, .attr = data_attr, .selector = BOOT_DS};
    s->seg[X86_CS] = (struct x86_seg){.limit = UINT32_MAX, .attr = code_attr, .selector = BOOT_CS};
    s->tr = (struct x86_seg){.limit = TSS_LIMIT, .attr = tss_attr, .selector = BOOT_TSS};
    s->ldtr = (struct x86_seg){.attr = SEG_UNUSABLE};
}

static void registers_set(struct x86_cpu *s, uint64_t entry)
{
    for (unsigned n = 0; n < X86_REG_COUNT; n++)
        s->reg[n] = 0;
    s->reg[X86_RIP] = entry;
    s->rflags = FLAG_R1;
    s->cc = CC_ONE;
    s->shadow = 0;
    s->cpl = 0;
    s->activity = X86_RUNNING;
}

void boot_cpu_protected(struct boot_target *t, uint32_t entry)
{
    struct x86_cpu *s = &t->cpu->s;

    registers_set(s, entry);
    segments_set(t, SEG_TYPE_CODE | SEG_S | SEG_P | SEG_DB | SEG_G);
    s->cr0 = CR0_PE | CR0_ET;
    s->cr3 = 0;
    s->cr4 = 0;
    s->efer = 0;
    x86_state_changed(t->cpu);
}

void boot_cpu_long(struct boot_target *t, uint64_t entry)
{
    struct x86_cpu *s = &t->cpu->s;
    uint64_t table[512] = {0};
    gpa_t at = BOOT_PAGE_TABLES;

    /* PML4, page-directory-pointer table, four page directories of 2 MiB pages. */
    table[0] = (at + 0x1000) | PTE_PRESENT_WRITE;
    boot_info_update(t, at, table, sizeof table);
    for (unsigned n = 0; n < 4; n++)
        table[n] = (at + 0x2000 + n * 0x1000) | PTE_PRESENT_WRITE;
    boot_info_update(t, at + 0x1000, table, sizeof table);
    for (unsigned directory = 0; directory < 4; directory++) {
        for (unsigned n = 0; n < 512; n++)
            table[n] = directory * GiB + n * 2 * MiB + (PDE_LARGE | PTE_PRESENT_WRITE);
        boot_info_update(t, at + 0x2000 + directory * 0x1000, table, sizeof table);
    }

    registers_set(s, entry);
    segments_set(t, SEG_TYPE_CODE | SEG_S | SEG_P | SEG_L | SEG_G);
    s->cr0 = CR0_PG | CR0_PE | CR0_ET;
    s->cr3 = at;
    s->cr4 = CR4_PAE;
    s->efer = EFER_LME | EFER_LMA;
    x86_state_changed(t->cpu);
}
