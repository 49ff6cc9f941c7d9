/*
 * Two 8259A programmable interrupt controllers and the ELCR.
 *
 * Follows: Intel 8259A data sheet (order 231468); Intel ICH9 data sheet,
 * section 5.8 "8259 Interrupt Controllers" and 13.4 for the registers. As in
 * the ICH9: LTIM of ICW1 is replaced by the ELCR, the cascade on input 2 is
 * wired and ICW3 cannot change it, buffered mode does not exist.
 *
 * One deliberate difference: an edge, once seen, stays requested until it is
 * acknowledged, even if the input falls before. The data sheet asks that the
 * input be held until the first INTA, but devices here signal edges in no time
 * at all (irq_pulse), and they must not be lost. Level inputs and the cascade
 * are withdrawn with their input; an acknowledge that then finds nothing gets
 * the spurious level 7 of the chip that had to answer.
 *
 * Interface: i8259.h. Threading: with the machine's lock held.
 */
#include "dev/irq/i8259.h"

#include <errno.h>
#include <stdlib.h>

#include "vm/vm.h"

enum {
    MASTER,
    SLAVE,
    CASCADE = 2,        /* the master's input that the slave drives */
    SPURIOUS_LEVEL = 7, /* what a chip answers when no request is left */
};

/* Port 0 of a chip, writes. Bits 4 and 3 choose the word. */
enum {
    ICW1_SELECT = 0x10,
    ICW1_IC4 = 0x01,  /* ICW4 will follow */
    ICW1_SNGL = 0x02, /* no ICW3 */
    OCW3_SELECT = 0x08,
};

enum {
    ICW2_BASE = 0xf8,
    ICW4_UPM = 0x01,  /* 8086 mode; must be set */
    ICW4_AEOI = 0x02, /* automatic end of interrupt */
    ICW4_SFNM = 0x10, /* special fully nested mode */
};

/* OCW2 bits 7:5 (R, SL, EOI); bits 2:0 name a level. */
enum ocw2_command {
    OCW2_ROTATE_AEOI_CLEAR = 0,
    OCW2_EOI = 1,
    OCW2_NOTHING = 2,
    OCW2_EOI_SPECIFIC = 3,
    OCW2_ROTATE_AEOI_SET = 4,
    OCW2_EOI_ROTATE = 5,
    OCW2_SET_PRIORITY = 6,
    OCW2_EOI_SPECIFIC_ROTATE = 7,
};

enum {
    OCW3_RIS = 0x01, /* read ISR rather than IRR ... */
    OCW3_RR = 0x02,  /* ... if this is set */
    OCW3_POLL = 0x04,
    OCW3_SMM = 0x20,  /* special mask mode ... */
    OCW3_ESMM = 0x40, /* ... if this is set */
    POLL_INTERRUPT = 0x80,
};

/* What a write to port 1 of a chip means. */
enum expected_word {
    EXPECT_OCW1,
    EXPECT_ICW2,
    EXPECT_ICW3,
    EXPECT_ICW4,
    EXPECT_COUNT,
};

struct i8259_chip {
    uint8_t lines; /* levels of the inputs */
    uint8_t irr;
    uint8_t isr;
    uint8_t imr;
    uint8_t elcr; /* 1: level */
    uint8_t vector_base;
    uint8_t lowest; /* the level of lowest priority; the next is the highest */
    uint8_t expect; /* enum expected_word */
    bool ready;     /* has gone through its ICWs; before, INT stays low */
    bool single;    /* ICW1.SNGL */
    bool wants_icw4;
    bool auto_eoi;
    bool rotate_on_auto_eoi;
    bool special_mask;
    bool special_fully_nested;
    bool read_isr;
    bool poll; /* the next read is a poll */
};

struct i8259 {
    struct vm *vm;
    struct irq_line intr;
    struct i8259_chip chip[2];
    bool intr_level;
    struct region command[2]; /* ports 20H and A0H, two each */
    struct region elcr;
};

/* Writable bits: IRQ 0, 1, 2, 8 and 13 are edge-triggered for good (ICH9 13.4). */
static const uint8_t elcr_writable[2] = {0xf8, 0xde};

/* 0 is the highest. */
static unsigned chip_priority(const struct i8259_chip *c, unsigned level)
{
    return (level - c->lowest - 1) & 7;
}

/* The level of highest priority among set bits, or -1. */
static int chip_highest(const struct i8259_chip *c, uint8_t set)
{
    for (unsigned i = 1; i <= 8; i++) {
        unsigned level = (c->lowest + i) & 7;

        if (set & BIT(level))
            return (int)level;
    }
    return -1;
}

