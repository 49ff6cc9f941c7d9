/*
 * What the files of the AHCI adapter share: registers, a port, a command slot.
 *
 *   ahci.c          the function on the bus, generic registers, interrupts, life
 *   ahci_port.c     a port's registers, its link, what is received (FISes)
 *   ahci_command.c  the command list: from PxCI to completion or error
 *   ahci_dma.c      guest memory: the PRDT (transfer.h does the rest)
 *
 * Everything in a command list is hostile: every table is read once, checked,
 * and what is kept of it is in struct ahci_slot_state.
 */
#ifndef DEV_STORAGE_AHCI_INTERNAL_H
#define DEV_STORAGE_AHCI_INTERNAL_H

#include "dev/storage/ahci.h"
#include "dev/storage/transfer.h"

#define AHCI_SLOTS 32
#define AHCI_PRD_MAX (4 * MiB) /* what one entry describes at most */

/* ---- registers (AHCI 1.3.1, section 3) ---- */

enum ahci_register {
    AHCI_CAP = 0x00,
    AHCI_GHC = 0x04,
    AHCI_IS = 0x08,
    AHCI_PI = 0x0C,
    AHCI_VS = 0x10,
    AHCI_CAP2 = 0x24,
    AHCI_PORT_BASE = 0x100,
    AHCI_PORT_BYTES = 0x80,
    AHCI_REGISTER_BYTES = 0x800,
};

enum ahci_cap {
    CAP_PARTIAL = 1 << 13,
    CAP_SLUMBER = 1 << 14,
    CAP_PIO_BLOCKS = 1 << 15,
    CAP_AHCI_ONLY = 1 << 18,
    CAP_GENERATION_3 = 3 << 20,
    CAP_CLO = 1 << 24,
    CAP_STAGGERED_SPIN_UP = 1 << 27,
    CAP_NCQ = 1 << 30,
};
#define CAP_64BIT (1u << 31)
#define CAP_SLOTS_SHIFT 8

enum ahci_ghc { GHC_RESET = 1 << 0, GHC_INTERRUPTS = 1 << 1 };
#define GHC_AHCI (1u << 31)

enum ahci_port_register {
    PX_CLB = 0x00,
    PX_CLBU = 0x04,
    PX_FB = 0x08,
    PX_FBU = 0x0C,
    PX_IS = 0x10,
    PX_IE = 0x14,
    PX_CMD = 0x18,
    PX_TFD = 0x20,
    PX_SIG = 0x24,
    PX_SSTS = 0x28,
    PX_SCTL = 0x2C,
    PX_SERR = 0x30,
    PX_SACT = 0x34,
    PX_CI = 0x38,
};

enum ahci_port_interrupt {
    IS_D2H = 1 << 0,        /* DHRS */
    IS_PIO_SETUP = 1 << 1,  /* PSS */
    IS_SET_BITS = 1 << 3,   /* SDBS */
    IS_DESCRIPTOR = 1 << 5, /* DPS: an entry with its I bit has been done */
    IS_CONNECT = 1 << 6,    /* PCS: SERR.DIAG.X */
    IS_PHY_READY = 1 << 22, /* PRCS: SERR.DIAG.N */
    IS_OVERFLOW = 1 << 24,  /* OFS */
    IS_INTERFACE = 1 << 27, /* IFS */
    IS_HOST_BUS = 1 << 29,  /* HBFS */
    IS_TASK_FILE = 1 << 30, /* TFES */
    IS_CLEARABLE = IS_D2H | IS_PIO_SETUP | IS_SET_BITS | IS_DESCRIPTOR | IS_OVERFLOW |
                   IS_INTERFACE | IS_HOST_BUS | IS_TASK_FILE,
    IE_MASK = 0x7DC0007F,
};

