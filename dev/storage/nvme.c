/*
 * The NVMe controller as a function on the bus: configuration space, life, saved
 * state. Interface: nvme.h.
 */
#include "dev/storage/nvme.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dev/storage/nvme_internal.h"

enum { NVME_BAR = 0, NVME_MSIX_BAR = 4, NVME_MSI_VECTORS = 32 };

/* ---- life ---- */

static void nvme_reset(void *self)
{
    struct nvme *n = self;

    nvme_slots_abort(n); /* first what touches guest memory */
    pci_function_reset(&n->pci);
    n->cc = n->aqa = 0;
    n->asq = n->acq = 0;
    nvme_stop(n);
    n->line = false;
}

/* By the guest, through configuration space; not by the controller's own DMA. */
static void function_reset(void *ctx)
{
    struct nvme *n = ctx;

    if (!n->dma.depth)
        nvme_reset(n);
}

/* Bus mastering and the way of interrupts may have changed. */
static void config_written(void *ctx, unsigned offset, unsigned size)
{
    struct nvme *n = ctx;

    if (n->dma.depth)
        return;
    nvme_update_pin(n);
    nvme_run(n);
}

static void work_fire(void *ctx)
{
    nvme_run(ctx);
}

static void nvme_destroy(void *self)
{
    struct nvme *n = self;

    nvme_slots_abort(n);
    timer_destroy(&n->coalescing);
    timer_destroy(&n->work);
    pci_function_destroy(&n->pci);
    free(n);
}

/* ---- state ---- */

static const struct state_field sq_fields[] = {
    STATE_INT(struct nvme_sq, base),       STATE_INT(struct nvme_sq, size),
    STATE_INT(struct nvme_sq, head),       STATE_INT(struct nvme_sq, tail),
    STATE_INT(struct nvme_sq, cqid),       STATE_INT(struct nvme_sq, deleting),
    STATE_INT(struct nvme_sq, delete_cid), STATE_END,
};

static const struct state_field cq_fields[] = {
    STATE_INT(struct nvme_cq, base),       STATE_INT(struct nvme_cq, size),
    STATE_INT(struct nvme_cq, head),       STATE_INT(struct nvme_cq, tail),
    STATE_INT(struct nvme_cq, vector),     STATE_INT(struct nvme_cq, phase),
    STATE_INT(struct nvme_cq, interrupts), STATE_END,
};

static const struct state_field feature_fields[] = {
    STATE_INT(struct nvme_features, arbitration),
    STATE_INT(struct nvme_features, error_recovery),
    STATE_INT(struct nvme_features, write_cache),
    STATE_INT(struct nvme_features, coalescing),
    STATE_INT(struct nvme_features, atomicity),
    STATE_INT(struct nvme_features, events),
    STATE_INT(struct nvme_features, hot),
    STATE_INT(struct nvme_features, cold),
    STATE_BYTES(struct nvme_features, not_coalesced),
    STATE_END,
};

static const struct state_field counter_fields[] = {
    STATE_INT(struct nvme_counters, blocks_read),
    STATE_INT(struct nvme_counters, blocks_written),
    STATE_INT(struct nvme_counters, reads),
    STATE_INT(struct nvme_counters, writes),
    STATE_INT(struct nvme_counters, media_errors),
    STATE_INT(struct nvme_counters, errors),
    STATE_INT(struct nvme_counters, busy_ns),
    STATE_INT(struct nvme_counters, busy_since_ns),
    STATE_END,
};

static const struct state_table sq_state = {.name = "nvme-sq", .version = 1, .fields = sq_fields};
static const struct state_table cq_state = {.name = "nvme-cq", .version = 1, .fields = cq_fields};
static const struct state_table feature_state = {
    .name = "nvme-features", .version = 1, .fields = feature_fields};
static const struct state_table counter_state = {
    .name = "nvme-counters", .version = 1, .fields = counter_fields};

static bool is_empty(const void *data, size_t bytes)
{
    const uint8_t *d = data;

    while (bytes && !d[bytes - 1])
        bytes--;
    return !bytes;
}

