/*
 * The NVMe controller without a processor: registers, queues, every command,
 * PRPs, interrupts, errors and events, hostile queues, saved state.
 */
#include "tests/dev/nvme_guest.h"

#include <errno.h>
#include <stdlib.h>

/* ---- helpers ---- */

static const uint8_t *image(struct harness *h)
{
    return ng_world(h)->shim->bytes;
}

/* Enabled, with MSI-X and one pair of queues. */
static struct harness *running(void)
{
    struct harness *h = ng_create();

    ng_use_msix(h);
    ng_enable(h);
    ng_make_queue(h, 1, 1);
    h->message_count = 0;
    return h;
}

static struct nvme_command admin(uint8_t opcode, uint32_t nsid, uint32_t dw10, uint32_t dw11)
{
    return (struct nvme_command){
        .opcode = opcode, .nsid = nsid, .dw10 = dw10, .dw11 = dw11, .prp1 = NG_DATA};
}

static unsigned move(struct harness *h, uint8_t opcode, uint64_t lba, unsigned count,
                     uint64_t address)
{
    return ng_status(h, ng_blocks(opcode, lba, count, address));
}

static void fill(struct harness *h, uint64_t address, uint64_t bytes, uint64_t seed)
{
    for (uint64_t i = 0; i < bytes; i++)
        *ng_ram(h, address + i) = (uint8_t)harness_random(&seed);
}

static uint8_t *read_log(struct harness *h, unsigned page, unsigned bytes, bool retain)
{
    memset(ng_ram(h, NG_DATA), 0xAA, 4096);
    assert_int_equal(ng_status(h, admin(NVME_GET_LOG, NVME_ALL_NAMESPACES,
                                        page | (retain ? 1u << 15 : 0) | (bytes / 4 - 1) << 16, 0)),
                     NVME_OK);
    return ng_ram(h, NG_DATA);
}

/* ---- registers ---- */

static void registers(void **state)
{
    struct harness *h = ng_create();
    uint64_t cap = mm_in(h, NG_BAR + NVME_CAP, 8);

    assert_int_equal(cap & 0xFFFF, NVME_QUEUE_ENTRIES - 1);
    assert_true(cap >> 16 & 1 && cap >> 37 & 1);
    assert_int_equal(cap >> 32 & 15, 0);
    assert_int_equal(cap >> 48 & 15, 0);
    assert_int_equal(ng_get(h, NVME_VS), 0x10400);
    assert_int_equal(ng_get(h, NVME_CSTS), 0);
    mm_out(h, NG_BAR + NVME_ASQ, 0x123456789ABCDEFF, 8);
    assert_int_equal(mm_in(h, NG_BAR + NVME_ASQ, 8), 0x123456789ABCD000);
    ng_put(h, NVME_AQA, UINT32_MAX);
    assert_int_equal(ng_get(h, NVME_AQA), 0x0FFF0FFF);
    ng_put(h, NVME_INTMS, 0xF0);
    ng_put(h, NVME_INTMC, 0x30);
    assert_int_equal(ng_get(h, NVME_INTMS), 0xC0);
    /* Doorbells while it is not enabled: nothing. */
    ng_put(h, NVME_DOORBELLS, 1);

    ng_enable(h);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY);
    /* What cannot change while it is enabled does not. */
    ng_put(h, NVME_CC, ng_get(h, NVME_CC) | 1 << CC_MPS_SHIFT | 1 << 11);
    assert_int_equal(ng_get(h, NVME_CC) & (CC_MPS | CC_AMS), 0);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY);
    ng_put(h, NVME_CC, 0);
    assert_int_equal(ng_get(h, NVME_CSTS), 0);
    assert_int_equal(ng_get(h, NVME_ASQ), NG_SQ(0)); /* stays */

    /* Not to be had: page size, command set, arbitration; queues that cannot be. */
    static const uint32_t bad[] = {5 << CC_MPS_SHIFT, 1 << 4, 1 << 11, 7 << 11};

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        ng_put(h, NVME_CC, 0);
        ng_put(h, NVME_CC, bad[n] | CC_EN);
        assert_int_equal(ng_get(h, NVME_CSTS), CSTS_CFS);
    }
    ng_put(h, NVME_CC, 0);
    assert_int_equal(ng_get(h, NVME_CSTS), 0);
    ng_put(h, NVME_AQA, 31);
    ng_put(h, NVME_CC, CC_EN);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_CFS);
    ng_put(h, NVME_CC, 0);
    ng_put(h, NVME_AQA, 31 << 16 | 31);
    ng_put(h, NVME_CC, CC_EN | 4 << CC_MPS_SHIFT); /* queues not on a page of 64 KiB */
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_CFS);
    ng_enable(h);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY);
    harness_reset(h);
    assert_int_equal(ng_get(h, NVME_CSTS), UINT32_MAX); /* the BAR is gone */
    harness_destroy(h);
}

static void shutdown_flushes(void **state)
{
    struct harness *h = running();
    unsigned flushes = ng_world(h)->shim->flushes;

    ng_put(h, NVME_CC, ng_get(h, NVME_CC) | 1 << 14);
    assert_int_equal(ng_get(h, NVME_CSTS) & CSTS_SHST, CSTS_SHST_BUSY);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(ng_get(h, NVME_CSTS) & CSTS_SHST, CSTS_SHST_DONE);
    assert_int_equal(ng_world(h)->shim->flushes, flushes + 1);
    ng_enable(h);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY);
    /* Twice in a row, the second before the first has ended. */
    ng_put(h, NVME_CC, ng_get(h, NVME_CC) | 1 << 14);
    ng_enable(h);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY);
    ng_put(h, NVME_CC, ng_get(h, NVME_CC) | 2 << 14);
    harness_reload(h);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY | CSTS_SHST_DONE);
    assert_int_equal(disk_in_flight(ng_world(h)->disk), 0);
    harness_destroy(h);
}

/* ---- admin commands ---- */

