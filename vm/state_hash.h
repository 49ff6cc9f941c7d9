/*
 * 128 bits over a stream of bytes, for comparing machines: not a defence
 * against somebody who looks for collisions.
 *
 * Each 16 bytes are two words, multiplied into two lanes with different odd
 * constants, the full 128-bit product folded, so that every bit reaches every
 * other within two rounds. The result depends on the bytes only, not on how
 * they were cut into pieces.
 *
 * Threading: the caller's.
 */
#ifndef VM_STATE_HASH_H
#define VM_STATE_HASH_H

#include "base/base.h"

struct state_hash {
    uint64_t lane[2];
    uint64_t bytes;
    uint8_t rest[16];
    unsigned rest_bytes;
};

static inline uint64_t state_hash_fold(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 p = (unsigned __int128)a * b;

    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static inline void state_hash_block(struct state_hash *h, uint64_t a, uint64_t b)
{
    uint64_t x = state_hash_fold(a ^ h->lane[0] ^ 0xa0761d6478bd642full, b ^ 0xe7037ed1a0b428dbull);
    uint64_t y = state_hash_fold(b ^ h->lane[1] ^ 0x8ebc6af09c88c6e3ull, a ^ 0x589965cc75374cc3ull);

    /* Added, not replaced: a product that happens to be zero forgets nothing. */
    h->lane[0] = (h->lane[0] << 29 | h->lane[0] >> 35) + x;
    h->lane[1] = (h->lane[1] << 31 | h->lane[1] >> 33) + y;
}

static inline void state_hash_init(struct state_hash *h)
{
    memset(h, 0, sizeof *h);
    h->lane[0] = 0x9e3779b97f4a7c15ull;
    h->lane[1] = 0xc2b2ae3d27d4eb4full;
}

static inline void state_hash_put(struct state_hash *h, const void *data, size_t bytes)
{
    const uint8_t *p = data;

    h->bytes += bytes;
    if (h->rest_bytes) {
        size_t n = MIN(bytes, sizeof h->rest - h->rest_bytes);

        memcpy(h->rest + h->rest_bytes, p, n);
        h->rest_bytes += (unsigned)n;
        p += n;
        bytes -= n;
        if (h->rest_bytes < sizeof h->rest)
            return;
        state_hash_block(h, le64_get(h->rest), le64_get(h->rest + 8));
        h->rest_bytes = 0;
    }
    for (; bytes >= 16; p += 16, bytes -= 16)
        state_hash_block(h, le64_get(p), le64_get(p + 8));
    memcpy(h->rest, p, bytes);
    h->rest_bytes = (unsigned)bytes;
}

static inline void state_hash_finish(struct state_hash *h, uint64_t out[2])
{
    memset(h->rest + h->rest_bytes, 0, sizeof h->rest - h->rest_bytes);
    state_hash_block(h, le64_get(h->rest), le64_get(h->rest + 8));
    state_hash_block(h, h->bytes, h->lane[1]);
    state_hash_block(h, h->lane[0], h->bytes);
    out[0] = h->lane[0];
    out[1] = h->lane[1];
}

#endif