static int check_registers(const struct nvme *n)
{
    if (n->cc & ~(uint32_t)CC_MASK || n->csts & ~(uint32_t)(CSTS_RDY | CSTS_CFS | CSTS_SHST) ||
        (n->csts & CSTS_SHST) == CSTS_SHST || n->aqa & ~0x0FFF0FFFu || n->asq & 0xFFF ||
        n->acq & 0xFFF || n->next_sq >= NVME_QUEUES || n->events & ~EVENT_ALL ||
        n->masked_events >> EVENT_TYPES || n->event_requests > NVME_EVENT_REQUESTS ||
        !nvme_features_are_possible(n))
        return -EINVAL;
    if (n->csts & CSTS_RDY)
        return !(n->cc & CC_EN) || (n->cc & CC_MPS) >> CC_MPS_SHIFT > CAP_MPSMAX ||
                       !n->sq[0].size || !n->cq[0].size || n->sq[0].cqid
                   ? -EINVAL
                   : 0;
    return is_empty(n->sq, sizeof n->sq) && is_empty(n->cq, sizeof n->cq) ? 0 : -EINVAL;
}

/* Counters that depend on them are counted anew: here, and by nvme_slots_check. */
static int check_queues(struct nvme *n)
{
    for (unsigned id = 0; id < NVME_QUEUES; id++) {
        struct nvme_cq *cq = &n->cq[id];
        unsigned most = id ? NVME_QUEUE_ENTRIES : 4096;

        cq->users = cq->reserved = 0;
        if (cq->size == 1 || cq->size > most || (cq->size && cq->head >= cq->size) ||
            (cq->size && cq->tail >= cq->size) || cq->vector >= NVME_QUEUES ||
            (!cq->size && !is_empty(cq, sizeof *cq)) || n->waiting[id] > 0xFF ||
            (n->waiting[id] != 0) != (n->waiting_until_ns[id] != 0))
            return -EINVAL;
    }
    for (unsigned id = 0; id < NVME_QUEUES; id++) {
        struct nvme_sq *sq = &n->sq[id];
        unsigned most = id ? NVME_QUEUE_ENTRIES : 4096;

        sq->in_flight = 0;
        if (!sq->size && !is_empty(sq, sizeof *sq))
            return -EINVAL;
        if (!sq->size)
            continue;
        if (sq->size == 1 || sq->size > most || sq->head >= sq->size || sq->tail >= sq->size ||
            sq->cqid >= NVME_QUEUES || !n->cq[sq->cqid].size || (!id != !sq->cqid) ||
            sq->deleting) /* a machine that is saved has no data that moves */
            return -EINVAL;
        n->cq[sq->cqid].users++;
    }
    return 0;
}

/* Each command under way has its entry. */
static int check_reserved(const struct nvme *n)
{
    for (unsigned id = 0; id < NVME_QUEUES; id++) {
        const struct nvme_cq *cq = &n->cq[id];

        if (cq->size &&
            (unsigned)(cq->tail + cq->size - cq->head) % cq->size + cq->reserved >= cq->size)
            return -EINVAL;
    }
    return 0;
}

static int after_load(void *self, unsigned version)
{
    struct nvme *n = self;
    int ret;

    pci_function_restored(&n->pci);
    ret = check_registers(n);
    if (!ret)
        ret = check_queues(n);
    if (!ret)
        ret = nvme_slots_check(n);
    if (!ret)
        ret = check_reserved(n);
    if (!ret)
        nvme_slots_resume(n);
    return ret;
}

static const struct state_field nvme_fields[] = {
    STATE_STRUCT(struct nvme, pci, &pci_function_state),
    STATE_STRUCT(struct nvme, msix, &pci_msix_state),
    STATE_INT(struct nvme, cc),
    STATE_INT(struct nvme, csts),
    STATE_INT(struct nvme, aqa),
    STATE_INT(struct nvme, intms),
    STATE_INT(struct nvme, asq),
    STATE_INT(struct nvme, acq),
    STATE_INT(struct nvme, line),
    STATE_INT(struct nvme, next_sq),
    STATE_INT(struct nvme, next_order),
    STATE_STRUCTS(struct nvme, sq, &sq_state),
    STATE_STRUCTS(struct nvme, cq, &cq_state),
    STATE_BYTES(struct nvme, state),
    STATE_STRUCT(struct nvme, features, &feature_state),
    STATE_STRUCT(struct nvme, counters, &counter_state),
    STATE_INT(struct nvme, events),
    STATE_INT(struct nvme, masked_events),
    STATE_INT(struct nvme, event_requests),
    STATE_INTS(struct nvme, event_cid),
    STATE_BYTES(struct nvme, error),
    STATE_INTS(struct nvme, waiting),
    STATE_INTS(struct nvme, waiting_until_ns),
    STATE_TIMER(struct nvme, coalescing),
    STATE_TIMER(struct nvme, work),
    STATE_END,
};

