/*
 * NOR flash with the Intel command set. See cfi_flash.h.
 *
 * A command is one byte written anywhere, some need a second one ("cycle").
 * Wider accesses reach the chip as bytes, one after the other.
 *
 * Two regions lie over each other: the memory, for array mode, with a callback
 * for writes; and registers, for all other modes. One of them is enabled.
 */
#include "dev/storage/cfi_flash.h"

#include <errno.h>
#include <stdlib.h>

enum flash_command {
    CMD_LOCK_SET = 0x01, /* second cycle of CMD_LOCK */
    CMD_PROGRAM_ALTERNATE = 0x10,
    CMD_ERASE = 0x20,
    CMD_LOCK_DOWN = 0x2F, /* second cycle of CMD_LOCK */
    CMD_PROGRAM = 0x40,
    CMD_CLEAR_STATUS = 0x50,
    CMD_LOCK = 0x60,
    CMD_READ_STATUS = 0x70,
    CMD_READ_IDENTIFIER = 0x90,
    CMD_READ_QUERY = 0x98,
    CMD_SUSPEND = 0xB0,
    CMD_CONFIRM = 0xD0, /* and resume, and clear lock bits */
    CMD_BUFFERED_PROGRAM = 0xE8,
    CMD_READ_ARRAY = 0xFF,
};

enum flash_status {
    STATUS_LOCKED = 1 << 1,
    STATUS_PROGRAM_ERROR = 1 << 4,
    STATUS_ERASE_ERROR = 1 << 5, /* with PROGRAM_ERROR: a wrong sequence of commands */
    STATUS_READY = 1 << 7,
};

enum flash_mode { MODE_ARRAY, MODE_STATUS, MODE_IDENTIFIER, MODE_QUERY, MODES };

/* What the next written byte is. */
enum flash_cycle {
    CYCLE_COMMAND,
    CYCLE_PROGRAM,
    CYCLE_ERASE,
    CYCLE_LOCK,
    CYCLE_BUFFER_COUNT,
    CYCLE_BUFFER_DATA,
    CYCLE_BUFFER_CONFIRM,
    CYCLES,
};

enum {
    IDENTIFIER_VENDOR = 0x89, /* Intel */
    IDENTIFIER_DEVICE = 0x18, /* 28F128J3 */
    QUERY_START = 0x10,
    LOCK_BYTES = CFI_FLASH_MAX_BYTES / CFI_FLASH_SECTOR_BYTES / 8,
};

struct cfi_flash {
    struct vm *vm;
    const char *name;
    struct ram_block *ram;
    struct region array, registers;
    struct cfi_flash_store store;

    uint8_t mode, cycle;
    uint8_t status;
    uint32_t buffer_base; /* of the sector that the buffered bytes go to */
    uint8_t buffer_count; /* how many they will be, less one */
    uint8_t buffer_filled;
    uint8_t buffer[CFI_FLASH_BUFFER_BYTES];
    uint32_t buffer_offset[CFI_FLASH_BUFFER_BYTES];
    uint8_t locked[LOCK_BYTES]; /* a bit a sector */
};

/* ---- content ---- */

static void set_mode(struct cfi_flash *f, enum flash_mode mode)
{
    bool was_array = f->mode == MODE_ARRAY;

    f->mode = mode;
    if (was_array == (mode == MODE_ARRAY))
        return;
    address_space_begin(&f->vm->memory);
    region_enable(&f->array, mode == MODE_ARRAY);
    region_enable(&f->registers, mode != MODE_ARRAY);
    address_space_commit(&f->vm->memory);
}

static bool is_locked(const struct cfi_flash *f, uint64_t offset)
{
    uint64_t sector = offset / CFI_FLASH_SECTOR_BYTES;

    return f->locked[sector / 8] >> sector % 8 & 1;
}

static bool store(struct cfi_flash *f, uint64_t offset, const uint8_t *data, uint64_t bytes)
{
    int rc = f->store.write ? f->store.write(f->store.ctx, offset, data, bytes) : 0;

    if (rc < 0)
        return false;
    memcpy(f->ram->host + offset, data, bytes);
    ram_block_written(f->ram, offset, bytes);
    return true;
}

