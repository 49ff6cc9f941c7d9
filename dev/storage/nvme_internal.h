/*
 * What the files of the NVMe controller share. Sections are those of the NVM
 * Express Base Specification 1.4c.
 *
 *   nvme.c           the function on the bus, life, saved state
 *   nvme_register.c  controller registers and doorbells, enable, reset, shutdown
 *   nvme_queue.c     queues: fetching commands, posting completions, interrupts
 *   nvme_command.c   I/O commands, and requests to the disk
 *   nvme_admin.c     admin commands: queues, abort, asynchronous events
 *   nvme_identify.c  what Identify tells
 *   nvme_feature.c   Get and Set Features
 *   nvme_log.c       log pages, and the errors and numbers they are made of
 *   nvme_prp.c       guest memory: PRPs
 *
 * Whatever is in a queue, a PRP list or a data buffer is hostile: it is read
 * once, checked, and what is kept of it is in struct nvme_slot_state.
 */
#ifndef DEV_STORAGE_NVME_INTERNAL_H
#define DEV_STORAGE_NVME_INTERNAL_H

#include "dev/storage/nvme.h"
#include "dev/storage/transfer.h"

#define NVME_QUEUES 65 /* queue 0 is the admin queue's */
#define NVME_QUEUE_ENTRIES 1024
#define NVME_SLOTS 128 /* commands under way that take time */
#define NVME_BLOCK 512u
#define NVME_MDTS 8 /* as a power of two of 4 KiB pages */
#define NVME_DATA_MAX (4 * KiB << NVME_MDTS)
#define NVME_SQE_BYTES 64
#define NVME_CQE_BYTES 16
#define NVME_NAMESPACE 1u
#define NVME_ALL_NAMESPACES UINT32_MAX
#define NVME_PAGE 4096u /* of Identify and log data */

/* ---- registers (3.1) ---- */

enum nvme_register {
    NVME_CAP = 0x00,
    NVME_VS = 0x08,
    NVME_INTMS = 0x0C,
    NVME_INTMC = 0x10,
    NVME_CC = 0x14,
    NVME_CSTS = 0x1C,
    NVME_AQA = 0x24,
    NVME_ASQ = 0x28,
    NVME_ACQ = 0x30,
    NVME_DOORBELLS = 0x1000,
    NVME_REGISTER_BYTES = 0x2000,
};

#define NVME_VERSION 0x00010400

enum nvme_cap { CAP_MPSMAX = 4 /* 64 KiB */, CAP_TIMEOUT = 20 /* 10 s */ };

enum nvme_cc {
    CC_EN = 1 << 0,
    CC_CSS = 7 << 4,
    CC_MPS_SHIFT = 7,
    CC_MPS = 15 << 7,
    CC_AMS = 7 << 11,
    CC_SHN = 3 << 14,
    CC_IOSQES_SHIFT = 16,
    CC_IOCQES_SHIFT = 20,
    CC_MASK = 0x00FFFFF1,
    CC_FIXED = CC_CSS | CC_MPS | CC_AMS, /* while EN is set */
};

enum nvme_csts {
    CSTS_RDY = 1 << 0,
    CSTS_CFS = 1 << 1,
    CSTS_SHST_BUSY = 1 << 2,
    CSTS_SHST_DONE = 2 << 2,
    CSTS_SHST = 3 << 2,
};

/* ---- commands (4.2, 5, 6) ---- */

enum nvme_admin_opcode {
    NVME_DELETE_SQ = 0x00,
    NVME_CREATE_SQ = 0x01,
    NVME_GET_LOG = 0x02,
    NVME_DELETE_CQ = 0x04,
    NVME_CREATE_CQ = 0x05,
    NVME_IDENTIFY = 0x06,
    NVME_ABORT = 0x08,
    NVME_SET_FEATURES = 0x09,
    NVME_GET_FEATURES = 0x0A,
    NVME_ASYNC_EVENT = 0x0C,
};

enum nvme_io_opcode {
    NVME_FLUSH = 0x00,
    NVME_WRITE = 0x01,
    NVME_READ = 0x02,
    NVME_COMPARE = 0x05,
    NVME_WRITE_ZEROES = 0x08,
    NVME_DATASET = 0x09,
};

