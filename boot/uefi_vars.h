/*
 * The variable store of UEFI firmware on the host: a file with the image of
 * the flash that OVMF keeps its variables in, or memory alone.
 *
 * A file is locked for one machine; writes go to it at once, and reach the
 * disk when the machine ends.
 * Threading: one thread at a time (the machine's lock).
 */
#ifndef BOOT_UEFI_VARS_H
#define BOOT_UEFI_VARS_H

#include "base/base.h"
#include "base/error.h"

struct log;

struct uefi_vars {
    struct log *log; /* where failures go; or NULL */
    int fd;          /* -1: in memory only */
    char name[4096];
    uint8_t *data;   /* what it holds when opened; the caller may read it until it closes */
    uint64_t bytes;
};

/*
 * path: the file, made from the template where it is not there (-EBUSY: another
 * machine has it). NULL: a copy of the template in memory. keep false: the file
 * is read and never written. pristine: the distribution's empty store.
 */
int uefi_vars_open(struct uefi_vars *v, const char *path, bool keep, const char *pristine,
                   struct error *err);
void uefi_vars_close(struct uefi_vars *v);
/* 0, or a negative errno that has been logged. In memory: does nothing. */
int uefi_vars_write(struct uefi_vars *v, uint64_t offset, const void *data, uint64_t bytes);

#endif
