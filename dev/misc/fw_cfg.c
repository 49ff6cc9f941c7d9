/*
 * fw_cfg. See fw_cfg.h; QEMU's docs/specs/fw_cfg describes the guest's side.
 *
 * Ports: 510H, 16 bits, write: select an item, offset 0. 511H, 8 bits: the
 * next byte. 514H, 64 bits big-endian: the address of a DMA descriptor, whose
 * lower half starts the transfer; reads as "QEMU CFG".
 *
 * Everything a guest can address is checked against the item's bytes: reading
 * past the end gives zeros, writing past the end is an error.
 *
 * Threading: see fw_cfg.h.
 */
#include "dev/misc/fw_cfg.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define DATA_OFFSET 1 /* from FW_CFG_PORT */
#define DMA_PORT 0x514
#define DMA_SIGNATURE 0x51454D5520434647ull /* "QEMU CFG" */
#define DIRECTORY_ENTRY_BYTES 64
#define DIRECTORY_BYTES (4 + FW_CFG_FILE_COUNT * DIRECTORY_ENTRY_BYTES)
#define COPY_BYTES 4096

enum fw_cfg_selector {
    SELECT_WRITE = 0x4000, /* once meant writing by the data port; ignored */
    SELECT_ARCH_LOCAL = 0x8000,
    SELECT_INDEX = 0x3FFF,
    SELECT_NONE = 0x3FFF, /* after reset: no item has it */
};

enum fw_cfg_id {
    ID_TRADITIONAL = 1 << 0,
    ID_DMA = 1 << 1,
};

enum dma_control {
    DMA_ERROR = 1 << 0,
    DMA_READ = 1 << 1,
    DMA_SKIP = 1 << 2,
    DMA_SELECT = 1 << 3,
    DMA_WRITE = 1 << 4,
    DMA_KEY_SHIFT = 16,
};

/* The descriptor in guest memory, big-endian. */
enum dma_descriptor {
    DMA_CONTROL = 0,
    DMA_LENGTH = 4,
    DMA_ADDRESS = 8,
    DMA_DESCRIPTOR_BYTES = 16,
};

struct fw_cfg_item {
    uint16_t key;
    char name[FW_CFG_FILE_NAME_BYTES]; /* empty: not a file */
    const uint8_t *data;               /* NULL: built on selection */
    size_t bytes;
    uint8_t *owned; /* freed with the item; of a writable one, the initial bytes */
    void (*build)(void *ctx, uint8_t *data, size_t bytes);
    uint8_t *writable; /* in fw_cfg.writable */
    void (*written)(void *ctx, size_t offset, size_t bytes);
    void *ctx;
};

struct fw_cfg {
    struct vm *vm;
    struct region ports, dma;
    struct fw_cfg_item *items;
    unsigned item_count, item_capacity;
    unsigned file_count; /* in the directory, which is sorted by name */
    size_t writable_used;
    uint8_t directory[DIRECTORY_BYTES];

    uint16_t selected;
    uint32_t offset;
    uint32_t dma_high;               /* the upper half of the address, until the lower comes */
    uint8_t built[FW_CFG_BUILT_MAX]; /* the selected item, if it is built */
    uint8_t writable[FW_CFG_WRITABLE_MAX];
};

/* ---- items ---- */

static struct fw_cfg_item *find_key(const struct fw_cfg *f, uint16_t key)
{
    for (unsigned i = 0; i < f->item_count; i++) {
        if (f->items[i].key == key)
            return &f->items[i];
    }
    return NULL;
}

static struct fw_cfg_item *find_file(const struct fw_cfg *f, const char *name)
{
    for (unsigned i = 0; i < f->item_count; i++) {
        if (f->items[i].name[0] && !strcmp(f->items[i].name, name))
            return &f->items[i];
    }
    return NULL;
}

