/*
 * I/O commands (NVM Express 1.4c, 6) and their requests to the disk, piece by
 * piece, each piece's end starting the next.
 *
 * In real time a piece's PRPs are read when the command is carried out; in a
 * deterministic machine again when its data moves, so that a saved machine needs
 * no more than struct nvme_slot_state.
 */
#include <errno.h>

#include "dev/storage/nvme_internal.h"

enum io_field {
    RW_FUA = 1 << 30,
    WZ_DEALLOCATE = 1 << 25,
    WRITE_DIRECTIVE = 15 << 20,
    DATASET_RANGES = 0xFF,
    DATASET_DEALLOCATE = 1 << 2,
    RANGE_BYTES = 16,
};

static struct nvme_slot_state *state_of(struct nvme_slot *slot)
{
    return &slot->nvme->state[slot->number];
}

unsigned nvme_status_of(int result, enum nvme_kind kind)
{
    switch (result) {
    case 0:
        return NVME_OK;
    case -EBADR:
        return NVME_PRP_OFFSET;
    case -EFAULT:
    case -EACCES:
        return NVME_TRANSFER_ERROR;
    case -ENOMEM:
        return NVME_INTERNAL_ERROR;
    case -ENOSPC:
    case -EDQUOT:
        return NVME_CAPACITY;
    case -EROFS:
        return NVME_WRITE_PROTECTED;
    default:
        return kind == NVME_DO_READ || kind == NVME_DO_COMPARE ? NVME_READ_ERROR : NVME_WRITE_FAULT;
    }
}

/* ---- slots ---- */

bool nvme_has_slot(const struct nvme *n)
{
    uint64_t any = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(n->free_slots); i++)
        any |= n->free_slots[i];
    return any;
}

/* Counts what depends on it, when it is taken, freed, or found in saved state. */
static void count_slot(struct nvme *n, const struct nvme_slot_state *s, bool taken)
{
    struct nvme_sq *sq = &n->sq[s->sqid];
    unsigned one = taken ? 1 : -1u;

    if (s->kind == NVME_DO_SHUTDOWN)
        return;
    sq->in_flight += one;
    n->cq[sq->cqid].reserved += one;
    n->in_flight += one;
}

static struct nvme_slot *take_slot(struct nvme *n)
{
    for (unsigned i = 0; i < ARRAY_SIZE(n->free_slots); i++) {
        if (n->free_slots[i]) {
            unsigned bit = (unsigned)__builtin_ctzll(n->free_slots[i]);

            n->free_slots[i] &= ~BIT(bit);
            return &n->slot[i * 64 + bit];
        }
    }
    return NULL;
}

/* Its state is nobody's any more; counters are the caller's. */
static void free_slot(struct nvme_slot *slot)
{
    struct nvme *n = slot->nvme;

    dma_piece_forget(&slot->piece);
    memset(state_of(slot), 0, sizeof *state_of(slot));
    if (slot->number < NVME_SLOTS)
        n->free_slots[slot->number / 64] |= BIT(slot->number % 64);
}

static void busy_changed(struct nvme *n, unsigned before)
{
    uint64_t now = clock_now_ns(&n->vm->clock);

    if (!before && n->in_flight)
        n->counters.busy_since_ns = now;
    if (before && !n->in_flight)
        n->counters.busy_ns += now - MIN(now, n->counters.busy_since_ns);
}

static void end_slot(struct nvme_slot *slot, unsigned status)
{
    struct nvme *n = slot->nvme;
    struct nvme_slot_state s = *state_of(slot);
    unsigned before = n->in_flight;

    free_slot(slot);
    if (s.kind == NVME_DO_SHUTDOWN) {
        n->csts = (n->csts & ~(uint32_t)CSTS_SHST) | CSTS_SHST_DONE;
        return;
    }
    count_slot(n, &s, false);
    busy_changed(n, before);
    if (status) {
        const struct nvme_command c = {
            .sqid = s.sqid,
            .cid = s.cid,
            .nsid = NVME_NAMESPACE,
            .dw10 = (uint32_t)(s.offset / NVME_BLOCK),
            .dw11 = (uint32_t)(s.offset / NVME_BLOCK >> 32),
        };

        n->counters.media_errors += (status & 0x700) == NVME_STATUS_MEDIA &&
                                    (status & 0xFF) != (NVME_COMPARE_FAILURE & 0xFF);
        nvme_log_error(n, &c, status);
    }
    nvme_post(n, s.sqid, s.cid, 0, status);
    if (n->sq[s.sqid].deleting && !n->sq[s.sqid].in_flight)
        nvme_sq_drained(n, s.sqid);
}

