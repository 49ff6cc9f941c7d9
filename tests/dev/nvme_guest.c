/*
 * A machine with an NVMe controller, and a driver. Interface: nvme_guest.h.
 */
#include "tests/dev/nvme_guest.h"

#include <stdlib.h>

/* ---- the machine ---- */

/* Destroyed after the controller: it was added before. */
static void world_destroy(void *self)
{
    struct ng_world *w = self;

    disk_destroy(w->disk);
    free(w);
}

static const struct dev_type world_type = {
    .name = "world", .reset = machine_no_reset, .destroy = world_destroy};

static void config(struct harness *h, unsigned offset, uint32_t value, unsigned size)
{
    pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, offset, value, size);
}

void ng_build(struct harness *h)
{
    struct ng_world *old = h->test, *w = calloc(1, sizeof *w);
    struct nvme_config disk;
    struct error err = {.text = ""};

    assert_non_null(w);
    if (old)
        *w = *old; /* the driver's part */
    h->test = w;
    vm_add_device(h->vm, &world_type, "world", w);
    machine_add_memory(h, &w->memory, NG_RAM_BYTES, NG_ROM, old ? &old->memory : NULL);
    w->shim = machine_shim(NG_DISK_BYTES, old ? old->shim : NULL);
    w->disk = disk_create(h->vm, &w->shim->layer, "shim", NULL);
    assert_non_null(w->disk);
    disk_set_serial(w->disk, "SERIAL");
    h->dev[DEV_BUS] = machine_add_bus(h, NG_ECAM, NULL);
    disk.disk = w->disk;
    h->dev[DEV_NVME] = nvme_create(h->vm, h->dev[DEV_BUS], NG_DEVFN, &disk, &err);
    if (!h->dev[DEV_NVME])
        fail_msg("%s", err.text);
    config(h, PCI_BAR0, NG_BAR, 4);
    config(h, PCI_BAR0 + 16, NG_MSIX, 4);
    config(h, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
}

struct harness *ng_create(void)
{
    return harness_create(ng_build);
}

struct ng_world *ng_world(struct harness *h)
{
    return h->test;
}

uint8_t *ng_ram(struct harness *h, uint64_t address)
{
    assert_true(address < NG_RAM_BYTES);
    return ng_world(h)->memory.ram->host + address;
}

/* ---- the driver ---- */

uint32_t ng_get(struct harness *h, unsigned offset)
{
    return (uint32_t)mm_in(h, NG_BAR + offset, 4);
}

void ng_put(struct harness *h, unsigned offset, uint32_t value)
{
    mm_out(h, NG_BAR + offset, value, 4);
}

static void forget_queue(struct harness *h, unsigned id)
{
    struct ng_world *w = ng_world(h);

    w->tail[id] = w->head[id] = 0;
    w->size[id] = NG_ENTRIES;
    w->phase[id] = true;
    memset(ng_ram(h, NG_CQ(id)), 0, NG_ENTRIES * NVME_CQE_BYTES);
}

void ng_enable(struct harness *h)
{
    forget_queue(h, 0);
    ng_put(h, NVME_CC, 0);
    ng_put(h, NVME_AQA, (NG_ENTRIES - 1) << 16 | (NG_ENTRIES - 1));
    ng_put(h, NVME_ASQ, (uint32_t)NG_SQ(0));
    ng_put(h, NVME_ASQ + 4, 0);
    ng_put(h, NVME_ACQ, (uint32_t)NG_CQ(0));
    ng_put(h, NVME_ACQ + 4, 0);
    ng_put(h, NVME_CC, CC_EN | 6 << CC_IOSQES_SHIFT | 4 << CC_IOCQES_SHIFT);
}

void ng_use_msix(struct harness *h)
{
    struct nvme *n = h->dev[DEV_NVME];

    for (unsigned v = 0; v < NVME_QUEUES; v++) {
        mm_out(h, NG_MSIX + v * 16, 0xFEE00000, 4);
        mm_out(h, NG_MSIX + v * 16 + 8, 0x40 + v, 4);
        mm_out(h, NG_MSIX + v * 16 + 12, 0, 4);
    }
    config(h, n->pci.msix_capability + 2u, 1 << 15, 2);
}

uint16_t ng_put_command(struct harness *h, struct nvme_command c)
{
    struct ng_world *w = ng_world(h);
    uint8_t *e = ng_ram(h, NG_SQ(c.sqid) + w->tail[c.sqid] * NVME_SQE_BYTES);

    if (!c.cid)
        c.cid = ++w->cid;
    memset(e, 0, NVME_SQE_BYTES);
    e[0] = c.opcode;
    e[1] = c.flags;
    le16_put(e + 2, c.cid);
    le32_put(e + 4, c.nsid);
    le64_put(e + 24, c.prp1);
    le64_put(e + 32, c.prp2);
    le32_put(e + 40, c.dw10);
    le32_put(e + 44, c.dw11);
    le32_put(e + 48, c.dw12);
    le32_put(e + 52, c.dw13);
    le32_put(e + 56, c.dw14);
    le32_put(e + 60, c.dw15);
    w->tail[c.sqid] = (w->tail[c.sqid] + 1) % w->size[c.sqid];
    return c.cid;
}

void ng_ring(struct harness *h, unsigned id)
{
    ng_put(h, NVME_DOORBELLS + id * 8, ng_world(h)->tail[id]);
}

struct ng_done ng_next(struct harness *h, unsigned id)
{
    struct ng_world *w = ng_world(h);
    const uint8_t *e = ng_ram(h, NG_CQ(id) + w->head[id] * NVME_CQE_BYTES);
    struct ng_done d = {.found = (e[14] & 1) == w->phase[id]};

    if (!d.found)
        return d;
    d.result = le32_get(e);
    d.sq_head = le16_get(e + 8);
    d.sqid = le16_get(e + 10);
    d.cid = le16_get(e + 12);
    d.status = le16_get(e + 14) >> 1;
    if (++w->head[id] == w->size[id]) {
        w->head[id] = 0;
        w->phase[id] = !w->phase[id];
    }
    ng_put(h, NVME_DOORBELLS + id * 8 + 4, w->head[id]);
    return d;
}

struct ng_done ng_run(struct harness *h, struct nvme_command c)
{
    struct ng_done d;
    uint16_t cid = ng_put_command(h, c);

    ng_ring(h, c.sqid);
    harness_advance(h, NS_PER_SEC);
    d = ng_next(h, c.sqid);
    assert_true(d.found);
    assert_int_equal(d.cid, cid);
    assert_int_equal(d.sqid, c.sqid);
    return d;
}

unsigned ng_status(struct harness *h, struct nvme_command c)
{
    return ng_run(h, c).status;
}

void ng_make_queue(struct harness *h, unsigned id, unsigned vector)
{
    struct nvme_command cq = {
        .opcode = NVME_CREATE_CQ,
        .prp1 = NG_CQ(id),
        .dw10 = id | (NG_ENTRIES - 1) << 16,
        .dw11 = 3 | vector << 16,
    };
    struct nvme_command sq = {
        .opcode = NVME_CREATE_SQ,
        .prp1 = NG_SQ(id),
        .dw10 = id | (NG_ENTRIES - 1) << 16,
        .dw11 = 1 | id << 16,
    };

    forget_queue(h, id);
    assert_int_equal(ng_status(h, cq), NVME_OK);
    assert_int_equal(ng_status(h, sq), NVME_OK);
}

struct nvme_command ng_blocks(uint8_t opcode, uint64_t lba, unsigned count, uint64_t address)
{
    return (struct nvme_command){
        .opcode = opcode,
        .sqid = 1,
        .nsid = 1,
        .prp1 = address,
        .prp2 = align_down(address, 4096) + 4096,
        .dw10 = (uint32_t)lba,
        .dw11 = (uint32_t)(lba >> 32),
        .dw12 = count - 1,
    };
}
