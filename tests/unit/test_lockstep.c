/*
 * Lockstep finds what an engine does wrong, and where: engines that are the
 * interpreter but for one thing, wrong after a given number of instructions.
 * Also: no difference where there is none, limits, an engine that errs only
 * once, and what is typed reaching both machines at the same time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/lockstep.h"
#include "engine/engine.h"
#include "vm/memory.h"

/*
 * The guest, in a ROM: a jump at the reset vector, a MOV, then a loop of five
 * instructions, 60000 times, and the end. Each instruction is a nanosecond, so
 * the n-th one ends at n.
 */
enum {
    WRONG_AT = 100006, /* behind a XOR DX, BX: (WRONG_AT - 3) % 5 == 3 */
    WRONG_RIP = 0x0a,
    WHOLE = 8, /* what the engine for blocks has to run at a time to err */
    UNUSED_RAM = 0x7123,
    ROM_BYTES = 64 << 10,
};

static const uint8_t program[] = {
    0xb9, 0x60, 0xea,       /* 00: mov cx, 60000 */
    0x40,                   /* 03: inc ax */
    0x01, 0xc3,             /* 04: add bx, ax */
    0x89, 0x1e, 0x00, 0x05, /* 06: mov [0x500], bx */
    0x31, 0xda,             /* 0a: xor dx, bx */
    0xe2, 0xf5,             /* 0c: loop 03 */
    0xb0, 0x00,             /* 0e: mov al, 0 */
    0xe6, 0xf4,             /* 10: out 0xf4, al: debug-exit */
    0xf4, 0xeb, 0xfd,       /* 12: hlt; again */
};

/* A machine for typing: echoes what the serial port receives, ends at 'q'. */
static const uint8_t echo[] = {
    0xba, 0xfb, 0x03, /* 00: mov dx, 0x3fb */
    0xb0, 0x03,       /* 03: mov al, 3: eight bits */
    0xee,             /* 05: out dx, al */
    0xba, 0xfd, 0x03, /* 06: mov dx, 0x3fd */
    0xec,             /* 09: in al, dx */
    0xa8, 0x01,       /* 0a: test al, 1 */
    0x74, 0xfb,       /* 0c: jz 09 */
    0xba, 0xf8, 0x03, /* 0e: mov dx, 0x3f8 */
    0xec,             /* 11: in al, dx */
    0xee,             /* 12: out dx, al */
    0x3c, 'q',        /* 13: cmp al, 'q' */
    0x75, 0xef,       /* 15: jne 06 */
    0xe6, 0xf4,       /* 17: out 0xf4, al */
    0xf4,             /* 19: hlt */
};