/* Status: code, type << 8, and "do not retry" (4.6.1). */
enum nvme_status {
    NVME_OK = 0x000,
    NVME_INVALID_OPCODE = 0x4001,
    NVME_INVALID_FIELD = 0x4002,
    NVME_TRANSFER_ERROR = 0x4004,
    NVME_INTERNAL_ERROR = 0x0006,
    NVME_ABORTED = 0x0007,
    NVME_ABORTED_SQ = 0x0008,
    NVME_INVALID_NAMESPACE = 0x400B,
    NVME_SEQUENCE_ERROR = 0x400C,
    NVME_PRP_OFFSET = 0x4013,
    NVME_WRITE_PROTECTED = 0x4020,
    NVME_LBA_RANGE = 0x4080,
    NVME_CAPACITY = 0x4081,
    NVME_CQ_INVALID = 0x4100,
    NVME_INVALID_QUEUE = 0x4101,
    NVME_INVALID_QUEUE_SIZE = 0x4102,
    NVME_EVENT_LIMIT = 0x4105,
    NVME_INVALID_VECTOR = 0x4108,
    NVME_INVALID_LOG = 0x4109,
    NVME_INVALID_DELETION = 0x410C,
    NVME_NOT_SAVEABLE = 0x410D,
    NVME_NOT_CHANGEABLE = 0x410E,
    NVME_NOT_NAMESPACE = 0x410F,
    NVME_WRITE_FAULT = 0x4280,
    NVME_READ_ERROR = 0x4281,
    NVME_COMPARE_FAILURE = 0x4285,
    NVME_STATUS_MEDIA = 0x0200, /* the type of the last three */
};

struct nvme_command {
    uint8_t opcode, flags;
    uint16_t sqid, cid;
    uint32_t nsid;
    uint64_t prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13, dw14, dw15;
};

/* How an admin command goes on that did not fail. */
enum { NVME_LATER = -1 /* its completion comes by itself */ };

/* ---- queues ---- */

struct nvme_sq {
    uint64_t base;
    uint16_t size; /* entries, 0: there is none */
    uint16_t head, tail;
    uint16_t cqid;
    bool deleting; /* until nothing is under way; then delete_cid ends */
    uint16_t delete_cid;
    unsigned in_flight; /* not saved: counted anew */
};

struct nvme_cq {
    uint64_t base;
    uint16_t size;
    uint16_t head, tail;
    uint16_t vector;
    bool phase; /* what the next entry gets */
    bool interrupts;
    unsigned users;    /* submission queues; not saved */
    unsigned reserved; /* entries that commands under way will need; not saved */
};

/* ---- a command under way ---- */

enum nvme_kind {
    NVME_DO_READ,
    NVME_DO_WRITE,
    NVME_DO_COMPARE,
    NVME_DO_FLUSH,
    NVME_DO_ZEROES,
    NVME_DO_DEALLOCATE,
    NVME_DO_SHUTDOWN, /* no command: CC.SHN flushes */
    NVME_KINDS,
};

/* From its start to its end. Saved as these bytes: no pointers, no holes. */
struct nvme_slot_state {
    uint8_t busy;
    uint8_t kind;
    uint8_t fua;
    uint8_t deallocate; /* of Write Zeroes: 1, and 2 once zeroes are written */
    uint16_t sqid, cid;
    uint64_t prp1, prp2;
    uint64_t offset, bytes;
    uint64_t moved;       /* bytes; of Dataset Management: of its list */
    uint64_t range_bytes; /* .. and the range at hand, 0: none */
    uint64_t deadline_ns;
    uint64_t order; /* of requests that are due at once: as they were submitted */
};

enum { SLOT_FREE, SLOT_BUSY, SLOT_STOPPED /* its queue is gone, its data still moves */ };

struct nvme_slot {
    struct nvme *nvme;
    unsigned number;
    struct disk_request request;
    struct dma_piece piece;
};

/* ---- features (5.21.1), log pages ---- */

enum nvme_feature_id {
    FEATURE_ARBITRATION = 0x01,
    FEATURE_POWER = 0x02,
    FEATURE_TEMPERATURE = 0x04,
    FEATURE_ERROR_RECOVERY = 0x05,
    FEATURE_WRITE_CACHE = 0x06,
    FEATURE_QUEUES = 0x07,
    FEATURE_COALESCING = 0x08,
    FEATURE_VECTOR = 0x09,
    FEATURE_ATOMICITY = 0x0A,
    FEATURE_EVENTS = 0x0B,
};

