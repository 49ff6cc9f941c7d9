/*
 * The board "pc": Intel Q35 (MCH, datasheet 316966) and ICH9 (316972).
 *
 * Memory, as a guest sees it:
 *
 *     0000000000  RAM
 *     00000A0000  the VGA's, or nothing
 *     00000C0000  by PAM: RAM or nothing                        } MCH
 *     00000E0000  by PAM: RAM or the ROM's last 128 KiB         }
 *     0000100000  RAM, to 80000000 at most
 *     0080000000  PCI hole; ECAM is where PCIEXBAR says
 *     00FEC00000  IOAPIC
 *     00FED00000  HPET
 *     00FEE00000  local APICs (each processor sees its own)
 *     ..FFFFFFFF  ROM, ending here: firmware, or the stub of post.c; with UEFI
 *                 from FFC84000, and the flash with its variables from FFC00000
 *     0100000000  the rest of the RAM
 *
 * Interrupts:
 *
 *     8254 --- IRQ 0 --+ HPET may      +-- 8259 x 2 --- INTR --- LINT0, cpu 0
 *     RTC  --- IRQ 8 --+ take these    |       |
 *     i8042 -- IRQ 1   |               |     IOAPIC 0
 *     COM ---- IRQ 4,3 +-- ISA lines --+
 *     FERR# -- IRQ 13  |               |
 *     SCI ---- IRQ 9 --+               +-- IOAPIC (0 -> 2) --- messages ---+
 *     INTx --- PIRQA-H ------------------- IOAPIC 16-23                    |
 *              PIRQx_ROUT -> 8259                                          v
 *     MSI, HPET's messages ----------------------------------------> local APICs
 *
 * pc_create() is the whole of it, in the order in which one part needs
 * another. Whatever fails leaves the vm to be destroyed by its owner.
 */
#include "board/pc.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "board/pc_internal.h"
#include "boot/firmware.h"
#include "dev/display/vga.h"
#include "dev/input/i8042.h"
#include "dev/input/ps2_keyboard.h"
#include "dev/input/ps2_mouse.h"
#include "dev/misc/debug_port.h"
#include "dev/misc/fw_cfg.h"
#include "dev/serial/uart16550.h"
#include "dev/timer/hpet.h"
#include "dev/timer/i8254.h"

#define KEYBOARD_IRQ 1
#define MOUSE_IRQ 12

/* ---- the configuration ---- */

static int config_check(const struct pc_config *c, struct error *err)
{
    if (c->memory_bytes % MiB || c->memory_bytes < PC_MIN_MEMORY || c->memory_bytes > PC_MAX_MEMORY)
        return error_set(err, -EINVAL,
                         "--memory is a whole number of MiB from %llu MiB to "
                         "%llu GiB",
                         (unsigned long long)(PC_MIN_MEMORY / MiB),
                         (unsigned long long)(PC_MAX_MEMORY / GiB));
    if (c->cpus < 1 || c->cpus > VM_MAX_VCPUS)
        return error_set(err, -EINVAL, "--cpus is a number from 1 to %d", VM_MAX_VCPUS);
    if (!c->kernel && !c->firmware)
        return error_set(err, -EINVAL, "nothing to start: give --kernel FILE or --firmware bios");
    if (c->kernel && c->firmware)
        return error_set(err, -EINVAL,
                         "both --kernel and --firmware were given; a kernel is "
                         "started without firmware");
    if (c->uefi_vars && !firmware_is_uefi(c->firmware))
        return error_set(err, -EINVAL, "--uefi-vars goes with --firmware uefi");
    if (!c->kernel && (c->initrd_count || c->append))
        return error_set(err, -EINVAL, "--initrd and --append go with --kernel");
    return 0;
}

/* ---- memory ---- */

static int create_memory(struct pc *pc, const struct pc_config *c, struct error *err)
{
    pc->low_ram_bytes = MIN(c->memory_bytes, Q35_LOW_RAM_END);
    pc->high_ram_bytes = c->memory_bytes - pc->low_ram_bytes;
    pc->ram = ram_block_create(pc->vm, "ram", c->memory_bytes, RAM_NORMAL, err);
    return pc->ram ? pc_firmware_create(pc, c, err) : -ENOMEM;
}

/* ---- processors ---- */

