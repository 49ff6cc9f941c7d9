/*
 * A machine without a processor, for tests that drive devices' registers.
 *
 * The test's build function creates devices in h->vm, keeps them in h->dev and
 * gives them harness_line and harness_port as their surroundings, which record
 * what the devices do. The clock's epoch is build's to set, too. Time is deterministic and stands still until the test
 * advances it.
 *
 * harness_reload moves the devices, by way of their saved state, into a new
 * machine: whatever a state table forgets is lost there. harness_fuzz does
 * that at random moments and compares with a machine that was left in peace.
 *
 * Failures are cmocka's. Threading: one thread.
 */
#ifndef TESTS_DEV_HARNESS_H
#define TESTS_DEV_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants the two above, and what base.h includes. */
#include "base/base.h"

#include <cmocka.h>

#include "vm/irq.h"
#include "vm/vm.h"

#define HARNESS_LINES 64
#define HARNESS_MESSAGES 1024
#define HARNESS_DEVICES 8

struct harness {
    struct vm *vm;
    void (*build)(struct harness *h);
    void *dev[HARNESS_DEVICES]; /* build's to use */
    void *test;                 /* the test's own, kept through reloads */
    struct {
        bool level;
        unsigned rises, falls;
        uint64_t last_rise_ns;
    } line[HARNESS_LINES];
    struct irq_message message[HARNESS_MESSAGES]; /* the first ones since message_count was 0 */
    unsigned message_count;
    bool deaf; /* while devices are being moved */
};

struct harness *harness_create(void (*build)(struct harness *h));
void harness_destroy(struct harness *h);

/* A line into line[n]; a message port into message[]. */
struct irq_line harness_line(struct harness *h, unsigned n);
struct irq_message_port harness_port(struct harness *h);

/* Ports and memory; what nobody claims reads as ones, as in a machine. */
uint64_t io_in(struct harness *h, uint64_t port, unsigned size);
void io_out(struct harness *h, uint64_t port, uint64_t value, unsigned size);
uint64_t mm_in(struct harness *h, uint64_t gpa, unsigned size);
void mm_out(struct harness *h, uint64_t gpa, uint64_t value, unsigned size);
static inline uint8_t inb(struct harness *h, uint64_t port)
{
    return (uint8_t)io_in(h, port, 1);
}
static inline void outb(struct harness *h, uint64_t port, uint8_t value)
{
    io_out(h, port, value, 1);
}

uint64_t harness_now_ns(struct harness *h);
/* Time passes; each timer that becomes due fires at its deadline, in order.
 * Returns how many times something fired. */
unsigned harness_advance(struct harness *h, uint64_t ns);
/* The host is late: time jumps, and then all that is due fires at once. */
unsigned harness_jump(struct harness *h, uint64_t ns);
/* The next timer's deadline, or TIME_NEVER. */
uint64_t harness_next_ns(struct harness *h);

/* The machine's reset, as far as devices go. */
void harness_reset(struct harness *h);
/* Moves everything into a new machine. */
void harness_reload(struct harness *h);
/* Loads all devices' state with one byte changed, for every byte; each either
 * is refused or leaves a device that works: poke is called then. */
void harness_corrupt(struct harness *h, void (*poke)(struct harness *h));
/* The same for one change in `step` of them, where there is much state. */
void harness_corrupt_some(struct harness *h, void (*poke)(struct harness *h), unsigned step);

/* Runs count random operations on two machines, one of which is reloaded now
 * and then, and compares what op returns and what came out of the devices. op
 * gets random bits, the same for both. */
void harness_fuzz(void (*build)(struct harness *h),
                  uint64_t (*op)(struct harness *h, uint64_t random), unsigned count,
                  uint64_t seed);

/* A small generator for tests (xorshift64*); state must not be 0. */
uint64_t harness_random(uint64_t *state);

#endif