static void identify(void **state)
{
    struct harness *h = running();
    uint8_t *d = ng_ram(h, NG_DATA);

    assert_int_equal(ng_status(h, admin(NVME_IDENTIFY, 0, 1, 0)), NVME_OK);
    assert_memory_equal(d + 4, "SERIAL              ", 20);
    assert_memory_equal(d + 24, "VIREO NVME   ", 13);
    assert_int_equal(d[77], NVME_MDTS);
    assert_int_equal(le32_get(d + 80), 0x10400);
    assert_int_equal(d[512], 0x66);
    assert_int_equal(le32_get(d + 516), 1);
    assert_memory_equal(d + 768, "nqn.2014-08.org.nvmexpress:uuid:", 32);

    assert_int_equal(ng_status(h, admin(NVME_IDENTIFY, 1, 0, 0)), NVME_OK);
    assert_int_equal(le64_get(d), NG_BLOCKS);
    assert_int_equal(d[25], 0);
    assert_int_equal(le32_get(d + 128), 9 << 16);
    assert_int_equal(ng_status(h, admin(NVME_IDENTIFY, 0, 2, 0)), NVME_OK);
    assert_int_equal(le32_get(d), 1);
    assert_int_equal(le32_get(d + 4), 0);
    assert_int_equal(ng_status(h, admin(NVME_IDENTIFY, 1, 2, 0)), NVME_OK);
    assert_int_equal(le32_get(d), 0);
    assert_int_equal(ng_status(h, admin(NVME_IDENTIFY, 1, 3, 0)), NVME_OK);
    assert_int_equal(d[0], 3);
    assert_int_equal(d[1], 16);
    assert_int_equal(d[20], 0);

    assert_int_equal(ng_status(h, admin(NVME_IDENTIFY, 0, 0, 0)), NVME_INVALID_NAMESPACE);
    assert_int_equal(ng_status(h, admin(NVME_IDENTIFY, 2, 0, 0)), NVME_INVALID_NAMESPACE);
    assert_int_equal(ng_status(h, admin(NVME_IDENTIFY, NVME_ALL_NAMESPACES, 0, 0)),
                     NVME_INVALID_NAMESPACE);
    assert_int_equal(ng_status(h, admin(NVME_IDENTIFY, NVME_ALL_NAMESPACES - 1, 2, 0)),
                     NVME_INVALID_NAMESPACE);
    assert_int_equal(ng_status(h, admin(NVME_IDENTIFY, 0, 0x13, 0)), NVME_INVALID_FIELD);
    assert_int_equal(ng_status(h, admin(0x80, 0, 0, 0)), NVME_INVALID_OPCODE);
    assert_int_equal(ng_status(h, (struct nvme_command){.opcode = NVME_IDENTIFY,
                                                        .flags = 0x40,
                                                        .dw10 = 1,
                                                        .prp1 = NG_DATA}),
                     NVME_INVALID_FIELD); /* SGLs */
    harness_destroy(h);
}

static struct nvme_command queue(uint8_t opcode, unsigned id, unsigned entries, uint32_t dw11)
{
    struct nvme_command c = admin(opcode, 0, id | (entries - 1) << 16, dw11);

    c.prp1 = NG_CQ(2);
    return c;
}

static void queues(void **state)
{
    struct harness *h = running();
    struct nvme_command c;

    for (unsigned bad = 0; bad < 2; bad++) {
        uint8_t opcode = bad ? NVME_CREATE_CQ : NVME_CREATE_SQ;
        uint32_t dw11 = bad ? 3 : 1 << 16 | 1;

        assert_int_equal(ng_status(h, queue(opcode, 0, 8, dw11)), NVME_INVALID_QUEUE);
        assert_int_equal(ng_status(h, queue(opcode, 1, 8, dw11)), NVME_INVALID_QUEUE);
        assert_int_equal(ng_status(h, queue(opcode, NVME_QUEUES, 8, dw11)), NVME_INVALID_QUEUE);
        assert_int_equal(ng_status(h, queue(opcode, 2, 1, dw11)), NVME_INVALID_QUEUE_SIZE);
        assert_int_equal(ng_status(h, queue(opcode, 2, 1025, dw11)), NVME_INVALID_QUEUE_SIZE);
        assert_int_equal(ng_status(h, queue(opcode, 2, 8, dw11 & ~1u)), NVME_INVALID_FIELD);
        c = queue(opcode, 2, 8, dw11);
        c.prp1 += 512;
        assert_int_equal(ng_status(h, c), NVME_PRP_OFFSET);
    }
    assert_int_equal(ng_status(h, queue(NVME_CREATE_CQ, 2, 8, 3 | NVME_QUEUES << 16)),
                     NVME_INVALID_VECTOR);
    assert_int_equal(ng_status(h, queue(NVME_CREATE_SQ, 2, 8, 1)), NVME_INVALID_QUEUE);
    assert_int_equal(ng_status(h, queue(NVME_CREATE_SQ, 2, 8, 1 | 2 << 16)), NVME_CQ_INVALID);

    assert_int_equal(ng_status(h, queue(NVME_DELETE_CQ, 1, 1, 0)), NVME_INVALID_DELETION);
    assert_int_equal(ng_status(h, queue(NVME_DELETE_CQ, 2, 1, 0)), NVME_INVALID_QUEUE);
    assert_int_equal(ng_status(h, queue(NVME_DELETE_CQ, 0, 1, 0)), NVME_INVALID_QUEUE);
    assert_int_equal(ng_status(h, queue(NVME_DELETE_SQ, 0, 1, 0)), NVME_INVALID_QUEUE);
    assert_int_equal(ng_status(h, queue(NVME_DELETE_SQ, 2, 1, 0)), NVME_INVALID_QUEUE);
    assert_int_equal(ng_status(h, queue(NVME_DELETE_SQ, 0xFFFF, 1, 0)), NVME_INVALID_QUEUE);

    /* Commands under way when their queue goes. */
    for (unsigned n = 0; n < 3; n++)
        ng_put_command(h, ng_blocks(NVME_READ, n, 1, NG_BUFFER));
    ng_ring(h, 1);
    assert_int_equal(ng_status(h, queue(NVME_DELETE_SQ, 1, 1, 0)), NVME_OK);
    for (unsigned n = 0; n < 3; n++)
        assert_int_equal(ng_next(h, 1).status, NVME_ABORTED_SQ);
    assert_false(ng_next(h, 1).found);
    assert_int_equal(disk_in_flight(ng_world(h)->disk), 0);
    assert_int_equal(ng_status(h, queue(NVME_DELETE_CQ, 1, 1, 0)), NVME_OK);

    /* All there are, and queues of one entry less than one has. */
    for (unsigned id = 1; id < NVME_QUEUES; id++)
        ng_make_queue(h, id, id);
    for (unsigned id = 1; id < NVME_QUEUES; id++) {
        c = ng_blocks(NVME_READ, id, 1, NG_BUFFER);
        c.sqid = (uint16_t)id;
        assert_int_equal(ng_status(h, c), NVME_OK);
        assert_memory_equal(ng_ram(h, NG_BUFFER), image(h) + id * 512, 512);
        assert_int_equal(h->message[h->message_count - 1].data, 0x40 + id);
    }
    harness_destroy(h);
}

static uint32_t feature(struct harness *h, unsigned id, unsigned select, uint32_t dw11)
{
    struct ng_done d =
        ng_run(h, admin(NVME_GET_FEATURES, id == FEATURE_ERROR_RECOVERY, id | select << 8, dw11));

    assert_int_equal(d.status, NVME_OK);
    return d.result;
}

static unsigned set_feature(struct harness *h, unsigned id, uint32_t value)
{
    return ng_status(h, admin(NVME_SET_FEATURES, id == FEATURE_ERROR_RECOVERY, id, value));
}