static int compare_names(const void *a, const void *b)
{
    const struct fw_cfg_item *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* Numbers the files in the order of their names, as guests find them in the
 * directory: the same machine has the same numbers however it was wired. */
static void number_files(struct fw_cfg *f)
{
    struct fw_cfg_item *files[FW_CFG_FILE_COUNT];
    unsigned count = 0;

    for (unsigned i = 0; i < f->item_count; i++) {
        if (f->items[i].name[0])
            files[count++] = &f->items[i];
    }
    qsort(files, count, sizeof files[0], compare_names);
    memset(f->directory, 0, sizeof f->directory);
    be32_put(f->directory, count);
    for (unsigned i = 0; i < count; i++) {
        uint8_t *entry = f->directory + 4 + i * DIRECTORY_ENTRY_BYTES;

        files[i]->key = (uint16_t)(FW_CFG_FILE_FIRST + i);
        be32_put(entry, (uint32_t)files[i]->bytes);
        be16_put(entry + 4, files[i]->key);
        memcpy(entry + 8, files[i]->name, FW_CFG_FILE_NAME_BYTES);
    }
    find_key(f, FW_CFG_FILE_DIR)->bytes = 4 + count * DIRECTORY_ENTRY_BYTES;
    f->file_count = count;
}

static int add_item(struct fw_cfg *f, const struct fw_cfg_item *item, struct error *err)
{
    if (item->bytes > UINT32_MAX)
        return error_set(err, -EINVAL, "fw_cfg: an item is larger than 4 GiB");
    if (f->item_count == f->item_capacity) {
        unsigned capacity = f->item_capacity + 16;
        struct fw_cfg_item *items = realloc(f->items, capacity * sizeof *items);

        if (!items)
            return error_set(err, -ENOMEM, "out of memory for fw_cfg");
        f->items = items;
        f->item_capacity = capacity;
    }
    f->items[f->item_count++] = *item;
    return 0;
}

static int add_key(struct fw_cfg *f, uint16_t key, const uint8_t *data, size_t bytes,
                   uint8_t *owned, struct error *err)
{
    const struct fw_cfg_item item = {.key = key, .data = data, .bytes = bytes, .owned = owned};

    if (find_key(f, key))
        return error_set(err, -EEXIST, "fw_cfg: item %#x exists already", key);
    return add_item(f, &item, err);
}

static int add_file(struct fw_cfg *f, const char *name, struct fw_cfg_item *item, struct error *err)
{
    size_t length = strlen(name);
    int rc;

    if (!length || length >= FW_CFG_FILE_NAME_BYTES)
        return error_set(err, -EINVAL, "fw_cfg: the file name \"%s\" is empty or longer than %d",
                         name, FW_CFG_FILE_NAME_BYTES - 1);
    if (find_file(f, name))
        return error_set(err, -EEXIST, "fw_cfg: file %s exists already", name);
    if (f->file_count == FW_CFG_FILE_COUNT)
        return error_set(err, -ENOSPC, "fw_cfg: more than %d files", FW_CFG_FILE_COUNT);
    memcpy(item->name, name, length + 1);
    rc = add_item(f, item, err);
    if (rc == 0)
        number_files(f);
    return rc;
}

static uint8_t *copy_of(const void *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);

    if (copy && bytes)
        memcpy(copy, data, bytes);
    return copy;
}

int fw_cfg_add_bytes(struct fw_cfg *f, uint16_t key, const void *data, size_t bytes,
                     struct error *err)
{
    uint16_t index = key & SELECT_INDEX;
    uint8_t *copy;
    int rc;

    if ((key & SELECT_WRITE) ||
        (!(key & SELECT_ARCH_LOCAL) &&
         (index == SELECT_NONE ||
          (index >= FW_CFG_FILE_FIRST && index < FW_CFG_FILE_FIRST + FW_CFG_FILE_COUNT))))
        return error_set(err, -EINVAL, "fw_cfg: %#x cannot be an item's key", key);
    copy = copy_of(data, bytes);
    if (!copy)
        return error_set(err, -ENOMEM, "out of memory for fw_cfg");
    rc = add_key(f, key, copy, bytes, copy, err);
    if (rc < 0)
        free(copy);
    return rc;
}