static int create_cpus(struct pc *pc, const struct pc_config *c, struct error *err)
{
    int ret = x86_model_parse(&pc->model, c->cpu, err);

    if (ret)
        return ret;
    pc->model.cpu_count = c->cpus;
    /* OVMF maps all that a processor can address, in pages of 2 MiB and not
     * fast: 46 bits would cost it minutes and half a gigabyte. */
    if (firmware_is_uefi(c->firmware))
        pc->model.phys_bits = MIN(pc->model.phys_bits, UEFI_PHYS_BITS);
    if (4 * GiB + pc->high_ram_bytes > BIT(pc->model.phys_bits))
        return error_set(err, -EINVAL,
                         "the processor model '%s' addresses %llu GiB; give less "
                         "--memory",
                         pc->model.name, (unsigned long long)(BIT(pc->model.phys_bits) / GiB));
    pc->apic_bus = apic_bus_create(pc->vm);
    if (!pc->apic_bus)
        return error_set(err, -ENOMEM, "out of memory");
    for (unsigned n = 0; n < c->cpus; n++) {
        struct x86_vcpu *cpu = x86_vcpu_create(pc->vm, &pc->model, c->engine,
                                               &c->engine_options, err);

        if (!cpu)
            return -ENOMEM;
        apic_bus_add(pc->apic_bus, cpu);
        cpu->ferr = pc_ferr_line(pc, n);
        pc->cpu[n] = cpu;
        pc->cpu_count = n + 1;
    }
    return 0;
}

/* ---- interrupt controllers and timers ---- */

static int create_interrupts(struct pc *pc, struct error *err)
{
    struct i8259_config pic = {.intr = pc_intr_line(pc)};
    struct ioapic_config ioapic = {.port = apic_bus_port(pc->apic_bus)};

    pc->pic = i8259_create(pc->vm, &pic, err);
    if (!pc->pic)
        return -ENOMEM;
    for (unsigned n = 0; n < PC_ISA_IRQS; n++)
        pc->pic_input[n] = i8259_input(pc->pic, n);
    for (unsigned n = 0; n < pc->cpu_count; n++) {
        pc->cpu[n]->intr_ack = pc_intr_ack;
        pc->cpu[n]->intr_ack_ctx = pc;
    }

    pc->ioapic = ioapic_create(pc->vm, &ioapic, err);
    if (!pc->ioapic)
        return -ENOMEM;
    for (unsigned n = 0; n < IOAPIC_PINS; n++)
        pc->ioapic_input[n] = ioapic_input(pc->ioapic, n);
    apic_bus_on_eoi(pc->apic_bus, ioapic_eoi, pc->ioapic);
    return 0;
}

static int create_timers(struct pc *pc, struct error *err)
{
    struct i8254_config pit = {.irq0 = pc_pit_line(pc), .irq0_probe = pc_clock_probe(pc)};
    struct rtc_config rtc = {.irq8 = pc_rtc_line(pc)};
    struct hpet_config hpet = {
        .legacy = pc_hpet_legacy_line(pc),
        .irq0 = pc_isa_line(pc, 0, SOURCE_HPET_LEGACY),
        .irq8 = pc_isa_line(pc, 8, SOURCE_HPET_LEGACY),
        .irq0_probe = pc_clock_probe(pc),
        .port = apic_bus_port(pc->apic_bus),
    };

    /* Inputs that no ISA device drives an edge into. */
    hpet.gsi[2] = pc_ioapic_line(pc, 2, SOURCE_HPET);
    hpet.gsi[8] = pc_ioapic_line(pc, 8, SOURCE_HPET);
    for (unsigned n = 16; n < IOAPIC_PINS; n++)
        hpet.gsi[n] = pc_ioapic_line(pc, n, SOURCE_HPET);
    if (!i8254_create(pc->vm, &pit, err))
        return -ENOMEM;
    pc->rtc = rtc_create(pc->vm, &rtc, err);
    if (!pc->rtc)
        return -ENOMEM;
    return hpet_create(pc->vm, &hpet, err) ? 0 : -ENOMEM;
}

/* ---- PCI: host bridge, LPC bridge, SATA ---- */