static void features(void **state)
{
    static const struct {
        uint8_t id;
        uint32_t initial, value, wrong;
    } list[] = {
        {FEATURE_ARBITRATION, 3, 0x01020307, 0},
        {FEATURE_POWER, 0, 0, 1},
        {FEATURE_TEMPERATURE, NVME_KELVIN_WARNING, 350, 1 << 16},
        {FEATURE_ERROR_RECOVERY, 0, 100, 1 << 16},
        {FEATURE_WRITE_CACHE, 1, 0, 2},
        {FEATURE_COALESCING, 0, 0x0203, 1 << 16},
        {FEATURE_ATOMICITY, 0, 1, 2},
        {FEATURE_EVENTS, 0, 3, 1 << 8},
    };
    struct harness *h = ng_create();

    ng_use_msix(h);
    ng_enable(h);
    for (size_t n = 0; n < ARRAY_SIZE(list); n++) {
        unsigned id = list[n].id;

        assert_int_equal(feature(h, id, 0, 0), list[n].initial);
        if (list[n].wrong)
            assert_int_equal(set_feature(h, id, list[n].wrong), NVME_INVALID_FIELD);
        assert_int_equal(set_feature(h, id, list[n].value), NVME_OK);
        assert_int_equal(feature(h, id, 0, 0), list[n].value);
        assert_int_equal(feature(h, id, 1, 0), list[n].initial);
        assert_int_equal(feature(h, id, 2, 0), list[n].initial);
        assert_int_equal(feature(h, id, 3, 0), id == FEATURE_ERROR_RECOVERY ? 6 : 4);
        assert_int_equal(
            ng_status(h, admin(NVME_SET_FEATURES, id == FEATURE_ERROR_RECOVERY, id | 1u << 31, 0)),
            NVME_NOT_SAVEABLE);
    }
    assert_int_equal(feature(h, FEATURE_QUEUES, 0, 0), 63 << 16 | 63);
    assert_int_equal(ng_run(h, admin(NVME_SET_FEATURES, 0, FEATURE_QUEUES, 3 << 16 | 3)).result,
                     63 << 16 | 63);
    assert_int_equal(set_feature(h, FEATURE_QUEUES, 0xFFFF), NVME_INVALID_FIELD);
    assert_int_equal(feature(h, FEATURE_VECTOR, 0, 7), 7);
    assert_int_equal(set_feature(h, FEATURE_VECTOR, 1 << 16 | 7), NVME_OK);
    assert_int_equal(feature(h, FEATURE_VECTOR, 0, 7), 1 << 16 | 7);
    assert_int_equal(set_feature(h, FEATURE_VECTOR, NVME_QUEUES), NVME_INVALID_FIELD);
    assert_int_equal(ng_status(h, admin(NVME_GET_FEATURES, 0, 0x0E, 0)), NVME_INVALID_FIELD);
    assert_int_equal(ng_status(h, admin(NVME_GET_FEATURES, 0, 1 | 4 << 8, 0)), NVME_INVALID_FIELD);
    assert_int_equal(ng_status(h, admin(NVME_SET_FEATURES, 0, 0x7F, 0)), NVME_INVALID_FIELD);
    assert_int_equal(ng_status(h, admin(NVME_SET_FEATURES, 1, FEATURE_ARBITRATION, 0)),
                     NVME_NOT_NAMESPACE);
    assert_int_equal(ng_status(h, admin(NVME_SET_FEATURES, 5, FEATURE_ERROR_RECOVERY, 0)),
                     NVME_INVALID_NAMESPACE);
    ng_make_queue(h, 1, 1);
    assert_int_equal(set_feature(h, FEATURE_QUEUES, 3 << 16 | 3), NVME_SEQUENCE_ERROR);
    harness_reload(h);
    assert_int_equal(feature(h, FEATURE_COALESCING, 0, 0), 0x0203);
    ng_enable(h); /* a reset brings the defaults back */
    assert_int_equal(feature(h, FEATURE_COALESCING, 0, 0), 0);
    harness_destroy(h);
}

static void logs(void **state)
{
    struct harness *h = running();
    struct nvme_command c;
    const uint8_t *d;

    assert_int_equal(move(h, NVME_READ, 0, 1, NG_BUFFER), NVME_OK);
    assert_int_equal(move(h, NVME_WRITE, 0, 8, NG_BUFFER), NVME_OK);
    assert_int_equal(move(h, NVME_READ, NG_BLOCKS, 1, NG_BUFFER), NVME_LBA_RANGE);
    d = read_log(h, PAGE_HEALTH, 512, false);
    assert_int_equal(d[0], 0);
    assert_int_equal(le16_get(d + 1), NVME_KELVIN);
    assert_int_equal(d[3], 100);
    assert_int_equal(le64_get(d + 32), 1);
    assert_int_equal(le64_get(d + 48), 1);
    assert_int_equal(le64_get(d + 64), 1);
    assert_int_equal(le64_get(d + 80), 1);
    assert_int_equal(le64_get(d + 176), 1);
    d = read_log(h, PAGE_ERRORS, 1024, false);
    assert_int_equal(le64_get(d), 1);
    assert_int_equal(le16_get(d + 8), 1);
    assert_int_equal(le16_get(d + 12), NVME_LBA_RANGE << 1);
    assert_int_equal(le64_get(d + 16), NG_BLOCKS);
    assert_int_equal(le64_get(d + 64), 0);
    d = read_log(h, PAGE_FIRMWARE, 512, false);
    assert_int_equal(d[0], 1);
    d = read_log(h, PAGE_EFFECTS, 4096, false);
    assert_int_equal(le32_get(d + 4 * NVME_IDENTIFY), 1);
    assert_int_equal(le32_get(d + 1024 + 4 * NVME_WRITE), 3);
    assert_int_equal(le32_get(d + 1024 + 4 * 0x0D), 0);
    /* From the middle; past the end nothing is written. */
    memset(ng_ram(h, NG_DATA), 0xAA, 4096);
    c = admin(NVME_GET_LOG, 0, PAGE_HEALTH | 255 << 16, 0);
    c.dw12 = 480;
    assert_int_equal(ng_status(h, c), NVME_OK);
    assert_int_equal(*ng_ram(h, NG_DATA + 31), 0);
    assert_int_equal(*ng_ram(h, NG_DATA + 32), 0xAA);
    c.dw12 = 516;
    assert_int_equal(ng_status(h, c), NVME_INVALID_FIELD);
    c.dw12 = 2;
    assert_int_equal(ng_status(h, c), NVME_INVALID_FIELD);
    c.dw12 = 0;
    c.dw13 = 1;
    assert_int_equal(ng_status(h, c), NVME_INVALID_FIELD);
    assert_int_equal(ng_status(h, admin(NVME_GET_LOG, 0, 0x70, 0)), NVME_INVALID_LOG);
    assert_int_equal(ng_status(h, admin(NVME_GET_LOG, 0, PAGE_HEALTH, 0xFFFF)), NVME_INVALID_FIELD);
    assert_int_equal(ng_status(h, admin(NVME_GET_LOG, 1, PAGE_HEALTH, 0)), NVME_INVALID_FIELD);
    assert_int_equal(ng_status(h, admin(NVME_GET_LOG, 2, PAGE_HEALTH, 0)), NVME_INVALID_NAMESPACE);
    /* PRPs are for what was wanted: the second is a list, though a page is written. */
    c = admin(NVME_GET_LOG, 0, PAGE_EFFECTS | 4095u << 16, 0); /* 16 KiB */
    c.prp1 = NG_DATA + 0x800;
    c.prp2 = NG_LIST;
    for (unsigned n = 0; n < 4; n++)
        le64_put(ng_ram(h, NG_LIST + 8 * n), NG_BUFFER + n * 4096);
    assert_int_equal(ng_status(h, c), NVME_OK);
    assert_int_equal(le64_get(ng_ram(h, NG_LIST)), NG_BUFFER);
    harness_destroy(h);
}

