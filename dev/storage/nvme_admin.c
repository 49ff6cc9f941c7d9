/*
 * Admin commands (NVM Express 1.4c, 5): creating and deleting queues, Abort,
 * asynchronous events; the rest is in files of its own.
 *
 * All end at once but the deletion of a queue with commands whose data moves,
 * and event requests, which wait for an event.
 */
#include "dev/storage/nvme_internal.h"

enum queue_field {
    QUEUE_CONTIGUOUS = 1 << 0,
    QUEUE_INTERRUPTS = 1 << 1,
    SQE_POWER = 6, /* CC.IOSQES and IOCQES as they have to be */
    CQE_POWER = 4,
};

static unsigned queue_size(const struct nvme_command *c)
{
    return (c->dw10 >> 16) + 1;
}

static unsigned queue_id(const struct nvme_command *c)
{
    return c->dw10 & 0xFFFF;
}

/* ---- queues (5.3 to 5.6) ---- */

/* What both kinds have in common; queues are contiguous (CAP.CQR). */
static unsigned check_queue(const struct nvme *n, const struct nvme_command *c, bool exists)
{
    if (!queue_id(c) || queue_id(c) >= NVME_QUEUES || exists)
        return NVME_INVALID_QUEUE;
    if (queue_size(c) < 2 || queue_size(c) > NVME_QUEUE_ENTRIES)
        return NVME_INVALID_QUEUE_SIZE;
    if (!(c->dw11 & QUEUE_CONTIGUOUS))
        return NVME_INVALID_FIELD;
    return c->prp1 % nvme_page_bytes(n) ? NVME_PRP_OFFSET : NVME_OK;
}

static unsigned create_cq(struct nvme *n, const struct nvme_command *c)
{
    unsigned id = queue_id(c), vector = c->dw11 >> 16;
    unsigned vectors = MAX(pci_msi_vectors(&n->pci), 1u);
    unsigned status = check_queue(n, c, id < NVME_QUEUES && n->cq[id].size);

    if (status)
        return status;
    if ((n->cc >> CC_IOCQES_SHIFT & 15) != CQE_POWER)
        return NVME_INVALID_FIELD;
    if (vector >= MIN(vectors, (unsigned)NVME_QUEUES))
        return NVME_INVALID_VECTOR;
    n->cq[id] = (struct nvme_cq){
        .base = c->prp1,
        .size = (uint16_t)queue_size(c),
        .vector = (uint16_t)vector,
        .phase = true,
        .interrupts = c->dw11 & QUEUE_INTERRUPTS,
    };
    return NVME_OK;
}

static unsigned create_sq(struct nvme *n, const struct nvme_command *c)
{
    unsigned id = queue_id(c), cqid = c->dw11 >> 16;
    unsigned status = check_queue(n, c, id < NVME_QUEUES && n->sq[id].size);

    if (status)
        return status;
    if ((n->cc >> CC_IOSQES_SHIFT & 15) != SQE_POWER)
        return NVME_INVALID_FIELD;
    if (!cqid || cqid >= NVME_QUEUES)
        return NVME_INVALID_QUEUE;
    if (!n->cq[cqid].size)
        return NVME_CQ_INVALID;
    n->sq[id] =
        (struct nvme_sq){.base = c->prp1, .size = (uint16_t)queue_size(c), .cqid = (uint16_t)cqid};
    n->cq[cqid].users++;
    return NVME_OK;
}

static unsigned delete_cq(struct nvme *n, const struct nvme_command *c)
{
    unsigned id = queue_id(c);

    if (!id || id >= NVME_QUEUES || !n->cq[id].size)
        return NVME_INVALID_QUEUE;
    if (n->cq[id].users)
        return NVME_INVALID_DELETION;
    memset(&n->cq[id], 0, sizeof n->cq[id]);
    nvme_update_pin(n);
    return NVME_OK;
}

static void drop_sq(struct nvme *n, unsigned id)
{
    n->cq[n->sq[id].cqid].users--;
    memset(&n->sq[id], 0, sizeof n->sq[id]);
}

static int delete_sq(struct nvme *n, const struct nvme_command *c)
{
    unsigned id = queue_id(c);
    struct nvme_sq *sq = id < NVME_QUEUES ? &n->sq[id] : NULL;

    if (!id || !sq || !sq->size || sq->deleting)
        return NVME_INVALID_QUEUE;
    for (unsigned i = 0; i < NVME_SLOTS; i++)
        if (n->state[i].busy == SLOT_BUSY && n->state[i].sqid == id)
            nvme_cancel(&n->slot[i], NVME_ABORTED_SQ);
    if (sq->in_flight) {
        sq->deleting = true;
        sq->delete_cid = c->cid;
        return NVME_LATER;
    }
    drop_sq(n, id);
    return NVME_OK;
}

