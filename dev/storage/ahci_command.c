/*
 * The command list (AHCI 1.3.1, sections 4.2.2, 5.3 and 6): commands from PxCI
 * to their end.
 *
 * One command that is not queued at a time, and up to 32 queued ones; which it
 * is the device says. What needs no time ends within the write to PxCI; the
 * rest goes to the disk piece by piece, each piece's end starting the next.
 *
 * An error that the device reports, or a table that cannot be, halts the port
 * until software clears and sets PxCMD.ST, as it has to (6.2.2). Software that
 * stops a port while data moves sees PxCMD.CR set until it has moved.
 */
#include <errno.h>
#include <stdlib.h>

#include "dev/storage/ahci_internal.h"

#define ATA_PACKET 0xA0
#define ATA_RANGE_BYTES 8 /* of DATA SET MANAGEMENT's list */

static struct ahci_slot_state *state_of(struct ahci_slot *slot)
{
    return &slot->port->state[slot->number];
}

static struct ata_action action_of(const struct ahci_slot_state *s)
{
    return (struct ata_action){
        .kind = s->kind,
        .transfer = s->transfer,
        .fua = s->fua,
        .tag = s->tag,
        .offset = s->offset,
        .bytes = s->bytes,
    };
}

/* ---- the end of a command ---- */

static void free_slot(struct ahci_slot *slot)
{
    dma_piece_forget(&slot->piece);
    memset(state_of(slot), 0, sizeof *state_of(slot));
}

/* The port stops where it is; what else is under way ends without a word. */
static void halt(struct ahci_port *p, uint32_t interrupt)
{
    p->halted = true;
    ahci_port_stop(p);
    ahci_port_interrupt(p, interrupt);
}

static void host_bus_error(struct ahci_port *p, const char *what)
{
    vlog(p->hba->vm->log, DISK, GUEST, "ahci port %u: no memory at its %s", p->number, what);
    halt(p, IS_HOST_BUS);
}

/* Bytes that moved, for who reads the command header. */
static void put_byte_count(struct ahci_port *p, unsigned slot, uint64_t bytes)
{
    uint8_t count[4];

    le32_put(count, (uint32_t)bytes);
    dma_write(&p->hba->dma, p->clb + slot * HEADER_BYTES + 4, count, sizeof count);
}

/* The device's registers say how a command that is not queued has ended. */
static void end_command(struct ahci_port *p, unsigned slot, const struct ahci_slot_state *s,
                        uint32_t interrupt)
{
    bool failed = p->device.r.status & ATA_ERR;
    bool pio_in = !failed && s->transfer == ATA_PIO && s->moved &&
                  (s->kind == ATA_DO_REPLY || s->kind == ATA_DO_READ);

    if (s->transfer != ATA_NO_DATA)
        put_byte_count(p, slot, s->moved);
    if (s->table_interrupt)
        interrupt |= IS_DESCRIPTOR;
    if (!failed) {
        p->ci &= ~(1u << slot);
        p->fetched &= ~(1u << slot);
    }
    if (pio_in)
        ahci_post_pio_setup(p, s->moved);
    if (!pio_in || p->device.kind == ATA_CDROM)
        ahci_post_d2h(p, true);
    if (pio_in)
        interrupt |= IS_PIO_SETUP;
    if (!pio_in || p->device.kind == ATA_CDROM)
        interrupt |= IS_D2H;
    if (failed)
        halt(p, interrupt | IS_TASK_FILE);
    else
        ahci_port_interrupt(p, interrupt);
}

static void end_queued(struct ahci_port *p, const struct ahci_slot_state *s)
{
    p->sact &= ~(1u << s->tag);
    ahci_post_set_bits(p, 1u << s->tag, ATA_GOOD, 0);
    ahci_port_interrupt(p, IS_SET_BITS | (s->table_interrupt ? IS_DESCRIPTOR : 0));
}

/* result 0: the device has refused it, and its registers say why. */
static void fail_queued(struct ahci_port *p, const struct ata_action *a, int result, uint64_t moved)
{
    uint8_t error;

    ata_queue_failed(&p->device, a, result, moved, &error);
    p->device.r.status = ATA_GOOD | ATA_ERR;
    p->device.r.error = error;
    ahci_post_set_bits(p, 0, ATA_GOOD | ATA_ERR, error);
    halt(p, IS_SET_BITS | IS_TASK_FILE);
}

