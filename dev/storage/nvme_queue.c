/*
 * Queues (NVM Express 1.4c, 4.1 and 7.5): commands are fetched in turns, each
 * queue's burst as the Arbitration feature says; completions are posted; vectors
 * are raised, perhaps a little later (Interrupt Coalescing).
 *
 * A command is fetched only if its completion queue has an entry left for it, so
 * that posting never waits. One doorbell has at most some dozens of commands
 * carried out; what is left over is for the I/O thread.
 */
#include "dev/storage/nvme_internal.h"

enum {
    COMMANDS_AT_ONCE = 64, /* before others get the machine's lock */
    REST_AFTER_NS = 1000,
    NO_BURST_LIMIT = 7,
    COALESCING_UNIT_NS = 100000,
    MASKABLE_VECTORS = 32,
};

/* ---- interrupts (7.5) ---- */

static bool cq_asks(const struct nvme_cq *cq)
{
    return cq->size && cq->interrupts && cq->head != cq->tail;
}

static bool is_masked(const struct nvme *n, unsigned vector)
{
    return vector < MASKABLE_VECTORS && (n->intms >> vector & 1);
}

static bool has_msix(const struct nvme *n)
{
    return pci_msi_vectors(&n->pci) == NVME_QUEUES;
}

void nvme_update_pin(struct nvme *n)
{
    bool level = false;

    if (!pci_msi_vectors(&n->pci))
        for (unsigned id = 0; id < NVME_QUEUES && !level; id++)
            level = cq_asks(&n->cq[id]) && !is_masked(n, n->cq[id].vector);
    if (level == n->line)
        return;
    n->line = level;
    pci_intx_set(&n->pci, level);
}

void nvme_unmasked(struct nvme *n, uint32_t vectors)
{
    nvme_update_pin(n);
    for (unsigned id = 0; id < NVME_QUEUES && vectors && !has_msix(n); id++) {
        unsigned vector = n->cq[id].vector;

        if (cq_asks(&n->cq[id]) && vector < MASKABLE_VECTORS && (vectors >> vector & 1)) {
            vectors &= ~(1u << vector);
            pci_msi_raise(&n->pci, vector);
        }
    }
}

static void raise(struct nvme *n, unsigned vector)
{
    n->waiting[vector] = 0;
    n->waiting_until_ns[vector] = 0;
    /* Masks are for MSI; those of MSI-X are in its table (3.1.3). */
    if (has_msix(n) || !is_masked(n, vector))
        pci_msi_raise(&n->pci, vector);
}

static void arm_coalescing(struct nvme *n)
{
    uint64_t first = TIME_NEVER;

    for (unsigned v = 0; v < NVME_QUEUES; v++)
        if (n->waiting_until_ns[v])
            first = MIN(first, n->waiting_until_ns[v]);
    if (first == TIME_NEVER)
        timer_cancel(&n->coalescing);
    else
        timer_arm(&n->coalescing, first);
}

void nvme_coalescing_fire(void *ctx)
{
    struct nvme *n = ctx;
    uint64_t now = clock_now_ns(&n->vm->clock);

    for (unsigned v = 0; v < NVME_QUEUES; v++)
        if (n->waiting_until_ns[v] && n->waiting_until_ns[v] <= now)
            raise(n, v);
    arm_coalescing(n);
}

/* The queue has a new entry. */
static void notify(struct nvme *n, const struct nvme_cq *cq)
{
    unsigned threshold = n->features.coalescing & 0xFF, time = n->features.coalescing >> 8 & 0xFF;
    unsigned v = cq->vector;

    if (!cq->interrupts)
        return;
    if (!pci_msi_vectors(&n->pci)) {
        nvme_update_pin(n);
    } else if (cq == &n->cq[0] || !threshold || !time || n->features.not_coalesced[v]) {
        raise(n, v);
    } else if (++n->waiting[v] > threshold) { /* the threshold is 0's based */
        raise(n, v);
    } else if (!n->waiting_until_ns[v]) {
        n->waiting_until_ns[v] = clock_now_ns(&n->vm->clock) + time * (uint64_t)COALESCING_UNIT_NS;
        arm_coalescing(n);
    }
}

/* ---- completion queues ---- */

static unsigned entries_used(const struct nvme_cq *cq)
{
    return (unsigned)(cq->tail + cq->size - cq->head) % cq->size;
}

bool nvme_cq_has_room(const struct nvme_cq *cq)
{
    return entries_used(cq) + cq->reserved + 1 < cq->size;
}

void nvme_post(struct nvme *n, uint16_t sqid, uint16_t cid, uint32_t result, unsigned status)
{
    const struct nvme_sq *sq = &n->sq[sqid];
    struct nvme_cq *cq = &n->cq[sq->cqid];
    uint64_t at = cq->base + (uint64_t)cq->tail * NVME_CQE_BYTES;
    uint8_t entry[NVME_CQE_BYTES];

    le32_put(entry, result);
    le32_put(entry + 4, 0);
    le16_put(entry + 8, sq->head);
    le16_put(entry + 10, sqid);
    le16_put(entry + 12, cid);
    le16_put(entry + 14, (uint16_t)(status << 1 | cq->phase));
    /* The phase is in the second access: who sees that sees the first. */
    if (dma_write(&n->dma, at, entry, 8) || dma_write(&n->dma, at + 8, entry + 8, 8)) {
        nvme_fatal(n, "no memory at a completion queue");
        return;
    }
    cq->tail = (uint16_t)(cq->tail + 1);
    if (cq->tail == cq->size) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    notify(n, cq);
}

