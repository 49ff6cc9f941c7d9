/*
 * The 82540EM as a function on the bus: configuration space, interrupts and
 * their moderation, the link, reset, saved state. Interface: e1000.h.
 *
 * The adapter does not answer to itself: an access to its registers that its own
 * DMA makes reads as ones and writes nothing, as on a bus where it is the master.
 */
#include "dev/net/e1000.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/net/e1000_internal.h"

enum {
    BAR_MEMORY = 0,
    BAR_PORTS = 2, /* BAR 1 would be the flash (table 4-2) */
    PORT_BYTES = 64,
    CAPABILITY_POWER = 0xDC,
    CAPABILITY_MSI = 0xF0,
    ROM_MAX = 1 << 20,
    /* What negotiating takes here; on a wire it is seconds. */
    NEGOTIATION_NS = 10000000,
};

int e1000_dma_read(struct e1000 *e, uint64_t address, void *buf, uint64_t bytes)
{
    int ret;

    e->dma_depth++;
    ret = pci_dma_read(&e->pci, address, buf, bytes);
    e->dma_depth--;
    return ret;
}

int e1000_dma_write(struct e1000 *e, uint64_t address, const void *buf, uint64_t bytes)
{
    int ret;

    e->dma_depth++;
    ret = pci_dma_write(&e->pci, address, buf, bytes);
    e->dma_depth--;
    return ret;
}

/* ---- statistics ---- */

void e1000_count(struct e1000 *e, unsigned statistic, uint64_t by)
{
    e->statistics[statistic] = (uint32_t)MIN(e->statistics[statistic] + by, UINT32_MAX);
}

void e1000_count_bytes(struct e1000 *e, unsigned statistic, uint64_t by)
{
    uint64_t sum = (uint64_t)e->statistics[statistic + 1] << 32 | e->statistics[statistic];

    sum += by;
    e->statistics[statistic] = (uint32_t)sum;
    e->statistics[statistic + 1] = (uint32_t)(sum >> 32);
}

unsigned e1000_size_class(uint32_t bytes)
{
    static const uint16_t last[] = {64, 127, 255, 511, 1023};
    unsigned n = 0;

    while (n < ARRAY_SIZE(last) && bytes > last[n])
        n++;
    return n;
}

/* ---- interrupts (13.4.17-22) ---- */

/* The line rises at most once in an interval of ITR, and falls at once. */
void e1000_update_interrupt(struct e1000 *e)
{
    uint64_t interval = (uint64_t)e->reg[REG_ITR / 4] * INTERRUPT_TICK_NS, now;

    if (!(e->icr & e->ims)) {
        timer_cancel(&e->interrupt_timer);
        e->asserted = false;
        pci_interrupt_set(&e->pci, false);
        return;
    }
    if (e->asserted)
        return;
    now = clock_now_ns(&e->vm->clock);
    if (interval && now < e->next_interrupt_ns) {
        /* An interval that was shortened holds from now on. */
        e->next_interrupt_ns = MIN(e->next_interrupt_ns, now + interval);
        timer_arm(&e->interrupt_timer, e->next_interrupt_ns);
        return;
    }
    e->next_interrupt_ns = now + interval;
    e->asserted = true;
    pci_interrupt_set(&e->pci, true);
}

static void interrupt_timer_fired(void *ctx)
{
    e1000_update_interrupt(ctx);
}

void e1000_raise(struct e1000 *e, uint32_t causes)
{
    e->icr |= causes;
    e1000_update_interrupt(e);
}

/* ---- delayed interrupts (13.4.30, 13.4.44): relative and absolute ---- */

void e1000_delay_flush(struct e1000 *e, struct e1000_delay *d, uint32_t cause)
{
    bool waits = d->absolute_ns != TIME_NEVER;

    timer_cancel(&d->timer);
    d->absolute_ns = TIME_NEVER;
    if (waits)
        e1000_raise(e, cause);
}

void e1000_delay(struct e1000 *e, struct e1000_delay *d, uint32_t delay, uint32_t absolute,
                 uint32_t cause)
{
    uint64_t now;

    if (!delay) {
        timer_cancel(&d->timer);
        d->absolute_ns = TIME_NEVER;
        e1000_raise(e, cause);
        return;
    }
    now = clock_now_ns(&e->vm->clock);
    if (d->absolute_ns == TIME_NEVER)
        d->absolute_ns = absolute ? now + (uint64_t)absolute * DELAY_TICK_NS : TIME_NEVER - 1;
    timer_arm(&d->timer, MIN(now + (uint64_t)delay * DELAY_TICK_NS, d->absolute_ns));
}

static void rx_delay_fired(void *ctx)
{
    struct e1000 *e = ctx;

    e1000_delay_flush(e, &e->rx_delay, INT_RXT0);
}

static void tx_delay_fired(void *ctx)
{
    struct e1000 *e = ctx;

    e1000_delay_flush(e, &e->tx_delay, INT_TXDW);
}