/* A slot's command has ended, well or with a negative errno. */
static void end_slot(struct ahci_slot *slot, int result)
{
    struct ahci_port *p = slot->port;
    struct ahci_slot_state s = *state_of(slot);
    struct ata_action a = action_of(&s);

    free_slot(slot);
    if (result == -EFAULT) {
        host_bus_error(p, "PRDT");
    } else if (s.transfer != ATA_QUEUED) {
        ata_finish(&p->device, &a, result, s.moved);
        end_command(p, slot->number, &s, 0);
    } else if (result) {
        fail_queued(p, &a, result, s.moved);
    } else {
        end_queued(p, &s);
    }
}

/* ---- requests to the disk ---- */

static void submit_next(struct ahci_slot *slot);

static int prepare_piece(struct disk_request *r)
{
    return ahci_piece_prepare(r->ctx);
}

/* READ VERIFY: to a buffer that nobody looks at. */
static int prepare_verify(struct disk_request *r)
{
    struct ahci_slot *slot = r->ctx;
    struct dma_piece *piece = &slot->piece;

    dma_piece_forget(piece);
    r->bytes = MIN(r->bytes, DMA_BOUNCE_BYTES);
    piece->bounce = malloc(r->bytes);
    if (!piece->bounce)
        return -ENOMEM;
    piece->span[0] = (struct disk_span){piece->bounce, r->bytes};
    r->spans = piece->span;
    r->span_count = 1;
    return 0;
}

static void verify_finish(struct ahci_slot *slot)
{
    state_of(slot)->moved += slot->request.bytes;
    dma_piece_forget(&slot->piece);
}

static bool takes_ranges(const struct ahci_slot_state *s)
{
    return s->kind == ATA_DO_TRIM;
}

static void piece_done(struct disk_request *r)
{
    struct ahci_slot *slot = r->ctx;
    struct ahci_slot_state *s = state_of(slot);
    struct ahci_port *p = slot->port;
    int result = r->result;

    s->deadline_ns = 0;
    s->range_bytes = 0;
    if (s->busy == SLOT_STOPPED) {
        free_slot(slot);
    } else if (takes_ranges(s)) {
        if (result)
            end_slot(slot, result);
        else
            submit_next(slot);
    } else {
        if (!result && s->kind == ATA_DO_VERIFY)
            verify_finish(slot);
        else if (!result && s->kind != ATA_DO_FLUSH)
            result = ahci_piece_finish(slot);
        if (!result && s->moved < s->bytes)
            submit_next(slot);
        else
            end_slot(slot, result);
    }
    ahci_port_run(p); /* what waited for this one */
}

/* The next range of DATA SET MANAGEMENT's list that is not empty; 1, 0 at the
 * end, negative errno. */
static int next_range(struct ahci_slot *slot, uint64_t *offset, uint64_t *bytes)
{
    struct ahci_slot_state *s = state_of(slot);

    while (s->moved < s->bytes) {
        uint8_t entry[ATA_RANGE_BYTES];
        int ret = ahci_prdt_copy(slot->port, s, entry, sizeof entry, false);

        if (ret)
            return ret;
        s->moved += sizeof entry;
        if (!ata_trim_range(&slot->port->device, entry, offset, bytes))
            return -EINVAL;
        if (*bytes)
            return 1;
    }
    return 0;
}

static void submit_next(struct ahci_slot *slot)
{
    struct ahci_slot_state *s = state_of(slot);
    struct ahci_port *p = slot->port;
    struct disk_request *r = &slot->request;
    int ret = 1;

    *r = (struct disk_request){
        .op = s->kind == ATA_DO_WRITE ? DISK_WRITE : DISK_READ,
        .fua = s->fua,
        .offset = s->offset + s->moved,
        .bytes = s->bytes - s->moved,
        .prepare = s->kind == ATA_DO_VERIFY ? prepare_verify : prepare_piece,
        .done = piece_done,
        .ctx = slot,
        .deadline_ns = s->deadline_ns,
    };
    if (s->kind == ATA_DO_FLUSH) {
        r->op = DISK_FLUSH;
        r->prepare = NULL;
    } else if (takes_ranges(s)) {
        if (!s->range_bytes) /* else of a saved machine: the same again */
            ret = next_range(slot, &s->offset, &s->range_bytes);
        if (ret <= 0) {
            end_slot(slot, ret);
            return;
        }
        r->op = DISK_DISCARD;
        r->offset = s->offset;
        r->bytes = s->range_bytes;
        r->prepare = NULL;
    }
    if (!s->deadline_ns)
        s->order = p->next_order++;
    disk_submit(p->device.disk, r);
    s->deadline_ns = r->deadline_ns;
}

/* ---- the start of a command ---- */

/* What a command header and its table say. */
struct command {
    unsigned slot;
    uint32_t flags;
    uint64_t table;
    uint8_t fis[TABLE_CFIS_BYTES];
};