static int create_pci(struct pc *pc, const struct pc_config *c, struct error *err)
{
    struct irq_message_port messages = apic_bus_port(pc->apic_bus);
    struct q35_mch_config mch = {.ram = pc->ram, .bios = pc->rom};
    struct ich9_lpc_config lpc = {.init = pc_init_line(pc)};

    for (unsigned n = 0; n < PC_ISA_IRQS; n++)
        lpc.pic[n] = pc_pic_line(pc, n, SOURCE_LPC);
    for (unsigned n = 0; n < IOAPIC_PINS; n++)
        lpc.ioapic[n] = pc_ioapic_line(pc, n, SOURCE_LPC);
    pc->pci = pci_bus_create(pc->vm, &messages, err);
    if (!pc->pci || !q35_mch_create(pc->vm, pc->pci, &mch, err))
        return -ENOMEM;
    pc->lpc = ich9_lpc_create(pc->vm, pc->pci, &lpc, err);
    if (!pc->lpc)
        return -ENOMEM;
    pc->rtc_status = acpi_pm_rtc_line(ich9_lpc_pm(pc->lpc));
    return ahci_create(pc->vm, pc->pci, PC_SATA_DEVFN, &c->sata, err) ? 0 : -ENOMEM;
}

/* ---- the display adapter ---- */

static int create_vga(struct pc *pc, const struct pc_config *c, struct error *err)
{
    struct vga_config vga = {.devfn = PC_VGA_DEVFN, .rom_bytes = VGABIOS_MAX};
    struct image image;
    uint8_t *rom;
    int ret;

    if (!c->vga || !strcmp(c->vga, "none"))
        return 0;
    if (strcmp(c->vga, "std"))
        return error_set(err, -EINVAL, "--vga %.64s: use std or none", c->vga);
    ret = firmware_open_vga(&image, err);
    if (ret)
        return ret;
    rom = calloc(1, VGABIOS_MAX);
    ret = rom ? image_read(&image, 0, rom, image.bytes, err)
              : error_set(err, -ENOMEM, "out of memory");
    if (!ret) {
        vga.rom = rom;
        pc->vga = vga_create(pc->vm, pc->pci, &vga, err);
        ret = pc->vga ? 0 : -ENOMEM;
    }
    free(rom);
    image_close(&image);
    return ret;
}

/* ---- what the caller puts into the slots ---- */

_Static_assert(PC_FIRST_CARD + PC_MAX_CARDS <= 28, "root ports and the chipset are behind them");

int pc_add_card(struct pc_config *config,
                int (*create)(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                              const void *config, struct error *err),
                const void *card_config, struct error *err)
{
    if (config->card_count == PC_MAX_CARDS)
        return error_set(err, -E2BIG,
                         "too many disks, network adapters and other devices: there are %d slots",
                         PC_MAX_CARDS);
    config->cards[config->card_count++] =
        (struct pc_card){.create = create, .config = card_config};
    return 0;
}

void pc_add_boot(struct pc_config *config, struct pc_boot_device device)
{
    assert(config->boot_count < PC_MAX_BOOT);
    config->boot[config->boot_count++] = device;
}

static int create_cards(struct pc *pc, const struct pc_config *c, struct error *err)
{
    for (unsigned n = 0; n < c->card_count; n++) {
        int ret = c->cards[n].create(pc->vm, pc->pci, PCI_DEVFN(PC_FIRST_CARD + n, 0),
                                     c->cards[n].config, err);

        if (ret)
            return ret;
    }
    return 0;
}

bool pc_display(struct pc *pc, struct display_source *source)
{
    if (pc->vga)
        *source = vga_source(pc->vga);
    return pc->vga;
}

/* ---- what is on the LPC bus ---- */

static int create_serial(struct pc *pc, const struct pc_config *c, struct error *err)
{
    static const struct {
        const char *name;
        uint16_t port;
        uint8_t irq;
        enum pc_source source;
    } com[PC_COM_PORTS] = {
        {"serial0", 0x3f8, 4, SOURCE_ISA},
        {"serial1", 0x2f8, 3, SOURCE_ISA},
        {"serial2", 0x3e8, 4, SOURCE_ISA_SECOND},
        {"serial3", 0x2e8, 3, SOURCE_ISA_SECOND},
    };

    for (unsigned n = 0; n < PC_COM_PORTS; n++) {
        struct uart16550_config uart = {
            .name = com[n].name,
            .port = com[n].port,
            .irq = pc_isa_line(pc, com[n].irq, com[n].source),
            .chars = c->com[n],
        };

        if (n != 0 && !c->com[n])
            continue;
        if (!uart16550_create(pc->vm, &uart, err))
            return -ENOMEM;
        pc->com_ports |= (uint8_t)(1u << n);
    }
    pc->has_sercon = c->com[0] != NULL;
    return 0;
}

