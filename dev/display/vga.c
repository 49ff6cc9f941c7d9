/*
 * The VGA as a PCI function: BARs, ROM, which addresses it claims, its state.
 * See vga.h, and vga_internal.h for its parts.
 *
 * The legacy addresses follow the command register: ports with its I/O bit,
 * A0000H-BFFFFH with its memory bit (PCI 3.0, 3.10: VGA devices claim them).
 *
 * Threading: with the machine's lock held.
 */
#include "dev/display/vga.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/display/vga_internal.h"

enum {
    BAR_MEMORY = 0,
    BAR_MMIO = 2,
    MMIO_BYTES = 4096,
    DISPI_INDEX_PORT = 0x1CE,
    DISPI_DATA_PORT = 0x1CF,
    ROM_MAX = 64 * KiB,
};

/* Of the chipset's own priority; memory that hides A0000H has a higher one. */
#define VGA_PRIORITY 1

/* ---- addresses ---- */

static void ports_update(struct vga *v)
{
    struct region *ports[] = {&v->mono_ports, &v->vga_ports, &v->dispi_index_port,
                              &v->dispi_data_port};
    bool on = pci_command_of(&v->pci) & PCI_COMMAND_IO;

    address_space_begin(&v->vm->ports);
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        if (ports[i]->enabled != on)
            region_enable(ports[i], on);
    }
    address_space_commit(&v->vm->ports);
}

static void vga_config_written(void *ctx, unsigned offset, unsigned size)
{
    struct vga *v = ctx;

    if (offset < PCI_COMMAND + 2 && PCI_COMMAND < offset + size) {
        ports_update(v);
        vga_window_update(v);
    }
}

static int add_ports(struct vga *v, struct region *r, const char *name, uint64_t base,
                     uint64_t size, const struct region_ops *ops)
{
    int code;

    *r = (struct region){
        .name = name, .base = base, .size = size, .priority = VGA_PRIORITY, .ops = ops, .ctx = v};
    code = region_add(&v->vm->ports, r);
    if (!code)
        region_enable(r, false);
    return code;
}

static int add_memory(struct vga *v, struct region *r, const struct region *template)
{
    int code;

    *r = *template;
    r->priority = VGA_PRIORITY;
    code = region_add(&v->vm->memory, r);
    if (!code)
        region_enable(r, false);
    return code;
}

static int add_regions(struct vga *v)
{
    const struct region window = {.name = "vga-window",
                                  .base = VGA_WINDOW_BASE,
                                  .size = VGA_WINDOW_BYTES,
                                  .ops = &vga_window_ops,
                                  .ctx = v};
    const struct region linear = {.name = "vga-linear",
                                  .base = VGA_WINDOW_BASE,
                                  .size = VGA_BANK_BYTES,
                                  .ram = v->vram};
    const struct region text = {.name = "vga-text",
                                .base = 0xB8000,
                                .size = VGA_TEXT_BYTES,
                                .ram = v->text};
    int code;

    /* Nothing is seen before all are off again. */
    address_space_begin(&v->vm->ports);
    address_space_begin(&v->vm->memory);
    if ((code = add_ports(v, &v->mono_ports, "vga-mono", PORT_MONO_FIRST, PORT_MONO_COUNT,
                          &vga_mono_port_ops)) == 0 &&
        (code = add_ports(v, &v->vga_ports, "vga", PORT_VGA_FIRST, PORT_VGA_COUNT,
                          &vga_port_ops)) == 0 &&
        (code = add_ports(v, &v->dispi_index_port, "dispi-index", DISPI_INDEX_PORT, 1,
                          &vga_dispi_index_ops)) == 0 &&
        (code = add_ports(v, &v->dispi_data_port, "dispi-data", DISPI_DATA_PORT, 2,
                          &vga_dispi_data_ops)) == 0 &&
        /* Of equal priorities the last hides those before it. */
        (code = add_memory(v, &v->window, &window)) == 0 &&
        (code = add_memory(v, &v->linear, &linear)) == 0)
        code = add_memory(v, &v->text_window, &text);
    address_space_commit(&v->vm->memory);
    address_space_commit(&v->vm->ports);
    return code;
}

static void remove_regions(struct vga *v)
{
    struct region *all[] = {&v->mono_ports, &v->vga_ports, &v->dispi_index_port,
                            &v->dispi_data_port, &v->window, &v->linear, &v->text_window};

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        if (all[i]->as)
            region_remove(all[i]);
    }
}

/* ---- life ---- */

static void vga_reset(void *self)
{
    struct vga *v = self;

    pci_function_reset(&v->pci);
    vga_registers_reset(v);
    vga_dispi_reset(v);
    ports_update(v);
    vga_window_update(v);
}

static void vga_destroy(void *self)
{
    struct vga *v = self;

    remove_regions(v);
    pci_function_destroy(&v->pci);
    vga_drawn_free(v);
    free(v);
}

static int vga_after_load(void *self, unsigned version)
{
    struct vga *v = self;

    pci_function_restored(&v->pci);
    vga_registers_mask(v);
    vga_dispi_mask(v);
    ports_update(v);
    vga_window_restored(v);
    return 0;
}