bool nvme_cancel(struct nvme_slot *slot, unsigned status)
{
    if (!disk_cancel(slot->nvme->disk, &slot->request))
        return false;
    end_slot(slot, status);
    return true;
}

/* ---- requests ---- */

static void submit(struct nvme_slot *slot);

static void walk_from(struct nvme_slot *slot, struct nvme_prp_walk *w)
{
    const struct nvme_slot_state *s = state_of(slot);

    nvme_prp_start(w, slot->nvme, s->prp1, s->prp2, s->bytes, s->moved);
}

static int prepare_piece(struct disk_request *r)
{
    struct nvme_slot *slot = r->ctx;
    const struct nvme_slot_state *s = state_of(slot);
    struct nvme_prp_walk w;

    walk_from(slot, &w);
    return dma_piece_prepare(&slot->piece, &slot->nvme->dma, &w.extents, s->bytes - s->moved,
                             s->kind == NVME_DO_COMPARE, r);
}

/* Its data has moved: a status. */
static unsigned finish_piece(struct nvme_slot *slot)
{
    struct nvme_slot_state *s = state_of(slot);
    uint64_t bytes = slot->request.bytes;
    struct nvme_prp_walk w;
    unsigned status = NVME_OK;
    int ret;

    if (slot->piece.bounce && s->kind != NVME_DO_WRITE) {
        walk_from(slot, &w);
        ret = s->kind == NVME_DO_COMPARE
                  ? nvme_prp_compare(&w, slot->piece.bounce, bytes)
                  : dma_copy(&slot->nvme->dma, &w.extents, slot->piece.bounce, bytes, true);
        status = ret == 1 ? NVME_COMPARE_FAILURE : nvme_status_of(ret, (enum nvme_kind)s->kind);
    }
    s->moved += bytes;
    dma_piece_forget(&slot->piece);
    return status;
}

static void request_done(struct disk_request *r)
{
    struct nvme_slot *slot = r->ctx;
    struct nvme_slot_state *s = state_of(slot);
    struct nvme *n = slot->nvme;
    unsigned status = nvme_status_of(r->result, (enum nvme_kind)s->kind);
    bool again = false;

    s->deadline_ns = 0;
    if (s->busy == SLOT_STOPPED) {
        free_slot(slot);
        if (!--n->stopping)
            nvme_stopped(n);
        return;
    }
    switch (s->kind) {
    case NVME_DO_READ:
    case NVME_DO_WRITE:
    case NVME_DO_COMPARE:
        if (!status)
            status = finish_piece(slot);
        again = s->moved < s->bytes;
        break;
    case NVME_DO_ZEROES:
        again = s->deallocate == 1;
        s->deallocate = 2;
        break;
    case NVME_DO_DEALLOCATE:
        s->range_bytes = 0;
        again = true;
        break;
    default:
        break;
    }
    if (again && !status)
        submit(slot);
    else
        end_slot(slot, status);
    nvme_run(n); /* what waited for this one */
}

/* The next range of Dataset Management that is not empty: 1, 0 at the end, or a
 * status. */