static const struct state_table nvme_state = {
    .name = "nvme",
    .version = 1,
    .fields = nvme_fields,
    .after_load = after_load,
};

static const struct dev_type nvme_type = {
    .name = "nvme",
    .reset = nvme_reset,
    .destroy = nvme_destroy,
    .state = &nvme_state,
};

/* ---- creation ---- */

/* The same disk at the same place has the same name each time (RFC 9562,
 * version 8: its own recipe, which is 64-bit FNV-1a of serial number and place). */
static void make_uuid(const struct nvme *n, uint64_t salt, uint8_t uuid[16])
{
    for (unsigned half = 0; half < 2; half++) {
        uint64_t hash = 0xcbf29ce484222325;
        const char *serial = disk_serial(n->disk);

        hash = (hash ^ (salt << 1 | half)) * 0x100000001b3;
        hash = (hash ^ n->pci.devfn) * 0x100000001b3;
        for (size_t i = 0; serial[i]; i++)
            hash = (hash ^ (uint8_t)serial[i]) * 0x100000001b3;
        le64_put(uuid + 8 * half, hash ^ hash >> 29);
    }
    uuid[6] = (uint8_t)((uuid[6] & 0x0F) | 0x80);
    uuid[8] = (uint8_t)((uuid[8] & 0x3F) | 0x80);
}

static int add_capabilities(struct nvme *n, struct error *err)
{
    int ret = pci_bar_add(&n->pci, NVME_BAR, PCI_BAR_MEMORY64, false, "nvme", NVME_REGISTER_BYTES,
                          &nvme_register_ops, n, err);

    if (!ret)
        ret = pci_power_add(&n->pci, err);
    if (!ret)
        ret = pci_msi_add(&n->pci, NVME_MSI_VECTORS, false, err);
    if (!ret)
        ret = pci_msix_add(&n->pci, &n->msix, NVME_MSIX_BAR, NVME_QUEUES, err);
    if (!ret)
        ret = pci_express_add(&n->pci, PCI_EXPRESS_INTEGRATED, err);
    return ret;
}

struct nvme *nvme_create(struct vm *vm, struct pci_bus *bus, uint8_t devfn,
                         const struct nvme_config *config, struct error *err)
{
    /* The number that QEMU's controller has: systems know it for a virtual one,
     * and otherwise look at the class only. */
    const struct pci_identity id = {
        .vendor = 0x1B36,
        .device = 0x0010,
        .subsystem_vendor = 0x1AF4,
        .subsystem = 0x1100,
        .class_code = 0x010802,
        .revision = 2,
        .interrupt_pin = 1,
        .express = true,
    };
    struct nvme *n = calloc(1, sizeof *n);

    if (!n) {
        error_set(err, -ENOMEM, "out of memory for an NVMe controller");
        return NULL;
    }
    n->vm = vm;
    n->dma = (struct dma_master){.vm = vm, .pci = &n->pci};
    n->disk = config->disk;
    n->blocks = disk_bytes(n->disk) / NVME_BLOCK;
    snprintf(n->name, sizeof n->name, "nvme%u", PCI_DEVICE_OF(devfn));
    nvme_slots_init(n);
    if (pci_function_init(&n->pci, bus, devfn, &id, err)) {
        free(n);
        return NULL;
    }
    n->pci.config_written = config_written;
    n->pci.reset = function_reset;
    n->pci.ctx = n;
    make_uuid(n, 0, n->uuid[0]);
    make_uuid(n, 1, n->uuid[1]);
    if (add_capabilities(n, err)) {
        pci_function_destroy(&n->pci);
        free(n);
        return NULL;
    }
    timer_init(&n->coalescing, vm, nvme_coalescing_fire, n);
    timer_init(&n->work, vm, work_fire, n);
    nvme_reset(n);
    vm_add_device(vm, &nvme_type, n->name, n);
    return n;
}
