/*
 * Rows of floating point: matrix products in scalar SSE2 and in AVX2 with FMA,
 * the C library's sine, and the x87.
 */
#include "bench.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

/* ---- matmul, matmul-avx2 ---- */

enum { MATRIX_SIZE = 64 };

typedef double matrix[MATRIX_SIZE][MATRIX_SIZE];

struct matrices {
    matrix a, b, product;
};

static void matmul_prepare(struct work *work)
{
    struct matrices *m = pages_allocate(sizeof(*m));
    uint64_t state = 3935559000370003845;

    for (size_t i = 0; i < MATRIX_SIZE; i++) {
        for (size_t j = 0; j < MATRIX_SIZE; j++) {
            m->a[i][j] = (double)(random_next(&state) >> 11) * 0x1p-53 - 0.5;
            m->b[i][j] = (double)(random_next(&state) >> 11) * 0x1p-53 - 0.5;
        }
    }
    work->data = m;
    work->operations = 2ull * MATRIX_SIZE * MATRIX_SIZE * MATRIX_SIZE;
}

static uint64_t matrix_sum(const matrix product)
{
    uint64_t sum = 0, bits;

    for (size_t i = 0; i < MATRIX_SIZE; i += 5) {
        memcpy(&bits, &product[i][i * 3 % MATRIX_SIZE], sizeof(bits));
        sum = fold(sum, bits);
    }
    return sum;
}

/* One multiplication and one addition of doubles at a time. */
static __attribute__((noinline, optimize("no-tree-vectorize"))) void
multiply_scalar(struct matrices *m)
{
    memset(m->product, 0, sizeof(m->product));
    for (size_t i = 0; i < MATRIX_SIZE; i++) {
        for (size_t k = 0; k < MATRIX_SIZE; k++) {
            double factor = m->a[i][k];

            for (size_t j = 0; j < MATRIX_SIZE; j++)
                m->product[i][j] += factor * m->b[k][j];
        }
    }
}

static uint64_t matmul_unit(struct work *work)
{
    struct matrices *m = work->data;

    multiply_scalar(m);
    return matrix_sum(m->product);
}

/* Two rows by eight columns in registers. */
static __attribute__((noinline, target("avx2,fma"))) void multiply_avx2(struct matrices *m)
{
    for (size_t i = 0; i < MATRIX_SIZE; i += 2) {
        for (size_t j = 0; j < MATRIX_SIZE; j += 8) {
            __m256d sum[4] = {{0}};

            for (size_t k = 0; k < MATRIX_SIZE; k++) {
                __m256d left = _mm256_loadu_pd(&m->b[k][j]);
                __m256d right = _mm256_loadu_pd(&m->b[k][j + 4]);
                __m256d upper = _mm256_broadcast_sd(&m->a[i][k]);
                __m256d lower = _mm256_broadcast_sd(&m->a[i + 1][k]);

                sum[0] = _mm256_fmadd_pd(upper, left, sum[0]);
                sum[1] = _mm256_fmadd_pd(upper, right, sum[1]);
                sum[2] = _mm256_fmadd_pd(lower, left, sum[2]);
                sum[3] = _mm256_fmadd_pd(lower, right, sum[3]);
            }
            _mm256_storeu_pd(&m->product[i][j], sum[0]);
            _mm256_storeu_pd(&m->product[i][j + 4], sum[1]);
            _mm256_storeu_pd(&m->product[i + 1][j], sum[2]);
            _mm256_storeu_pd(&m->product[i + 1][j + 4], sum[3]);
        }
    }
}

/* The same sums, rounded alike, where the processor lacks AVX2. */
static __attribute__((noinline)) void multiply_fma(struct matrices *m)
{
    memset(m->product, 0, sizeof(m->product));
    for (size_t i = 0; i < MATRIX_SIZE; i++) {
        for (size_t k = 0; k < MATRIX_SIZE; k++) {
            for (size_t j = 0; j < MATRIX_SIZE; j++)
                m->product[i][j] = fma(m->a[i][k], m->b[k][j], m->product[i][j]);
        }
    }
}

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static void avx2_prepare(struct work *work)
{
    matmul_prepare(work);
    if (!has_avx2())
        work->note = "no-avx2";
}

static uint64_t avx2_unit(struct work *work)
{
    struct matrices *m = work->data;

    if (has_avx2())
        multiply_avx2(m);
    else
        multiply_fma(m);
    return matrix_sum(m->product);
}

/* ---- sin ---- */

enum { SIN_COUNT = 2048 };

static void sin_prepare(struct work *work)
{
    double *angles = pages_allocate(SIN_COUNT * sizeof(*angles));
    uint64_t state = 4354685564936845354;

    for (size_t i = 0; i < SIN_COUNT; i++)
        angles[i] = (double)(int64_t)random_next(&state) * 0x1p-59;
    work->data = angles;
    work->operations = SIN_COUNT;
    /* The C library has two, which may differ in a last bit. */
    if (!has_avx2())
        work->note = "no-fma";
}

static uint64_t sin_unit(struct work *work)
{
    const double *angles = work->data;
    double sum = 0;
    uint64_t bits;

    for (size_t i = 0; i < SIN_COUNT; i++)
        sum += sin(angles[i]);
    memcpy(&bits, &sum, sizeof(bits));
    return bits;
}

/* ---- x87: the Mandelbrot set in extended precision ---- */

enum {
    X87_WIDTH = 24,
    X87_LIMIT = 100,
};

static unsigned x87_escape(long double x, long double y)
{
    long double a = 0, b = 0;
    unsigned turns = 0;

    while (turns < X87_LIMIT && a * a + b * b < 4) {
        long double next = a * a - b * b + x;

        b = 2 * a * b + y;
        a = next;
        turns++;
    }
    return turns;
}

static uint64_t x87_unit(struct work *work)
{
    uint64_t sum = 0, turns = 0;

    for (int i = 0; i < X87_WIDTH; i++) {
        for (int j = 0; j < X87_WIDTH; j++) {
            unsigned escape = x87_escape(-2 + 3 * (long double)i / X87_WIDTH,
                                         -1.5L + 3 * (long double)j / X87_WIDTH);

            turns += escape;
            sum = fold(sum, escape);
        }
    }
    /* A product or a sum is one operation: ten a turn. */
    work->operations = turns * 10;
    return sum;
}

static void x87_prepare(struct work *work)
{
    x87_unit(work);
}

const struct row float_rows[] = {
    {"matmul", matmul_prepare, matmul_unit},
    {"matmul-avx2", avx2_prepare, avx2_unit},
    {"sin", sin_prepare, sin_unit},
    {"x87", x87_prepare, x87_unit},
    {0},
};