static unsigned next_range(struct nvme_slot *slot)
{
    struct nvme_slot_state *s = state_of(slot);
    struct nvme *n = slot->nvme;

    while (s->moved < s->bytes) {
        uint8_t entry[RANGE_BYTES];
        struct nvme_prp_walk w;
        uint64_t first, count;
        int ret;

        walk_from(slot, &w);
        ret = dma_copy(&n->dma, &w.extents, entry, sizeof entry, false);
        if (ret)
            return nvme_status_of(ret, NVME_DO_READ);
        s->moved += sizeof entry;
        count = le32_get(entry + 4);
        first = le64_get(entry + 8);
        if (first > n->blocks || count > n->blocks - first)
            return NVME_LBA_RANGE;
        if (count) {
            s->offset = first * NVME_BLOCK;
            s->range_bytes = count * NVME_BLOCK;
            return 1;
        }
    }
    return 0;
}

static void submit(struct nvme_slot *slot)
{
    static const enum disk_op ops[NVME_KINDS] = {
        [NVME_DO_READ] = DISK_READ,           [NVME_DO_WRITE] = DISK_WRITE,
        [NVME_DO_COMPARE] = DISK_READ,        [NVME_DO_FLUSH] = DISK_FLUSH,
        [NVME_DO_ZEROES] = DISK_WRITE_ZEROES, [NVME_DO_DEALLOCATE] = DISK_DISCARD,
        [NVME_DO_SHUTDOWN] = DISK_FLUSH,
    };
    struct nvme *n = slot->nvme;
    struct nvme_slot_state *s = state_of(slot);
    struct disk_request *r = &slot->request;
    bool moves = s->kind <= NVME_DO_COMPARE;
    int ret;

    *r = (struct disk_request){
        .op = ops[s->kind],
        .fua = s->fua,
        .offset = s->offset + (moves ? s->moved : 0),
        .bytes = s->bytes - (moves ? s->moved : 0),
        .done = request_done,
        .ctx = slot,
        .deadline_ns = s->deadline_ns,
    };
    if (moves && n->vm->deterministic) {
        r->prepare = prepare_piece;
    } else if (moves) {
        ret = prepare_piece(r);
        if (ret) {
            end_slot(slot, nvme_status_of(ret, (enum nvme_kind)s->kind));
            return;
        }
    } else if (s->kind == NVME_DO_ZEROES && s->deallocate == 2) {
        r->op = DISK_DISCARD;
    } else if (s->kind == NVME_DO_DEALLOCATE) {
        if (!s->range_bytes) { /* else of a saved machine: the same again */
            unsigned next = next_range(slot);

            if (next != 1) {
                end_slot(slot, next);
                return;
            }
        }
        r->offset = s->offset;
        r->bytes = s->range_bytes;
    }
    if (!s->deadline_ns)
        s->order = n->next_order++;
    disk_submit(n->disk, r);
    s->deadline_ns = r->deadline_ns;
}

/* ---- commands ---- */

static int start(struct nvme *n, const struct nvme_command *c, struct nvme_slot_state s)
{
    struct nvme_slot *slot = take_slot(n);
    unsigned before = n->in_flight;

    s.busy = SLOT_BUSY;
    s.sqid = c->sqid;
    s.cid = c->cid;
    s.prp1 = c->prp1;
    s.prp2 = c->prp2;
    *state_of(slot) = s;
    n->cq[n->sq[s.sqid].cqid].reserved--; /* it is the slot's now */
    count_slot(n, &s, true);
    busy_changed(n, before);
    submit(slot);
    return NVME_LATER;
}