struct nvme_features {
    uint32_t arbitration, error_recovery, write_cache, coalescing, atomicity, events;
    uint16_t hot, cold;                 /* temperature thresholds, Kelvin */
    uint8_t not_coalesced[NVME_QUEUES]; /* by vector: 1 */
};

#define NVME_KELVIN 313 /* what the controller says it has */
#define NVME_KELVIN_WARNING 343
#define NVME_KELVIN_CRITICAL 358

enum nvme_log_page {
    PAGE_ERRORS = 0x01,
    PAGE_HEALTH = 0x02,
    PAGE_FIRMWARE = 0x03,
    PAGE_EFFECTS = 0x05,
};

#define NVME_ERRORS 16 /* entries of the error log */
#define NVME_ERROR_BYTES 64

/* Asynchronous events (5.2): bits of nvme.events, and which types they are of. */
enum nvme_event {
    EVENT_BAD_DOORBELL = 1 << 0,
    EVENT_BAD_VALUE = 1 << 1,
    EVENT_TEMPERATURE = 1 << 2,
    EVENT_ALL = 7,
};
enum nvme_event_type { EVENT_TYPE_ERROR = 0, EVENT_TYPE_HEALTH = 1, EVENT_TYPES = 2 };

#define NVME_EVENT_REQUESTS 4

/* Since the machine was started. */
struct nvme_counters {
    uint64_t blocks_read, blocks_written;
    uint64_t reads, writes;
    uint64_t media_errors, errors;
    uint64_t busy_ns, busy_since_ns; /* commands of I/O queues were under way */
};

struct nvme {
    struct vm *vm;
    struct pci_function pci;
    struct pci_msix msix;
    struct dma_master dma;
    struct disk *disk;
    uint64_t blocks;
    uint8_t uuid[2][16]; /* of the namespace, of the subsystem */
    char name[16];

    /* ---- saved ---- */
    uint32_t cc, csts, aqa, intms;
    uint64_t asq, acq;
    bool line;
    uint16_t next_sq; /* whose turn it is */
    uint64_t next_order;
    struct nvme_sq sq[NVME_QUEUES];
    struct nvme_cq cq[NVME_QUEUES];
    struct nvme_slot_state state[NVME_SLOTS + 1]; /* the last: shutdown */
    struct nvme_features features;
    struct nvme_counters counters;
    uint8_t events, masked_events; /* by enum nvme_event; by type */
    uint8_t event_requests;
    uint16_t event_cid[NVME_EVENT_REQUESTS];
    uint8_t error[NVME_ERRORS][NVME_ERROR_BYTES]; /* as the log has them, newest first */
    /* Of vectors that wait for more (Interrupt Coalescing). */
    uint16_t waiting[NVME_QUEUES];
    uint64_t waiting_until_ns[NVME_QUEUES];
    struct timer coalescing;
    struct timer work; /* commands wait that one doorbell had too many of */

    /* ---- derived ---- */
    uint64_t free_slots[NVME_SLOTS / 64];
    unsigned in_flight; /* of I/O queues */
    unsigned stopping;  /* slots that are SLOT_STOPPED */

    struct nvme_slot slot[NVME_SLOTS + 1];
};

/* ---- nvme_register.c ---- */

extern const struct region_ops nvme_register_ops;
/* All that a controller reset resets; what moves data right now goes on, and
 * CSTS.RDY stays set until it has ended. */
void nvme_stop(struct nvme *n);
/* Nothing is stopping any more. */
void nvme_stopped(struct nvme *n);
/* CSTS.CFS: nothing goes on before a reset. */
void nvme_fatal(struct nvme *n, const char *why);
static inline bool nvme_is_running(const struct nvme *n)
{
    return (n->csts & (CSTS_RDY | CSTS_CFS)) == CSTS_RDY;
}
static inline unsigned nvme_page_bytes(const struct nvme *n)
{
    return 4096u << ((n->cc & CC_MPS) >> CC_MPS_SHIFT);
}

/* ---- nvme_queue.c ---- */