static int create_lpc_devices(struct pc *pc, const struct pc_config *c, struct error *err)
{
    struct i8042_config i8042 = {
        .keyboard_irq = pc_isa_line(pc, KEYBOARD_IRQ, SOURCE_ISA),
        .mouse_irq = pc_isa_line(pc, MOUSE_IRQ, SOURCE_ISA),
        .init = pc_init_line(pc),
    };
    int ret = create_serial(pc, c, err);

    if (ret)
        return ret;
    pc->keyboard = ps2_keyboard_create(pc->vm, "keyboard", err);
    if (!pc->keyboard)
        return -ENOMEM;
    i8042.keyboard = ps2_keyboard_device(pc->keyboard);
    if (pc->vga) { /* where there is no screen, nobody points at anything */
        pc->mouse = ps2_mouse_create(pc->vm, "mouse", err);
        if (!pc->mouse)
            return -ENOMEM;
        i8042.mouse = ps2_mouse_device(pc->mouse);
    }
    if (!i8042_create(pc->vm, &i8042, err))
        return -ENOMEM;
    if (!debug_port_create(pc->vm, c->debug, err))
        return -ENOMEM;
    ret = pc_fpu_port_create(pc, err);
    if (ret)
        return ret;
    pc->fw_cfg = fw_cfg_create(pc->vm, err);
    return pc->fw_cfg ? 0 : -ENOMEM;
}

/* ---- start ---- */

/* At power-on and after each reset, with everything in its reset state.
 * Firmware is at the reset vector already. */
static int pc_start(void *board, struct error *err)
{
    struct pc *pc = board;
    struct memory_map map;
    struct boot_handoff handoff = {.map = &map};

    if (!pc->kernel)
        return 0;
    board_post(pc, &handoff.rsdp);
    handoff.text_screen = post_vga(pc);
    pc_memory_map(pc, &map);
    return boot_kernel_load(pc->kernel, pc->vm, pc->cpu[0], &handoff, err);
}

static void pc_shutdown(void *board, struct vcpu *v)
{
    struct pc *pc = board;

    if (pc->on_shutdown)
        pc->on_shutdown(pc->on_shutdown_ctx, pc->cpu[v->index]);
}

int pc_create(struct vm *vm, const struct pc_config *config, struct pc **out, struct error *err)
{
    struct boot_kernel_config kernel = {
        .kernel = config->kernel,
        .initrd = config->initrd,
        .initrd_count = config->initrd_count,
        .append = config->append,
    };
    struct pc *pc;
    int ret = config_check(config, err);

    if (ret)
        return ret;
    pc = calloc(1, sizeof *pc);
    if (!pc)
        return error_set(err, -ENOMEM, "out of memory");
    pc->vm = vm;
    pc->uefi_vars.fd = -1;
    pc->on_shutdown = config->on_shutdown;
    pc->on_shutdown_ctx = config->on_shutdown_ctx;
    pc_wiring_create(pc); /* from here on the vm owns it */

    if (config->kernel) {
        ret = boot_kernel_open(&kernel, &pc->kernel, err);
        if (ret)
            return ret;
    }
    if ((ret = create_memory(pc, config, err)) || (ret = create_cpus(pc, config, err)) ||
        (ret = create_interrupts(pc, err)) || (ret = create_timers(pc, err)) ||
        (ret = create_pci(pc, config, err)) || (ret = create_vga(pc, config, err)) ||
        (ret = create_cards(pc, config, err)) ||
        (ret = create_lpc_devices(pc, config, err)) ||
        (ret = pc_info_create(pc, config, err)) || (ret = pc_devices_create(pc, config, err)))
        return ret;

    vm->board = pc;
    vm->after_reset = pc_start;
    vm->on_shutdown = pc_shutdown;
    vm_lock(vm);
    ret = pc_start(pc, err);
    vm_unlock(vm);
    if (ret)
        return ret;
    *out = pc;
    return 0;
}

struct x86_vcpu *pc_cpu(struct pc *pc, unsigned index)
{
    return index < pc->cpu_count ? pc->cpu[index] : NULL;
}

struct pci_bus *pc_pci_bus(struct pc *pc)
{
    return pc->pci;
}

struct ps2_keyboard *pc_keyboard(struct pc *pc)
{
    return pc->keyboard;
}

struct ps2_mouse *pc_mouse(struct pc *pc)
{
    return pc->mouse;
}

void pc_power_button(struct pc *pc)
{
    acpi_pm_power_button(ich9_lpc_pm(pc->lpc));
}
