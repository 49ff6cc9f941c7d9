/*
 * A tiny writer of ACPI Machine Language; see aml.h.
 */
#include "board/aml.h"

#include <assert.h>

enum aml_op {
    AML_NAME = 0x08,
    AML_STRING = 0x0d,
    AML_QWORD = 0x0e,
    AML_SCOPE = 0x10,
    AML_EXT = 0x5b,
    AML_EXT_DEVICE = 0x82,
};

/* PkgLength of three bytes: two bits say how many follow, then 4 + 8 + 8 bits
 * (20.2.4). Fixed, so that an object's size is known when it ends. */
#define PKG_LENGTH_BYTES 3

static void put(struct aml *a, const void *data, size_t bytes)
{
    assert(bytes <= a->capacity - a->used);
    memcpy(a->data + a->used, data, bytes);
    a->used += bytes;
}

static void put8(struct aml *a, uint8_t v)
{
    put(a, &v, 1);
}

static void put_path(struct aml *a, const char *path)
{
    size_t length = strlen(path);

    assert(length == 4 || (length == 5 && path[0] == '\\'));
    put(a, path, length);
}

void aml_name_integer(struct aml *a, const char *path, uint64_t value)
{
    put8(a, AML_NAME);
    put_path(a, path);
    put8(a, AML_QWORD);
    put(a, &value, sizeof value);
}

void aml_name_string(struct aml *a, const char *path, const char *value)
{
    put8(a, AML_NAME);
    put_path(a, path);
    put8(a, AML_STRING);
    put(a, value, strlen(value) + 1);
}

static size_t begin(struct aml *a, const char *path)
{
    static const uint8_t no_length[PKG_LENGTH_BYTES];
    size_t at = a->used;

    put(a, no_length, sizeof no_length);
    put_path(a, path);
    return at;
}

size_t aml_scope_begin(struct aml *a, const char *path)
{
    put8(a, AML_SCOPE);
    return begin(a, path);
}

size_t aml_device_begin(struct aml *a, const char *path)
{
    put8(a, AML_EXT);
    put8(a, AML_EXT_DEVICE);
    return begin(a, path);
}

void aml_end(struct aml *a, size_t at)
{
    size_t length = a->used - at; /* counts its own bytes */

    assert(length < 1u << 20);
    a->data[at] = (uint8_t)(2 << 6 | (length & 0xf));
    a->data[at + 1] = (uint8_t)(length >> 4);
    a->data[at + 2] = (uint8_t)(length >> 12);
}
