/*
 * What the guest loops of the benchmark compute, freestanding, each a mix of
 * what programs of its kind do. -DLOOP=int|float|x87|branch|null chooses one;
 * loops.asm calls loop_entry() in 64-bit mode, with memory from 2 MiB on free
 * and zero, and prints the sum it returns: the same on every machine.
 */
#include <stddef.h>
#include <stdint.h>

#define CONCAT(a, b) a##b
#define LOOP_FUNCTION(name) CONCAT(loop_, name)

static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- nothing: what starting and ending a machine costs ---- */

static inline uint64_t loop_null(void)
{
    return 1;
}

/* ---- integer: a sieve, a checksum, a hash table, a heap sort ---- */

enum { SIEVE_BYTES = 1 << 20, TABLE_SLOTS = 1 << 16, SORT_WORDS = 1 << 16 };

static uint8_t sieve[SIEVE_BYTES];
static uint64_t table[TABLE_SLOTS];
static uint32_t sorted[SORT_WORDS];

static uint64_t count_primes(void)
{
    uint64_t primes = 0;

    for (size_t i = 0; i < SIEVE_BYTES; i++)
        sieve[i] = 0;
    for (size_t i = 2; i < SIEVE_BYTES; i++) {
        if (sieve[i])
            continue;
        primes++;
        for (size_t k = 2 * i; k < SIEVE_BYTES; k += i)
            sieve[k] = 1;
    }
    return primes;
}

static uint32_t checksum(const uint8_t *bytes, size_t length)
{
    uint32_t a = 1, b = 0, h = 2166136261u;

    for (size_t i = 0; i < length; i++) {
        a += bytes[i];
        b += a;
        h = (h ^ bytes[i]) * 16777619u;
        if ((i & 4095) == 4095) {
            a %= 65521;
            b %= 65521;
        }
    }
    return (b << 16 | a) ^ h;
}

static uint64_t use_table(uint64_t seed)
{
    uint64_t found = 0;

    for (size_t i = 0; i < TABLE_SLOTS; i++)
        table[i] = 0;
    for (size_t i = 0; i < TABLE_SLOTS; i++) {
        uint64_t key = (next_random(&seed) & 0x3ffff) | 1;
        size_t slot = key * 0x9e3779b97f4a7c15u >> 48;

        for (int probes = 0; probes < 16; probes++, slot = (slot + 1) % TABLE_SLOTS) {
            if (table[slot] == key) {
                found++;
                break;
            }
            if (!table[slot]) {
                table[slot] = key;
                break;
            }
        }
    }
    return found;
}

static void sift(size_t root, size_t count)
{
    for (;;) {
        size_t child = 2 * root + 1;
        uint32_t keep;

        if (child >= count)
            return;
        if (child + 1 < count && sorted[child] < sorted[child + 1])
            child++;
        if (sorted[root] >= sorted[child])
            return;
        keep = sorted[root];
        sorted[root] = sorted[child];
        sorted[child] = keep;
        root = child;
    }
}

static uint64_t sort_heap(uint64_t seed)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < SORT_WORDS; i++)
        sorted[i] = (uint32_t)next_random(&seed);
    for (size_t i = SORT_WORDS / 2; i-- > 0;)
        sift(i, SORT_WORDS);
    for (size_t end = SORT_WORDS; end-- > 1;) {
        uint32_t keep = sorted[0];

        sorted[0] = sorted[end];
        sorted[end] = keep;
        sift(0, end);
    }
    for (size_t i = 0; i < SORT_WORDS; i++)
        sum = sum * 31 + sorted[i];
    return sum;
}

static inline uint64_t loop_int(void)
{
    uint64_t sum = 0;

    for (unsigned round = 1; round <= 6; round++) {
        sum += count_primes();
        sum ^= checksum(sieve, sizeof(sieve));
        sum += use_table(88172645463325252u + round);
        sum ^= sort_heap(round);
    }
    return sum;
}

/* ---- floating point: bodies under gravity, and the Mandelbrot set ---- */

#define BODIES 8

static inline double root_of(double x)
{
#ifdef __SSE2_MATH__
    __asm__("sqrtsd %0, %0" : "+x"(x));
    return x;
#else
    long double wide = x;

    __asm__("fsqrt" : "+t"(wide));
    return wide;
#endif
}

