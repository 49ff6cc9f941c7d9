/*
 * A file that a machine is started from: a kernel, an initial RAM disk, a
 * firmware image.
 *
 * Regular files are read where and when they are needed (again after each
 * reset), so that a large one costs the process no memory; what cannot be
 * read twice (a pipe) is kept. Tests make images of memory.
 * Threading: an image has one user at a time.
 */
#ifndef BOOT_IMAGE_H
#define BOOT_IMAGE_H

#include "base/base.h"
#include "base/error.h"

struct address_space;

struct image {
    char name[256];      /* as the user gave it, for messages */
    int fd;              /* -1: in memory */
    uint8_t *owned;      /* what a pipe gave */
    const uint8_t *data; /* in memory, else NULL */
    uint64_t bytes;
};

/* what: "kernel", "initrd": for the message. -ENOENT, -EISDIR, ... */
int image_open(struct image *i, const char *path, const char *what, struct error *err);
/* The bytes stay the caller's and must outlive the image. */
void image_from_memory(struct image *i, const char *name, const void *data, uint64_t bytes);
void image_close(struct image *i);

/* All of it or an error; [offset, offset+bytes) past the end is -EINVAL. */
int image_read(const struct image *i, uint64_t offset, void *buf, uint64_t bytes,
               struct error *err);
/* The same into guest memory. */
int image_load(const struct image *i, uint64_t offset, uint64_t bytes, struct address_space *as,
               gpa_t to, struct error *err);

#endif