static int start_blocks(struct nvme *n, const struct nvme_command *c, enum nvme_kind kind)
{
    uint64_t first = (uint64_t)c->dw11 << 32 | c->dw10, count = (c->dw12 & 0xFFFF) + 1u;
    bool writes = kind == NVME_DO_WRITE || kind == NVME_DO_ZEROES;
    struct nvme_slot_state s = {
        .kind = (uint8_t)kind,
        .fua = writes && (c->dw12 & RW_FUA || !n->features.write_cache),
        .offset = first * NVME_BLOCK,
        .bytes = count * NVME_BLOCK,
    };

    if (c->nsid != NVME_NAMESPACE)
        return NVME_INVALID_NAMESPACE;
    if ((kind != NVME_DO_ZEROES && s.bytes > NVME_DATA_MAX) ||
        (kind == NVME_DO_WRITE && c->dw12 & WRITE_DIRECTIVE))
        return NVME_INVALID_FIELD;
    if (first > n->blocks || count > n->blocks - first)
        return NVME_LBA_RANGE;
    if (writes && disk_is_readonly(n->disk))
        return NVME_WRITE_PROTECTED;
    if (kind == NVME_DO_ZEROES) {
        s.deallocate = c->dw12 & WZ_DEALLOCATE ? 1 : 0;
    } else if (n->vm->deterministic) { /* wrong PRPs are told at once, as in real time */
        struct nvme_prp_walk w;
        int ret;

        nvme_prp_start(&w, n, c->prp1, c->prp2, s.bytes, 0);
        ret = dma_skip(&w.extents, s.bytes);
        if (ret)
            return (int)nvme_status_of(ret, kind);
    }
    if (kind == NVME_DO_WRITE) {
        n->counters.writes++;
        n->counters.blocks_written += count;
    } else if (kind != NVME_DO_ZEROES) {
        n->counters.reads++;
        n->counters.blocks_read += count;
    }
    return start(n, c, s);
}

static int start_flush(struct nvme *n, const struct nvme_command *c)
{
    if (c->nsid != NVME_NAMESPACE && c->nsid != NVME_ALL_NAMESPACES)
        return NVME_INVALID_NAMESPACE;
    return start(n, c, (struct nvme_slot_state){.kind = NVME_DO_FLUSH});
}

static int start_dataset(struct nvme *n, const struct nvme_command *c)
{
    if (c->nsid != NVME_NAMESPACE)
        return NVME_INVALID_NAMESPACE;
    if (disk_is_readonly(n->disk) && c->dw11 & DATASET_DEALLOCATE)
        return NVME_WRITE_PROTECTED;
    if (!(c->dw11 & DATASET_DEALLOCATE)) /* all else are hints */
        return NVME_OK;
    return start(n, c,
                 (struct nvme_slot_state){
                     .kind = NVME_DO_DEALLOCATE,
                     .bytes = ((c->dw10 & DATASET_RANGES) + 1u) * (uint64_t)RANGE_BYTES,
                 });
}

int nvme_io_command(struct nvme *n, const struct nvme_command *c)
{
    switch (c->opcode) {
    case NVME_FLUSH:
        return start_flush(n, c);
    case NVME_WRITE:
        return start_blocks(n, c, NVME_DO_WRITE);
    case NVME_READ:
        return start_blocks(n, c, NVME_DO_READ);
    case NVME_COMPARE:
        return start_blocks(n, c, NVME_DO_COMPARE);
    case NVME_WRITE_ZEROES:
        return start_blocks(n, c, NVME_DO_ZEROES);
    case NVME_DATASET:
        return start_dataset(n, c);
    default:
        return NVME_INVALID_OPCODE;
    }
}

void nvme_shutdown(struct nvme *n)
{
    struct nvme_slot *slot = &n->slot[NVME_SLOTS];

    if (state_of(slot)->busy == SLOT_BUSY)
        return; /* it does not end sooner */
    n->csts = (n->csts & ~(uint32_t)CSTS_SHST) | CSTS_SHST_BUSY;
    if (state_of(slot)->busy == SLOT_STOPPED) {
        /* Of before a reset that has not ended: nothing was written since. */
        state_of(slot)->busy = SLOT_BUSY;
        n->stopping--;
        return;
    }
    *state_of(slot) = (struct nvme_slot_state){.busy = SLOT_BUSY, .kind = NVME_DO_SHUTDOWN};
    submit(slot);
}

/* ---- stopping, life and state ---- */

void nvme_slots_stop(struct nvme *n)
{
    unsigned before = n->in_flight;

    for (unsigned i = 0; i <= NVME_SLOTS; i++) {
        if (n->state[i].busy != SLOT_BUSY)
            continue;
        count_slot(n, &n->state[i], false);
        if (disk_cancel(n->disk, &n->slot[i].request)) {
            free_slot(&n->slot[i]);
        } else {
            n->state[i].busy = SLOT_STOPPED;
            n->stopping++;
        }
    }
    busy_changed(n, before);
}

