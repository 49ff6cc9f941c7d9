/*
 * A machine with an AHCI adapter and nothing else, and a driver for it: for
 * tests without a processor. Port 0 has a disk, port 1 a CD drive, port 2 an
 * empty one; both images are shims (disk_shim.h).
 *
 * harness_reload keeps memory and images: a build function that finds an older
 * world takes over what is in it.
 */
#ifndef TESTS_DEV_AHCI_GUEST_H
#define TESTS_DEV_AHCI_GUEST_H

#include "dev/storage/ahci_internal.h"
#include "tests/dev/pci_machine.h"

enum { AG_DISK, AG_CD, AG_EMPTY, AG_NOTHING, AG_PORTS };
enum { DEV_BUS, DEV_AHCI };

#define AG_RAM_BYTES (4 * MiB)
#define AG_ROM 0x800000ull /* 64 KiB of ROM */
#define AG_ABAR 0xF0000000ull
#define AG_ECAM 0xB0000000ull
#define AG_IDP 0xC000u
#define AG_DISK_BYTES (1 * MiB)
#define AG_CD_BYTES (256 * 1024)
#define AG_DEVFN PCI_DEVFN(31, 2)

/* Where the driver has its tables. */
#define AG_LIST(port) (0x1000ull + (port)*0x1000)
#define AG_FIS(port) (0x8000ull + (port)*0x100)
#define AG_TABLE(port, slot) (0x10000ull + ((port)*32 + (slot)) * 0x1000)
#define AG_BUFFER 0x200000ull

struct ag_world {
    struct shim *shim[2];
    struct disk *disk[2];
    struct machine_memory memory;
};

struct ag_prd {
    uint64_t address;
    uint32_t bytes;
    bool interrupt;
};

struct ag_command {
    uint8_t command, device;
    uint16_t features, count;
    uint64_t lba;
    const uint8_t *cdb; /* 16 bytes: PACKET */
    const struct ag_prd *prd;
    unsigned prds;
};

/* For harness_create; ag_forget after harness_destroy. */
void ag_build(struct harness *h);
struct harness *ag_create(void);
void ag_destroy(struct harness *h);
struct ag_world *ag_world(struct harness *h);

uint32_t ag_get(struct harness *h, unsigned port, unsigned offset);
void ag_put(struct harness *h, unsigned port, unsigned offset, uint32_t value);
uint8_t *ag_ram(struct harness *h, uint64_t address);
/* Command list, received FISes, ST: a port that runs. */
void ag_start_port(struct harness *h, unsigned port);
void ag_stop_port(struct harness *h, unsigned port);
/* Writes header and table of a slot; issues it. Queued commands: SACT first. */
void ag_prepare(struct harness *h, unsigned port, unsigned slot, const struct ag_command *c);
void ag_issue(struct harness *h, unsigned port, uint32_t slots);
/* The whole of a command in slot 0, with time for it; PxTFD afterwards. The
 * port's interrupts are cleared before. */
uint32_t ag_run(struct harness *h, unsigned port, const struct ag_command *c);
/* The same for a PACKET command with one buffer at AG_BUFFER. */
uint32_t ag_packet(struct harness *h, const uint8_t *cdb, uint32_t bytes);

#endif