void nvme_sq_drained(struct nvme *n, unsigned id)
{
    uint16_t cid = n->sq[id].delete_cid;

    drop_sq(n, id);
    n->cq[0].reserved--;
    nvme_post(n, 0, cid, 0, NVME_OK);
}

/* ---- Abort (5.1) ---- */

static bool abort_event_request(struct nvme *n, uint16_t cid)
{
    for (unsigned i = 0; i < n->event_requests; i++) {
        if (n->event_cid[i] != cid || !nvme_cq_has_room(&n->cq[0]))
            continue;
        n->event_requests--;
        memmove(&n->event_cid[i], &n->event_cid[i + 1],
                (n->event_requests - i) * sizeof n->event_cid[0]);
        nvme_post(n, 0, cid, 0, NVME_ABORTED);
        return true;
    }
    return false;
}

/* Result bit 0: it was not aborted. */
static uint32_t abort_command(struct nvme *n, const struct nvme_command *c)
{
    uint16_t sqid = (uint16_t)c->dw10, cid = (uint16_t)(c->dw10 >> 16);

    if (!sqid)
        return !abort_event_request(n, cid);
    for (unsigned i = 0; i < NVME_SLOTS; i++)
        if (n->state[i].busy == SLOT_BUSY && n->state[i].sqid == sqid && n->state[i].cid == cid)
            return !nvme_cancel(&n->slot[i], NVME_ABORTED);
    return 1;
}

/* ---- asynchronous events (5.2) ---- */

static const struct {
    enum nvme_event event;
    enum nvme_event_type type;
    uint8_t information, log;
} events[] = {
    {EVENT_BAD_DOORBELL, EVENT_TYPE_ERROR, 0, PAGE_ERRORS},
    {EVENT_BAD_VALUE, EVENT_TYPE_ERROR, 1, PAGE_ERRORS},
    {EVENT_TEMPERATURE, EVENT_TYPE_HEALTH, 1, PAGE_HEALTH},
};

void nvme_events_run(struct nvme *n)
{
    for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
        uint8_t mask = (uint8_t)(1 << events[i].type);

        if (!(n->events & events[i].event) || (n->masked_events & mask) || !n->event_requests ||
            !nvme_is_running(n) || !nvme_cq_has_room(&n->cq[0]))
            continue;
        n->events &= (uint8_t)~events[i].event;
        n->masked_events |= mask; /* until the log is read */
        n->event_requests--;
        nvme_post(n, 0, n->event_cid[n->event_requests],
                  events[i].type | (uint32_t)events[i].information << 8 |
                      (uint32_t)events[i].log << 16,
                  NVME_OK);
    }
}

void nvme_event(struct nvme *n, enum nvme_event event)
{
    if (event != EVENT_TEMPERATURE) {
        vlog(n->vm->log, DISK, GUEST, "%s: wrong doorbell", n->name);
        nvme_log_error(n, NULL, NVME_OK);
    }
    n->events |= (uint8_t)event;
    nvme_events_run(n);
}

void nvme_events_seen(struct nvme *n, enum nvme_event_type type)
{
    n->masked_events &= (uint8_t) ~(1 << type);
    for (size_t i = 0; i < ARRAY_SIZE(events); i++)
        if (events[i].type == type)
            n->events &= (uint8_t)~events[i].event;
}

static int request_event(struct nvme *n, const struct nvme_command *c)
{
    if (n->event_requests == NVME_EVENT_REQUESTS)
        return NVME_EVENT_LIMIT;
    n->event_cid[n->event_requests++] = c->cid;
    n->cq[0].reserved--; /* it may wait for ever, others must not wait for it */
    nvme_events_run(n);
    return NVME_LATER;
}

/* ---- all ---- */

int nvme_admin_command(struct nvme *n, const struct nvme_command *c, uint32_t *result)
{
    switch (c->opcode) {
    case NVME_DELETE_SQ:
        return delete_sq(n, c);
    case NVME_CREATE_SQ:
        return (int)create_sq(n, c);
    case NVME_GET_LOG:
        return (int)nvme_get_log(n, c);
    case NVME_DELETE_CQ:
        return (int)delete_cq(n, c);
    case NVME_CREATE_CQ:
        return (int)create_cq(n, c);
    case NVME_IDENTIFY:
        return (int)nvme_identify(n, c);
    case NVME_ABORT:
        *result = abort_command(n, c);
        return NVME_OK;
    case NVME_SET_FEATURES:
        return (int)nvme_set_features(n, c, result);
    case NVME_GET_FEATURES:
        return (int)nvme_get_features(n, c, result);
    case NVME_ASYNC_EVENT:
        return request_event(n, c);
    default:
        return NVME_INVALID_OPCODE;
    }
}