static int fetch(struct ahci_port *p, unsigned slot, struct command *c)
{
    uint8_t header[HEADER_BYTES];
    int ret = dma_read(&p->hba->dma, p->clb + slot * HEADER_BYTES, header, sizeof header);

    if (ret)
        return ret;
    c->slot = slot;
    c->flags = le32_get(header);
    c->table = align_down(le64_get(header + 8), TABLE_PRDT);
    return dma_read(&p->hba->dma, c->table, c->fis, sizeof c->fis);
}

static void read_registers(struct ata_registers *r, const uint8_t *fis)
{
    r->command = fis[2];
    r->features = (uint16_t)(fis[3] | fis[11] << 8);
    r->lba = (uint64_t)fis[4] | (uint64_t)fis[5] << 8 | (uint64_t)fis[6] << 16 |
             (uint64_t)fis[8] << 24 | (uint64_t)fis[9] << 32 | (uint64_t)fis[10] << 40;
    r->device = fis[7];
    r->count = (uint16_t)(fis[12] | fis[13] << 8);
    r->control = fis[15];
}

/* A FIS that writes the device's control register: software reset. */
static void control_fis(struct ahci_port *p, const struct command *c)
{
    bool srst = c->fis[15] & FIS_CONTROL_SRST;

    /* Sent, and that is all the HBA waits for. */
    p->ci &= ~(1u << c->slot);
    p->fetched &= ~(1u << c->slot);
    if (srst) {
        ahci_port_stop(p);
        p->sact = 0;
        p->soft_reset = true;
        p->tfd_status =
            c->flags & HEADER_CLEAR ? p->tfd_status & ~ATA_BSY : p->tfd_status | ATA_BSY;
    } else if (p->soft_reset) {
        p->soft_reset = false;
        ata_reset(&p->device, false);
        ahci_post_signature(p);
    }
}

/* Replies and what is taken move at once: they are short. */
static int move_buffer(struct ahci_port *p, struct ahci_slot_state *s)
{
    uint8_t taken[ATA_REPLY_BYTES];
    int ret = ahci_prdt_covers(p, s, s->bytes);

    if (ret < 0)
        return ret;
    if (!ret)
        return -EOVERFLOW;
    if (s->kind == ATA_DO_REPLY) {
        ret = ahci_prdt_copy(p, s, p->device.reply, s->bytes, true);
    } else {
        ret = ahci_prdt_copy(p, s, taken, s->bytes, false);
        if (!ret)
            ata_take(&p->device, taken, s->bytes);
    }
    s->moved = s->bytes;
    return ret;
}

/* The PRDT is shorter than the data: it is not moved at all. */
static void overflow(struct ahci_port *p, unsigned slot, const struct ahci_slot_state *s)
{
    struct ata_action a = action_of(s);

    vlog(p->hba->vm->log, DISK, GUEST,
         "ahci port %u: a PRDT has less than the %llu bytes of "
         "command %02x",
         p->number, (unsigned long long)s->bytes, p->device.r.command);
    p->is |= IS_OVERFLOW;
    if (s->transfer == ATA_QUEUED) {
        fail_queued(p, &a, -EOVERFLOW, 0);
        return;
    }
    ata_finish(&p->device, &a, -EOVERFLOW, 0);
    end_command(p, slot, s, 0);
}

/* What the device wants done. */
static void start_action(struct ahci_port *p, const struct command *c, const struct ata_action *a)
{
    struct ahci_slot_state *s = &p->state[c->slot],
                           now = {
                               .busy = SLOT_BUSY,
                               .kind = (uint8_t)a->kind,
                               .transfer = (uint8_t)a->transfer,
                               .tag = a->tag,
                               .fua = a->fua,
                               .prdt_entries = (uint16_t)(c->flags >> HEADER_PRDTL_SHIFT),
                               .table = c->table,
                               .offset = a->offset,
                               .bytes = a->bytes,
                           };
    int ret;

    if (a->kind == ATA_DO_NOTHING) {
        end_command(p, c->slot, &now, 0);
        return;
    }
    if (a->kind == ATA_DO_REPLY || a->kind == ATA_DO_TAKE) {
        ret = move_buffer(p, &now);
        if (ret == -EOVERFLOW)
            overflow(p, c->slot, &now);
        else if (ret)
            host_bus_error(p, "PRDT");
        else
            end_command(p, c->slot, &now, 0);
        return;
    }
    ret = a->transfer != ATA_NO_DATA ? ahci_prdt_covers(p, &now, a->bytes) : 1;
    if (ret < 0) {
        host_bus_error(p, "PRDT");
    } else if (!ret) {
        overflow(p, c->slot, &now);
    } else {
        *s = now;
        if (a->transfer != ATA_QUEUED)
            p->tfd_status |= ATA_BSY;
        else
            ahci_post_dma_setup(p, a->tag, a->bytes, a->kind == ATA_DO_READ);
        submit_next(&p->slot[c->slot]);
    }
}

