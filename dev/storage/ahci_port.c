/*
 * A port of the AHCI adapter: its registers (AHCI 1.3.1, 3.3), its link
 * (10.1, 10.4), and the FISes that arrive from its device (4.2.1).
 */
#include "dev/storage/ahci_internal.h"

enum {
    CLB_MASK = 0xFFFFFC00,
    FB_MASK = 0xFFFFFF00,
    NO_SIGNATURE = -1,
    NO_DEVICE_STATUS = 0x7F,
    FIS_BYTES = 20,
    SET_BITS_BYTES = 8,
    DMA_SETUP_BYTES = 28,
    SET_BITS_STATUS = 0x77, /* the bits that it carries */
    IPM_NO_PARTIAL = 1,     /* PxSCTL.IPM */
    IPM_NO_SLUMBER = 2,
};

/* ---- what is received ---- */

static void post(struct ahci_port *p, unsigned where, const uint8_t *fis, unsigned bytes)
{
    if (p->cmd & CMD_FRE)
        dma_write(&p->hba->dma, p->fb + where, fis, bytes);
}

/* The registers as D2H and PIO setup FISes have them. */
static void fill_fis(const struct ahci_port *p, uint8_t fis[FIS_BYTES], enum fis type,
                     uint8_t flags)
{
    const struct ata_registers *r = &p->device.r;

    memset(fis, 0, FIS_BYTES);
    fis[0] = (uint8_t)type;
    fis[1] = flags;
    fis[2] = r->status;
    fis[3] = r->error;
    for (unsigned n = 0; n < 3; n++) {
        fis[4 + n] = (uint8_t)(r->lba >> 8 * n);
        fis[8 + n] = (uint8_t)(r->lba >> (24 + 8 * n));
    }
    fis[7] = r->device;
    le16_put(fis + 12, r->count);
}

static void set_task_file(struct ahci_port *p)
{
    p->tfd_status = p->device.r.status;
    p->tfd_error = p->device.r.error;
}

void ahci_post_d2h(struct ahci_port *p, bool interrupt)
{
    uint8_t fis[FIS_BYTES];

    set_task_file(p);
    fill_fis(p, fis, FIS_D2H, interrupt ? FIS_INTERRUPT : 0);
    post(p, RECEIVED_D2H, fis, sizeof fis);
}

void ahci_post_pio_setup(struct ahci_port *p, uint64_t bytes)
{
    uint8_t fis[FIS_BYTES];

    set_task_file(p);
    fill_fis(p, fis, FIS_PIO_SETUP, FIS_TO_HOST | FIS_INTERRUPT);
    fis[2] = ATA_DRDY | ATA_DSC | ATA_DRQ; /* while the data moved; then: */
    fis[15] = p->device.r.status;
    le16_put(fis + 16, (uint16_t)bytes);
    post(p, RECEIVED_PIO_SETUP, fis, sizeof fis);
}

/* Serial ATA 3.2, 10.5.9: the tag is the buffer's identifier. Neither
 * auto-activation nor an interrupt. */
void ahci_post_dma_setup(struct ahci_port *p, uint8_t tag, uint64_t bytes, bool to_host)
{
    uint8_t fis[DMA_SETUP_BYTES] = {FIS_DMA_SETUP, to_host ? FIS_TO_HOST : 0, [4] = tag};

    le32_put(fis + 20, (uint32_t)bytes);
    post(p, RECEIVED_DMA_SETUP, fis, sizeof fis);
}

void ahci_post_set_bits(struct ahci_port *p, uint32_t tags, uint8_t status, uint8_t error)
{
    uint8_t fis[SET_BITS_BYTES] = {FIS_SET_BITS, FIS_INTERRUPT, status & SET_BITS_STATUS, error};

    le32_put(fis + 4, tags);
    p->tfd_status = (p->tfd_status & ~SET_BITS_STATUS) | (status & SET_BITS_STATUS);
    p->tfd_error = error;
    post(p, RECEIVED_SET_BITS, fis, sizeof fis);
}

void ahci_post_signature(struct ahci_port *p)
{
    p->sig = (uint32_t)p->device.r.lba << 8 | (p->device.r.count & 0xFF);
    p->has_signature = !(p->cmd & CMD_FRE);
    ahci_post_d2h(p, false);
}

/* ---- interrupts ---- */

uint32_t ahci_port_interrupts(const struct ahci_port *p)
{
    return p->is | (p->serr & SERR_EXCHANGED ? IS_CONNECT : 0) |
           (p->serr & SERR_PHY_READY ? IS_PHY_READY : 0);
}

void ahci_port_interrupt(struct ahci_port *p, uint32_t bits)
{
    p->is |= bits;
    ahci_update_interrupt(p->hba);
}

/* ---- the link ---- */

static void link_down(struct ahci_port *p, uint32_t ssts)
{
    ahci_port_abort(p);
    p->ssts = ssts;
    p->sig = (uint32_t)NO_SIGNATURE;
    p->tfd_status = NO_DEVICE_STATUS;
    p->tfd_error = 0;
    p->soft_reset = false;
    p->has_signature = false;
}

/* COMRESET has ended: the device, if there is one, comes up. */
static void link_up(struct ahci_port *p)
{
    link_down(p, LINK_NO_DEVICE);
    if (p->device.kind == ATA_ABSENT || !(p->cmd & CMD_SUD))
        return;
    p->ssts = LINK_UP | LINK_SPEED | LINK_ACTIVE << LINK_IPM_SHIFT;
    p->serr |= SERR_EXCHANGED | SERR_PHY_READY;
    ata_reset(&p->device, true);
    ahci_post_signature(p);
}