enum ahci_port_command {
    CMD_ST = 1 << 0,
    CMD_SUD = 1 << 1,
    CMD_POD = 1 << 2,
    CMD_CLO = 1 << 3,
    CMD_FRE = 1 << 4,
    CMD_CCS_SHIFT = 8,
    CMD_FR = 1 << 14,
    CMD_CR = 1 << 15,
    CMD_ATAPI = 1 << 24,
    CMD_DLAE = 1 << 25,
    CMD_ICC_SHIFT = 28,
    CMD_KEPT = CMD_ST | CMD_FRE | CMD_ATAPI | CMD_DLAE,
};

enum ahci_link { /* PxSSTS; the numbers of IPM are those of ICC, too */
                 LINK_NO_DEVICE = 0,
                 LINK_OFFLINE = 4,
                 LINK_UP = 3,
                 LINK_SPEED = 3 << 4, /* generation 3 */
                 LINK_IPM_SHIFT = 8,
                 LINK_ACTIVE = 1,
                 LINK_PARTIAL = 2,
                 LINK_SLUMBER = 6,
};

enum ahci_control { SCTL_DET = 0xF, SCTL_MASK = 0xFFF, DET_NONE = 0, DET_RESET = 1, DET_OFF = 4 };

enum ahci_link_error {
    SERR_HANDSHAKE = 1 << 22, /* DIAG.H */
    SERR_PROTOCOL = 1 << 10,  /* ERR.P */
    SERR_PHY_READY = 1 << 16, /* DIAG.N */
    SERR_EXCHANGED = 1 << 26, /* DIAG.X */
    SERR_MASK = 0x07FF0F03,
};

/* ---- what is in guest memory (section 4) ---- */

enum ahci_header {
    HEADER_BYTES = 32,
    HEADER_CFL = 0x1F,
    HEADER_ATAPI = 1 << 5,
    HEADER_CLEAR = 1 << 10,
    HEADER_PRDTL_SHIFT = 16,
    TABLE_CFIS_BYTES = 64,
    TABLE_ACMD = 0x40,
    TABLE_PRDT = 0x80,
    PRD_BYTES = 16,
};
#define PRD_COUNT 0x3FFFFFu
#define PRD_INTERRUPT (1u << 31)

enum fis {
    FIS_H2D = 0x27,
    FIS_D2H = 0x34,
    FIS_DMA_SETUP = 0x41,
    FIS_SET_BITS = 0xA1,
    FIS_PIO_SETUP = 0x5F,
    FIS_COMMAND = 0x80, /* byte 1: the command register was written */
    FIS_INTERRUPT = 0x40,
    FIS_TO_HOST = 0x20,
    FIS_CONTROL_SRST = 0x04,
    FIS_H2D_DWORDS = 5,
    RECEIVED_DMA_SETUP = 0x00, /* where in the received FIS structure */
    RECEIVED_PIO_SETUP = 0x20,
    RECEIVED_D2H = 0x40,
    RECEIVED_SET_BITS = 0x58,
};

/* ---- a command ---- */

/* A command that moves data or takes time, from its start to its end. It is
 * saved as these bytes: no pointers, no holes. */
struct ahci_slot_state {
    uint8_t busy; /* 0: none; 1: under way; 2: stopped, and waits for its request */
    uint8_t kind; /* enum ata_action_kind */
    uint8_t transfer;
    uint8_t tag;
    uint8_t fua;
    uint8_t table_interrupt; /* an entry with its I bit was passed */
    uint16_t prdt_entries;
    uint32_t prd; /* where in the PRDT the next piece starts .. */
    uint32_t prd_offset;
    uint64_t table;       /* command table */
    uint64_t offset;      /* on the disk; of a list of ranges: of the one at hand */
    uint64_t range_bytes; /* .. and how long that is, 0: none */
    uint64_t bytes, moved;
    uint64_t deadline_ns;
    uint64_t order; /* of requests that are due at once: as they were submitted */
};

enum { SLOT_FREE, SLOT_BUSY, SLOT_STOPPED };

struct ahci_slot {
    struct ahci_port *port;
    unsigned number;
    struct disk_request request;
    uint32_t next_prd, next_prd_offset; /* behind the piece under way */
    uint8_t next_interrupt;
    struct dma_piece piece;
};

