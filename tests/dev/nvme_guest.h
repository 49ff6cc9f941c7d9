/*
 * A machine with an NVMe controller and nothing else, and a driver for it: for
 * tests without a processor. The image is a shim (disk_shim.h).
 *
 * harness_reload keeps memory and image: a build function that finds an older
 * world takes over what is in it.
 */
#ifndef TESTS_DEV_NVME_GUEST_H
#define TESTS_DEV_NVME_GUEST_H

#include "dev/storage/nvme_internal.h"
#include "tests/dev/pci_machine.h"

enum { DEV_BUS, DEV_NVME };

#define NG_RAM_BYTES (8 * MiB)
#define NG_ROM 0x1000000ull /* 64 KiB of ROM */
#define NG_BAR 0xF0000000ull
#define NG_MSIX 0xF0010000ull
#define NG_ECAM 0xB0000000ull
#define NG_DISK_BYTES (2 * MiB)
#define NG_BLOCKS (NG_DISK_BYTES / 512)
#define NG_DEVFN PCI_DEVFN(3, 0)

/* Where the driver has its queues and buffers. */
#define NG_ENTRIES 32
#define NG_SQ(id) (0x10000ull + (id)*0x2000)
#define NG_CQ(id) (0x11000ull + (id)*0x2000)
#define NG_LIST 0x100000ull
#define NG_BUFFER 0x200000ull
#define NG_DATA 0x600000ull /* of admin commands */

struct ng_world {
    struct shim *shim;
    struct disk *disk;
    struct machine_memory memory;
    /* The driver: */
    unsigned tail[NVME_QUEUES], head[NVME_QUEUES], size[NVME_QUEUES];
    bool phase[NVME_QUEUES];
    uint16_t cid;
};

struct ng_done {
    bool found;
    uint32_t result;
    uint16_t sq_head, sqid, cid;
    unsigned status;
};

/* For harness_create. */
void ng_build(struct harness *h);
struct harness *ng_create(void);
struct ng_world *ng_world(struct harness *h);
uint8_t *ng_ram(struct harness *h, uint64_t address);
uint32_t ng_get(struct harness *h, unsigned offset);
void ng_put(struct harness *h, unsigned offset, uint32_t value);
/* Admin queue of NG_ENTRIES, EN; MSI-X with a message of its own for each vector. */
void ng_enable(struct harness *h);
void ng_use_msix(struct harness *h);
/* Queue pair id, with that vector. */
void ng_make_queue(struct harness *h, unsigned id, unsigned vector);
/* Puts a command into a queue; cid is chosen where it is 0. Returns it. */
uint16_t ng_put_command(struct harness *h, struct nvme_command c);
void ng_ring(struct harness *h, unsigned id);
/* The next completion of a queue, if there is one; the doorbell is rung. */
struct ng_done ng_next(struct harness *h, unsigned id);
/* The whole of a command, with time for it. */
struct ng_done ng_run(struct harness *h, struct nvme_command c);
/* The same; the status alone. */
unsigned ng_status(struct harness *h, struct nvme_command c);
/* A command of queue 1 that moves blocks. */
struct nvme_command ng_blocks(uint8_t opcode, uint64_t lba, unsigned count, uint64_t address);

#endif
