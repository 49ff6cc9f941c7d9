/*
 * Between the parts of the board: pc.c wires, pc_wiring.c carries interrupts,
 * pc_firmware.c holds firmware, pc_info.c tells it about the board, post.c plays
 * firmware.
 */
#ifndef BOARD_PC_INTERNAL_H
#define BOARD_PC_INTERNAL_H

#include "board/acpi.h"
#include "board/pc.h"
#include "board/smbios.h"
#include "boot/kernel.h"
#include "boot/memory_map.h"
#include "boot/uefi_vars.h"
#include "cpu/x86/apic.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/vcpu.h"
#include "dev/irq/i8259.h"
#include "dev/irq/ioapic.h"
#include "dev/pci/ich9_lpc.h"
#include "dev/pci/q35_mch.h"
#include "dev/timer/rtc.h"

struct fw_cfg;
struct ps2_mouse;
struct vga;

#define PC_ISA_IRQS 16

#define PC_EBDA 0x9fc00ull
#define PC_EBDA_BYTES (1 * KiB)
#define PC_BIOS_AREA 0xf0000ull
#define PC_BIOS_AREA_BYTES (64 * KiB)
/* Where ACPI and SMBIOS tables are in a direct boot: the last bytes of RAM
 * below 4 GiB. */
#define PC_TABLES_BYTES (64 * KiB)
#define PC_TABLES_SMBIOS (32 * KiB) /* offset; ACPI is before it */

/* Where PCI devices may be below 4 GiB, ECAM left out. */
#define PC_HOLE_BASE Q35_LOW_RAM_END
#define PC_HOLE_END IOAPIC_BASE
/* Of the window above RAM: as firmware for this board aligns it. */
#define PC_WINDOW64_BYTES (32 * GiB)

/* PCI functions of the chipset, and what post.c writes there. */
#define PC_MCH_DEVFN PCI_DEVFN(0, 0)
#define PC_VGA_DEVFN PCI_DEVFN(1, 0)
#define PC_FIRST_CARD 3 /* devices 03H and on: pc_config.cards */
#define PC_LPC_DEVFN PCI_DEVFN(31, 0)
#define PC_SATA_DEVFN PCI_DEVFN(31, 2)

/*
 * Who may drive an input of an interrupt controller; the input is the OR of
 * them.
 */
enum pc_source {
    SOURCE_ISA, /* the device that the ISA interrupt belongs to */
    SOURCE_ISA_SECOND, /* COM3 and COM4 share with COM1 and COM2 */
    SOURCE_LPC,
    SOURCE_HPET,
    SOURCE_HPET_LEGACY,
    SOURCE_TESTDEV,
};

struct pc {
    struct vm *vm;
    struct x86_model model;
    struct x86_vcpu *cpu[VM_MAX_VCPUS];
    unsigned cpu_count;
    struct apic_bus *apic_bus;

    struct ram_block *ram, *rom;
    struct region rom_region;
    uint64_t low_ram_bytes, high_ram_bytes;

    struct i8259 *pic;
    struct ioapic *ioapic;
    struct rtc *rtc;
    struct pci_bus *pci;
    struct ich9_lpc *lpc;
    struct fw_cfg *fw_cfg;
    struct ps2_keyboard *keyboard;
    struct vga *vga;         /* or NULL */
    struct ps2_mouse *mouse; /* or NULL */
    struct region fpu_port;
    struct irq_line pic_input[PC_ISA_IRQS];
    struct irq_line ioapic_input[IOAPIC_PINS];
    struct irq_line rtc_status; /* ACPI's RTC_STS */

    /* Saved state (pc_wiring.c). Bit n: enum pc_source n asserts. */
    uint32_t pic_sources[PC_ISA_IRQS];
    uint32_t ioapic_sources[IOAPIC_PINS];
    bool hpet_legacy;   /* the HPET has taken interrupts 0 and 8 */
    bool pit_level;     /* what the 8254 and the RTC would drive */
    bool rtc_level;
    uint64_t ferr;      /* bit n: processor n asserts FERR# */
    uint8_t uuid[16];

    uint8_t com_ports;  /* bit n: COM(n+1) is there */
    bool has_sercon;
    struct acpi_tables acpi; /* scratch: built anew each time */
    struct smbios smbios;

    struct boot_kernel *kernel; /* NULL: firmware starts the machine */
    struct uefi_vars uefi_vars;
    void (*on_shutdown)(void *ctx, struct x86_vcpu *cpu);
    void *on_shutdown_ctx;
};

/* ---- pc_wiring.c ---- */

/* Registers the board's own state; before any device, so that it is reset
 * first and freed last. */
void pc_wiring_create(struct pc *pc);
/* An ISA interrupt: to the 8259 and to the IOAPIC, where 0 is 2. */
struct irq_line pc_isa_line(struct pc *pc, unsigned irq, enum pc_source source);
/* One input of the IOAPIC, one of the 8259s. */
struct irq_line pc_ioapic_line(struct pc *pc, unsigned pin, enum pc_source source);
struct irq_line pc_pic_line(struct pc *pc, unsigned irq, enum pc_source source);
/* The 8259's output: INTR of processor 0, and IOAPIC input 0. */
struct irq_line pc_intr_line(struct pc *pc);
/* A processor's interrupt acknowledge; takes the lock. */
uint8_t pc_intr_ack(void *pc);
/* The 8254's and the RTC's output, which the HPET may replace. */
struct irq_line pc_pit_line(struct pc *pc);
struct irq_line pc_rtc_line(struct pc *pc);
/* Does interrupt 0's last edge still wait for a processor? */
struct irq_probe pc_clock_probe(struct pc *pc);
struct irq_line pc_hpet_legacy_line(struct pc *pc);
/* FERR# of processor n, and INIT# of all. */
struct irq_line pc_ferr_line(struct pc *pc, unsigned cpu);
struct irq_line pc_init_line(struct pc *pc);
int pc_fpu_port_create(struct pc *pc, struct error *err);

/* ---- pc_devices.c ---- */

/* The --device options. */
int pc_devices_create(struct pc *pc, const struct pc_config *config, struct error *err);

/* ---- pc_firmware.c ---- */

/* The ROM below 4 GiB, and for UEFI the flash with its variables. */
int pc_firmware_create(struct pc *pc, const struct pc_config *config, struct error *err);

/* ---- pc_info.c ---- */

/* What firmware finds in CMOS and in fw_cfg. */
int pc_info_create(struct pc *pc, const struct pc_config *config, struct error *err);
/* The tables for the chipset as it is configured now. */
void pc_build_acpi(struct pc *pc);
void pc_build_smbios(struct pc *pc, gpa_t tables);
/* The UUID was loaded: firmware shall find that one. */
void pc_identity_changed(struct pc *pc);
/* For a kernel: what RAM there is once board_post() has run. */
void pc_memory_map(struct pc *pc, struct memory_map *map);

/* ---- post.c ---- */

#define BOARD_ROM_BYTES (128 * KiB)

/* The ROM of a machine without firmware: a reset vector that resets, and what
 * interrupt vectors point to. rom: BOARD_ROM_BYTES of zeros. */
void board_rom_fill(uint8_t *rom);
/* Does what firmware would have done before it loads an operating system;
 * *rsdp: where the ACPI tables start. */
void board_post(struct pc *pc, gpa_t *rsdp);

/* ---- post_vga.c ---- */

/* A text screen of 80 x 25 characters; false: there is no display adapter. */
bool post_vga(struct pc *pc);

#endif
