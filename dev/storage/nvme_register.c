/*
 * Controller registers and doorbells (NVM Express 1.4c, 3.1), and what they do:
 * enable (7.6.1), controller reset (7.3.2), shutdown notification (7.6.2).
 *
 * A reset does not make the processor that asks for it wait: CSTS.RDY stays set
 * until data that moves right now has moved.
 */
#include "dev/storage/nvme_internal.h"

static uint64_t capabilities(void)
{
    return (NVME_QUEUE_ENTRIES - 1) | 1 << 16 /* CQR: queues are contiguous */ | CAP_TIMEOUT << 24 |
           1ull << 37 /* the NVM command set */ | (uint64_t)CAP_MPSMAX << 52;
}

/* ---- enable and reset ---- */

void nvme_fatal(struct nvme *n, const char *why)
{
    if (n->csts & CSTS_CFS)
        return;
    vlog(n->vm->log, DISK, GUEST, "%s: fatal: %s", n->name, why);
    n->csts |= CSTS_CFS;
}

static void make_admin_queue(struct nvme *n)
{
    n->sq[0] = (struct nvme_sq){.base = n->asq, .size = (uint16_t)((n->aqa & 0xFFF) + 1)};
    n->cq[0] = (struct nvme_cq){
        .base = n->acq,
        .size = (uint16_t)((n->aqa >> 16 & 0xFFF) + 1),
        .phase = true,
        .interrupts = true,
        .users = 1,
    };
}

static void start(struct nvme *n)
{
    unsigned page = nvme_page_bytes(n);

    if (n->cc & (CC_CSS | CC_AMS) || (n->cc & CC_MPS) >> CC_MPS_SHIFT > CAP_MPSMAX) {
        nvme_fatal(n, "CC asks for what CAP does not have");
    } else if (!(n->aqa & 0xFFF) || !(n->aqa >> 16 & 0xFFF) || n->asq % page || n->acq % page) {
        nvme_fatal(n, "an admin queue that cannot be");
    } else {
        make_admin_queue(n);
        n->csts |= CSTS_RDY;
    }
}

void nvme_stop(struct nvme *n)
{
    nvme_slots_stop(n);
    n->csts = 0;
    n->intms = 0;
    n->next_sq = 0;
    memset(n->sq, 0, sizeof n->sq);
    memset(n->cq, 0, sizeof n->cq);
    n->events = n->masked_events = n->event_requests = 0;
    memset(n->event_cid, 0, sizeof n->event_cid);
    memset(n->waiting, 0, sizeof n->waiting);
    memset(n->waiting_until_ns, 0, sizeof n->waiting_until_ns);
    timer_cancel(&n->coalescing);
    timer_cancel(&n->work);
    nvme_features_reset(n);
    nvme_update_pin(n);
}

void nvme_stopped(struct nvme *n)
{
    if ((n->cc & CC_EN) && !(n->csts & (CSTS_RDY | CSTS_CFS)))
        start(n);
}

static void write_cc(struct nvme *n, uint32_t value)
{
    uint32_t before = n->cc;

    value &= CC_MASK;
    if (before & value & CC_EN)
        value = (value & ~(uint32_t)CC_FIXED) | (before & CC_FIXED);
    n->cc = value;
    if ((before & CC_EN) && !(value & CC_EN))
        nvme_stop(n);
    if (!(before & CC_EN) && (value & CC_EN)) {
        nvme_slots_stop(n); /* a shutdown that has not ended */
        n->csts = 0;
        if (!n->stopping)
            start(n);
    }
    if ((value & CC_SHN) && !(before & CC_SHN))
        nvme_shutdown(n);
}

/* ---- registers ---- */

static uint32_t read_register(const struct nvme *n, unsigned offset)
{
    switch (offset) {
    case NVME_CAP:
        return (uint32_t)capabilities();
    case NVME_CAP + 4:
        return (uint32_t)(capabilities() >> 32);
    case NVME_VS:
        return NVME_VERSION;
    case NVME_INTMS:
    case NVME_INTMC:
        return n->intms;
    case NVME_CC:
        return n->cc;
    case NVME_CSTS:
        return n->csts | (n->stopping ? CSTS_RDY : 0);
    case NVME_AQA:
        return n->aqa;
    case NVME_ASQ:
        return (uint32_t)n->asq;
    case NVME_ASQ + 4:
        return (uint32_t)(n->asq >> 32);
    case NVME_ACQ:
        return (uint32_t)n->acq;
    case NVME_ACQ + 4:
        return (uint32_t)(n->acq >> 32);
    default:
        return 0;
    }
}

static void put_half(uint64_t *reg, bool high, uint32_t value)
{
    *reg = high ? (uint64_t)value << 32 | (uint32_t)*reg : (*reg & BITS(63, 32)) | value;
}

static void write_doorbell(struct nvme *n, unsigned offset, uint32_t value)
{
    unsigned id = offset / 8;

    if (!nvme_is_running(n))
        return;
    if (offset & 4)
        nvme_ring_cq(n, id, value);
    else
        nvme_ring_sq(n, id, value);
}

static void write_register(struct nvme *n, unsigned offset, uint32_t value)
{
    uint32_t before = n->intms;

    switch (offset) {
    case NVME_INTMS:
        n->intms |= value;
        nvme_update_pin(n);
        break;
    case NVME_INTMC:
        n->intms &= ~value;
        nvme_unmasked(n, before & ~n->intms);
        break;
    case NVME_CC:
        write_cc(n, value);
        break;
    case NVME_AQA:
        n->aqa = value & 0x0FFF0FFF;
        break;
    case NVME_ASQ:
    case NVME_ASQ + 4:
        put_half(&n->asq, offset & 4, offset & 4 ? value : value & ~0xFFFu);
        break;
    case NVME_ACQ:
    case NVME_ACQ + 4:
        put_half(&n->acq, offset & 4, offset & 4 ? value : value & ~0xFFFu);
        break;
    default:
        if (offset >= NVME_DOORBELLS)
            write_doorbell(n, offset - NVME_DOORBELLS, value);
        break;
    }
}

static uint64_t register_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct nvme *n = ctx;

    return n->dma.depth ? UINT32_MAX : read_register(n, (unsigned)offset);
}

static void register_write(void *ctx, uint64_t offset, uint64_t value, unsigned size)
{
    struct nvme *n = ctx;

    if (!n->dma.depth)
        write_register(n, (unsigned)offset, (uint32_t)value);
}

const struct region_ops nvme_register_ops = {register_read, register_write, 4, 4};