/* Bytes of one sector; only zeros are programmed. */
static void program(struct cfi_flash *f, uint64_t offset, const uint8_t *data, unsigned bytes)
{
    uint8_t merged[CFI_FLASH_BUFFER_BYTES];

    f->status |= STATUS_READY;
    if (is_locked(f, offset)) {
        f->status |= STATUS_PROGRAM_ERROR | STATUS_LOCKED;
        return;
    }
    for (unsigned i = 0; i < bytes; i++)
        merged[i] = f->ram->host[offset + i] & data[i];
    if (!store(f, offset, merged, bytes))
        f->status |= STATUS_PROGRAM_ERROR;
}

static void erase(struct cfi_flash *f, uint64_t offset)
{
    uint8_t erased[CFI_FLASH_SECTOR_BYTES];

    f->status |= STATUS_READY;
    if (is_locked(f, offset)) {
        f->status |= STATUS_ERASE_ERROR | STATUS_LOCKED;
        return;
    }
    memset(erased, 0xFF, sizeof erased);
    if (!store(f, align_down(offset, CFI_FLASH_SECTOR_BYTES), erased, sizeof erased))
        f->status |= STATUS_ERASE_ERROR;
}

static void wrong_sequence(struct cfi_flash *f)
{
    f->status |= STATUS_READY | STATUS_PROGRAM_ERROR | STATUS_ERASE_ERROR;
}

/* ---- commands ---- */

static void first_cycle(struct cfi_flash *f, uint8_t command)
{
    switch (command) {
    case CMD_READ_ARRAY:
        set_mode(f, MODE_ARRAY);
        return;
    case CMD_READ_IDENTIFIER:
        set_mode(f, MODE_IDENTIFIER);
        return;
    case CMD_READ_QUERY:
        set_mode(f, MODE_QUERY);
        return;
    case CMD_CLEAR_STATUS:
        /* Leaves the mode (table 4 of the datasheet). A real chip is ready all
         * the same; firmware for virtual machines tells flash from RAM and ROM
         * by a status that reads 0 now, until something is done. */
        f->status = 0;
        return;
    case CMD_PROGRAM:
    case CMD_PROGRAM_ALTERNATE:
        f->cycle = CYCLE_PROGRAM;
        break;
    case CMD_ERASE:
        f->cycle = CYCLE_ERASE;
        break;
    case CMD_LOCK:
        f->cycle = CYCLE_LOCK;
        break;
    case CMD_BUFFERED_PROGRAM:
        f->cycle = CYCLE_BUFFER_COUNT;
        f->status |= STATUS_READY; /* a buffer is free */
        break;
    case CMD_READ_STATUS:
    case CMD_SUSPEND: /* nothing is ever running */
    case CMD_CONFIRM:
        break;
    default:
        return; /* no command: no effect */
    }
    set_mode(f, MODE_STATUS);
}

static void lock_cycle(struct cfi_flash *f, uint64_t offset, uint8_t command)
{
    uint64_t sector = offset / CFI_FLASH_SECTOR_BYTES;

    f->status |= STATUS_READY;
    switch (command) {
    case CMD_LOCK_SET:
    case CMD_LOCK_DOWN:
        f->locked[sector / 8] |= (uint8_t)BIT(sector % 8);
        break;
    case CMD_CONFIRM:
        f->locked[sector / 8] &= (uint8_t)~BIT(sector % 8);
        break;
    default:
        wrong_sequence(f);
        break;
    }
}

/* The buffer belongs to the sector of its first byte; what is written outside
 * of the sector ends the command. */
static void buffer_cycle(struct cfi_flash *f, uint64_t offset, uint8_t value)
{
    if (f->buffer_filled == 0)
        f->buffer_base = (uint32_t)align_down(offset, CFI_FLASH_SECTOR_BYTES);
    if (align_down(offset, CFI_FLASH_SECTOR_BYTES) != f->buffer_base) {
        wrong_sequence(f);
        f->cycle = CYCLE_COMMAND;
        return;
    }
    f->buffer[f->buffer_filled] = value;
    f->buffer_offset[f->buffer_filled] = (uint32_t)offset;
    f->buffer_filled++;
    if (f->buffer_filled > f->buffer_count)
        f->cycle = CYCLE_BUFFER_CONFIRM;
}

static void program_buffer(struct cfi_flash *f)
{
    /* Bytes that follow each other are one write to the store. */
    for (unsigned i = 0, n; i < f->buffer_filled; i += n) {
        for (n = 1; i + n < f->buffer_filled; n++) {
            if (f->buffer_offset[i + n] != f->buffer_offset[i] + n)
                break;
        }
        program(f, f->buffer_offset[i], f->buffer + i, n);
    }
}