static void aborting(void **state)
{
    struct harness *h = running();
    uint16_t cid;
    struct ng_done d;

    cid = ng_put_command(h, ng_blocks(NVME_READ, 0, 1, NG_BUFFER));
    ng_put_command(h, ng_blocks(NVME_READ, 1, 1, NG_BUFFER));
    ng_ring(h, 1);
    d = ng_run(h, admin(NVME_ABORT, 0, 1 | (uint32_t)cid << 16, 0));
    assert_int_equal(d.status, NVME_OK);
    assert_int_equal(d.result, 0);
    d = ng_next(h, 1);
    assert_int_equal(d.cid, cid);
    assert_int_equal(d.status, NVME_ABORTED);
    assert_int_equal(ng_next(h, 1).status, NVME_OK);
    assert_int_equal(ng_run(h, admin(NVME_ABORT, 0, 1 | (uint32_t)cid << 16, 0)).result, 1);
    assert_int_equal(ng_run(h, admin(NVME_ABORT, 0, 77, 0)).result, 1);
    cid = ng_put_command(h, admin(NVME_ASYNC_EVENT, 0, 0, 0));
    ng_ring(h, 0);
    ng_put_command(h, admin(NVME_ABORT, 0, (uint32_t)cid << 16, 0));
    ng_ring(h, 0);
    d = ng_next(h, 0);
    assert_int_equal(d.cid, cid);
    assert_int_equal(d.status, NVME_ABORTED);
    assert_int_equal(ng_next(h, 0).result, 0);
    harness_destroy(h);
}

static void async_events(void **state)
{
    struct harness *h = running();
    struct ng_done d;

    for (unsigned n = 0; n < NVME_EVENT_REQUESTS; n++)
        ng_put_command(h, admin(NVME_ASYNC_EVENT, 0, 0, 0));
    ng_ring(h, 0);
    assert_false(ng_next(h, 0).found);
    assert_int_equal(ng_status(h, admin(NVME_ASYNC_EVENT, 0, 0, 0)), NVME_EVENT_LIMIT);
    read_log(h, PAGE_ERRORS, 64, false);

    ng_put(h, NVME_DOORBELLS + 8 * 9, 1); /* no such queue */
    d = ng_next(h, 0);
    assert_int_equal(d.status, NVME_OK);
    assert_int_equal(d.result, 0x010000);
    /* The same again is told once the log has been read. */
    ng_put(h, NVME_DOORBELLS + 8, 32);
    assert_false(ng_next(h, 0).found);
    read_log(h, PAGE_ERRORS, 64, true);
    assert_false(ng_next(h, 0).found);
    read_log(h, PAGE_ERRORS, 64, false);
    ng_put(h, NVME_DOORBELLS + 8, 32); /* past the queue's end */
    assert_int_equal(ng_next(h, 0).result, 0x010100);
    assert_int_equal(le16_get(read_log(h, PAGE_ERRORS, 64, false) + 10), 0xFFFF);
    ng_put(h, NVME_DOORBELLS + 8 + 4, 1); /* an entry that was never posted */
    assert_int_equal(ng_next(h, 0).result, 0x010100);
    read_log(h, PAGE_ERRORS, 64, false);

    /* Temperature: only where it is asked for. */
    assert_int_equal(set_feature(h, FEATURE_TEMPERATURE, 300), NVME_OK);
    assert_int_equal(read_log(h, PAGE_HEALTH, 512, false)[0], 2);
    assert_int_equal(set_feature(h, FEATURE_TEMPERATURE, 350), NVME_OK);
    assert_int_equal(set_feature(h, FEATURE_EVENTS, 2), NVME_OK);
    harness_reload(h);
    ng_put_command(h, admin(NVME_SET_FEATURES, 0, FEATURE_TEMPERATURE, 1 << 20 | 320));
    ng_ring(h, 0);
    assert_int_equal(ng_next(h, 0).result, 0x020101);
    assert_true(ng_next(h, 0).found);
    assert_false(ng_next(h, 0).found);

    /* More events than requests: they wait. */
    ng_put(h, NVME_DOORBELLS + 8 * 9, 1);
    assert_false(ng_next(h, 0).found);
    ng_put_command(h, admin(NVME_ASYNC_EVENT, 0, 0, 0));
    ng_ring(h, 0);
    assert_int_equal(ng_next(h, 0).result, 0x010000);
    harness_destroy(h);
}

/* ---- I/O ---- */

static void transfers(void **state)
{
    struct harness *h = running();
    struct nvme_command c;

    assert_int_equal(move(h, NVME_READ, 5, 8, NG_BUFFER), NVME_OK);
    assert_memory_equal(ng_ram(h, NG_BUFFER), image(h) + 5 * 512, 4096);
    fill(h, NG_BUFFER, 8192, 3);
    assert_int_equal(move(h, NVME_WRITE, 100, 16, NG_BUFFER), NVME_OK);
    assert_memory_equal(ng_ram(h, NG_BUFFER), image(h) + 100 * 512, 8192);
    assert_int_equal(h->message_count, 2);
    assert_int_equal(h->message[1].data, 0x41);

    /* Compare: the same, and not. */
    assert_int_equal(move(h, NVME_COMPARE, 100, 16, NG_BUFFER), NVME_OK);
    *ng_ram(h, NG_BUFFER + 8191) ^= 1;
    assert_int_equal(move(h, NVME_COMPARE, 100, 16, NG_BUFFER), NVME_COMPARE_FAILURE);

    /* Zeroes, deallocated or not. */
    for (unsigned deallocate = 0; deallocate < 2; deallocate++) {
        fill(h, NG_BUFFER, 4096, 9);
        assert_int_equal(move(h, NVME_WRITE, 200, 8, NG_BUFFER), NVME_OK);
        c = ng_blocks(NVME_WRITE_ZEROES, 201, 6, 0);
        c.dw12 |= deallocate << 25;
        assert_int_equal(ng_status(h, c), NVME_OK);
        for (unsigned n = 512; n < 7 * 512; n++)
            assert_int_equal(image(h)[200 * 512 + n], 0);
        assert_memory_equal(ng_ram(h, NG_BUFFER), image(h) + 200 * 512, 512);
        assert_memory_equal(ng_ram(h, NG_BUFFER + 7 * 512), image(h) + 207 * 512, 512);
    }

    /* The end of the disk, and past it. */
    assert_int_equal(move(h, NVME_READ, NG_BLOCKS - 1, 1, NG_BUFFER), NVME_OK);
    assert_int_equal(move(h, NVME_READ, NG_BLOCKS - 1, 2, NG_BUFFER), NVME_LBA_RANGE);
    assert_int_equal(move(h, NVME_WRITE, UINT64_MAX, 1, NG_BUFFER), NVME_LBA_RANGE);
    assert_int_equal(move(h, NVME_WRITE, UINT64_MAX - 1, 8, NG_BUFFER), NVME_LBA_RANGE);
    assert_int_equal(move(h, NVME_WRITE_ZEROES, NG_BLOCKS, 1, 0), NVME_LBA_RANGE);
    assert_int_equal(move(h, NVME_READ, 0, 2049, NG_BUFFER), NVME_INVALID_FIELD); /* MDTS */
    for (uint32_t nsid = 0; nsid < 3; nsid += 2) {
        c = ng_blocks(NVME_READ, 0, 1, NG_BUFFER);
        c.nsid = nsid;
        assert_int_equal(ng_status(h, c), NVME_INVALID_NAMESPACE);
    }
    c = ng_blocks(NVME_WRITE, 0, 1, NG_BUFFER);
    c.dw12 |= 1 << 20; /* a directive */
    assert_int_equal(ng_status(h, c), NVME_INVALID_FIELD);
    c = ng_blocks(NVME_READ, 0, 1, NG_BUFFER);
    c.flags = 1; /* fused */
    assert_int_equal(ng_status(h, c), NVME_INVALID_FIELD);
    assert_int_equal(move(h, 0x04, 0, 1, NG_BUFFER), NVME_INVALID_OPCODE);
    harness_destroy(h);
}