/* A queued command's slot is free for the guest once the device has taken it;
 * the tag in PxSACT stands for it from then on. */
static void start_queued(struct ahci_port *p, const struct command *c, const struct ata_action *a)
{
    bool in_use = false;

    for (unsigned n = 0; n < AHCI_SLOTS; n++)
        in_use |= p->state[n].busy == SLOT_BUSY && p->state[n].tag == a->tag;
    if (in_use)
        p->device.r.error = ATA_ABRT;
    if (in_use || a->kind == ATA_DO_NOTHING) {
        fail_queued(p, a, 0, 0);
        return;
    }
    p->ci &= ~(1u << c->slot);
    p->fetched &= ~(1u << c->slot);
    p->tfd_status = ATA_GOOD;
    p->tfd_error = 0;
    start_action(p, c, a);
}

static bool is_busy(const struct ahci_port *p)
{
    for (unsigned n = 0; n < AHCI_SLOTS; n++)
        if (p->state[n].busy == SLOT_BUSY)
            return true;
    return false;
}

static void command_fis(struct ahci_port *p, const struct command *c)
{
    struct ata_device *d = &p->device;
    struct ata_action a;
    uint8_t cdb[16];

    read_registers(&d->r, c->fis);
    vlog(p->hba->vm->log, DISK, DEBUG,
         "ahci port %u, slot %u: command %02x, address %llu, count %u", p->number, c->slot,
         d->r.command, (unsigned long long)d->r.lba, d->r.count);
    if (d->r.command == ATA_PACKET) {
        if (!(c->flags & HEADER_ATAPI) ||
            dma_read(&p->hba->dma, c->table + TABLE_ACMD, cdb, sizeof cdb)) {
            host_bus_error(p, "PACKET command");
            return;
        }
        ata_packet(d, cdb, &a);
    } else {
        ata_start(d, &a);
    }
    if (a.transfer == ATA_QUEUED) {
        start_queued(p, c, &a);
    } else if (is_busy(p)) {
        /* Queued ones are under way: a device takes both for failed. */
        ahci_port_stop(p);
        d->r.status = ATA_GOOD | ATA_ERR;
        d->r.error = ATA_ABRT;
        a.kind = ATA_DO_NOTHING;
        start_action(p, c, &a);
    } else {
        start_action(p, c, &a);
    }
}

static void start(struct ahci_port *p, unsigned slot)
{
    struct command c;

    p->slot_now = (uint8_t)slot;
    p->fetched |= 1u << slot;
    if (fetch(p, slot, &c)) {
        host_bus_error(p, "command list");
        return;
    }
    if (c.fis[0] != FIS_H2D || (c.flags & HEADER_CFL) < FIS_H2D_DWORDS ||
        (c.flags & HEADER_CFL) > TABLE_CFIS_BYTES / 4) {
        /* The device does not understand the FIS. */
        vlog(p->hba->vm->log, DISK, GUEST, "ahci port %u: FIS %02x of %u doublewords", p->number,
             c.fis[0], c.flags & HEADER_CFL);
        p->serr |= SERR_HANDSHAKE | SERR_PROTOCOL;
        halt(p, IS_INTERFACE);
        return;
    }
    /* All of it is about one device: there are no port multipliers. */
    if (c.fis[1] & FIS_COMMAND) {
        if (p->soft_reset) /* a device in reset hears nothing */
            return;
        command_fis(p, &c);
    } else {
        control_fis(p, &c);
    }
}

static bool can_run(const struct ahci_port *p)
{
    return (p->cmd & CMD_ST) && !p->halted && p->device.kind != ATA_ABSENT &&
           (p->ssts & SCTL_DET) == LINK_UP && !(p->tfd_status & (ATA_BSY | ATA_DRQ)) &&
           pci_is_master(&p->hba->pci);
}

void ahci_port_run(struct ahci_port *p)
{
    if (p->device.disk)
        disk_plug(p->device.disk);
    /* Round and round, so that no slot waits for ever (5.3.9). */
    while (can_run(p)) {
        unsigned n, slot = 0;

        for (n = 1; n <= AHCI_SLOTS; n++) {
            slot = (p->slot_now + n) % AHCI_SLOTS;
            if ((p->ci & ~p->fetched) >> slot & 1 && p->state[slot].busy == SLOT_FREE)
                break;
        }
        if (n > AHCI_SLOTS)
            break;
        start(p, slot);
    }
    if (p->device.disk)
        disk_poll(p->device.disk);
}