/* ---- the link ---- */

void e1000_negotiate(struct e1000 *e)
{
    if (e->link_up) {
        e->link_up = false;
        e1000_raise(e, INT_LSC);
    }
    if (net_link(e->net))
        timer_arm(&e->link_timer, clock_now_ns(&e->vm->clock) + NEGOTIATION_NS);
}

static void link_timer_fired(void *ctx)
{
    struct e1000 *e = ctx;

    e->link_up = true;
    e1000_raise(e, INT_LSC);
    net_kick(e->net);
}

/* ---- reset (14.9) ---- */

void e1000_soft_reset(struct e1000 *e)
{
    memset(e->reg, 0, sizeof e->reg);
    memset(e->statistics, 0, sizeof e->statistics);
    e->reg[REG_CTRL / 4] = CTRL_FD | CTRL_SPEED_1000 | CTRL_SLU;
    e->reg[REG_PBA / 4] = 48;
    e->reg[REG_LEDCTL / 4] = 0x07061302;
    e->reg[REG_TIPG / 4] = 0x00602008;
    e->reg[REG_RA / 4] = le32_get(&e->eeprom[0]);
    e->reg[REG_RA / 4 + 1] = e->eeprom[2] | RAH_VALID;
    e->eeprom_in = e->eeprom_count = e->eeprom_out_count = 0;
    e->eeprom_writable = false;
    e->icr = e->ims = 0;
    e->next_interrupt_ns = 0;
    e->is_starved = false;
    memset(&e->context, 0, sizeof e->context);
    e1000_transmit_reset(e);
    timer_cancel(&e->rx_delay.timer);
    timer_cancel(&e->tx_delay.timer);
    e->rx_delay.absolute_ns = e->tx_delay.absolute_ns = TIME_NEVER;
    e1000_update_interrupt(e);
}

static void e1000_reset(void *self)
{
    struct e1000 *e = self;

    pci_function_reset(&e->pci);
    e->io_address = 0;
    e1000_phy_reset(e);
    timer_cancel(&e->link_timer);
    e->link_up = net_link(e->net);
    e1000_soft_reset(e);
}

/* By the guest, through configuration space; not by the adapter's own DMA. */
static void function_reset(void *ctx)
{
    struct e1000 *e = ctx;

    if (!e->dma_depth)
        e1000_reset(e);
}

/* Bus mastering may be on now. */
static void config_written(void *ctx, unsigned offset, unsigned size)
{
    struct e1000 *e = ctx;

    if (!e->dma_depth && offset <= PCI_COMMAND + 1 && pci_is_master(&e->pci))
        net_kick(e->net);
}

static void e1000_destroy(void *self)
{
    struct e1000 *e = self;

    timer_destroy(&e->interrupt_timer);
    timer_destroy(&e->link_timer);
    timer_destroy(&e->rx_delay.timer);
    timer_destroy(&e->tx_delay.timer);
    pci_function_destroy(&e->pci);
    free(e);
}

/* ---- state ---- */

static int e1000_after_load(void *self, unsigned version)
{
    struct e1000 *e = self;

    pci_function_restored(&e->pci);
    if (e->tx.bytes > sizeof e->tx.data - NET_VLAN_BYTES || e->eeprom_count > 32 ||
        e->eeprom_out_count > 17 || e->reg[REG_PBA / 4] > 64)
        return -EINVAL;
    for (unsigned n = 0; n < REG_KEPT_END / 4; n++) {
        uint32_t mask = e1000_register_mask(n * 4);

        if (mask)
            e->reg[n] &= mask;
    }
    e->icr &= INT_ALL;
    e->ims &= INT_ALL;
    e->is_starved = true; /* whatever waits here, the next descriptors are told of */
    net_restored(e->net);
    return 0;
}