struct ahci_port {
    struct ahci *hba;
    unsigned number;
    struct ata_device device;

    /* ---- saved ---- */
    uint64_t clb, fb;
    uint32_t is, ie, cmd, sctl, serr, sact, ci;
    uint32_t sig, ssts;
    uint8_t tfd_status, tfd_error;
    uint32_t fetched;   /* bits of CI that are being carried out */
    uint8_t slot_now;   /* CCS */
    bool halted;        /* a fatal error: until ST falls */
    bool soft_reset;    /* SRST is set in the device's control register */
    bool has_signature; /* a D2H FIS that waits for FRE */
    uint64_t next_order;
    struct ahci_slot_state state[AHCI_SLOTS];

    struct ahci_slot slot[AHCI_SLOTS];
};

struct ahci {
    struct vm *vm;
    struct pci_function pci;
    uint32_t ghc, is;
    bool spin_up; /* CAP.SSS, which firmware may set */
    bool cap_written;
    uint32_t index; /* of the index/data pair in BAR 4 */
    bool line;      /* INTx or MSI: what was last told */
    struct dma_master dma;
    struct ahci_port port[AHCI_PORTS];
};

/* ---- ahci.c ---- */

/* Interrupt state has changed. */
void ahci_update_interrupt(struct ahci *h);

/* ---- ahci_port.c ---- */

uint32_t ahci_port_read(struct ahci_port *p, unsigned offset);
void ahci_port_write(struct ahci_port *p, unsigned offset, uint32_t value);
/* Power-on and HBA reset. */
void ahci_port_reset(struct ahci_port *p);
/* PxIS as the guest sees it. */
uint32_t ahci_port_interrupts(const struct ahci_port *p);
void ahci_port_interrupt(struct ahci_port *p, uint32_t bits);
/* Task file and FIS that end a command that is not queued; pio_bytes: of a PIO
 * transfer to the host, 0: none. */
void ahci_post_d2h(struct ahci_port *p, bool interrupt);
void ahci_post_pio_setup(struct ahci_port *p, uint64_t bytes);
/* A queued command's data is about to move. */
void ahci_post_dma_setup(struct ahci_port *p, uint8_t tag, uint64_t bytes, bool to_host);
void ahci_post_set_bits(struct ahci_port *p, uint32_t tags, uint8_t status, uint8_t error);
/* The device after a software reset sends its signature. */
void ahci_post_signature(struct ahci_port *p);

/* ---- ahci_command.c ---- */

/* Carries out what is in PxCI and can be. */
void ahci_port_run(struct ahci_port *p);
/* Commands under way end without a word; those whose data moves right now keep
 * PxCMD.CR set until it has. */
void ahci_port_stop(struct ahci_port *p);
/* The same, but waits: afterwards nothing touches guest memory. */
void ahci_port_abort(struct ahci_port *p);
bool ahci_port_is_stopping(const struct ahci_port *p);
/* After loading: requests go on. -EINVAL: they cannot be. */
int ahci_port_restored(struct ahci_port *p);
void ahci_slots_init(struct ahci_port *p);
void ahci_slots_destroy(struct ahci_port *p);

/* ---- ahci_dma.c ---- */

/* Has the PRDT room for that much? 1, 0, or a negative errno. */
int ahci_prdt_covers(struct ahci_port *p, const struct ahci_slot_state *s, uint64_t bytes);
/* Between a buffer and the PRDT from where the slot stands; moves on. */
int ahci_prdt_copy(struct ahci_port *p, struct ahci_slot_state *s, void *buf, uint64_t bytes,
                   bool to_guest);
/* The next piece of a command that reads or writes the disk: dma_piece_prepare. */
int ahci_piece_prepare(struct ahci_slot *slot);
/* Its data has moved: bounced data goes to the guest, code in the range is
 * forgotten, the slot moves on. */
int ahci_piece_finish(struct ahci_slot *slot);

#endif
