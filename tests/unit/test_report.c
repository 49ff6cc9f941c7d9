/*
 * The triple-fault report: what it says about made-up faults in each mode.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "debug/report.h"

struct text {
    char all[16384];
    size_t used;
};

static void take(void *ctx, const char *line)
{
    struct text *t = ctx;

    assert_null(strchr(line, '\n'));
    t->used += (size_t)snprintf(t->all + t->used, sizeof t->all - t->used, "%s\n", line);
    assert_true(t->used < sizeof t->all);
}

static void assert_says(const struct text *t, const char *words)
{
    if (!strstr(t->all, words))
        fail_msg("no '%s' in:\n%s", words, t->all);
}

static struct x86_vcpu *processor(void **state)
{
    return *state;
}

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct x86_vcpu));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static void long_mode(void **state)
{
    struct x86_vcpu *c = processor(state);
    struct text t = {.used = 0};

    c->s.cr0 = CR0_PE | CR0_PG | CR0_WP;
    c->s.cr4 = CR4_PAE | CR4_PGE;
    c->s.efer = EFER_LME | EFER_LMA | EFER_NXE;
    c->s.seg[X86_CS].attr = SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_L;
    c->s.seg[X86_CS].selector = 0x10;
    c->s.seg[X86_DS].attr = SEG_UNUSABLE;
    c->s.tr.attr = SEG_P | 11;
    c->s.idtr.base = 0xfffffe0000000000;
    c->s.idtr.limit = 0xfff;
    c->s.reg[X86_R15] = 0x1122334455667788;
    c->s.rflags = FLAG_R1 | FLAG_IF;
    c->s.cc = CC_ONE | CC_ZF;
    c->s.icount = 4711;
    c->faults[0] = (struct x86_fault_record){
        .vector = VEC_PF,
        .has_error = true,
        .error = PF_W,
        .cr2 = 0xffff888000001000,
        .rip = 0xffffffff81000000,
        .cs_bits = 64,
        .code_length = 15,
        .code = {0x48, 0x89, 0x18, 0xc3},
        .idt_entry_valid = true,
        .idt_entry = {0x81a08e0100101230, 0x00000000ffffffff},
        .idt_entry_gva = 0xfffffe00000000e0,
    };
    c->faults[1] = c->faults[0];
    c->faults[1].error = PF_P | PF_I | PF_U | PF_PK;
    c->faults[1].idt_entry_valid = false;
    c->faults[2] = (struct x86_fault_record){.vector = VEC_NP, .has_error = true, .cs_bits = 64};
    report_triple_fault(c, take, &t);

    assert_says(&t, "triple fault on processor 0 after 4711 instructions");
    assert_says(&t, "first fault: vector 14 #PF page fault, error code 0002H (write by supervisor "
                    "code, page not present)");
    assert_says(&t, "CR2 ffff888000001000");
    assert_says(&t, "RIP ffffffff81000000 (64-bit code): mov [rax], rbx");
    assert_says(&t, "bytes 48 89 18\n");
    assert_says(&t, "IDT entry 14 at fffffe00000000e0: 00000000ffffffff 81a08e0100101230");
    assert_says(&t, "64-bit interrupt gate, 0010:ffffffff81a01230, DPL 0, IST 1, present");
    assert_says(&t, "instruction fetch by user code, page present, access not allowed, "
                    "protection key");
    assert_says(&t, "third fault: vector 11 #NP segment not present, error code 0000H");
    assert_says(&t, "(the instruction could not be read)");
    assert_says(&t, "IDT entry 8 at fffffe0000000080: could not be read");
    assert_says(&t, "R15 1122334455667788");
    assert_says(&t, "[IF ZF]");
    assert_says(&t, "code64 readable, DPL 0");
    assert_says(&t, "unusable");
    assert_says(&t, "TSS, busy");
    assert_says(&t, "[PG WP PE]");
    assert_says(&t, "[PGE PAE]");
    assert_says(&t, "[NXE LMA LME]");
}

static void protected_mode(void **state)
{
    struct x86_vcpu *c = processor(state);
    struct text t = {.used = 0};

    c->s.cr0 = CR0_PE;
    c->s.idtr.limit = 0x43;
    c->faults[0] = (struct x86_fault_record){
        .vector = VEC_SS,
        .has_error = true,
        .error = 0x1235,
        .cs_bits = 32,
        .code_length = 1,
        .code = {0x58},
        .idt_entry_valid = true,
        .idt_entry = {0x0000650000280000},
    };
    c->faults[1] = (struct x86_fault_record){
        .vector = VEC_GP,
        .has_error = true,
        .error = 12 * 8 + 3,
        .cs_bits = 32,
        .code_length = 2,
        .code = {0xff, 0xff},
    };
    c->faults[2] = (struct x86_fault_record){
        .vector = VEC_NP,
        .has_error = true,
    };
    report_triple_fault(c, take, &t);
    assert_says(&t, "#SS stack fault, error code 1235H (selector 1234H, LDT entry 582, while an "
                    "event was delivered)");
    assert_says(&t, "pop eax");
    assert_says(&t, "task gate, TSS selector 0028, DPL 3, NOT PRESENT");
    assert_says(&t, "error code 0063H (IDT entry 12, while an event was delivered)");
    assert_says(&t, "(not an instruction)");
    assert_says(&t, "bytes ff ff");
    assert_says(&t, "IDT entry 8: beyond the limit 0043H of the IDT");
    assert_says(&t, "error code 0000H (no selector)");
    c->faults[1].idt_entry_valid = true;
    c->faults[1].idt_entry[0] = 0x0010e70000081234;
    report_triple_fault(c, take, &t);
    /* A 16-bit gate's upper offset bits are not part of it. */
    assert_says(&t, "16-bit trap gate, 0008:00001234, DPL 3, present");
}

static void real_mode(void **state)
{
    struct x86_vcpu *c = processor(state);
    struct text t = {.used = 0};

    c->s.idtr.limit = 0x10;
    c->faults[0] = (struct x86_fault_record){
        .vector = VEC_DE,
        .rip = 0x7c00,
        .cs_bits = 16,
        .code_length = 2,
        .code = {0xf7, 0xf3},
        .idt_entry_valid = true,
        .idt_entry = {0xf000ff53},
    };
    c->faults[1] = (struct x86_fault_record){.vector = VEC_GP};
    c->faults[2] = (struct x86_fault_record){.vector = 200};
    report_triple_fault(c, take, &t);
    assert_says(&t, "vector 0 #DE divide error, no error code");
    assert_says(&t, "(16-bit code): div bx");
    assert_says(&t, "vector 0 at 00000000: f000:ff53");
    assert_says(&t, "third fault: vector 200, no error code");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(long_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(protected_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(real_mode, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