static const struct state_field vga_fields[] = {
    STATE_STRUCT(struct vga, pci, &pci_function_state),
    STATE_INT(struct vga, misc),
    STATE_INT(struct vga, feature),
    STATE_INT(struct vga, enable),
    STATE_INT(struct vga, sequencer_index),
    STATE_BYTES(struct vga, sequencer),
    STATE_INT(struct vga, graphics_index),
    STATE_BYTES(struct vga, graphics),
    STATE_INT(struct vga, crtc_index),
    STATE_BYTES(struct vga, crtc),
    STATE_INT(struct vga, attribute_index),
    STATE_BYTES(struct vga, attribute),
    STATE_INT(struct vga, attribute_data),
    STATE_INT(struct vga, dac_mask),
    STATE_INT(struct vga, dac_index),
    STATE_INT(struct vga, dac_component),
    STATE_INT(struct vga, dac_reading),
    STATE_BYTES(struct vga, dac_staged),
    STATE_BYTES(struct vga, dac),
    STATE_INT(struct vga, latch),
    STATE_INT(struct vga, dispi_index),
    STATE_INTS(struct vga, dispi),
    STATE_END,
};

static const struct state_table vga_state = {"vga", 1, vga_fields, NULL, vga_after_load};

static const struct dev_type vga_type = {
    .name = "vga",
    .reset = vga_reset,
    .destroy = vga_destroy,
    .state = &vga_state,
};

static int create_memory(struct vga *v, const struct vga_config *c, struct error *err)
{
    uint64_t bytes = c->memory_bytes ? c->memory_bytes : VGA_DEFAULT_BYTES;

    if ((bytes & (bytes - 1)) || bytes < VGA_MIN_BYTES || bytes > VGA_MAX_BYTES)
        return error_set(err, -EINVAL, "video memory is a power of two from 1 to 256 MiB");
    if (c->rom && (c->rom_bytes > ROM_MAX || c->rom_bytes < 4 * KiB ||
                   (c->rom_bytes & (c->rom_bytes - 1))))
        return error_set(err, -EINVAL, "the video BIOS has %llu bytes, not a power of two up to "
                         "64 KiB", (unsigned long long)c->rom_bytes);
    v->vram_mask = (uint32_t)(bytes - 1);
    v->vram = ram_block_create(v->vm, "vram", bytes, RAM_NORMAL, err);
    if (v->vram)
        v->text = ram_block_create(v->vm, "vga-text", VGA_TEXT_BYTES, RAM_NORMAL, err);
    if (!v->vram || !v->text)
        return -ENOMEM;
    if (!c->rom)
        return 0;
    v->rom = ram_block_create(v->vm, "vga-rom", c->rom_bytes, RAM_ROM, err);
    if (!v->rom)
        return -ENOMEM;
    memcpy(v->rom->host, c->rom, c->rom_bytes);
    return 0;
}

struct vga *vga_create(struct vm *vm, struct pci_bus *bus, const struct vga_config *config,
                       struct error *err)
{
    static const struct pci_identity identity = {
        .vendor = 0x1234,
        .device = 0x1111,
        .subsystem_vendor = 0x1AF4,
        .subsystem = 0x1100,
        .class_code = 0x030000,
        .revision = 2, /* has BAR 2 */
    };
    struct vga *v = calloc(1, sizeof *v);
    int code;

    if (!v) {
        error_set(err, -ENOMEM, "out of memory for the display adapter");
        return NULL;
    }
    vga_edid_fill(v->edid);
    v->vm = vm;
    if (create_memory(v, config, err) < 0 ||
        pci_function_init(&v->pci, bus, config->devfn, &identity, err) < 0) {
        free(v);
        return NULL;
    }
    v->pci.config_written = vga_config_written;
    v->pci.reset = vga_reset;
    v->pci.ctx = v;
    code = pci_bar_add_ram(&v->pci, BAR_MEMORY, PCI_BAR_MEMORY32, "vga-memory", v->vram->bytes,
                           v->vram, err);
    if (!code)
        code = pci_bar_add(&v->pci, BAR_MMIO, PCI_BAR_MEMORY32, false, "vga-mmio", MMIO_BYTES,
                           &vga_mmio_ops, v, err);
    if (!code && v->rom)
        code = pci_rom_add(&v->pci, "vga-rom", v->rom->bytes, v->rom, err);
    if (!code) {
        code = add_regions(v);
        if (code)
            error_set(err, code, "out of memory for the display adapter");
    }
    if (code) {
        remove_regions(v);
        pci_function_destroy(&v->pci);
        free(v);
        return NULL;
    }
    vga_reset(v);
    vm_add_device(vm, &vga_type, "vga", v);
    return v;
}

struct display_source vga_source(struct vga *v)
{
    return (struct display_source){vga_kind, vga_render, vga_text, v};
}

const uint8_t *vga_rom(const struct vga *v, uint64_t *bytes)
{
    *bytes = v->rom ? v->rom->bytes : 0;
    return v->rom ? v->rom->host : NULL;
}