/* Fetches and carries out what can be, in turns. */
void nvme_run(struct nvme *n);
void nvme_ring_sq(struct nvme *n, unsigned id, uint32_t value);
void nvme_ring_cq(struct nvme *n, unsigned id, uint32_t value);
/* The room was reserved when the command was fetched. */
void nvme_post(struct nvme *n, uint16_t sqid, uint16_t cid, uint32_t result, unsigned status);
/* Is there an entry that nobody has reserved? */
bool nvme_cq_has_room(const struct nvme_cq *cq);
/* The pin, from what asks. */
void nvme_update_pin(struct nvme *n);
/* Masks have been taken away. */
void nvme_unmasked(struct nvme *n, uint32_t vectors);
void nvme_coalescing_fire(void *ctx);

/* ---- nvme_command.c ---- */

/* A command of an I/O queue. NVME_LATER, or a status. */
int nvme_io_command(struct nvme *n, const struct nvme_command *c);
bool nvme_has_slot(const struct nvme *n);
/* Takes a command back: it ends with that status. False: its data moves. */
bool nvme_cancel(struct nvme_slot *slot, unsigned status);
/* CC.SHN: flushes; CSTS.SHST tells. */
void nvme_shutdown(struct nvme *n);
/* Of each slot: gives up without a word, waits, nothing touches memory after. */
void nvme_slots_abort(struct nvme *n);
/* The same without waiting: what cannot be taken back is SLOT_STOPPED. */
void nvme_slots_stop(struct nvme *n);
void nvme_slots_init(struct nvme *n);
/* After loading: -EINVAL where requests cannot be; then they go on. */
int nvme_slots_check(struct nvme *n);
void nvme_slots_resume(struct nvme *n);
/* A status for a negative errno of a transfer or of the disk. */
unsigned nvme_status_of(int result, enum nvme_kind kind);

/* ---- nvme_admin.c ---- */

int nvme_admin_command(struct nvme *n, const struct nvme_command *c, uint32_t *result);
/* The last command of a queue that is being deleted has ended. */
void nvme_sq_drained(struct nvme *n, unsigned id);
void nvme_event(struct nvme *n, enum nvme_event event);
/* Completes event requests, as far as there are events and room. */
void nvme_events_run(struct nvme *n);
/* The log that tells more has been read. */
void nvme_events_seen(struct nvme *n, enum nvme_event_type type);

/* ---- nvme_identify.c, nvme_feature.c, nvme_log.c: statuses ---- */

unsigned nvme_identify(struct nvme *n, const struct nvme_command *c);
unsigned nvme_get_features(struct nvme *n, const struct nvme_command *c, uint32_t *result);
unsigned nvme_set_features(struct nvme *n, const struct nvme_command *c, uint32_t *result);
void nvme_features_reset(struct nvme *n);
bool nvme_features_are_possible(const struct nvme *n);
unsigned nvme_get_log(struct nvme *n, const struct nvme_command *c);
/* An entry of the error log; c NULL: of no command. */
void nvme_log_error(struct nvme *n, const struct nvme_command *c, unsigned status);
/* Critical warnings of the health log. */
uint8_t nvme_warnings(const struct nvme *n);
extern const char nvme_revision[9];

/* ---- nvme_prp.c ---- */

struct nvme_prp_walk {
    struct dma_extents extents;
    struct nvme *nvme;
    uint64_t prp1, prp2, bytes, from; /* from: where the walk starts */
    uint64_t done;
    uint64_t list;                  /* address of the list's first entry .. */
    unsigned list_first, list_data; /* .. which is for that page, and how many are data */
    unsigned first, count;          /* of those in `entry`, by page */
    uint8_t entry[64 * 8];
};

/* errno of walks: -EBADR is a PRP's offset, -EFAULT no memory. */
void nvme_prp_start(struct nvme_prp_walk *w, struct nvme *n, uint64_t prp1, uint64_t prp2,
                    uint64_t bytes, uint64_t from);
/* What an admin command gets, whose PRPs are for `wanted` bytes; a status. */
unsigned nvme_reply(struct nvme *n, const struct nvme_command *c, uint64_t wanted, void *buf,
                    uint64_t bytes);
/* 0: the same; 1: not; negative errno. */
int nvme_prp_compare(struct nvme_prp_walk *w, const uint8_t *data, uint64_t bytes);

#endif
