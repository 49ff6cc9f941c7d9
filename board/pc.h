/*
 * The board "pc": a computer compatible with Intel's Q35 and ICH9, because
 * firmware and every operating system know it.
 *
 * pc_create() builds a whole machine into a struct vm in one linear function
 * (pc.c opens with the picture). The vm owns the board and everything on it;
 * vm_destroy() takes it all down.
 * Threading: pc_create before the machine runs; the rest with the machine's
 * lock held.
 */
#ifndef BOARD_PC_H
#define BOARD_PC_H

#include "backend/char/char.h"
#include "base/error.h"
#include "cpu/x86/vcpu.h"
#include "dev/storage/ahci.h"
#include "vm/vm.h"

struct acpi_pm;
struct display_source;
struct pc;
struct pci_bus;
struct ps2_keyboard;
struct ps2_mouse;

#define PC_COM_PORTS 4
#define PC_MAX_DEVICES 32
#define PC_MAX_INITRDS 32
#define PC_MAX_CARDS 24
#define PC_MAX_BOOT (PC_MAX_CARDS + AHCI_PORTS)
#define PC_MIN_MEMORY (2 * MiB)
#define PC_MAX_MEMORY (512 * GiB)

/*
 * A PCI device besides those of the chipset, in a slot of its own. create ends
 * with vm_add_device and leaves one line in err where it fails; config is its
 * own matter, and read within pc_create only.
 */
struct pc_card {
    int (*create)(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
                  struct error *err);
    const void *config;
};

/*
 * Something that firmware may start. Of a card: what Open Firmware calls it and
 * what is in it, as in /pci@i0cf8/NODE@SLOT/UNIT, because firmware knows it by
 * that path. node NULL: what is on a SATA port.
 */
struct pc_boot_device {
    const char *node, *unit;
    unsigned number; /* index into cards, or the port */
};

struct pc_config {
    uint64_t memory_bytes; /* a multiple of 1 MiB */
    unsigned cpus;
    const struct x86_engine_ops *engine;
    struct x86_engine_options engine_options;
    const char *cpu; /* MODEL[,+feature,-feature]...; NULL: "max" */

    /* COM1 to COM4. COM1 is always there, the others if they have a back end.
     * The caller destroys the back ends, after the last run and before the vm. */
    struct char_backend *com[PC_COM_PORTS];
    struct char_backend *debug; /* ports 402H and E9H, beside the log; or NULL */

    /* Disks and CD drives. Their images are the caller's, who destroys them as
     * the back ends above. */
    struct ahci_config sata;

    /* Either a firmware ("bios", "uefi" or a path), or a kernel. */
    const char *firmware;
    const char *uefi_vars;    /* file of the variables of "uefi"; NULL: in memory only */
    bool uefi_vars_volatile;  /* that file is read, not written */
    const char *kernel;
    const char *initrd[PC_MAX_INITRDS]; /* more than one: Multiboot modules, "FILE[ ARGUMENTS]" */
    unsigned initrd_count;
    const char *append; /* or NULL */

    const char *vga; /* "std": a standard VGA; "none" or NULL */

    /* At 00:03.0 and on, in this order. */
    struct pc_card cards[PC_MAX_CARDS];
    unsigned card_count;

    /* What firmware tries to start, in this order. */
    struct pc_boot_device boot[PC_MAX_BOOT];
    unsigned boot_count;

    /* "debug-exit[,port=P,size=N]", "root-ports[,count=N]", "testdev". */
    const char *devices[PC_MAX_DEVICES];
    unsigned device_count;

    /* A processor shut down: called before the reset, with all registers
     * still there. Or NULL. */
    void (*on_shutdown)(void *ctx, struct x86_vcpu *cpu);
    void *on_shutdown_ctx;
};

/* Every failure leaves one line in err; the vm can then only be destroyed. */
int pc_create(struct vm *vm, const struct pc_config *config, struct pc **pc, struct error *err);

/* Is this a --device that the board can make? For the command line's checks. */
int pc_device_check(const char *spec, struct error *err);

/* Appends to cards. -E2BIG: there are no more slots. */
int pc_add_card(struct pc_config *config,
                int (*create)(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                              const void *config, struct error *err),
                const void *card_config, struct error *err);

/* Appends to boot; there is room for every card and port once. */
void pc_add_boot(struct pc_config *config, struct pc_boot_device device);

/* NULL: there are fewer processors. */
struct x86_vcpu *pc_cpu(struct pc *pc, unsigned index);
struct pci_bus *pc_pci_bus(struct pc *pc);
struct ps2_keyboard *pc_keyboard(struct pc *pc);
struct ps2_mouse *pc_mouse(struct pc *pc); /* NULL: there is none */
/* What the display adapter shows; false: there is none. */
bool pc_display(struct pc *pc, struct display_source *source);
/* The user pressed the power button. */
void pc_power_button(struct pc *pc);

#endif