int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t bytes,
                    struct error *err)
{
    uint8_t *copy = copy_of(data, bytes);
    struct fw_cfg_item item = {.data = copy, .bytes = bytes, .owned = copy};
    int rc;

    if (!copy)
        return error_set(err, -ENOMEM, "out of memory for fw_cfg");
    rc = add_file(f, name, &item, err);
    if (rc < 0)
        free(copy);
    return rc;
}

int fw_cfg_add_file_static(struct fw_cfg *f, const char *name, const void *data, size_t bytes,
                           struct error *err)
{
    struct fw_cfg_item item = {.data = data, .bytes = bytes};

    return add_file(f, name, &item, err);
}

int fw_cfg_add_file_callback(struct fw_cfg *f, const char *name, size_t bytes,
                             void (*build)(void *ctx, uint8_t *data, size_t bytes), void *ctx,
                             struct error *err)
{
    struct fw_cfg_item item = {.bytes = bytes, .build = build, .ctx = ctx};

    if (bytes > FW_CFG_BUILT_MAX)
        return error_set(err, -ENOSPC, "fw_cfg: %s is larger than %llu bytes", name,
                         (unsigned long long)FW_CFG_BUILT_MAX);
    return add_file(f, name, &item, err);
}

int fw_cfg_add_file_writable(struct fw_cfg *f, const char *name, const void *data, size_t bytes,
                             void (*written)(void *ctx, size_t offset, size_t bytes), void *ctx,
                             struct error *err)
{
    uint8_t *place = f->writable + f->writable_used, *initial;
    struct fw_cfg_item item = {
        .data = place, .bytes = bytes, .writable = place, .written = written, .ctx = ctx};
    int rc;

    if (bytes > FW_CFG_WRITABLE_MAX - f->writable_used)
        return error_set(err, -ENOSPC, "fw_cfg: no room for the writable file %s", name);
    initial = copy_of(data, bytes);
    if (!initial)
        return error_set(err, -ENOMEM, "out of memory for fw_cfg");
    item.owned = initial;
    rc = add_file(f, name, &item, err);
    if (rc < 0) {
        free(initial);
        return rc;
    }
    memcpy(place, initial, bytes);
    f->writable_used += bytes;
    return 0;
}

static void replace(struct fw_cfg_item *item, const void *data, size_t bytes)
{
    assert(item && item->owned && item->bytes == bytes);
    memcpy(item->owned, data, bytes);
}

void fw_cfg_replace_bytes(struct fw_cfg *f, uint16_t key, const void *data, size_t bytes)
{
    replace(find_key(f, key), data, bytes);
}

void fw_cfg_replace_file(struct fw_cfg *f, const char *name, const void *data, size_t bytes)
{
    replace(find_file(f, name), data, bytes);
}

const void *fw_cfg_file(const struct fw_cfg *f, const char *name, size_t *bytes)
{
    const struct fw_cfg_item *item = find_file(f, name);

    if (!item || !item->data)
        return NULL;
    if (bytes)
        *bytes = item->bytes;
    return item->data;
}

/* ---- selection and data ---- */

static void select_item(struct fw_cfg *f, uint16_t selector)
{
    const struct fw_cfg_item *item;

    f->selected = selector & (SELECT_ARCH_LOCAL | SELECT_INDEX);
    f->offset = 0;
    item = find_key(f, f->selected);
    if (!item) {
        vlog(f->vm->log, FWCFG, DEBUG, "select %#x: no such item", selector);
        return;
    }
    vlog(f->vm->log, FWCFG, DEBUG, "select %#x %s", selector, item->name);
    if (item->build) {
        memset(f->built, 0, sizeof f->built);
        item->build(item->ctx, f->built, item->bytes);
    }
}

/* The bytes left of the selected item from the offset on. */
static const uint8_t *rest(const struct fw_cfg *f, size_t *left)
{
    const struct fw_cfg_item *item = find_key(f, f->selected);

    *left = 0;
    if (!item || f->offset >= item->bytes)
        return NULL;
    *left = item->bytes - f->offset;
    return (item->build ? f->built : item->data) + f->offset;
}