/* What PRPs may be, with lists that go on in others, in pages of 4 and 64 KiB. */
static void prps(void **state)
{
    struct harness *h = running();
    struct nvme_command c = ng_blocks(NVME_READ, 0, 2048, NG_BUFFER + 0x800);
    static const unsigned offsets[] = {0, 8, 2048, 4080, 4088};
    uint64_t seed = 5;

    for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
        uint64_t list = NG_LIST + offsets[i];
        uint64_t data[257], next = NG_LIST + 0x10000;
        unsigned page = 1;

        /* 1 MiB from the middle of a page on: 257 pages, none beside another. */
        data[0] = NG_BUFFER + 0x800;
        for (unsigned n = 1; n < 257; n++)
            data[n] = NG_BUFFER + 4096 + (uint64_t)(n * 2 % 513) * 4096;
        c.prp2 = list;
        while (page < 257) {
            bool last_in_page = (list + 8) % 4096 == 0;

            if (last_in_page && page < 256) {
                le64_put(ng_ram(h, list), next);
                list = next;
                next += 0x1000;
                continue;
            }
            le64_put(ng_ram(h, list), data[page++]);
            list += 8;
        }
        memset(ng_ram(h, NG_BUFFER), 0, 0x300000);
        assert_int_equal(ng_status(h, c), NVME_OK);
        assert_memory_equal(ng_ram(h, data[0]), image(h), 0x800);
        for (unsigned n = 1; n < 257; n++)
            assert_memory_equal(ng_ram(h, data[n]), image(h) + 0x800 + (n - 1) * 4096,
                                n == 256 ? 0x800 : 4096);
        /* As a write it is the same again. */
        c.opcode = NVME_COMPARE;
        assert_int_equal(ng_status(h, c), NVME_OK);
        c.opcode = NVME_READ;
    }

    /* Offsets that may not be. */
    assert_int_equal(move(h, NVME_READ, 0, 1, NG_BUFFER + 2), NVME_PRP_OFFSET);
    assert_int_equal(move(h, NVME_READ, 0, 1, NG_BUFFER + 4), NVME_OK);
    c = ng_blocks(NVME_READ, 0, 16, NG_BUFFER);
    c.prp2 = NG_BUFFER + 4096 + 512;
    assert_int_equal(ng_status(h, c), NVME_PRP_OFFSET);
    c = ng_blocks(NVME_READ, 0, 24, NG_BUFFER);
    c.prp2 = NG_LIST + 4;
    assert_int_equal(ng_status(h, c), NVME_PRP_OFFSET);
    c.prp2 = NG_LIST;
    le64_put(ng_ram(h, NG_LIST), NG_BUFFER + 4096);
    le64_put(ng_ram(h, NG_LIST + 8), NG_BUFFER + 8192 + 8);
    assert_int_equal(ng_status(h, c), NVME_PRP_OFFSET);
    c.prp2 = NG_LIST + 4088; /* a list of a pointer alone, to no page */
    le64_put(ng_ram(h, NG_LIST + 4088), NG_LIST + 0x10008);
    assert_int_equal(ng_status(h, c), NVME_PRP_OFFSET);
    /* No memory: buffers, lists. */
    c.prp2 = 0x7000000000;
    assert_int_equal(ng_status(h, c), NVME_TRANSFER_ERROR);
    assert_int_equal(move(h, NVME_READ, 0, 1, 0x7000000000), NVME_TRANSFER_ERROR);
    assert_int_equal(move(h, NVME_WRITE, 0, 1, UINT64_MAX - 4095), NVME_TRANSFER_ERROR);
    /* Onto ROM nothing is written; from there a write takes what is there. */
    assert_int_equal(move(h, NVME_READ, 0, 1, NG_ROM), NVME_OK);
    assert_int_equal(move(h, NVME_WRITE, 3, 1, NG_ROM), NVME_OK);
    assert_int_equal(image(h)[3 * 512], 0);
    /* The controller's own registers: ones, and no effect. */
    assert_int_equal(move(h, NVME_WRITE, 3, 8, NG_BAR), NVME_OK);
    assert_int_equal(image(h)[3 * 512], 0xFF);
    assert_int_equal(move(h, NVME_READ, 0, 8, NG_BAR + NVME_DOORBELLS), NVME_OK);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY);

    /* Pages of 64 KiB. */
    ng_put(h, NVME_CC, 0);
    ng_put(h, NVME_CC, CC_EN | 4 << CC_MPS_SHIFT);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_CFS); /* queue at 11000H */
    (void)seed;
    harness_destroy(h);
}

static void pages_of_64k(void **state)
{
    struct harness *h = ng_create();
    struct nvme_command c = {.opcode = NVME_IDENTIFY, .cid = 1, .dw10 = 1, .prp1 = 0x20F800};
    uint8_t *e;

    /* By hand: the driver's queues are not on such pages. */
    ng_put(h, NVME_AQA, 7 << 16 | 7);
    ng_put(h, NVME_ASQ, 0x100000);
    ng_put(h, NVME_ACQ, 0x110000);
    ng_put(h, NVME_CC, CC_EN | 4 << CC_MPS_SHIFT | 6 << 16 | 4 << 20);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY);
    e = ng_ram(h, 0x100000);
    e[0] = c.opcode;
    e[2] = 1;
    le64_put(e + 24, c.prp1); /* 2 KiB to the page's end, 2 KiB in the next */
    le64_put(e + 32, 0x300000);
    le32_put(e + 40, 1);
    ng_put(h, NVME_DOORBELLS, 1);
    assert_int_equal(le16_get(ng_ram(h, 0x11000E)), 1); /* good, phase 1 */
    assert_memory_equal(ng_ram(h, 0x20F800 + 4), "SERIAL ", 7);
    assert_int_equal(*ng_ram(h, 0x20FFFF + 1), 0);
    harness_destroy(h);
}