void nvme_ring_cq(struct nvme *n, unsigned id, uint32_t value)
{
    struct nvme_cq *cq = id < NVME_QUEUES ? &n->cq[id] : NULL;

    if (!cq || !cq->size) {
        nvme_event(n, EVENT_BAD_DOORBELL);
    } else if (value >= cq->size || (value + cq->size - cq->head) % cq->size > entries_used(cq)) {
        nvme_event(n, EVENT_BAD_VALUE);
    } else {
        cq->head = (uint16_t)value;
        nvme_update_pin(n);
        nvme_events_run(n);
        nvme_run(n);
    }
}

/* ---- submission queues ---- */

static void read_command(struct nvme_command *c, unsigned id, const uint8_t *e)
{
    *c = (struct nvme_command){
        .opcode = e[0],
        .flags = e[1],
        .sqid = (uint16_t)id,
        .cid = le16_get(e + 2),
        .nsid = le32_get(e + 4),
        .prp1 = le64_get(e + 24),
        .prp2 = le64_get(e + 32),
        .dw10 = le32_get(e + 40),
        .dw11 = le32_get(e + 44),
        .dw12 = le32_get(e + 48),
        .dw13 = le32_get(e + 52),
        .dw14 = le32_get(e + 56),
        .dw15 = le32_get(e + 60),
    };
}

static void carry_out(struct nvme *n, const struct nvme_command *c)
{
    struct nvme_cq *cq = &n->cq[n->sq[c->sqid].cqid];
    uint32_t result = 0;
    int status;

    vlog(n->vm->log, DISK, DEBUG, "%s: queue %u, command %u: opcode %02x, %x %x %x", n->name,
         c->sqid, c->cid, c->opcode, c->dw10, c->dw11, c->dw12);
    cq->reserved++;
    /* No fused commands, and PRPs only. */
    if (c->flags)
        status = NVME_INVALID_FIELD;
    else
        status = c->sqid ? nvme_io_command(n, c) : nvme_admin_command(n, c, &result);
    if (status == NVME_LATER)
        return;
    cq->reserved--;
    if (status)
        nvme_log_error(n, c, (unsigned)status);
    nvme_post(n, c->sqid, c->cid, result, (unsigned)status);
}

static bool has_work(const struct nvme *n, unsigned id)
{
    const struct nvme_sq *sq = &n->sq[id];

    return sq->size && sq->head != sq->tail && !sq->deleting &&
           nvme_cq_has_room(&n->cq[sq->cqid]) && (!id || nvme_has_slot(n));
}

/* Up to so many commands of one queue; how many it were. */
static unsigned run_queue(struct nvme *n, unsigned id, unsigned most)
{
    unsigned done = 0;

    while (done < most && nvme_is_running(n) && has_work(n, id)) {
        struct nvme_sq *sq = &n->sq[id];
        uint8_t entry[NVME_SQE_BYTES];
        struct nvme_command c;

        if (dma_read(&n->dma, sq->base + (uint64_t)sq->head * NVME_SQE_BYTES, entry,
                     sizeof entry)) {
            nvme_fatal(n, "no memory at a submission queue");
            return done;
        }
        sq->head = (uint16_t)(sq->head + 1 == sq->size ? 0 : sq->head + 1);
        read_command(&c, id, entry);
        carry_out(n, &c);
        done++;
    }
    return done;
}

void nvme_run(struct nvme *n)
{
    unsigned ab = n->features.arbitration & 7;
    unsigned burst = ab == NO_BURST_LIMIT ? COMMANDS_AT_ONCE : 1u << ab;
    unsigned left = COMMANDS_AT_ONCE, idle = 0;

    if (!pci_is_master(&n->pci))
        return;
    disk_plug(n->disk);
    while (left && idle < NVME_QUEUES && nvme_is_running(n)) {
        unsigned done = run_queue(n, n->next_sq, MIN(burst, left));

        left -= done;
        idle = done ? 0 : idle + 1;
        n->next_sq = (uint16_t)((n->next_sq + 1) % NVME_QUEUES);
    }
    if (!left && !timer_is_armed(&n->work))
        timer_arm(&n->work, clock_now_ns(&n->vm->clock) + REST_AFTER_NS);
    disk_poll(n->disk);
}

void nvme_ring_sq(struct nvme *n, unsigned id, uint32_t value)
{
    struct nvme_sq *sq = id < NVME_QUEUES ? &n->sq[id] : NULL;

    if (!sq || !sq->size) {
        nvme_event(n, EVENT_BAD_DOORBELL);
        return;
    }
    /* Past what has not been fetched yet there is no room for more. */
    if (value >= sq->size || (value + sq->size - sq->head) % sq->size <
                                 (unsigned)(sq->tail + sq->size - sq->head) % sq->size) {
        nvme_event(n, EVENT_BAD_VALUE);
        return;
    }
    sq->tail = (uint16_t)value;
    n->next_sq = (uint16_t)id;
    nvme_run(n);
}
