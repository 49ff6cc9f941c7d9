/*
 * Which lines of memory hold code that an engine has cached: struct ram_block's
 * code_lines and code_settled (docs/DESIGN.md, "Code that changes").
 *
 * Setting a mark is a processor's business, taking it back is everybody's: with
 * one processor it is done when code goes, with several where stores hit marks of
 * a page many times.
 *
 * Threading: on the processor's own thread, inside.
 */
#ifndef ENGINE_INTERP_MARKS_H
#define ENGINE_INTERP_MARKS_H

#include "cpu/x86/mmu_internal.h"

/* A page that stores to marked lines have hit. */
#define HIT_PAGES 64
struct marks_page {
    struct ram_block *block;
    uint64_t page;        /* offset */
    uint64_t hits, limit; /* lines that were stored to; at so many it is looked at */
};
struct marks {
    struct marks_page page[HIT_PAGES]; /* by page number */
    struct marks_page *wanted;         /* to be looked at; NULL: none */
    uint64_t taken_back; /* lines */
    uint64_t tried;
};

/* The lines of [offset, offset + bytes), which is in one page, as bits of a
 * code_lines word. */
uint64_t marks_bits(uint64_t offset, uint64_t bytes);

/* Makes the bytes [offset, offset + bytes) of a block code: after this, every
 * store to them is noticed. False: another processor had to be waited for, so
 * what was read before may be old. */
bool marks_set(struct x86_vcpu *c, struct ram_block *ram, uint64_t offset, uint64_t bytes);

/* Code of that page has gone: with one processor its marks follow at once. */
void marks_code_gone(struct x86_vcpu *c, struct ram_block *block, uint64_t page_offset);

/* This processor, of several, has stored to marked lines. May be in the middle of
 * an instruction: it is thought about in marks_tidy. */
void marks_hit(struct x86_vcpu *c, struct marks *m, struct ram_block *block, uint64_t offset,
               uint64_t bytes);
/* Takes marks back that nobody needs, of a page that is hit again and again. Runs
 * alone meanwhile: a safepoint, between two instructions. */
void marks_tidy(struct x86_vcpu *c, struct marks *m);

#endif