static void dataset(void **state)
{
    struct harness *h = running();
    struct nvme_command c = ng_blocks(NVME_DATASET, 0, 1, NG_BUFFER);
    unsigned discards;

    c.dw10 = 2; /* three ranges */
    c.dw11 = 4;
    memset(ng_ram(h, NG_BUFFER), 0, 64);
    le32_put(ng_ram(h, NG_BUFFER + 4), 8);
    le64_put(ng_ram(h, NG_BUFFER + 8), 16);
    le32_put(ng_ram(h, NG_BUFFER + 36), 1);
    le64_put(ng_ram(h, NG_BUFFER + 40), NG_BLOCKS - 1);
    assert_int_equal(ng_status(h, c), NVME_OK);
    discards = ng_world(h)->shim->discards;
    assert_int_equal(discards, 2); /* one was empty */
    le64_put(ng_ram(h, NG_BUFFER + 40), NG_BLOCKS);
    assert_int_equal(ng_status(h, c), NVME_LBA_RANGE);
    le64_put(ng_ram(h, NG_BUFFER + 40), UINT64_MAX);
    assert_int_equal(ng_status(h, c), NVME_LBA_RANGE);
    discards = ng_world(h)->shim->discards;
    c.dw11 = 3; /* hints alone */
    assert_int_equal(ng_status(h, c), NVME_OK);
    assert_int_equal(ng_world(h)->shim->discards, discards);
    c.dw11 = 4;
    c.prp1 = 0x7000000000;
    assert_int_equal(ng_status(h, c), NVME_TRANSFER_ERROR);
    c.prp1 = NG_BUFFER;
    c.nsid = NVME_ALL_NAMESPACES;
    assert_int_equal(ng_status(h, c), NVME_INVALID_NAMESPACE);
    harness_destroy(h);
}

/* What is told to be on the disk is; errors of the host are the guest's. */
static void flushes_and_faults(void **state)
{
    struct harness *h = running();
    struct shim *s = ng_world(h)->shim;
    struct nvme_command c;
    unsigned before;

    shim_mark(s);
    fill(h, NG_BUFFER, 4096, 77);
    assert_int_equal(move(h, NVME_WRITE, 10, 8, NG_BUFFER), NVME_OK);
    c = (struct nvme_command){.opcode = NVME_FLUSH, .sqid = 1, .nsid = NVME_ALL_NAMESPACES};
    assert_int_equal(ng_status(h, c), NVME_OK);
    assert_true(shim_crash_check(s, s->events, 10 * 512, ng_ram(h, NG_BUFFER), 4096, 1));
    c.nsid = 3;
    assert_int_equal(ng_status(h, c), NVME_INVALID_NAMESPACE);
    before = s->flushes;
    c = ng_blocks(NVME_WRITE, 50, 8, NG_BUFFER);
    c.dw12 |= 1 << 30;
    assert_int_equal(ng_status(h, c), NVME_OK);
    assert_int_equal(s->flushes, before + 1);
    assert_true(shim_crash_check(s, s->events, 50 * 512, ng_ram(h, NG_BUFFER), 4096, 2));
    assert_int_equal(set_feature(h, FEATURE_WRITE_CACHE, 0), NVME_OK);
    assert_int_equal(move(h, NVME_WRITE, 70, 8, NG_BUFFER), NVME_OK);
    assert_int_equal(s->flushes, before + 2);

    shim_fail(s, DISK_READ, 0, 512, 1, -EIO);
    assert_int_equal(move(h, NVME_READ, 0, 1, NG_BUFFER), NVME_READ_ERROR);
    assert_int_equal(move(h, NVME_READ, 0, 1, NG_BUFFER), NVME_OK);
    shim_fail(s, DISK_WRITE, 0, 512, 1, -EIO);
    assert_int_equal(move(h, NVME_WRITE, 0, 1, NG_BUFFER), NVME_WRITE_FAULT);
    shim_fail(s, DISK_WRITE, 0, 512, 1, -ENOSPC);
    assert_int_equal(move(h, NVME_WRITE, 0, 1, NG_BUFFER), NVME_CAPACITY);
    shim_fail(s, DISK_FLUSH, 0, 512, 1, -EIO);
    c = (struct nvme_command){.opcode = NVME_FLUSH, .sqid = 1, .nsid = 1};
    assert_int_equal(ng_status(h, c), NVME_WRITE_FAULT);
    assert_int_equal(le64_get(read_log(h, PAGE_HEALTH, 512, false) + 160), 3);
    ng_world(h)->shim->layer.readonly = true;
    assert_int_equal(move(h, NVME_WRITE, 0, 1, NG_BUFFER), NVME_WRITE_PROTECTED);
    assert_int_equal(move(h, NVME_WRITE_ZEROES, 0, 1, NG_BUFFER), NVME_WRITE_PROTECTED);
    assert_int_equal(move(h, NVME_READ, 0, 1, NG_BUFFER), NVME_OK);
    harness_destroy(h);
}

/* ---- queues at work ---- */

/* Round and round, with completions that stay until the guest takes them. */
static void full_queues(void **state)
{
    struct harness *h = running();
    unsigned done = 0;

    for (unsigned round = 0; round < 10; round++) {
        for (unsigned n = 0; n < NG_ENTRIES - 1; n++)
            ng_put_command(h, ng_blocks(NVME_READ, n, 1, NG_BUFFER + n * 512));
        ng_ring(h, 1);
        harness_advance(h, NS_PER_SEC);
        if (round % 3 == 0)
            harness_reload(h);
        for (;;) {
            struct ng_done d = ng_next(h, 1);

            if (!d.found)
                break;
            assert_int_equal(d.status, NVME_OK);
            done++;
        }
        assert_int_equal(done, (round + 1) * (NG_ENTRIES - 1));
    }
    /* Two submission queues on one completion queue of two entries. */
    {
        struct nvme_command c = queue(NVME_CREATE_CQ, 2, 2, 3 | 2 << 16);

        c.prp1 = NG_CQ(2);
        memset(ng_ram(h, NG_CQ(2)), 0, 32);
        assert_int_equal(ng_status(h, c), NVME_OK);
        for (unsigned id = 2; id < 4; id++) {
            c = queue(NVME_CREATE_SQ, id, NG_ENTRIES, 1 | 2 << 16);
            c.prp1 = NG_SQ(id);
            assert_int_equal(ng_status(h, c), NVME_OK);
            ng_world(h)->size[id] = NG_ENTRIES;
            for (unsigned n = 0; n < 5; n++) {
                c = ng_blocks(NVME_READ, n, 1, NG_BUFFER);
                c.sqid = (uint16_t)id;
                ng_put_command(h, c);
            }
            ng_ring(h, id);
        }
        ng_world(h)->size[2] = 2;
        ng_world(h)->phase[2] = true;
        for (unsigned n = 0; n < 10; n++) {
            harness_advance(h, NS_PER_SEC);
            assert_int_equal(ng_next(h, 2).status, NVME_OK);
        }
        harness_advance(h, NS_PER_SEC);
        assert_false(ng_next(h, 2).found);
    }
    harness_destroy(h);
}

/* More than one doorbell carries out, and than there are slots. */
static void deep_queue(void **state)
{
    struct harness *h = running();
    struct nvme_command c = queue(NVME_CREATE_CQ, 5, 1024, 3 | 2 << 16);
    const uint64_t cq = 0x700000, sq = 0x710000;
    unsigned done = 0;

    c.prp1 = cq;
    assert_int_equal(ng_status(h, c), NVME_OK);
    c = queue(NVME_CREATE_SQ, 5, 1024, 1 | 5 << 16);
    c.prp1 = sq;
    assert_int_equal(ng_status(h, c), NVME_OK);
    for (unsigned n = 0; n < 1023; n++) {
        uint8_t *e = ng_ram(h, sq + n * NVME_SQE_BYTES);

        memset(e, 0, NVME_SQE_BYTES);
        e[0] = NVME_READ;
        le16_put(e + 2, (uint16_t)n);
        le32_put(e + 4, 1);
        le64_put(e + 24, NG_BUFFER);
        le32_put(e + 40, n);
    }
    ng_put(h, NVME_DOORBELLS + 8 * 5, 1023);
    harness_advance(h, 5000);
    harness_reload(h);
    harness_advance(h, NS_PER_SEC);
    for (unsigned n = 0; n < 1024; n++)
        done += ng_ram(h, cq + n * NVME_CQE_BYTES)[14] & 1;
    assert_int_equal(done, 1023);
    assert_int_equal(disk_in_flight(ng_world(h)->disk), 0);
    harness_destroy(h);
}