/* The request that the chip wants served now, or -1. */
static int chip_request(const struct i8259_chip *c, bool is_master)
{
    int request = chip_highest(c, c->irr & ~c->imr);
    uint8_t blocking = c->isr;
    int service;

    if (!c->ready || request < 0)
        return -1;
    /* Special mask mode: a masked level in service blocks nobody. */
    if (c->special_mask)
        blocking &= ~c->imr;
    service = chip_highest(c, blocking);
    if (service < 0)
        return request;
    if (chip_priority(c, (unsigned)request) < chip_priority(c, (unsigned)service))
        return request;
    /* Special fully nested mode: the slave may interrupt its own service; the
     * slave itself knows whether the new request is of higher priority. */
    if (is_master && c->special_fully_nested && request == service && request == CASCADE)
        return request;
    return -1;
}

/* Recomputes both INT outputs. */
static void i8259_update(struct i8259 *pic)
{
    struct i8259_chip *master = &pic->chip[MASTER];
    bool level;

    if (chip_request(&pic->chip[SLAVE], false) >= 0) {
        master->lines |= BIT(CASCADE);
        master->irr |= BIT(CASCADE);
    } else {
        master->lines &= ~BIT(CASCADE);
        master->irr &= ~BIT(CASCADE);
    }
    level = chip_request(master, true) >= 0;
    if (level != pic->intr_level) {
        pic->intr_level = level;
        irq_set(&pic->intr, level);
    }
}

/* One chip's half of an acknowledge cycle; -1 if nothing is requested. */
static int chip_accept(struct i8259_chip *c, bool is_master)
{
    int level = chip_request(c, is_master);

    if (level < 0)
        return -1;
    /* A level request stays as long as its input; so does the cascade, which
     * i8259_update puts right. */
    if (!(c->elcr & BIT(level)))
        c->irr &= ~BIT(level);
    if (!c->auto_eoi)
        c->isr |= BIT(level);
    else if (c->rotate_on_auto_eoi)
        c->lowest = (uint8_t)level;
    return level;
}

uint8_t i8259_ack(void *self)
{
    struct i8259 *pic = self;
    struct i8259_chip *answering = &pic->chip[MASTER];
    int level = chip_accept(answering, true);

    if (level == CASCADE) {
        answering = &pic->chip[SLAVE];
        level = chip_accept(answering, false);
    }
    if (level < 0) {
        level = SPURIOUS_LEVEL;
        vlog(pic->vm->log, IRQ, DEBUG, "8259: spurious acknowledge, IRQ %u",
             answering == &pic->chip[SLAVE] ? 15 : 7);
    }
    i8259_update(pic);
    return answering->vector_base | (uint8_t)level;
}

bool i8259_waiting(const struct i8259 *pic, unsigned n)
{
    const struct i8259_chip *c = &pic->chip[n / 8];

    return c->irr & ~c->imr & BIT(n % 8);
}

bool i8259_intr(const struct i8259 *pic)
{
    return pic->intr_level;
}

static void i8259_set_input(void *self, unsigned n, bool level)
{
    struct i8259 *pic = self;
    struct i8259_chip *c = &pic->chip[n >> 3 & 1];
    uint8_t bit = (uint8_t)BIT(n & 7);

    if (n == CASCADE)
        return;
    if (level) {
        if (!(c->lines & bit) || (c->elcr & bit))
            c->irr |= bit;
        c->lines |= bit;
    } else {
        if (c->elcr & bit)
            c->irr &= ~bit;
        c->lines &= ~bit;
    }
    i8259_update(pic);
}

struct irq_line i8259_input(struct i8259 *pic, unsigned n)
{
    return (struct irq_line){i8259_set_input, pic, n & 15};
}

/* ---- registers ---- */

/* What ICW1 does to a chip (data sheet, "Initialization Command Words"). */
static void chip_initialize(struct i8259_chip *c)
{
    /* The edge detectors want a new edge; level inputs request on. */
    c->irr = c->lines & c->elcr;
    c->isr = 0;
    c->imr = 0;
    c->lowest = 7;
    c->auto_eoi = false;
    c->rotate_on_auto_eoi = false;
    c->special_mask = false;
    c->special_fully_nested = false;
    c->read_isr = false;
    c->poll = false;
    c->ready = false;
}

static void chip_eoi(struct i8259_chip *c, int level, bool rotate)
{
    if (level < 0)
        return;
    c->isr &= ~BIT(level);
    if (rotate)
        c->lowest = (uint8_t)level;
}