static uint64_t attract(unsigned steps)
{
    static double at[BODIES][3], speed[BODIES][3], mass[BODIES];
    double energy = 0;

    for (int i = 0; i < BODIES; i++) {
        mass[i] = 1.0 / (i + 1);
        for (int k = 0; k < 3; k++) {
            at[i][k] = i * 1.7 - k * 0.9 + (i ^ k) * 0.3;
            speed[i][k] = (k - i % 3) * 0.01;
        }
    }
    while (steps--) {
        for (int i = 0; i < BODIES; i++) {
            for (int j = i + 1; j < BODIES; j++) {
                double x = at[i][0] - at[j][0], y = at[i][1] - at[j][1], z = at[i][2] - at[j][2];
                double squared = x * x + y * y + z * z + 0.01;
                double pull = 0.001 / (squared * root_of(squared));

                speed[i][0] -= x * mass[j] * pull;
                speed[i][1] -= y * mass[j] * pull;
                speed[i][2] -= z * mass[j] * pull;
                speed[j][0] += x * mass[i] * pull;
                speed[j][1] += y * mass[i] * pull;
                speed[j][2] += z * mass[i] * pull;
            }
        }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++)
                at[i][k] += 0.001 * speed[i][k];
    }
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            energy += mass[i] * speed[i][k] * speed[i][k];
    return (uint64_t)(energy * 1e12);
}

static uint64_t mandelbrot(int size, int limit)
{
    uint64_t sum = 0;

    for (int row = 0; row < size; row++) {
        for (int column = 0; column < size; column++) {
            double cx = 3.0 * column / size - 2.0, cy = 2.0 * row / size - 1.0;
            double x = 0, y = 0;
            int turns = 0;

            while (turns < limit && x * x + y * y < 4.0) {
                double next = x * x - y * y + cx;

                y = 2 * x * y + cy;
                x = next;
                turns++;
            }
            sum += (uint64_t)turns;
        }
    }
    return sum;
}

/* Compiled for SSE2 or, with -mfpmath=387, for the x87. */
static inline uint64_t loop_float(void)
{
    return attract(FLOAT_STEPS) + mandelbrot(FLOAT_SIZE, 200);
}

/* ---- branches: recursion, a small interpreter, searches that guess wrong ---- */

__attribute__((noinline)) static uint64_t fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

enum code { ADD, XOR, SHIFT, LOAD, STORE, SKIP, SWAP, COUNT, CODES };

__attribute__((noinline)) static uint64_t op_swap(uint64_t value)
{
    return __builtin_bswap64(value);
}

__attribute__((noinline)) static uint64_t op_count(uint64_t value)
{
    return value * 3 + 1;
}

static uint64_t interpret(unsigned rounds)
{
    static uint8_t program[1024];
    static uint64_t cells[16];
    uint64_t seed = 0x1234567, value = 1;
    uint64_t (*const call[2])(uint64_t) = {op_swap, op_count};

    for (size_t i = 0; i < sizeof(program); i++)
        program[i] = (uint8_t)(next_random(&seed) % CODES);
    while (rounds--) {
        for (size_t i = 0; i < sizeof(program); i++) {
            switch ((enum code)program[i]) {
            case ADD: value += i; break;
            case XOR: value ^= value << 5; break;
            case SHIFT: value = value >> 3 | value << 61; break;
            case LOAD: value += cells[value & 15]; break;
            case STORE: cells[i & 15] = value; break;
            case SKIP: i += value & 1; break;
            case SWAP:
            case COUNT: value = call[program[i] & 1](value); break;
            default: break;
            }
        }
    }
    return value;
}

static uint64_t search(unsigned times)
{
    uint64_t seed = 99, sum = 0;

    for (size_t i = 0; i < 4096; i++)
        sorted[i] = (uint32_t)(i * i);
    while (times--) {
        uint32_t want = (uint32_t)(next_random(&seed) & 0xffffff);
        size_t low = 0, high = 4096;

        while (low < high) {
            size_t middle = (low + high) / 2;

            if (sorted[middle] < want)
                low = middle + 1;
            else
                high = middle;
        }
        sum += low;
    }
    return sum;
}

static inline uint64_t loop_branch(void)
{
    return fibonacci(32) + interpret(8000) + search(400000);
}

__attribute__((section(".text.entry"))) uint64_t loop_entry(void)
{
    return LOOP_FUNCTION(LOOP)();
}
