/*
 * Rows of control flow: calls that return, calls through pointers, and the loop
 * of an interpreter.
 */
#include "bench.h"

/* ---- fib: nothing but calls; kept from the compiler's own unrolling ---- */

enum { FIB_OF = 22 };

static __attribute__((noinline, noclone, optimize("no-optimize-sibling-calls"))) uint64_t
fib(uint64_t n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static void fib_prepare(struct work *work)
{
    /* fib(n) takes 2 * fib(n + 1) - 1 calls. */
    work->operations = 2 * fib(FIB_OF + 1) - 1;
}

static uint64_t fib_unit(struct work *work)
{
    (void)work;
    return fib(FIB_OF);
}

/* ---- icall: calls through pointers in no order ---- */

enum {
    CALL_TARGETS = 16,
    CALL_ORDER = 64,
    CALL_PASSES = 512,
};

typedef uint64_t call_target(uint64_t value);

#define TARGET(n)                                                                                  \
    static __attribute__((noinline)) uint64_t target_##n(uint64_t value)                           \
    {                                                                                              \
        return (value + n) ^ (uint64_t)n << 32;                                                    \
    }
TARGET(0)
TARGET(1)
TARGET(2)
TARGET(3)
TARGET(4)
TARGET(5)
TARGET(6)
TARGET(7)
TARGET(8)
TARGET(9)
TARGET(10)
TARGET(11)
TARGET(12)
TARGET(13)
TARGET(14)
TARGET(15)

static call_target *const targets[CALL_TARGETS] = {
    target_0, target_1, target_2,  target_3,  target_4,  target_5,  target_6,  target_7,
    target_8, target_9, target_10, target_11, target_12, target_13, target_14, target_15,
};

static void icall_prepare(struct work *work)
{
    call_target **order = pages_allocate(CALL_ORDER * sizeof(*order));
    uint64_t state = 2862933555777941757;

    for (size_t i = 0; i < CALL_ORDER; i++)
        order[i] = targets[random_next(&state) >> 60];
    work->data = order;
    work->operations = CALL_ORDER * CALL_PASSES;
}

static uint64_t icall_unit(struct work *work)
{
    call_target *const *order = work->data;
    uint64_t value = 1;

    for (int pass = 0; pass < CALL_PASSES; pass++) {
        for (size_t i = 0; i < CALL_ORDER; i++)
            value = order[i](value);
    }
    return value;
}

/* ---- bytecode: the loop of an interpreter with a stack ---- */

enum bytecode {
    OP_PUSH,  /* value: pushes it */
    OP_LOAD,  /* variable: pushes it */
    OP_STORE, /* variable: pops into it */
    OP_ADD,
    OP_MUL,
    OP_AND,
    OP_XOR,
    OP_SHR,
    OP_LESS,
    OP_JUMP,    /* where */
    OP_JUMP_IF, /* where: pops, jumps when it is not 0 */
    OP_END,     /* pops what the program returns */
};

enum { BYTECODE_TURNS = 6000 };

/* sum = 0; for (i = 0; i < TURNS; i++) if (i & 3) sum = sum * 31 + (sum >> 7 ^ i);
 * else sum = sum + i * i; return sum; */
static const int32_t bytecode_program[] = {
    /*  0 */ OP_PUSH,
    0,
    OP_STORE,
    0,
    OP_PUSH,
    0,
    OP_STORE,
    1,
    /*  8 */ OP_LOAD,
    1,
    OP_PUSH,
    3,
    OP_AND,
    OP_JUMP_IF,
    28,
    /* 15 */ OP_LOAD,
    0,
    OP_LOAD,
    1,
    OP_LOAD,
    1,
    OP_MUL,
    OP_ADD,
    OP_STORE,
    0,
    /* 25 */ OP_JUMP,
    44,
    OP_END,
    /* 28 */ OP_LOAD,
    0,
    OP_PUSH,
    31,
    OP_MUL,
    OP_LOAD,
    0,
    OP_PUSH,
    7,
    OP_SHR,
    OP_LOAD,
    1,
    OP_XOR,
    /* 41 */ OP_ADD,
    OP_STORE,
    0,
    /* 44 */ OP_LOAD,
    1,
    OP_PUSH,
    1,
    OP_ADD,
    OP_STORE,
    1,
    /* 51 */ OP_LOAD,
    1,
    OP_PUSH,
    BYTECODE_TURNS,
    OP_LESS,
    OP_JUMP_IF,
    8,
    /* 58 */ OP_LOAD,
    0,
    OP_END,
};

static __attribute__((noinline)) uint64_t bytecode_run(const int32_t *program, uint64_t *steps)
{
    uint64_t stack[16], variables[4] = {0}, *top = stack, count = 0;
    const int32_t *at = program;

    for (;;) {
        count++;
        switch ((enum bytecode) * at++) {
        case OP_PUSH:
            *top++ = (uint64_t)*at++;
            break;
        case OP_LOAD:
            *top++ = variables[*at++];
            break;
        case OP_STORE:
            variables[*at++] = *--top;
            break;
        case OP_ADD:
            top--;
            top[-1] += top[0];
            break;
        case OP_MUL:
            top--;
            top[-1] *= top[0];
            break;
        case OP_AND:
            top--;
            top[-1] &= top[0];
            break;
        case OP_XOR:
            top--;
            top[-1] ^= top[0];
            break;
        case OP_SHR:
            top--;
            top[-1] >>= top[0] & 63;
            break;
        case OP_LESS:
            top--;
            top[-1] = top[-1] < top[0];
            break;
        case OP_JUMP:
            at = program + *at;
            break;
        case OP_JUMP_IF:
            at = *--top ? program + *at : at + 1;
            break;
        case OP_END:
            *steps = count;
            return *--top;
        }
    }
}

static void bytecode_prepare(struct work *work)
{
    bytecode_run(bytecode_program, &work->operations);
}

static uint64_t bytecode_unit(struct work *work)
{
    return bytecode_run(bytecode_program, &work->operations);
}

const struct row call_rows[] = {
    {"fib", fib_prepare, fib_unit},
    {"icall", icall_prepare, icall_unit},
    {"bytecode", bytecode_prepare, bytecode_unit},
    {0},
};