static void write_control(struct ahci_port *p, uint32_t value)
{
    uint32_t before = p->sctl & SCTL_DET, now = value & SCTL_DET;

    p->sctl = value & SCTL_MASK;
    if (now == DET_RESET && before != DET_RESET) {
        link_down(p, LINK_NO_DEVICE);
        p->ci = p->sact = 0;
    } else if (now == DET_OFF && before != DET_OFF) {
        link_down(p, LINK_OFFLINE);
        p->ci = p->sact = 0;
    } else if (now == DET_NONE && (before == DET_RESET || before == DET_OFF)) {
        link_up(p);
    }
    ahci_update_interrupt(p->hba);
}

/* PxCMD.ICC: a power state of the link, reached at once or refused. */
static void set_link_power(struct ahci_port *p, unsigned state)
{
    unsigned forbidden = p->sctl >> 8 & 0xF;

    if ((p->ssts & SCTL_DET) != LINK_UP ||
        (state != LINK_ACTIVE && state != LINK_PARTIAL && state != LINK_SLUMBER) ||
        (state == LINK_PARTIAL && forbidden & IPM_NO_PARTIAL) ||
        (state == LINK_SLUMBER && forbidden & IPM_NO_SLUMBER))
        return;
    p->ssts = (p->ssts & ~(0xFu << LINK_IPM_SHIFT)) | state << LINK_IPM_SHIFT;
}

/* ---- registers ---- */

static void write_command(struct ahci_port *p, uint32_t value)
{
    uint32_t before = p->cmd, keep = CMD_KEPT | (p->hba->spin_up ? CMD_SUD : 0);

    p->cmd = (before & ~keep) | (value & keep);
    if (before & CMD_ST && !(p->cmd & CMD_ST)) {
        ahci_port_stop(p);
        p->ci = p->sact = 0;
        p->slot_now = 0;
        p->halted = false;
    }
    if (value & CMD_CLO && !(before & CMD_ST))
        p->tfd_status &= ~(ATA_BSY | ATA_DRQ);
    if (~before & p->cmd & CMD_FRE && p->has_signature) {
        p->has_signature = false;
        ahci_post_d2h(p, false);
    }
    if (~before & p->cmd & CMD_SUD) {
        link_up(p);
        ahci_update_interrupt(p->hba);
    }
    set_link_power(p, value >> CMD_ICC_SHIFT);
    ahci_port_run(p);
}

static uint32_t read_command(const struct ahci_port *p)
{
    uint32_t value = p->cmd | CMD_POD | (uint32_t)p->slot_now << CMD_CCS_SHIFT;

    if (p->cmd & CMD_FRE)
        value |= CMD_FR;
    if (p->cmd & CMD_ST || ahci_port_is_stopping(p))
        value |= CMD_CR;
    return value;
}

uint32_t ahci_port_read(struct ahci_port *p, unsigned offset)
{
    switch (offset) {
    case PX_CLB:
        return (uint32_t)p->clb;
    case PX_CLBU:
        return (uint32_t)(p->clb >> 32);
    case PX_FB:
        return (uint32_t)p->fb;
    case PX_FBU:
        return (uint32_t)(p->fb >> 32);
    case PX_IS:
        return ahci_port_interrupts(p);
    case PX_IE:
        return p->ie;
    case PX_CMD:
        return read_command(p);
    case PX_TFD:
        return p->tfd_status | (uint32_t)p->tfd_error << 8;
    case PX_SIG:
        return p->sig;
    case PX_SSTS:
        return p->ssts;
    case PX_SCTL:
        return p->sctl;
    case PX_SERR:
        return p->serr;
    case PX_SACT:
        return p->sact;
    case PX_CI:
        return p->ci;
    default:
        return 0;
    }
}

void ahci_port_write(struct ahci_port *p, unsigned offset, uint32_t value)
{
    switch (offset) {
    case PX_CLB:
        p->clb = (p->clb & ~(uint64_t)UINT32_MAX) | (value & CLB_MASK);
        break;
    case PX_CLBU:
        p->clb = (p->clb & UINT32_MAX) | (uint64_t)value << 32;
        break;
    case PX_FB:
        p->fb = (p->fb & ~(uint64_t)UINT32_MAX) | (value & FB_MASK);
        break;
    case PX_FBU:
        p->fb = (p->fb & UINT32_MAX) | (uint64_t)value << 32;
        break;
    case PX_IS:
        p->is &= ~value;
        ahci_update_interrupt(p->hba);
        break;
    case PX_IE:
        p->ie = value & IE_MASK;
        ahci_update_interrupt(p->hba);
        break;
    case PX_CMD:
        write_command(p, value);
        break;
    case PX_SCTL:
        write_control(p, value);
        break;
    case PX_SERR:
        p->serr &= ~value;
        ahci_update_interrupt(p->hba);
        break;
    case PX_SACT:
        if (p->cmd & CMD_ST)
            p->sact |= value;
        break;
    case PX_CI:
        if (p->cmd & CMD_ST) {
            p->ci |= value;
            ahci_port_run(p);
        }
        break;
    default:
        break;
    }
}

void ahci_port_reset(struct ahci_port *p)
{
    ahci_port_abort(p);
    /* All but where its tables are (10.4.3). */
    p->is = p->ie = p->sctl = p->serr = p->sact = p->ci = 0;
    p->cmd = p->hba->spin_up ? 0 : CMD_SUD;
    p->fetched = 0;
    p->slot_now = 0;
    p->halted = false;
    link_up(p);
}