/* Relies on nothing that a state that was refused may have left. */
void nvme_slots_abort(struct nvme *n)
{
    unsigned before = n->in_flight;

    for (unsigned i = 0; i <= NVME_SLOTS; i++) {
        if (n->slot[i].request.state != DISK_IDLE)
            disk_withdraw(n->disk, &n->slot[i].request);
        free_slot(&n->slot[i]);
    }
    n->in_flight = n->stopping = 0;
    busy_changed(n, before);
}

void nvme_slots_init(struct nvme *n)
{
    for (unsigned i = 0; i <= NVME_SLOTS; i++) {
        n->slot[i].nvme = n;
        n->slot[i].number = i;
        free_slot(&n->slot[i]);
    }
}

static bool is_possible(const struct nvme *n, unsigned i)
{
    const struct nvme_slot_state *s = &n->state[i];
    uint64_t size = n->blocks * NVME_BLOCK;

    if (s->busy != SLOT_BUSY)
        return s->busy == SLOT_FREE;
    if (!n->vm->deterministic) /* was settled before it was saved */
        return false;
    if (i == NVME_SLOTS)
        return s->kind == NVME_DO_SHUTDOWN && (n->csts & CSTS_SHST) == CSTS_SHST_BUSY;
    if (!(n->csts & CSTS_RDY) || !s->sqid || s->sqid >= NVME_QUEUES || !n->sq[s->sqid].size ||
        s->fua > 1 || s->deallocate > 2 || s->moved > s->bytes)
        return false;
    switch (s->kind) {
    case NVME_DO_READ:
    case NVME_DO_WRITE:
    case NVME_DO_COMPARE:
        return s->bytes <= NVME_DATA_MAX && s->offset <= size && s->bytes <= size - s->offset &&
               s->moved < s->bytes && !((s->offset | s->bytes | s->moved) % NVME_BLOCK);
    case NVME_DO_FLUSH:
        return true;
    case NVME_DO_ZEROES:
        return s->offset <= size && s->bytes <= size - s->offset &&
               !((s->offset | s->bytes) % NVME_BLOCK);
    case NVME_DO_DEALLOCATE:
        return s->bytes <= (DATASET_RANGES + 1) * RANGE_BYTES && s->bytes % RANGE_BYTES == 0 &&
               s->moved % RANGE_BYTES == 0 && s->offset <= size && s->range_bytes &&
               s->range_bytes <= size - s->offset && !((s->offset | s->range_bytes) % NVME_BLOCK);
    default:
        return false;
    }
}

/* The queues have been checked. */
int nvme_slots_check(struct nvme *n)
{
    for (unsigned i = 0; i <= NVME_SLOTS; i++) {
        if (n->slot[i].request.state != DISK_IDLE)
            disk_withdraw(n->disk, &n->slot[i].request);
        dma_piece_forget(&n->slot[i].piece);
        if (i < NVME_SLOTS)
            n->free_slots[i / 64] |= BIT(i % 64);
    }
    n->in_flight = n->stopping = 0;
    for (unsigned i = 0; i <= NVME_SLOTS; i++) {
        if (!is_possible(n, i))
            return -EINVAL;
        if (!n->state[i].busy)
            continue;
        count_slot(n, &n->state[i], true);
        if (i < NVME_SLOTS)
            n->free_slots[i / 64] &= ~BIT(i % 64);
    }
    return 0;
}

/* In the order in which they were submitted at first. */
void nvme_slots_resume(struct nvme *n)
{
    bool resumed[NVME_SLOTS + 1] = {false};

    for (;;) {
        unsigned first = NVME_SLOTS + 1;

        for (unsigned i = 0; i <= NVME_SLOTS; i++)
            if (n->state[i].busy == SLOT_BUSY && !resumed[i] &&
                (first > NVME_SLOTS || n->state[i].order < n->state[first].order))
                first = i;
        if (first > NVME_SLOTS)
            return;
        resumed[first] = true;
        submit(&n->slot[first]);
    }
}