static void advance(struct fw_cfg *f, size_t bytes)
{
    f->offset = (uint32_t)MIN((uint64_t)f->offset + bytes, UINT32_MAX);
}

static uint64_t ports_read(void *ctx, uint64_t offset, unsigned size)
{
    struct fw_cfg *f = ctx;
    const uint8_t *data;
    size_t left;

    if (offset != DATA_OFFSET)
        return zext(~0ull, size); /* the selector cannot be read */
    data = rest(f, &left);
    if (!left)
        return 0;
    advance(f, 1);
    return *data;
}

/* Only a 16-bit write selects; the data port cannot be written. */
static void ports_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    if (offset == 0 && size == 2)
        select_item(ctx, (uint16_t)value);
}

/* ---- DMA ---- */

static int dma_read(struct fw_cfg *f, gpa_t address, uint32_t length)
{
    static const uint8_t zeros[COPY_BYTES];
    struct address_space *memory = &f->vm->memory;
    size_t left, bytes;
    const uint8_t *data = rest(f, &left);
    int rc = 0;

    bytes = MIN(left, length);
    if (bytes)
        rc = as_write(memory, address, data, bytes);
    for (uint64_t done = bytes; rc == 0 && done < length;) {
        uint64_t chunk = MIN(length - done, (uint64_t)COPY_BYTES);

        rc = as_write(memory, address + done, zeros, chunk);
        done += chunk;
    }
    advance(f, bytes);
    return rc;
}

static int dma_write(struct fw_cfg *f, gpa_t address, uint32_t length)
{
    const struct fw_cfg_item *item = find_key(f, f->selected);
    size_t offset = f->offset;
    int rc;

    if (!item || !item->writable || offset > item->bytes || length > item->bytes - offset)
        return -EACCES;
    rc = as_read(&f->vm->memory, address, item->writable + offset, length);
    advance(f, length);
    if (rc == 0 && item->written)
        item->written(item->ctx, offset, length);
    return rc;
}

static void dma_run(struct fw_cfg *f, gpa_t descriptor)
{
    struct address_space *memory = &f->vm->memory;
    uint8_t raw[DMA_DESCRIPTOR_BYTES], status[4];
    uint32_t control, length;
    uint64_t address;
    int rc = 0;

    if (descriptor > UINT64_MAX - sizeof raw || as_read(memory, descriptor, raw, sizeof raw) < 0) {
        vlog(f->vm->log, FWCFG, GUEST, "DMA descriptor at %#llx is not in memory",
             (unsigned long long)descriptor);
        be32_put(status, DMA_ERROR);
        as_write(memory, descriptor, status, sizeof status);
        return;
    }
    control = __builtin_bswap32(le32_get(raw + DMA_CONTROL));
    length = __builtin_bswap32(le32_get(raw + DMA_LENGTH));
    address = __builtin_bswap64(le64_get(raw + DMA_ADDRESS));
    if (control & DMA_SELECT)
        select_item(f, (uint16_t)(control >> DMA_KEY_SHIFT));
    if ((control & (DMA_READ | DMA_WRITE)) && address > UINT64_MAX - length)
        rc = -EFAULT;
    else if (control & DMA_READ)
        rc = dma_read(f, address, length);
    else if (control & DMA_WRITE)
        rc = dma_write(f, address, length);
    else if (control & DMA_SKIP)
        advance(f, length);
    if (rc < 0)
        vlog(f->vm->log, FWCFG, GUEST, "DMA of item %#x, %u bytes at %#llx, failed", f->selected,
             length, (unsigned long long)address);
    /* The rest of the control word becomes zero when it is done. */
    be32_put(status, rc < 0 ? DMA_ERROR : 0);
    as_write(memory, descriptor + DMA_CONTROL, status, sizeof status);
}

static uint64_t dma_port_read(void *ctx, uint64_t offset, unsigned size)
{
    uint64_t little = __builtin_bswap64(DMA_SIGNATURE);

    return zext(little >> offset * 8, size);
}