/* ---- stopping ---- */

void ahci_port_stop(struct ahci_port *p)
{
    p->fetched = 0;
    for (unsigned n = 0; n < AHCI_SLOTS; n++) {
        if (p->state[n].busy != SLOT_BUSY)
            continue;
        if (disk_cancel(p->device.disk, &p->slot[n].request))
            free_slot(&p->slot[n]);
        else
            p->state[n].busy = SLOT_STOPPED;
    }
}

void ahci_port_abort(struct ahci_port *p)
{
    p->fetched = 0;
    for (unsigned n = 0; n < AHCI_SLOTS; n++) {
        if (p->slot[n].request.state != DISK_IDLE)
            disk_withdraw(p->device.disk, &p->slot[n].request);
        free_slot(&p->slot[n]);
    }
}

bool ahci_port_is_stopping(const struct ahci_port *p)
{
    for (unsigned n = 0; n < AHCI_SLOTS; n++)
        if (p->state[n].busy == SLOT_STOPPED)
            return true;
    return false;
}

/* ---- life and state ---- */

void ahci_slots_init(struct ahci_port *p)
{
    for (unsigned n = 0; n < AHCI_SLOTS; n++) {
        p->slot[n].port = p;
        p->slot[n].number = n;
    }
}

void ahci_slots_destroy(struct ahci_port *p)
{
    for (unsigned n = 0; n < AHCI_SLOTS; n++) {
        if (p->slot[n].request.state != DISK_IDLE)
            disk_withdraw(p->device.disk, &p->slot[n].request);
        free_slot(&p->slot[n]);
    }
}

static bool slot_is_possible(const struct ahci_port *p, const struct ahci_slot_state *s)
{
    uint64_t size = p->device.disk ? disk_bytes(p->device.disk) : 0;

    if (s->busy != SLOT_BUSY)
        return s->busy == SLOT_FREE;
    if (!p->hba->vm->deterministic) /* was settled before it was saved */
        return false;
    if (!size || s->transfer > ATA_QUEUED || s->tag >= ATA_QUEUE_DEPTH || s->fua > 1 ||
        s->table_interrupt > 1 || s->table % TABLE_PRDT || s->prd > s->prdt_entries ||
        s->prd_offset >= AHCI_PRD_MAX || s->moved > s->bytes)
        return false;
    switch (s->kind) {
    case ATA_DO_READ:
    case ATA_DO_WRITE:
    case ATA_DO_VERIFY:
        return s->offset <= size && s->bytes <= size - s->offset && s->moved < s->bytes &&
               !((s->offset | s->bytes | s->moved) % DISK_SECTOR_BYTES) && !s->range_bytes;
    case ATA_DO_FLUSH:
        return !s->bytes && !s->range_bytes;
    case ATA_DO_TRIM:
        return s->bytes <= ATA_REPLY_BYTES && s->bytes % ATA_RANGE_BYTES == 0 &&
               s->moved % ATA_RANGE_BYTES == 0 && s->offset <= size &&
               s->range_bytes <= size - s->offset && s->range_bytes;
    default:
        return false;
    }
}

/* In the order in which they were submitted at first. */
static void resume(struct ahci_port *p)
{
    uint32_t left = 0;

    for (unsigned n = 0; n < AHCI_SLOTS; n++)
        if (p->state[n].busy == SLOT_BUSY)
            left |= 1u << n;
    while (left) {
        unsigned first = (unsigned)__builtin_ctz(left);

        for (unsigned n = first + 1; n < AHCI_SLOTS; n++)
            if (left >> n & 1 && p->state[n].order < p->state[first].order)
                first = n;
        left &= ~(1u << first);
        submit_next(&p->slot[first]);
    }
}

int ahci_port_restored(struct ahci_port *p)
{
    for (unsigned n = 0; n < AHCI_SLOTS; n++) {
        if (p->slot[n].request.state != DISK_IDLE)
            disk_withdraw(p->device.disk, &p->slot[n].request);
        dma_piece_forget(&p->slot[n].piece);
    }
    /* First all are looked at: a state that cannot be starts nothing. */
    for (unsigned n = 0; n < AHCI_SLOTS; n++)
        if (!slot_is_possible(p, &p->state[n]))
            return -EINVAL;
    resume(p);
    return 0;
}
