/*
 * Rows of SHA-256 (FIPS 180-4), plain and with the processor's SHA extensions.
 */
#include "bench.h"

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

enum {
    SHA_BYTES = 16 << 10,
    SHA_BLOCK = 64,
};

/* Section 4.2.2: fractions of the cube roots of the first 64 primes. */
static const uint32_t sha_constants[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static const uint32_t sha_start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

struct sha {
    uint8_t data[SHA_BYTES];
    uint32_t state[8];
};

static void sha_prepare(struct work *work)
{
    struct sha *sha = pages_allocate(sizeof(*sha));

    text_fill((char *)sha->data, SHA_BYTES);
    work->data = sha;
    work->operations = SHA_BYTES;
}

static uint32_t rotate(uint32_t value, int bits)
{
    return value >> bits | value << (32 - bits);
}

static void blocks_plain(uint32_t state[8], const uint8_t *data, size_t count)
{
    for (; count; count--, data += SHA_BLOCK) {
        uint32_t w[64], s[8];

        for (int t = 0; t < 16; t++) {
            memcpy(&w[t], data + t * 4, 4);
            w[t] = __builtin_bswap32(w[t]);
        }
        for (int t = 16; t < 64; t++) {
            uint32_t x = w[t - 2], y = w[t - 15];

            w[t] = (rotate(x, 17) ^ rotate(x, 19) ^ x >> 10) + w[t - 7] +
                   (rotate(y, 7) ^ rotate(y, 18) ^ y >> 3) + w[t - 16];
        }
        memcpy(s, state, sizeof(s));
        for (int t = 0; t < 64; t++) {
            uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
            uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
            uint32_t one = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + choice +
                           sha_constants[t] + w[t];
            uint32_t two = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + majority;

            s[7] = s[6];
            s[6] = s[5];
            s[5] = s[4];
            s[4] = s[3] + one;
            s[3] = s[2];
            s[2] = s[1];
            s[1] = s[0];
            s[0] = one + two;
        }
        for (int i = 0; i < 8; i++)
            state[i] += s[i];
    }
}

/* The instructions keep A, B, E, F and C, D, G, H together, the first letter in
 * the highest element (SDM volume 2, SHA256RNDS2). */
static __attribute__((target("sha,sse4.1,ssse3"))) void
blocks_sha_ni(uint32_t state[8], const uint8_t *data, size_t count)
{
    const __m128i swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    __m128i abef = _mm_set_epi32((int)state[0], (int)state[1], (int)state[4], (int)state[5]);
    __m128i cdgh = _mm_set_epi32((int)state[2], (int)state[3], (int)state[6], (int)state[7]);
    uint32_t out[8];

    for (; count; count--, data += SHA_BLOCK) {
        __m128i w[4], abef_before = abef, cdgh_before = cdgh;

#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i sum;

            if (i < 4) {
                w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data + i), swap);
            } else {
                __m128i next = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);

                next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(next, w[(i + 3) & 3]);
            }
            sum = _mm_add_epi32(w[i & 3], _mm_load_si128((const __m128i *)sha_constants + i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    _mm_storeu_si128((__m128i *)out, abef);
    _mm_storeu_si128((__m128i *)(out + 4), cdgh);
    memcpy(state, (uint32_t[8]){out[3], out[2], out[7], out[6], out[1], out[0], out[5], out[4]},
           32);
}

static uint64_t sha_sum(const uint32_t state[8])
{
    uint64_t sum = 0;

    for (int i = 0; i < 8; i++)
        sum = fold(sum, state[i]);
    return sum;
}

static uint64_t plain_unit(struct work *work)
{
    struct sha *sha = work->data;

    memcpy(sha->state, sha_start, sizeof(sha_start));
    blocks_plain(sha->state, sha->data, SHA_BYTES / SHA_BLOCK);
    return sha_sum(sha->state);
}

static int has_sha_ni(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_SHA;
}

static void sha_ni_prepare(struct work *work)
{
    sha_prepare(work);
    /* A program takes the plain way where there is no other, and so does this. */
    if (!has_sha_ni())
        work->note = "no-sha-ni";
}

static uint64_t sha_ni_unit(struct work *work)
{
    struct sha *sha = work->data;

    if (work->note)
        return plain_unit(work);
    memcpy(sha->state, sha_start, sizeof(sha_start));
    blocks_sha_ni(sha->state, sha->data, SHA_BYTES / SHA_BLOCK);
    return sha_sum(sha->state);
}

const struct row hash_rows[] = {
    {"sha256", sha_prepare, plain_unit},
    {"sha256-ni", sha_ni_prepare, sha_ni_unit},
    {0},
};
