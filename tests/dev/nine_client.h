/*
 * A client of a share (backend/share) in a deterministic machine: builds messages
 * of 9P2000.L, looks at replies. For tests and the fuzzer.
 *
 * The share is DIR/inside; beside it are DIR/outside/secret, which nothing may
 * reach, and in it links that lead there.
 */
#ifndef TESTS_DEV_NINE_CLIENT_H
#define TESTS_DEV_NINE_CLIENT_H

#include "backend/share/nine.h"
#include "backend/share/share.h"
#include "vm/vm.h"

#define NC_BYTES 70000

struct nine_client {
    struct vm *vm;
    struct share *share;
    struct nine *nine; /* the server alone, where paths are walked name by name; or NULL */
    char dir[64];
    uint8_t message[NC_BYTES], reply[NC_BYTES];
    size_t used;      /* of the message */
    size_t at;        /* in the reply */
    uint32_t bytes;   /* of the reply */
    unsigned pieces;  /* into so many spans both are cut; 0: one */
    unsigned got_done;
};

/* Makes DIR and opens its share; false: errno says why. walking: as on a host
 * without openat2. */
bool nc_create(struct nine_client *c, bool readonly, bool walking);
/* Removes DIR. */
void nc_destroy(struct nine_client *c);
/* Is what is outside as it was? */
bool nc_outside_is_fine(const struct nine_client *c);
unsigned nc_open_descriptors(void);

void nc_begin(struct nine_client *c, uint8_t type);
void nc_put(struct nine_client *c, uint64_t v, unsigned bytes);
void nc_put_string(struct nine_client *c, const char *s);
/* Sends it as it is (its size field is set if fix_size). Returns the type of the
 * reply, 0: none. */
uint8_t nc_send_raw(struct nine_client *c, bool fix_size);
/* 0, or the errno in the reply; -1: a reply of another type or none. */
int nc_send(struct nine_client *c);
uint64_t nc_get(struct nine_client *c, unsigned bytes);

#endif