static void chip_write_ocw2(struct i8259_chip *c, uint8_t v)
{
    int level = v & 7;
    /* In special mask mode the non-specific EOI passes over masked levels. */
    int highest = chip_highest(c, c->special_mask ? c->isr & ~c->imr : c->isr);

    switch ((enum ocw2_command)(v >> 5)) {
    case OCW2_ROTATE_AEOI_CLEAR:
        c->rotate_on_auto_eoi = false;
        break;
    case OCW2_ROTATE_AEOI_SET:
        c->rotate_on_auto_eoi = true;
        break;
    case OCW2_EOI:
        chip_eoi(c, highest, false);
        break;
    case OCW2_EOI_ROTATE:
        chip_eoi(c, highest, true);
        break;
    case OCW2_EOI_SPECIFIC:
        chip_eoi(c, level, false);
        break;
    case OCW2_EOI_SPECIFIC_ROTATE:
        chip_eoi(c, level, true);
        break;
    case OCW2_SET_PRIORITY:
        c->lowest = (uint8_t)level;
        break;
    case OCW2_NOTHING:
        break;
    }
}

static void chip_write_ocw3(struct i8259_chip *c, uint8_t v)
{
    if (v & OCW3_POLL)
        c->poll = true;
    if (v & OCW3_RR)
        c->read_isr = v & OCW3_RIS;
    if (v & OCW3_ESMM)
        c->special_mask = v & OCW3_SMM;
}

static void chip_write_command(struct i8259_chip *c, uint8_t v)
{
    if (v & ICW1_SELECT) {
        chip_initialize(c);
        c->single = v & ICW1_SNGL;
        c->wants_icw4 = v & ICW1_IC4;
        c->expect = EXPECT_ICW2;
    } else if (v & OCW3_SELECT) {
        chip_write_ocw3(c, v);
    } else {
        chip_write_ocw2(c, v);
    }
}

static void chip_write_data(struct i8259 *pic, struct i8259_chip *c, uint8_t v)
{
    switch ((enum expected_word)c->expect) {
    case EXPECT_ICW2:
        c->vector_base = v & ICW2_BASE;
        c->expect = !c->single ? EXPECT_ICW3 : c->wants_icw4 ? EXPECT_ICW4 : EXPECT_OCW1;
        break;
    case EXPECT_ICW3: /* the cascade is wired */
        c->expect = c->wants_icw4 ? EXPECT_ICW4 : EXPECT_OCW1;
        break;
    case EXPECT_ICW4:
        if (!(v & ICW4_UPM))
            vlog(pic->vm->log, IRQ, GUEST, "8259: ICW4 %02XH asks for MCS-80 mode: ignored", v);
        c->auto_eoi = v & ICW4_AEOI;
        c->special_fully_nested = v & ICW4_SFNM;
        c->expect = EXPECT_OCW1;
        break;
    case EXPECT_OCW1:
    case EXPECT_COUNT:
        c->imr = v;
        return;
    }
    if (c->expect == EXPECT_OCW1)
        c->ready = true;
}

static unsigned i8259_chip_index(const struct i8259 *pic, const struct i8259_chip *c)
{
    return (unsigned)(c - pic->chip);
}

static void i8259_chip_write(struct i8259 *pic, struct i8259_chip *c, uint64_t offset, uint8_t v)
{
    vlog(pic->vm->log, IRQ, DEBUG, "8259 %u: port %u <- %02XH", i8259_chip_index(pic, c),
         (unsigned)offset, v);
    if (offset == 0)
        chip_write_command(c, v);
    else
        chip_write_data(pic, c, v);
    i8259_update(pic);
}