static void rom_make(char path[static 32], const uint8_t *code, size_t bytes)
{
    static const uint8_t jump[] = {0xe9, 0x0d, 0x00}; /* fff0: jmp 0 */
    uint8_t *rom = calloc(1, ROM_BYTES);
    int fd;

    strcpy(path, "/tmp/lockstep-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0 && rom);
    memcpy(rom, code, bytes);
    memcpy(rom + ROM_BYTES - 16, jump, sizeof jump);
    assert_int_equal(write(fd, rom, ROM_BYTES), ROM_BYTES);
    close(fd);
    free(rom);
}

/* ---- engines that err ---- */

/* The n-th instruction is done: that is when `err` errs. needs: instructions
 * that the engine must have been given in one piece up to there. */
static enum vcpu_exit run_wrong(struct x86_vcpu *c, uint64_t budget, uint64_t needs,
                                void (*err)(struct x86_vcpu *c))
{
    uint64_t start = c->s.icount, before;
    enum vcpu_exit exit;

    if (start + needs > WRONG_AT || budget < WRONG_AT - start)
        return interp_engine.run(c, budget);
    before = WRONG_AT - start;
    exit = interp_engine.run(c, before);
    if (exit != VCPU_EXIT_EVENT || c->s.icount != WRONG_AT)
        return exit;
    err(c);
    return budget == before ? exit : interp_engine.run(c, budget - before);
}

static void err_register(struct x86_vcpu *c)
{
    c->s.reg[X86_RDI] ^= 0x40;
}

static void err_flag(struct x86_vcpu *c)
{
    c->s.rflags ^= FLAG_DF;
}

static void err_vector(struct x86_vcpu *c)
{
    c->s.x.xmm[5][3] ^= 1;
}

static void err_memory(struct x86_vcpu *c)
{
    uint8_t byte = 0x5a;

    as_write(&c->vm->memory, UNUSED_RAM, &byte, 1);
}

static void err_time(struct x86_vcpu *c)
{
    c->s.icount++;
}

static void err_stuck(struct x86_vcpu *c)
{
    for (;;)
        pause();
}

/* Not in the state of the machine, so the second time all is well. */
static bool has_erred;

static void err_once(struct x86_vcpu *c)
{
    if (!has_erred)
        c->s.reg[X86_RDI] ^= 0x40;
    has_erred = true;
}

#define ENGINE(kind, needs)                                                                        \
    static enum vcpu_exit run_##kind(struct x86_vcpu *c, uint64_t budget)                          \
    {                                                                                              \
        return run_wrong(c, budget, needs, err_##kind);                                            \
    }
ENGINE(register, 1)
ENGINE(flag, 1)
ENGINE(vector, 1)
ENGINE(memory, 1)
ENGINE(time, 1)
ENGINE(once, 1)
ENGINE(stuck, 1)

static enum vcpu_exit run_block(struct x86_vcpu *c, uint64_t budget)
{
    return run_wrong(c, budget, WHOLE, err_register);
}

static size_t host_code(struct x86_vcpu *c, gva_t lin, const uint8_t **code)
{
    static const uint8_t bytes[] = {0x31, 0xda, 0xc3}; /* xor edx, ebx; ret */

    *code = bytes;
    return lin == 0xffff0003 ? sizeof bytes : 0;
}

/* ---- running ---- */

struct told {
    char lines[64 << 10];
    size_t used;
    char said[256];
    size_t said_bytes;
    unsigned asked, typed;
    char rom[32];
};

static void take_line(void *ctx, const char *text)
{
    struct told *t = ctx;

    t->used += (size_t)snprintf(t->lines + t->used, sizeof t->lines - t->used, "%s\n", text);
    assert_true(t->used < sizeof t->lines);
}

static void take_output(void *ctx, const uint8_t *data, size_t bytes)
{
    struct told *t = ctx;

    assert_true(t->said_bytes + bytes < sizeof t->said);
    memcpy(t->said + t->said_bytes, data, bytes);
    t->said_bytes += bytes;
}

static size_t give_input(void *ctx, char *text, size_t bytes, int timeout_ms)
{
    static const char *const typed[] = {"one,", "two,", "q"};
    struct told *t = ctx;

    if (++t->asked % 5 || t->typed == ARRAY_SIZE(typed))
        return 0;
    strcpy(text, typed[t->typed]);
    return strlen(typed[t->typed++]);
}

static void take_stuck(void *ctx)
{
    const struct told *t = ctx;

    unlink(t->rom);
    _exit(strstr(t->lines, "it comes back from 100005 ns and not from 100006 ns") &&
                  strstr(t->lines, "31da                    xor dx, bx")
              ? 4
              : 1);
}

static int run(struct told *told, const uint8_t *code, size_t bytes, const char *name,
               enum vcpu_exit (*run_engine)(struct x86_vcpu *, uint64_t), unsigned cpus,
               uint64_t instructions, uint64_t checkpoint)
{
    struct x86_engine_ops wrong = interp_engine;
    struct lockstep_config config = {
        .board = {.memory_bytes = 4 * MiB,
                  .cpus = cpus,
                  .firmware = told->rom,
                  .devices = {"debug-exit"},
                  .device_count = 1},
        .engine = {&interp_engine, &wrong},
        .seed = 1,
        .instructions = instructions,
        .checkpoint = checkpoint,
        .output = take_output,
        .input = code == echo ? give_input : NULL,
        .line = take_line,
        .stuck = run_engine == run_stuck ? take_stuck : NULL,
        .patience_ms = 1000,
        .ctx = told,
    };
    struct error err = {""};
    int r;

    memset(told, 0, sizeof *told);
    rom_make(told->rom, code, bytes);
    wrong.name = name;
    if (run_engine)
        wrong.run = run_engine;
    if (!strcmp(name, "block"))
        wrong.host_code = host_code;
    r = lockstep_run(&config, &err);
    unlink(told->rom);
    if (r < 0)
        fail_msg("%s", err.text);
    return r;
}

static void expect(const struct told *t, const char *text)
{
    if (!strstr(t->lines, text))
        fail_msg("no \"%s\" in\n%s", text, t->lines);
}

/* ---- tests ---- */

static void the_same_engine_is_the_same(void **state)
{
    static const uint64_t checkpoints[] = {0, 50000, 1000000};
    struct told told;

    for (unsigned i = 0; i < ARRAY_SIZE(checkpoints); i++) {
        assert_int_equal(
            run(&told, program, sizeof program, "interp", NULL, 1 + i, 0, checkpoints[i]),
            LOCKSTEP_SAME);
        expect(&told, "no difference in 300004 instructions");
        expect(&told, "the guest switched itself off");
    }
    assert_int_equal(run(&told, program, sizeof program, "interp", NULL, 1, 1234, 0),
                     LOCKSTEP_SAME);
    expect(&told, "no difference in 1234 instructions");
}

static void every_difference_is_found_where_it_begins(void **state)
{
    static const struct {
        const char *name;
        enum vcpu_exit (*run)(struct x86_vcpu *, uint64_t);
        const char *says[3];
    } engines[] = {
        {"register", run_register, {"  RDI      0000000000000000  0000000000000040  *\n"}},
        {"flag", run_flag, {"RFLAGS ", "  *\n", "x86-cpu 0: s.rflags: 0x2 and 0x402\n"}},
        {"vector", run_vector, {"  YMM5 ", "00000001000000  *\n"}},
        {"memory", run_memory, {"1 bytes differ, the first at offset 0x7123: 00 and 5a\n"}},
        {"time", run_time, {"vm machine: now_ns: 0x186a6 and 0x186a7\n"}},
        {"block",
         run_block,
         {"host code for the block at 0000000000000003, 3 bytes:\n", "xor edx, ebx\n", "ret"}},
    };
    static const uint64_t checkpoints[] = {0, 30000, 1000000};
    struct told told;
    char where[64], here[64];

    snprintf(where, sizeof where, "the same at %u ns and differ at %u ns", WRONG_AT - 1, WRONG_AT);
    snprintf(here, sizeof here, "at RIP %016x ", WRONG_RIP);
    for (unsigned i = 0; i < ARRAY_SIZE(engines); i++) {
        for (unsigned k = 0; k < ARRAY_SIZE(checkpoints); k++) {
            const char *stars;
            unsigned different = 0;

            assert_int_equal(run(&told, program, sizeof program, engines[i].name, engines[i].run, 1,
                                 0, checkpoints[k]),
                             LOCKSTEP_DIFFERENT);
            expect(&told, where);
            expect(&told, here);
            expect(&told,
                   "  > processor 0  000000000000000a  31da                    xor dx, bx\n");
            for (unsigned n = 0; n < ARRAY_SIZE(engines[i].says) && engines[i].says[n]; n++)
                expect(&told, engines[i].says[n]);
            /* Nothing that is the same is marked. */
            for (stars = told.lines; (stars = strstr(stars, "  *\n")); stars += 4)
                different++;
            assert_int_equal(different, strcmp(engines[i].name, "memory") != 0);
        }
    }
}

static void an_error_without_a_cause_in_the_machine_is_told(void **state)
{
    struct told told;

    assert_int_equal(run(&told, program, sizeof program, "once", run_once, 1, 0, 0),
                     LOCKSTEP_DIFFERENT);
    expect(&told, "does not show again");
    expect(&told, "x86-cpu 0: s.reg[7]: 0 and 0x40\n");
}

static void what_is_typed_reaches_both(void **state)
{
    static const uint64_t checkpoints[] = {0, 40000};
    struct told told;

    for (unsigned i = 0; i < ARRAY_SIZE(checkpoints); i++) {
        assert_int_equal(run(&told, echo, sizeof echo, "interp", NULL, 1, 0, checkpoints[i]),
                         LOCKSTEP_SAME);
        expect(&told, "the guest switched itself off");
        assert_memory_equal(told.said, "one,two,q", 10);
        /* And again where it is gone through once more. */
        assert_int_equal(
            run(&told, echo, sizeof echo, "register", run_register, 1, 0, checkpoints[i]),
            LOCKSTEP_DIFFERENT);
        expect(&told, "and differ at 100006 ns");
        assert_memory_equal(told.said, "one,", 4);
        assert_true(told.said_bytes <= 9);
    }
}

static void an_engine_that_is_lost_is_told(void **state)
{
    static const uint64_t checkpoints[] = {0, 30000};

    for (unsigned i = 0; i < ARRAY_SIZE(checkpoints); i++) {
        pid_t pid = fork();
        int status;

        if (!pid) {
            struct told told;

            run(&told, program, sizeof program, "stuck", run_stuck, 1, 0, checkpoints[i]);
            _exit(0);
        }
        assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_engine_is_the_same),
        cmocka_unit_test(every_difference_is_found_where_it_begins),
        cmocka_unit_test(an_error_without_a_cause_in_the_machine_is_told),
        cmocka_unit_test(an_engine_that_is_lost_is_told),
        cmocka_unit_test(what_is_typed_reaches_both),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
