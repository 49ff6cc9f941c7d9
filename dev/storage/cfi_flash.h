/*
 * Parallel NOR flash that speaks the Intel command set (Common Flash Interface
 * 2.0, JEP137 command set 0001H; Intel StrataFlash J3 datasheet 290667): 8 bits
 * wide, sectors of 4 KiB, a write buffer of 32 bytes, a lock bit for each
 * sector.
 *
 * In array mode the chip is memory: guests read and execute it without a
 * callback. In any other mode its registers answer everywhere in it.
 *
 * Programming clears bits and never sets them; erasing sets all of a sector.
 * Operations are complete when the command is. What they change is given to
 * the store at once; if that fails, the chip's content stays as it was and the
 * guest finds the error bits of a program or erase that failed.
 *
 * Threading: with the machine's lock held.
 */
#ifndef DEV_STORAGE_CFI_FLASH_H
#define DEV_STORAGE_CFI_FLASH_H

#include "vm/vm.h"

#define CFI_FLASH_SECTOR_BYTES 4096u
#define CFI_FLASH_MAX_BYTES (16 * MiB)
#define CFI_FLASH_BUFFER_BYTES 32u

/* Where the content survives the machine. 0, or a negative errno (which it has
 * logged). */
struct cfi_flash_store {
    int (*write)(void *ctx, uint64_t offset, const void *data, uint64_t bytes); /* NULL: nowhere */
    void *ctx;
};

struct cfi_flash_config {
    const char *name; /* a literal */
    gpa_t base;
    uint64_t bytes;               /* whole sectors */
    const uint8_t *contents;      /* copied */
    struct cfi_flash_store store; /* outlives the machine's devices */
};

struct cfi_flash;

struct cfi_flash *cfi_flash_create(struct vm *vm, const struct cfi_flash_config *config,
                                   struct error *err);

#endif
