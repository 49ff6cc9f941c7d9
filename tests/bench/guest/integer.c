/*
 * Rows of integer code: tables, comparisons, hashing, and packing of two kinds.
 */
#include "bench.h"

#include <string.h>
#include <zlib.h>

/* ---- crc: CRC-32 by a table, one byte at a time ---- */

enum {
    CRC_BYTES = 64 << 10,
    CRC_PASSES = 4,
};

struct crc {
    uint32_t table[256];
    uint8_t text[CRC_BYTES];
};

static void crc_prepare(struct work *work)
{
    struct crc *crc = pages_allocate(sizeof(*crc));

    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;

        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? value >> 1 ^ 0xedb88320 : value >> 1;
        crc->table[i] = value;
    }
    text_fill((char *)crc->text, CRC_BYTES);
    work->data = crc;
    work->operations = CRC_BYTES * CRC_PASSES;
}

static uint64_t crc_unit(struct work *work)
{
    const struct crc *crc = work->data;
    uint32_t value = ~0u;

    for (int pass = 0; pass < CRC_PASSES; pass++) {
        for (size_t i = 0; i < CRC_BYTES; i++)
            value = crc->table[(uint8_t)value ^ crc->text[i]] ^ value >> 8;
    }
    return value;
}

/* ---- sort: quicksort of 64-bit numbers ---- */

enum {
    SORT_COUNT = 1 << 16,
    SORT_SHORT = 12,
};

struct sort {
    int64_t given[SORT_COUNT], sorted[SORT_COUNT];
};

static void sort_prepare(struct work *work)
{
    struct sort *sort = pages_allocate(sizeof(*sort));
    uint64_t state = 1442695040888963407;

    for (size_t i = 0; i < SORT_COUNT; i++)
        sort->given[i] = (int64_t)random_next(&state);
    work->data = sort;
    work->operations = SORT_COUNT;
}

static void quicksort(int64_t *first, int64_t *last)
{
    while (last - first > SORT_SHORT) {
        int64_t *low = first, *high = last, pivot = first[(last - first) / 2];

        while (low <= high) {
            while (*low < pivot)
                low++;
            while (pivot < *high)
                high--;
            if (low <= high) {
                int64_t value = *low;

                *low++ = *high;
                *high-- = value;
            }
        }
        if (high - first < last - low) {
            quicksort(first, high);
            first = low;
        } else {
            quicksort(low, last);
            last = high;
        }
    }
    for (int64_t *next = first + 1; next <= last; next++) {
        int64_t value = *next, *at = next;

        for (; at > first && at[-1] > value; at--)
            *at = at[-1];
        *at = value;
    }
}

static uint64_t sort_unit(struct work *work)
{
    struct sort *sort = work->data;
    uint64_t sum = 0;

    memcpy(sort->sorted, sort->given, sizeof(sort->given));
    quicksort(sort->sorted, sort->sorted + SORT_COUNT - 1);
    for (size_t i = 0; i < SORT_COUNT; i += 97)
        sum = fold(sum, (uint64_t)sort->sorted[i]);
    return sum;
}

/* ---- lz: greedy LZ77 with a table of the last place of each four bytes ----
 *
 * Here and below, more data than a branch predictor learns by heart in the
 * turns that it gets: 128 KiB made these rows four times faster on Zen 4. */

enum {
    LZ_BYTES = 512 << 10,
    LZ_HASH_BITS = 13,
    LZ_LEAST = 4,
};

struct lz {
    uint8_t text[LZ_BYTES], packed[LZ_BYTES * 2];
    uint32_t places[1 << LZ_HASH_BITS];
};

static void lz_prepare(struct work *work)
{
    struct lz *lz = pages_allocate(sizeof(*lz));

    text_fill((char *)lz->text, LZ_BYTES);
    work->data = lz;
    work->operations = LZ_BYTES;
}