static void flash_write(void *ctx, uint64_t offset, uint64_t value64, unsigned size)
{
    struct cfi_flash *f = ctx;
    uint8_t value = (uint8_t)value64;
    enum flash_cycle cycle = f->cycle;

    if (cycle != CYCLE_BUFFER_DATA)
        f->cycle = CYCLE_COMMAND;
    switch (cycle) {
    case CYCLE_PROGRAM:
        program(f, offset, &value, 1);
        break;
    case CYCLE_ERASE:
        if (value == CMD_CONFIRM)
            erase(f, offset);
        else
            wrong_sequence(f);
        break;
    case CYCLE_LOCK:
        lock_cycle(f, offset, value);
        break;
    case CYCLE_BUFFER_COUNT:
        if (value >= CFI_FLASH_BUFFER_BYTES) {
            wrong_sequence(f);
            break;
        }
        f->buffer_count = value;
        f->buffer_filled = 0;
        f->cycle = CYCLE_BUFFER_DATA;
        break;
    case CYCLE_BUFFER_DATA:
        buffer_cycle(f, offset, value);
        break;
    case CYCLE_BUFFER_CONFIRM:
        if (value == CMD_CONFIRM)
            program_buffer(f);
        else
            wrong_sequence(f);
        break;
    case CYCLE_COMMAND:
    default:
        first_cycle(f, value);
        break;
    }
}

/* ---- what the registers read as ---- */

static unsigned log2_up(uint64_t value)
{
    unsigned n = 0;

    while (BIT(n) < value)
        n++;
    return n;
}

/* JEP137, section 2.2, and Intel's extension after it. */
static uint8_t query(const struct cfi_flash *f, unsigned offset)
{
    const unsigned last_sector = (unsigned)(f->ram->bytes / CFI_FLASH_SECTOR_BYTES) - 1;
    const uint8_t table[] = {
        'Q',
        'R',
        'Y',
        0x01,
        0x00, /* 13: Intel's command set */
        0x31,
        0x00, /* 15: its extended table */
        0x00,
        0x00,
        0x00,
        0x00, /* 17: no alternative */
        0x27,
        0x36, /* 1B: 2.7 to 3.6 V */
        0x00,
        0x00, /* 1D: no programming voltage */
        0x07,
        0x07,
        0x0A,
        0x00, /* 1F: 128 us a byte and a buffer, 1 s a sector, no chip erase */
        0x04,
        0x04,
        0x04,
        0x00, /* 23: at most 16 times that */
        (uint8_t)log2_up(f->ram->bytes),
        0x00,
        0x00, /* 28: 8 bits wide */
        (uint8_t)log2_up(CFI_FLASH_BUFFER_BYTES),
        0x00,
        0x01, /* 2C: all sectors are alike */
        (uint8_t)last_sector,
        (uint8_t)(last_sector >> 8),
        (uint8_t)(CFI_FLASH_SECTOR_BYTES / 256),
        (uint8_t)(CFI_FLASH_SECTOR_BYTES / 256 >> 8),
        'P',
        'R',
        'I',
        '1',
        '0',
        0x2A,
        0x00,
        0x00,
        0x00, /* 36: erase suspend, lock bits for each sector */
        0x00, /* 3A: nothing while suspended */
        0x01,
        0x00, /* 3B: a sector's status has a lock bit */
        0x33,
        0x00, /* 3D: 3.3 V */
    };

    return offset >= QUERY_START && offset - QUERY_START < sizeof table
               ? table[offset - QUERY_START]
               : 0;
}

static uint8_t identifier(const struct cfi_flash *f, uint64_t offset)
{
    switch (offset % CFI_FLASH_SECTOR_BYTES % 256) {
    case 0:
        return IDENTIFIER_VENDOR;
    case 1:
        return IDENTIFIER_DEVICE;
    case 2:
        return is_locked(f, offset);
    default:
        return 0;
    }
}

static uint64_t flash_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct cfi_flash *f = ctx;

    switch ((enum flash_mode)f->mode) {
    case MODE_IDENTIFIER:
        return identifier(f, offset);
    case MODE_QUERY:
        return query(f, (unsigned)(offset % 256));
    case MODE_STATUS:
        return f->status;
    case MODE_ARRAY:
    case MODES:
    default:
        return f->ram->host[offset];
    }
}

static const struct region_ops flash_ops = {flash_read, flash_write, 1, 1};

