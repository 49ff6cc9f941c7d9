/*
 * Walks beside the usual: paging structures that are not in plain RAM, walks for
 * debuggers, PDPTE registers (SDM Vol. 3, 4.4.1).
 * Interface: mmu.h, mmu_internal.h. Threading: the owner's thread.
 */
#include "cpu/x86/mmu_internal.h"
#include "cpu/x86/vec/vec.h"

uint64_t walk_far_read(struct x86_vcpu *c, gpa_t gpa, unsigned size)
{
    uint64_t v = ~0ull;

    vec_leave(c);
    as_load(&c->vm->memory, gpa, size, &v);
    return zext(v, size);
}

void walk_far_set_bits(struct x86_vcpu *c, gpa_t gpa, unsigned size, uint64_t bits)
{
    uint64_t v = 0;

    vec_leave(c);
    as_load(&c->vm->memory, gpa, size, &v);
    as_store(&c->vm->memory, gpa, size, zext(v, size) | bits);
}

bool x86_walk(struct x86_vcpu *c, gva_t gva, enum x86_access access, bool user, gpa_t *gpa,
              uint32_t *error)
{
    struct walk w;
    bool ac = (c->s.rflags & FLAG_AC) != 0;

    if (walk_access(c, gva, access, user, ac, true, &w, error) != WALK_OK)
        return false;
    *gpa = w.gpa;
    return true;
}

bool x86_walk_debug(struct x86_vcpu *c, gva_t gva, gpa_t *gpa)
{
    struct walk w;

    if (!walk_look(c, gva, &w))
        return false;
    *gpa = w.gpa;
    return true;
}

size_t x86_debug_read(struct x86_vcpu *c, gva_t gva, void *buf, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        uint64_t run = UINT64_MAX, offset;
        struct ram_block *block;
        const uint8_t *p;
        gpa_t gpa;
        size_t n = MIN(bytes - done, PAGE_SIZE - ((gva + done) & ~PAGE_MASK));

        /* Memory only: looking at a device's registers would change it. */
        if (!x86_walk_debug(c, gva + done, &gpa))
            break;
        p = as_map(&c->vm->memory, gpa, &run, false, &block, &offset);
        if (!p)
            break;
        n = MIN(n, run);
        memcpy((uint8_t *)buf + done, p, n);
        done += n;
    }
    return done;
}

bool x86_load_pdptes(struct x86_vcpu *c, uint64_t cr3, uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    uint64_t pdpte[4];
    uint64_t reserved = BITS(63, 52) | (BITS(51, 0) & ~(BIT(c->model->phys_bits) - 1)) |
                        BITS(8, 5) | BITS(2, 1);

    if (!(cr0 & CR0_PG) || !(cr4 & CR4_PAE) || (efer & EFER_LMA))
        return true;
    for (unsigned n = 0; n < 4; n++) {
        pdpte[n] = walk_read(c, (cr3 & 0xffffffe0) + n * 8, 8);
        if ((pdpte[n] & 1) && (pdpte[n] & reserved)) /* present */
            return false;
    }
    memcpy(c->s.pdpte, pdpte, sizeof pdpte);
    return true;
}