static void interrupts(void **state)
{
    struct harness *h = ng_create();
    struct nvme *n = h->dev[DEV_NVME];
    const unsigned pin = 0;

    /* The pin: while there are entries that were not taken. */
    ng_enable(h);
    ng_put_command(h, admin(NVME_IDENTIFY, 0, 1, 0));
    ng_ring(h, 0);
    assert_true(h->line[pin + 1].level || h->line[pin].level);
    {
        unsigned wire_of = h->line[pin].level ? pin : pin + 1;

        ng_put(h, NVME_INTMS, 1);
        assert_false(h->line[wire_of].level);
        ng_put(h, NVME_INTMC, 1);
        assert_true(h->line[wire_of].level);
        harness_reload(h);
        assert_true(h->line[wire_of].level);
        assert_true(ng_next(h, 0).found);
        assert_false(h->line[wire_of].level);
        /* Only vector 0 is there. */
        assert_int_equal(ng_status(h, queue(NVME_CREATE_CQ, 2, 8, 3 | 1 << 16)),
                         NVME_INVALID_VECTOR);
        assert_int_equal(ng_status(h, queue(NVME_CREATE_CQ, 2, 8, 3)), NVME_OK);
    }
    /* MSI: masked by INTMS, sent when unmasked. */
    n = h->dev[DEV_NVME];
    pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, n->pci.msi + 4u, 0xFEE00000, 4);
    pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, n->pci.msi + 12u, 0x60, 2);
    pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, n->pci.msi + 2u, 1 | 2 << 4, 2);
    ng_enable(h);
    h->message_count = 0;
    ng_make_queue(h, 1, 3);
    assert_int_equal(h->message_count, 2);
    assert_int_equal(move(h, NVME_READ, 0, 1, NG_BUFFER), NVME_OK);
    assert_int_equal(h->message[2].data, 0x63);
    ng_put(h, NVME_INTMS, 1 << 3);
    ng_put_command(h, ng_blocks(NVME_READ, 0, 1, NG_BUFFER));
    ng_ring(h, 1);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(h->message_count, 3);
    ng_put(h, NVME_INTMC, 1 << 3);
    assert_int_equal(h->message_count, 4);
    assert_true(ng_next(h, 1).found);
    harness_destroy(h);
}

static void coalescing(void **state)
{
    struct harness *h = running();

    assert_int_equal(set_feature(h, FEATURE_COALESCING, 5 << 8 | 3), NVME_OK); /* 500 us, 4 */
    h->message_count = 0;
    for (unsigned n = 0; n < 3; n++)
        ng_put_command(h, ng_blocks(NVME_READ, n, 1, NG_BUFFER));
    ng_ring(h, 1);
    harness_advance(h, 100000);
    assert_int_equal(h->message_count, 0);
    harness_reload(h);
    harness_advance(h, 500000);
    assert_int_equal(h->message_count, 1);
    for (unsigned n = 0; n < 4; n++)
        ng_put_command(h, ng_blocks(NVME_READ, n, 1, NG_BUFFER));
    ng_ring(h, 1);
    harness_advance(h, 100000);
    assert_int_equal(h->message_count, 2);
    assert_int_equal(set_feature(h, FEATURE_VECTOR, 1 << 16 | 1), NVME_OK);
    h->message_count = 0;
    ng_put_command(h, ng_blocks(NVME_READ, 0, 1, NG_BUFFER));
    ng_ring(h, 1);
    harness_advance(h, 100000);
    assert_int_equal(h->message_count, 1);
    harness_destroy(h);
}

/* ---- hostile queues ---- */

static void hostile_queues(void **state)
{
    struct harness *h = running();
    struct nvme_command c;

    /* A completion queue over the controller's own registers, in ROM, nowhere. */
    static const uint64_t bases[] = {NG_BAR + NVME_DOORBELLS, NG_BAR, NG_ROM, 0x7000000000,
                                     ~0xFFFull};

    for (size_t n = 0; n < ARRAY_SIZE(bases); n++) {
        bool nowhere = bases[n] >= 0x100000000;

        c = queue(NVME_CREATE_CQ, 2, 1024, 3 | 2 << 16);
        c.prp1 = bases[n];
        assert_int_equal(ng_status(h, c), NVME_OK);
        c = queue(NVME_CREATE_SQ, 2, 1024, 1 | 2 << 16);
        c.prp1 = NG_SQ(2);
        assert_int_equal(ng_status(h, c), NVME_OK);
        memset(ng_ram(h, NG_SQ(2)), 0xFF, 4096);
        ng_put(h, NVME_DOORBELLS + 16, 5);
        harness_advance(h, NS_PER_SEC);
        assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY | (nowhere ? CSTS_CFS : 0));
        ng_enable(h);
        ng_make_queue(h, 1, 1);
    }
    /* Commands from the controller's own registers, and from nowhere. */
    for (size_t n = 0; n < ARRAY_SIZE(bases); n++) {
        bool nowhere = bases[n] >= 0x100000000;

        c = queue(NVME_CREATE_SQ, 2, 1024, 1 | 1 << 16);
        c.prp1 = bases[n];
        assert_int_equal(ng_status(h, c), NVME_OK);
        ng_put(h, NVME_DOORBELLS + 16, 20);
        harness_advance(h, NS_PER_SEC);
        assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY | (nowhere ? CSTS_CFS : 0));
        /* Fatal: nothing goes on. */
        if (nowhere) {
            ng_put_command(h, ng_blocks(NVME_READ, 0, 1, NG_BUFFER));
            ng_ring(h, 1);
            harness_advance(h, NS_PER_SEC);
            assert_false(ng_next(h, 1).found);
        }
        ng_enable(h);
        ng_make_queue(h, 1, 1);
    }
    /* The tail may not pass the head. */
    assert_int_equal(move(h, NVME_READ, 0, 1, NG_BUFFER), NVME_OK);
    pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    ng_put(h, NVME_DOORBELLS + 8, 20);
    ng_put(h, NVME_DOORBELLS + 8, 3); /* past what waits */
    assert_int_equal(((struct nvme *)h->dev[DEV_NVME])->sq[1].tail, 20);
    assert_int_equal(((struct nvme *)h->dev[DEV_NVME])->events, EVENT_BAD_VALUE);
    assert_int_equal(((struct nvme *)h->dev[DEV_NVME])->sq[1].head, 1);
    pci_config_write(h->dev[DEV_BUS], 0, NG_DEVFN, PCI_COMMAND,
                     PCI_COMMAND_MEMORY | PCI_COMMAND_BUS_MASTER, 2);
    assert_int_equal(((struct nvme *)h->dev[DEV_NVME])->sq[1].head, 20);
    harness_destroy(h);
}

/* ---- saved state ---- */