static uint8_t i8259_chip_read(struct i8259 *pic, struct i8259_chip *c, uint64_t offset)
{
    /* Poll: the next read, of either port, is the acknowledge. */
    if (c->poll) {
        int level = chip_accept(c, c == &pic->chip[MASTER]);

        c->poll = false;
        i8259_update(pic);
        return level < 0 ? 0 : POLL_INTERRUPT | (uint8_t)level;
    }
    if (offset == 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(void *self, uint64_t offset, unsigned size)
{
    struct i8259 *pic = self;

    return i8259_chip_read(pic, &pic->chip[MASTER], offset);
}

static void master_write(void *self, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8259 *pic = self;

    i8259_chip_write(pic, &pic->chip[MASTER], offset, (uint8_t)value);
}

static uint64_t slave_read(void *self, uint64_t offset, unsigned size)
{
    struct i8259 *pic = self;

    return i8259_chip_read(pic, &pic->chip[SLAVE], offset);
}

static void slave_write(void *self, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8259 *pic = self;

    i8259_chip_write(pic, &pic->chip[SLAVE], offset, (uint8_t)value);
}

static uint64_t elcr_read(void *self, uint64_t offset, unsigned size)
{
    struct i8259 *pic = self;

    return pic->chip[offset & 1].elcr;
}

static void elcr_write(void *self, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8259 *pic = self;
    struct i8259_chip *c = &pic->chip[offset & 1];
    uint8_t level = (uint8_t)value & elcr_writable[offset & 1];

    /* A level input requests what it carries, from now on; one that becomes
     * edge-triggered keeps no request of its level. */
    c->irr &= ~(level ^ c->elcr);
    c->irr |= c->lines & level;
    c->elcr = level;
    i8259_update(pic);
}

static const struct region_ops chip_ops[2] = {
    {.read = master_read, .write = master_write, .min_size = 1, .max_size = 1},
    {.read = slave_read, .write = slave_write, .min_size = 1, .max_size = 1},
};

static const struct region_ops elcr_ops = {
    .read = elcr_read, .write = elcr_write, .min_size = 1, .max_size = 1};

/* ---- life ---- */

static void i8259_reset(void *self)
{
    struct i8259 *pic = self;

    for (unsigned i = 0; i < 2; i++) {
        struct i8259_chip *c = &pic->chip[i];

        c->elcr = 0;
        chip_initialize(c);
        c->vector_base = 0;
        c->expect = EXPECT_OCW1;
        c->single = false;
        c->wants_icw4 = false;
    }
    i8259_update(pic);
}

static void i8259_destroy(void *self)
{
    free(self);
}

static int i8259_after_load(void *self, unsigned version)
{
    struct i8259 *pic = self;

    for (unsigned i = 0; i < 2; i++) {
        const struct i8259_chip *c = &pic->chip[i];

        if (c->lowest > 7 || c->expect >= EXPECT_COUNT || (c->vector_base & ~ICW2_BASE) ||
            (c->elcr & ~elcr_writable[i]))
            return -EINVAL;
    }
    return 0;
}

static const struct state_field chip_fields[] = {
    STATE_INT(struct i8259_chip, lines),
    STATE_INT(struct i8259_chip, irr),
    STATE_INT(struct i8259_chip, isr),
    STATE_INT(struct i8259_chip, imr),
    STATE_INT(struct i8259_chip, elcr),
    STATE_INT(struct i8259_chip, vector_base),
    STATE_INT(struct i8259_chip, lowest),
    STATE_INT(struct i8259_chip, expect),
    STATE_INT(struct i8259_chip, ready),
    STATE_INT(struct i8259_chip, single),
    STATE_INT(struct i8259_chip, wants_icw4),
    STATE_INT(struct i8259_chip, auto_eoi),
    STATE_INT(struct i8259_chip, rotate_on_auto_eoi),
    STATE_INT(struct i8259_chip, special_mask),
    STATE_INT(struct i8259_chip, special_fully_nested),
    STATE_INT(struct i8259_chip, read_isr),
    STATE_INT(struct i8259_chip, poll),
    STATE_END,
};
static const struct state_table chip_state = {"i8259-chip", 1, chip_fields, NULL, NULL};

static const struct state_field i8259_fields[] = {
    STATE_STRUCTS(struct i8259, chip, &chip_state),
    STATE_INT(struct i8259, intr_level),
    STATE_END,
};
static const struct state_table i8259_state = {"i8259", 1, i8259_fields, NULL, i8259_after_load};

static const struct dev_type i8259_type = {"i8259", i8259_reset, i8259_destroy, &i8259_state};

struct i8259 *i8259_create(struct vm *vm, const struct i8259_config *config, struct error *err)
{
    static const struct {
        const char *name;
        uint16_t port;
    } chips[2] = {{"i8259-master", 0x20}, {"i8259-slave", 0xa0}};
    struct i8259 *pic = calloc(1, sizeof *pic);
    unsigned added = 0;

    if (!pic) {
        error_set(err, -ENOMEM, "out of memory for the 8259 interrupt controllers");
        return NULL;
    }
    pic->vm = vm;
    pic->intr = config->intr;
    for (; added < 2; added++) {
        pic->command[added] = (struct region){.name = chips[added].name,
                                              .base = chips[added].port,
                                              .size = 2,
                                              .priority = 1,
                                              .ops = &chip_ops[added],
                                              .ctx = pic};
        if (region_add(&vm->ports, &pic->command[added]) < 0)
            goto fail;
    }
    pic->elcr = (struct region){
        .name = "elcr", .base = 0x4d0, .size = 2, .priority = 1, .ops = &elcr_ops, .ctx = pic};
    if (region_add(&vm->ports, &pic->elcr) < 0)
        goto fail;
    i8259_reset(pic);
    vm_add_device(vm, &i8259_type, "i8259", pic);
    return pic;

fail:
    while (added > 0)
        region_remove(&pic->command[--added]);
    free(pic);
    error_set(err, -ENOMEM, "out of memory for the 8259 interrupt controllers' ports");
    return NULL;
}