/* ---- life ---- */

static void flash_reset(void *self)
{
    struct cfi_flash *f = self;

    f->cycle = CYCLE_COMMAND;
    f->status = STATUS_READY;
    memset(f->locked, 0, sizeof f->locked);
    set_mode(f, MODE_ARRAY);
}

static void flash_destroy(void *self)
{
    struct cfi_flash *f = self;

    if (f->array.as)
        region_remove(&f->array);
    if (f->registers.as)
        region_remove(&f->registers);
    free(f);
}

static int flash_after_load(void *self, unsigned version)
{
    struct cfi_flash *f = self;

    if (f->mode >= MODES || f->cycle >= CYCLES || f->buffer_count >= CFI_FLASH_BUFFER_BYTES ||
        f->buffer_filled > f->buffer_count + 1u ||
        (f->cycle == CYCLE_BUFFER_DATA && f->buffer_filled > f->buffer_count) ||
        f->buffer_base >= f->ram->bytes)
        return -EINVAL;
    for (unsigned i = 0; i < f->buffer_filled; i++) {
        if (align_down(f->buffer_offset[i], CFI_FLASH_SECTOR_BYTES) != f->buffer_base)
            return -EINVAL;
    }
    address_space_begin(&f->vm->memory);
    region_enable(&f->array, f->mode == MODE_ARRAY);
    region_enable(&f->registers, f->mode != MODE_ARRAY);
    address_space_commit(&f->vm->memory);
    return 0;
}

static const struct state_field flash_fields[] = {
    STATE_INT(struct cfi_flash, mode),         STATE_INT(struct cfi_flash, cycle),
    STATE_INT(struct cfi_flash, status),       STATE_INT(struct cfi_flash, buffer_base),
    STATE_INT(struct cfi_flash, buffer_count), STATE_INT(struct cfi_flash, buffer_filled),
    STATE_BYTES(struct cfi_flash, buffer),     STATE_INTS(struct cfi_flash, buffer_offset),
    STATE_BYTES(struct cfi_flash, locked),     STATE_END,
};

static const struct state_table flash_state = {
    .name = "cfi-flash",
    .version = 1,
    .fields = flash_fields,
    .after_load = flash_after_load,
};

static const struct dev_type flash_type = {
    .name = "cfi-flash",
    .reset = flash_reset,
    .destroy = flash_destroy,
    .state = &flash_state,
};

static int add_regions(struct cfi_flash *f, gpa_t base)
{
    int rc;

    f->array = (struct region){
        .name = f->name,
        .base = base,
        .size = f->ram->bytes,
        .priority = 1,
        .ops = &flash_ops,
        .ctx = f,
        .ram = f->ram,
        .readonly = true,
    };
    f->registers = (struct region){
        .name = f->name,
        .base = base,
        .size = f->ram->bytes,
        .priority = 1,
        .ops = &flash_ops,
        .ctx = f,
    };
    address_space_begin(&f->vm->memory);
    rc = region_add(&f->vm->memory, &f->array);
    if (rc == 0)
        rc = region_add(&f->vm->memory, &f->registers);
    if (rc == 0)
        region_enable(&f->registers, false);
    address_space_commit(&f->vm->memory);
    return rc;
}

struct cfi_flash *cfi_flash_create(struct vm *vm, const struct cfi_flash_config *config,
                                   struct error *err)
{
    struct cfi_flash *f;

    if (config->bytes == 0 || config->bytes % CFI_FLASH_SECTOR_BYTES ||
        config->bytes > CFI_FLASH_MAX_BYTES) {
        error_set(err, -EINVAL, "%s: a flash has whole sectors of 4 KiB, up to 16 MiB",
                  config->name);
        return NULL;
    }
    f = calloc(1, sizeof *f);
    if (!f)
        goto no_memory;
    f->vm = vm;
    f->name = config->name;
    f->store = config->store;
    f->status = STATUS_READY;
    f->ram = ram_block_create(vm, config->name, config->bytes, RAM_ROM, err);
    if (!f->ram) {
        free(f);
        return NULL;
    }
    memcpy(f->ram->host, config->contents, config->bytes);
    if (add_regions(f, config->base) < 0) {
        flash_destroy(f);
        goto no_memory;
    }
    vm_add_device(vm, &flash_type, config->name, f);
    return f;

no_memory:
    error_set(err, -ENOMEM, "out of memory for the flash %s", config->name);
    return NULL;
}