static const struct state_field e1000_fields[] = {
    STATE_STRUCT(struct e1000, pci, &pci_function_state),
    STATE_INTS(struct e1000, reg),
    STATE_INTS(struct e1000, statistics),
    STATE_INT(struct e1000, io_address),
    STATE_INT(struct e1000, icr),
    STATE_INT(struct e1000, ims),
    STATE_INT(struct e1000, asserted),
    STATE_INT(struct e1000, next_interrupt_ns),
    STATE_TIMER(struct e1000, interrupt_timer),
    STATE_TIMER(struct e1000, link_timer),
    STATE_TIMER(struct e1000, rx_delay.timer),
    STATE_INT(struct e1000, rx_delay.absolute_ns),
    STATE_TIMER(struct e1000, tx_delay.timer),
    STATE_INT(struct e1000, tx_delay.absolute_ns),
    STATE_INTS(struct e1000, eeprom),
    STATE_INT(struct e1000, eeprom_in),
    STATE_INT(struct e1000, eeprom_count),
    STATE_INT(struct e1000, eeprom_out),
    STATE_INT(struct e1000, eeprom_out_count),
    STATE_INT(struct e1000, eeprom_writable),
    STATE_INTS(struct e1000, phy),
    STATE_INT(struct e1000, link_up),
    STATE_INT(struct e1000, context.ip_start),
    STATE_INT(struct e1000, context.ip_offset),
    STATE_INT(struct e1000, context.transport_start),
    STATE_INT(struct e1000, context.transport_offset),
    STATE_INT(struct e1000, context.header_bytes),
    STATE_INT(struct e1000, context.command),
    STATE_INT(struct e1000, context.ip_end),
    STATE_INT(struct e1000, context.transport_end),
    STATE_INT(struct e1000, context.mss),
    STATE_INT(struct e1000, context.payload_bytes),
    STATE_INT(struct e1000, tx.bytes),
    STATE_INT(struct e1000, tx.started),
    STATE_INT(struct e1000, tx.too_long),
    STATE_INT(struct e1000, tx.is_legacy),
    STATE_INT(struct e1000, tx.segmented),
    STATE_INT(struct e1000, tx.popts),
    STATE_INT(struct e1000, tx.vlan),
    STATE_INT(struct e1000, tx.vlan_tag),
    STATE_BYTES(struct e1000, tx.data),
    STATE_END,
};

static const struct state_table e1000_state = {
    .name = "e1000",
    .version = 1,
    .fields = e1000_fields,
    .after_load = e1000_after_load,
};

static const struct dev_type e1000_type = {
    .name = "e1000",
    .reset = e1000_reset,
    .destroy = e1000_destroy,
    .state = &e1000_state,
};

/* ---- creation ---- */

static int add_rom(struct e1000 *e, const struct e1000_config *c, struct error *err)
{
    uint64_t bytes = 4 * KiB;

    if (!c->rom)
        return 0;
    if (!c->rom_bytes || c->rom_bytes > ROM_MAX)
        return error_set(err, -EINVAL, "a network adapter's ROM has 1 byte to 1 MiB");
    while (bytes < c->rom_bytes)
        bytes *= 2;
    e->rom = ram_block_create(e->vm, "e1000-rom", bytes, RAM_ROM, err);
    if (!e->rom)
        return -ENOMEM;
    memcpy(e->rom->host, c->rom, c->rom_bytes);
    return pci_rom_add(&e->pci, "e1000-rom", bytes, e->rom, err);
}

static int add_registers(struct e1000 *e, struct error *err)
{
    int ret = pci_bar_add(&e->pci, BAR_MEMORY, PCI_BAR_MEMORY32, false, "e1000", REG_BYTES,
                          &e1000_memory_ops, e, err);

    if (!ret)
        ret = pci_bar_add(&e->pci, BAR_PORTS, PCI_BAR_IO, false, "e1000-ports", PORT_BYTES,
                          &e1000_port_ops, e, err);
    if (ret)
        return ret;
    e->pci.next_capability = CAPABILITY_POWER;
    ret = pci_power_add(&e->pci, err);
    if (ret)
        return ret;
    e->pci.next_capability = CAPABILITY_MSI;
    return pci_msi_add(&e->pci, 1, false, err);
}

int e1000_card(struct vm *vm, struct pci_bus *bus, uint8_t devfn, const void *config,
               struct error *err)
{
    const struct e1000_config *c = config;
    const struct pci_identity id = {
        .vendor = 0x8086,
        .device = 0x100E,
        .subsystem_vendor = 0x8086,
        .subsystem = 0x001E, /* PRO/1000 MT Desktop */
        .class_code = 0x020000,
        .revision = 2,
        .interrupt_pin = 1,
    };
    struct net_adapter adapter = {.take = e1000_take, .give = e1000_give};
    struct e1000 *e = calloc(1, sizeof *e);
    int ret;

    if (!e)
        return error_set(err, -ENOMEM, "out of memory for a network adapter");
    e->vm = vm;
    e->net = c->net;
    memcpy(e->mac, c->mac, sizeof e->mac);
    ret = pci_function_init(&e->pci, bus, devfn, &id, err);
    if (ret) {
        free(e);
        return ret;
    }
    e->pci.config_written = config_written;
    e->pci.reset = function_reset;
    e->pci.ctx = e;
    ret = add_registers(e, err);
    if (!ret)
        ret = add_rom(e, c, err);
    if (ret) {
        pci_function_destroy(&e->pci);
        free(e);
        return ret;
    }
    timer_init(&e->interrupt_timer, vm, interrupt_timer_fired, e);
    timer_init(&e->link_timer, vm, link_timer_fired, e);
    timer_init(&e->rx_delay.timer, vm, rx_delay_fired, e);
    timer_init(&e->tx_delay.timer, vm, tx_delay_fired, e);
    e1000_eeprom_fill(e);
    adapter.ctx = e;
    net_attach(c->net, &adapter);
    e1000_reset(e);
    vm_add_device(vm, &e1000_type, c->name, e);
    return 0;
}