static void dma_port_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct fw_cfg *f = ctx;
    uint64_t address;

    if (size == 8) {
        f->dma_high = 0;
        dma_run(f, __builtin_bswap64(value));
        return;
    }
    if (size != 4)
        return;
    if (offset == 0) {
        f->dma_high = __builtin_bswap32((uint32_t)value);
        return;
    }
    address = (uint64_t)f->dma_high << 32 | __builtin_bswap32((uint32_t)value);
    f->dma_high = 0;
    dma_run(f, address);
}

static const struct region_ops port_ops = {ports_read, ports_write, 1, 2};
static const struct region_ops dma_ops = {dma_port_read, dma_port_write, 1, 8};

/* ---- life ---- */

static void fw_cfg_reset(void *self)
{
    struct fw_cfg *f = self;

    f->selected = SELECT_NONE;
    f->offset = 0;
    f->dma_high = 0;
    memset(f->built, 0, sizeof f->built);
    for (unsigned i = 0; i < f->item_count; i++) {
        if (f->items[i].writable)
            memcpy(f->items[i].writable, f->items[i].owned, f->items[i].bytes);
    }
}

static void fw_cfg_destroy(void *self)
{
    struct fw_cfg *f = self;

    region_remove(&f->ports);
    region_remove(&f->dma);
    for (unsigned i = 0; i < f->item_count; i++)
        free(f->items[i].owned);
    free(f->items);
    free(f);
}

static const struct state_field fw_cfg_fields[] = {
    STATE_INT(struct fw_cfg, selected),   STATE_INT(struct fw_cfg, offset),
    STATE_INT(struct fw_cfg, dma_high),   STATE_BYTES(struct fw_cfg, built),
    STATE_BYTES(struct fw_cfg, writable), STATE_END,
};

static const struct state_table fw_cfg_state = {
    .name = "fw-cfg",
    .version = 1,
    .fields = fw_cfg_fields,
};

static const struct dev_type fw_cfg_type = {
    .name = "fw-cfg",
    .reset = fw_cfg_reset,
    .destroy = fw_cfg_destroy,
    .state = &fw_cfg_state,
};

static int add_own_items(struct fw_cfg *f, struct error *err)
{
    uint8_t id[4];
    int rc;

    le32_put(id, ID_TRADITIONAL | ID_DMA);
    rc = fw_cfg_add_bytes(f, FW_CFG_SIGNATURE, "QEMU", 4, err);
    if (rc == 0)
        rc = fw_cfg_add_bytes(f, FW_CFG_ID, id, sizeof id, err);
    if (rc == 0)
        rc = add_key(f, FW_CFG_FILE_DIR, f->directory, 4, NULL, err);
    return rc;
}

struct fw_cfg *fw_cfg_create(struct vm *vm, struct error *err)
{
    struct fw_cfg *f = calloc(1, sizeof *f);

    if (!f) {
        error_set(err, -ENOMEM, "out of memory for fw_cfg");
        return NULL;
    }
    f->vm = vm;
    f->selected = SELECT_NONE;
    f->ports = (struct region){
        .name = "fw-cfg",
        .base = FW_CFG_PORT,
        .size = 2,
        .priority = 1,
        .ops = &port_ops,
        .ctx = f,
    };
    f->dma = (struct region){
        .name = "fw-cfg-dma",
        .base = DMA_PORT,
        .size = 8,
        .priority = 1,
        .ops = &dma_ops,
        .ctx = f,
    };
    if (add_own_items(f, err) < 0)
        goto fail_items;
    if (region_add(&vm->ports, &f->ports) < 0)
        goto fail_region;
    if (region_add(&vm->ports, &f->dma) < 0) {
        region_remove(&f->ports);
        goto fail_region;
    }
    vm_add_device(vm, &fw_cfg_type, "fw-cfg", f);
    return f;

fail_region:
    error_set(err, -ENOMEM, "cannot place the fw_cfg ports");
fail_items:
    for (unsigned i = 0; i < f->item_count; i++)
        free(f->items[i].owned);
    free(f->items);
    free(f);
    return NULL;
}