static void saved_in_flight(void **state)
{
    struct harness *h = running();
    struct nvme_command c = ng_blocks(NVME_DATASET, 0, 1, NG_BUFFER + 0x10000);

    c.dw10 = 3;
    c.dw11 = 4;
    for (unsigned n = 0; n < 4; n++) {
        le32_put(ng_ram(h, c.prp1 + n * 16 + 4), 8);
        le64_put(ng_ram(h, c.prp1 + n * 16 + 8), 1000 + n * 100);
    }
    fill(h, NG_BUFFER, 4096, 21);
    ng_put_command(h, ng_blocks(NVME_WRITE, 300, 8, NG_BUFFER));
    ng_put_command(h, ng_blocks(NVME_READ, 8, 8, NG_BUFFER + 0x4000));
    ng_put_command(h, ng_blocks(NVME_COMPARE, 8, 8, NG_BUFFER));
    ng_put_command(h, ng_blocks(NVME_WRITE_ZEROES, 400, 8, 0));
    ng_put_command(h, c);
    ng_put_command(h, ng_blocks(NVME_READ, 0, 8, NG_ROM)); /* by the buffer */
    ng_ring(h, 1);
    for (unsigned n = 0; n < 12; n++) {
        harness_reload(h);
        harness_advance(h, 9000);
    }
    harness_advance(h, NS_PER_SEC);
    for (unsigned n = 0; n < 6; n++)
        assert_true(ng_next(h, 1).found);
    assert_memory_equal(image(h) + 300 * 512, ng_ram(h, NG_BUFFER), 4096);
    assert_memory_equal(image(h) + 8 * 512, ng_ram(h, NG_BUFFER + 0x4000), 4096);
    assert_int_equal(image(h)[400 * 512], 0);
    assert_int_equal(disk_in_flight(ng_world(h)->disk), 0);
    harness_destroy(h);
}

static void poke(struct harness *h)
{
    ng_put_command(h, ng_blocks(NVME_READ, 0, 4, NG_BUFFER));
    ng_ring(h, 1);
    ng_put(h, NVME_DOORBELLS, 3);
    harness_advance(h, NS_PER_SEC);
    ng_next(h, 1);
    ng_enable(h);
    harness_advance(h, NS_PER_SEC);
    assert_int_equal(disk_in_flight(ng_world(h)->disk), 0);
}

static void damaged_state(void **state)
{
    struct harness *h = running();

    ng_put_command(h, admin(NVME_ASYNC_EVENT, 0, 0, 0));
    ng_ring(h, 0);
    ng_put_command(h, ng_blocks(NVME_READ, 0, 8, NG_BUFFER));
    ng_put_command(h, ng_blocks(NVME_WRITE, 0, 8, NG_ROM));
    ng_put_command(h, ng_blocks(NVME_WRITE_ZEROES, 0, 8, 0));
    ng_ring(h, 1);
    harness_corrupt_some(h, poke, 23);
    harness_destroy(h);
}

static void *open_later(void *arg)
{
    struct shim *s = arg;

    while (!atomic_load(&s->waiting))
        host_futex_wait(&s->waiting, 0, UINT64_MAX);
    shim_open(s);
    return NULL;
}

static void close_and_submit(struct harness *h)
{
    struct shim *s = ng_world(h)->shim;

    shim_close(s);
    ng_put_command(h, ng_blocks(NVME_READ, 0, 8, NG_BUFFER));
    ng_ring(h, 1);
    while (!atomic_load(&s->waiting))
        host_futex_wait(&s->waiting, 0, UINT64_MAX);
}

/* With the disk's threads: completion, saving, deletion of a queue, controller
 * reset and machine reset while data moves. */
static void real_time(void **state)
{
    struct harness *h = calloc(1, sizeof *h);
    struct vm_config config = {.deterministic = false};
    struct state_stream saved = {0};
    struct ng_world *w;
    struct thread opener;
    struct ng_done d;

    h->vm = vm_create(&config, NULL);
    assert_non_null(h->vm);
    vm_lock(h->vm);
    ng_build(h);
    w = ng_world(h);
    ng_use_msix(h);
    ng_enable(h);
    ng_make_queue(h, 1, 1);
    for (unsigned n = 0; n < 20; n++)
        ng_put_command(h, ng_blocks(NVME_READ, n * 8, 8, NG_BUFFER + n * 4096));
    ng_ring(h, 1);
    disk_drain(w->disk);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(ng_next(h, 1).status, NVME_OK);
    assert_memory_equal(ng_ram(h, NG_BUFFER), image(h), 20 * 4096);
    assert_int_equal(move(h, NVME_READ, 0, 1, NG_BUFFER + 2), NVME_PRP_OFFSET);

    ng_put_command(h, ng_blocks(NVME_READ, 0, 8, NG_BUFFER));
    ng_ring(h, 1);
    assert_int_equal(vm_state_save(h->vm, &saved, NULL), 0);
    state_stream_free(&saved);
    assert_true(ng_next(h, 1).found);

    close_and_submit(h);
    ng_put_command(h, queue(NVME_DELETE_SQ, 1, 1, 0));
    ng_ring(h, 0);
    assert_false(ng_next(h, 0).found);
    thread_start(&opener, "opener", open_later, w->shim);
    disk_drain(w->disk);
    thread_join(&opener);
    assert_int_equal(ng_next(h, 1).status, NVME_OK);
    d = ng_next(h, 0);
    assert_true(d.found);
    assert_int_equal(d.status, NVME_OK);
    assert_int_equal(ng_status(h, queue(NVME_DELETE_CQ, 1, 1, 0)), NVME_OK);

    ng_make_queue(h, 1, 1);
    close_and_submit(h);
    ng_put(h, NVME_CC, 0);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY); /* data moves */
    ng_put(h, NVME_CC, CC_EN | 6 << 16 | 4 << 20);
    thread_start(&opener, "opener", open_later, w->shim);
    disk_drain(w->disk);
    thread_join(&opener);
    assert_int_equal(ng_get(h, NVME_CSTS), CSTS_RDY);
    assert_true(((struct nvme *)h->dev[DEV_NVME])->sq[0].size); /* enabled anew */
    ng_enable(h);
    ng_make_queue(h, 1, 1);
    close_and_submit(h);
    thread_start(&opener, "opener", open_later, w->shim);
    harness_reset(h);
    thread_join(&opener);
    assert_int_equal(disk_in_flight(w->disk), 0);
    vm_unlock(h->vm);
    vm_destroy(h->vm);
    free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers),       cmocka_unit_test(shutdown_flushes),
        cmocka_unit_test(identify),        cmocka_unit_test(queues),
        cmocka_unit_test(features),        cmocka_unit_test(logs),
        cmocka_unit_test(aborting),        cmocka_unit_test(async_events),
        cmocka_unit_test(transfers),       cmocka_unit_test(prps),
        cmocka_unit_test(pages_of_64k),    cmocka_unit_test(dataset),
        cmocka_unit_test(full_queues),     cmocka_unit_test(flushes_and_faults),
        cmocka_unit_test(deep_queue),      cmocka_unit_test(interrupts),
        cmocka_unit_test(coalescing),      cmocka_unit_test(hostile_queues),
        cmocka_unit_test(saved_in_flight), cmocka_unit_test(damaged_state),
        cmocka_unit_test(real_time),
    };

    return cmocka_run_group_tests_name("nvme", tests, NULL, NULL);
}