static uint32_t four_bytes(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static size_t lz_compress(struct lz *lz)
{
    const uint8_t *text = lz->text, *literals = text, *at = text;
    const uint8_t *last = text + LZ_BYTES - LZ_LEAST;
    uint8_t *out = lz->packed;

    memset(lz->places, 0, sizeof(lz->places));
    while (at < last) {
        uint32_t value = four_bytes(at), hash = value * 2654435761u >> (32 - LZ_HASH_BITS);
        const uint8_t *match = text + lz->places[hash];
        size_t length = LZ_LEAST, distance = (size_t)(at - match);

        lz->places[hash] = (uint32_t)(at - text);
        if (match == at || distance > 0xffff || four_bytes(match) != value) {
            at++;
            continue;
        }
        while (at + length < text + LZ_BYTES && length < 255 && match[length] == at[length])
            length++;
        while (literals < at) {
            size_t run = at - literals < 128 ? (size_t)(at - literals) : 128;

            *out++ = (uint8_t)(run - 1);
            memcpy(out, literals, run);
            out += run;
            literals += run;
        }
        *out++ = 0x80;
        *out++ = (uint8_t)length;
        *out++ = (uint8_t)distance;
        *out++ = (uint8_t)(distance >> 8);
        at += length;
        literals = at;
    }
    return (size_t)(out - lz->packed);
}

static uint64_t lz_unit(struct work *work)
{
    struct lz *lz = work->data;
    size_t length = lz_compress(lz);
    uint64_t sum = length;

    for (size_t i = 0; i + 8 < length; i += 61)
        sum = fold(sum, lz->packed[i]);
    return sum;
}

/* ---- hash: counts the words of a text in an open table ---- */

enum {
    WORDS_BYTES = 512 << 10,
    WORDS_SLOTS = 1 << 12,
};

struct words {
    char text[WORDS_BYTES + 1];
    struct {
        uint64_t hash;
        uint64_t count;
    } slots[WORDS_SLOTS];
};

static void words_prepare(struct work *work)
{
    struct words *words = pages_allocate(sizeof(*words));

    text_fill(words->text, WORDS_BYTES);
    words->text[WORDS_BYTES - 1] = '\n';
    for (size_t i = 0; i < WORDS_BYTES; i++)
        work->operations += words->text[i] <= ' ';
    work->data = words;
}

static uint64_t words_unit(struct work *work)
{
    struct words *words = work->data;
    const char *at = words->text;
    uint64_t sum = 0;

    memset(words->slots, 0, sizeof(words->slots));
    while (*at) {
        uint64_t hash = 0xcbf29ce484222325;
        size_t slot;

        while (*at > ' ')
            hash = (hash ^ (uint8_t)*at++) * 0x100000001b3;
        at++;
        slot = (hash ^ hash >> 32) % WORDS_SLOTS;
        while (words->slots[slot].hash != hash && words->slots[slot].count)
            slot = (slot + 1) % WORDS_SLOTS;
        words->slots[slot].hash = hash;
        words->slots[slot].count++;
    }
    for (size_t i = 0; i < WORDS_SLOTS; i += 7)
        sum = fold(sum, words->slots[i].count);
    return sum;
}

/* ---- gzip: zlib's deflate at level 6, over this program's own file ---- */

enum {
    GZIP_BYTES = 128 << 10,
    GZIP_LEVEL = 6,
};

struct gzip {
    uint8_t given[GZIP_BYTES], packed[GZIP_BYTES * 2];
};

extern const char __executable_start[], etext[];

static void gzip_prepare(struct work *work)
{
    struct gzip *gzip = pages_allocate(sizeof(*gzip));
    /* Code is data as well; a static program's is at hand without a file. */
    const char *code = __executable_start;

    if ((uintptr_t)etext - (uintptr_t)code < GZIP_BYTES)
        fail("the program is too small");
    memcpy(gzip->given, code, GZIP_BYTES);
    work->data = gzip;
    work->operations = GZIP_BYTES;
}

static uint64_t gzip_unit(struct work *work)
{
    struct gzip *gzip = work->data;
    uLongf length = sizeof(gzip->packed);

    if (compress2(gzip->packed, &length, gzip->given, GZIP_BYTES, GZIP_LEVEL) != Z_OK)
        fail("zlib failed");
    return fold(length, adler32(1, gzip->packed, (uInt)length));
}

const struct row integer_rows[] = {
    {"crc", crc_prepare, crc_unit},    {"sort", sort_prepare, sort_unit},
    {"lz", lz_prepare, lz_unit},       {"hash", words_prepare, words_unit},
    {"gzip", gzip_prepare, gzip_unit}, {0},
};
