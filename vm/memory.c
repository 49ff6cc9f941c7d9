/*
 * RAM blocks, regions and flattened views. Interface: vm/memory.h; access by
 * address is in vm/access.c.
 *
 * A view is a sorted table of ranges, with copies of the regions they show, in
 * one allocation. It never changes once published. A change of regions builds
 * the next view, publishes it with one pointer store, and retires its
 * predecessor, which vCPUs may be reading without a lock.
 *
 * When a retired view is freed. Each publication has a number, in the
 * machine's view_generation, counted up after the pointer was stored; a
 * retired view carries the number of its successor. A vCPU that passes a
 * safepoint holds no range, and notes the generation in view_seen: if that is
 * at least retired_at, then it has seen the count, so also the pointer stored
 * before it, and whatever it finds later is in a newer view. A vCPU that is
 * outside holds no range either, and on entering stores inside before it loads
 * the pointer, while we store the pointer before we load inside: in the single
 * order of these operations (all are sequentially consistent) either we see it
 * inside, or it sees the new view. Threads other than vCPUs read views under
 * the machine's lock, and their ranges die when they release it; so retired
 * views are looked through by whoever is just about to release it.
 *
 * A guest that toggles a mapping for ever must not make them pile up while
 * another vCPU runs code that is never interrupted: where more than a few are
 * retired, those who hold them up are rung to pass a safepoint.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "vm/internal.h"

#define PAGE 4096ull
#define RETIRED_FEW 4

/* ---- RAM blocks ---- */

static void block_free(struct ram_block *b, uint64_t bytes)
{
    host_pages_free(b->host, bytes);
    host_pages_free((void *)b->code_lines, bytes / PAGE * sizeof *b->code_lines);
    host_pages_free((void *)b->code_settled, bytes / PAGE);
    host_pages_free((void *)atomic_load(&b->written), bytes / PAGE);
    free(b);
}

struct ram_block *ram_block_create(struct vm *vm, const char *name, uint64_t bytes,
                                   enum ram_kind kind, struct error *err)
{
    struct ram_block *b, **end = &vm->ram_blocks;

    if (!bytes || bytes % PAGE || bytes > (uint64_t)PTRDIFF_MAX) {
        error_set(err, -EINVAL, "%s: %llu bytes are not whole pages of 4 KiB", name,
                  (unsigned long long)bytes);
        return NULL;
    }
    b = calloc(1, sizeof *b);
    if (!b)
        goto no_memory;
    b->host = host_pages_alloc(bytes, kind == RAM_NORMAL);
    if (!b->host)
        goto no_memory;
    host_expect_races(b->host, bytes);
    b->code_lines = host_pages_alloc(bytes / PAGE * sizeof *b->code_lines, false);
    b->code_settled = host_pages_alloc(bytes / PAGE, false);
    if (!b->code_lines || !b->code_settled)
        goto no_memory;
    b->vm = vm;
    b->name = name;
    b->bytes = bytes;
    b->kind = kind;
    b->id = vm->ram_block_count++;
    while (*end)
        end = &(*end)->next;
    *end = b;
    return b;

no_memory:
    if (b)
        block_free(b, bytes);
    error_set(err, -ENOMEM, "cannot get %llu MiB of host memory for %s: ask for less",
              (unsigned long long)((bytes + MiB - 1) / MiB), name);
    return NULL;
}

void ram_blocks_free(struct vm *vm)
{
    struct ram_block *b, *next;

    for (b = vm->ram_blocks; b; b = next) {
        next = b->next;
        block_free(b, b->bytes);
    }
    vm->ram_blocks = NULL;
}

void ram_blocks_forget_code(struct vm *vm)
{
    for (struct ram_block *b = vm->ram_blocks; b; b = b->next) {
        host_pages_discard((void *)b->code_lines, b->bytes / PAGE * sizeof *b->code_lines);
        host_pages_discard((void *)b->code_settled, b->bytes / PAGE);
    }
}

/* The lines of one page that hold cached code, of those that a range touches. */
static uint64_t code_lines_in(const struct ram_block *block, uint64_t page, uint64_t offset,
                              uint64_t bytes)
{
    uint64_t lines = atomic_load_explicit(&block->code_lines[page], memory_order_relaxed);
    uint64_t first = offset / 64, last = (offset + bytes - 1) / 64;

    if (page == first / 64)
        lines &= ~0ull << (first % 64);
    if (page == last / 64)
        lines &= ~0ull >> (63 - last % 64);
    return lines;
}

bool ram_block_has_code(const struct ram_block *block, uint64_t offset, uint64_t bytes)
{
    host_store_load_fence(); /* see ram_block_written */
    return code_lines_in(block, offset / PAGE, offset, bytes);
}

void ram_block_written(struct ram_block *block, uint64_t offset, uint64_t bytes)
{
    if (!bytes)
        return;
    assert(offset < block->bytes && bytes <= block->bytes - offset);
    if (unlikely(atomic_load_explicit(&block->written, memory_order_relaxed)))
        for (uint64_t page = offset / PAGE; page <= (offset + bytes - 1) / PAGE; page++)
            ram_log_note(block, page * PAGE);
    /* Whoever caches code sets the bits first and reads the bytes then; we have
     * written the bytes and look at the bits. Without the fence both could
     * miss each other. */
    host_store_load_fence();
    for (uint64_t page = offset / PAGE; page <= (offset + bytes - 1) / PAGE; page++) {
        if (code_lines_in(block, page, offset, bytes)) {
            /* From the first page that has any to the end, as one range. */
            uint64_t start = MAX(offset, page * PAGE);

            vcpu_code_written(block->vm, NULL, block, start, offset + bytes - start);
            return;
        }
    }
}

/* ---- which pages are written ---- */

int ram_log_start(struct ram_block *block)
{
    _Atomic uint8_t *written;

    if (block->vm->deterministic)
        return -ENOTSUP;
    if (atomic_load(&block->written))
        return 0;
    written = host_pages_alloc(block->bytes / PAGE, false);
    if (!written)
        return -ENOMEM;
    /* Processors may store anywhere by now: all of it is as if written. */
    memset((void *)written, 1, block->bytes / PAGE);
    atomic_store(&block->written, written);
    return 0;
}

bool ram_log_take(struct ram_block *block, uint8_t *pages)
{
    _Atomic uint8_t *written = atomic_load(&block->written);
    bool any = false;

    for (uint64_t page = 0; page < block->bytes / PAGE; page++) {
        pages[page] = 0;
        /* The exchange only where there is something, which is rare. */
        if (atomic_load_explicit(&written[page], memory_order_relaxed)) {
            pages[page] = atomic_exchange(&written[page], 0);
            any = true;
        }
    }
    /* Those who note a page and store then have stored when they pass a
     * safepoint, and do not store after it without noting again. */
    if (any)
        vcpu_wait_all(block->vm, EVENT_REVOKE);
    return any;
}

/* ---- views ---- */

static struct flat_view *view_alloc(unsigned regions)
{
    /* Each region begins and ends once, and each such point begins at most one
     * more range. */
    size_t ranges = 2 * (size_t)regions + 1;
    struct flat_view *view = calloc(1, sizeof *view + ranges * sizeof view->range[0] +
                                           (regions + 1) * sizeof view->copies[0]);

    if (!view)
        return NULL;
    view->capacity = ranges;
    view->copies_capacity = regions + 1;
    view->copies = (struct region *)&view->range[ranges];
    return view;
}

/* The last address of a region; clipped where the guest has moved it so high
 * that it would wrap. */
static uint64_t region_last(const struct region *r)
{
    return r->size - 1 > UINT64_MAX - r->base ? UINT64_MAX : r->base + (r->size - 1);
}

static bool hides(const struct region *a, const struct region *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->sequence > b->sequence;
}

/* Copies of all enabled regions, those that hide others first. */
static unsigned view_copy_regions(struct flat_view *view, const struct address_space *as)
{
    unsigned count = 0;

    for (const struct region *r = as->regions; r; r = r->next) {
        unsigned i = count;

        if (!r->enabled)
            continue;
        for (; i > 0 && hides(r, &view->copies[i - 1]); i--)
            view->copies[i] = view->copies[i - 1];
        view->copies[i] = *r;
        view->copies[i].original = r;
        count++;
    }
    return count;
}

static void view_append(struct flat_view *view, uint64_t base, uint64_t last,
                        const struct region *r)
{
    struct flat_range *previous = view->count ? &view->range[view->count - 1] : NULL;

    if (previous && previous->region == r && previous->last + 1 == base) {
        previous->last = last;
        return;
    }
    assert(view->count < view->capacity);
    view->range[view->count++] = (struct flat_range){
        .base = base, .last = last, .region = r, .offset = base - r->base};
}

/* From the bottom up: at each address, the first copy that covers it, up to
 * where that ends or one that hides it begins. */
static void view_build(struct flat_view *view, const struct address_space *as)
{
    unsigned count = view_copy_regions(view, as);
    uint64_t at = 0, last;

    view->count = 0;
    do {
        const struct region *top = NULL;

        last = UINT64_MAX;
        for (unsigned i = 0; i < count && !top; i++) {
            const struct region *r = &view->copies[i];

            if (region_last(r) < at)
                continue;
            if (r->base > at) {
                last = MIN(last, r->base - 1);
            } else {
                top = r;
                last = MIN(last, region_last(r));
            }
        }
        if (top)
            view_append(view, at, last, top);
        at = last + 1;
    } while (last != UINT64_MAX);
}

static bool range_equal(const struct flat_range *a, const struct flat_range *b)
{
    const struct region *x = a->region, *y = b->region;

    return a->base == b->base && a->last == b->last && a->offset == b->offset &&
           x->original == y->original && x->ram == y->ram && x->ram_offset == y->ram_offset &&
           x->readonly == y->readonly && x->ops == y->ops && x->ctx == y->ctx;
}

static bool view_equal(const struct flat_view *a, const struct flat_view *b)
{
    if (!a || a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!range_equal(&a->range[i], &b->range[i]))
            return false;
    return true;
}

static bool view_has(const struct flat_view *view, const struct flat_range *range)
{
    size_t low = 0, high = view ? view->count : 0;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (view->range[middle].base < range->base)
            low = middle + 1;
        else
            high = middle;
    }
    return view && low < view->count && range_equal(&view->range[low], range);
}

/* Tells listeners of the ranges of `view` that `other` has not. */
static void tell_listeners(struct address_space *as, const struct flat_view *view,
                           const struct flat_view *other, bool added)
{
    if (!view || !as->listeners)
        return;
    for (size_t i = 0; i < view->count; i++) {
        if (view_has(other, &view->range[i]))
            continue;
        for (struct view_listener *l = as->listeners; l; l = l->next) {
            void (*tell)(void *, const struct flat_range *) = added ? l->added : l->removed;

            if (tell)
                tell(l->ctx, &view->range[i]);
        }
    }
}

/* Rebuilds the view after a change; lock held. */
static void view_publish(struct address_space *as)
{
    struct vm *vm = as->vm;
    struct flat_view *view = as->spare, *old = atomic_load(&as->view);

    as->batch_dirty = false;
    if (!view)
        view = view_alloc(as->region_count);
    if (!view) {
        /* The old view stays, and the next change tries again; nobody can go
         * on like this for long. */
        vlog(vm->log, MEM, ERROR, "out of memory for the map of %s: stopping", as->name);
        as->batch_dirty = true;
        vm_stop(vm);
        return;
    }
    as->spare = NULL;
    view_build(view, as);
    if (view_equal(old, view)) {
        as->spare = view;
        return;
    }
    tell_listeners(as, old, view, false);
    atomic_store(&as->view, view);
    if (old) {
        old->retired_at = atomic_fetch_add(&vm->view_generation, 1) + 1;
        old->next_retired = vm->retired_views;
        vm->retired_views = old;
    }
    tell_listeners(as, view, old, true);
    if (as->is_memory)
        for (unsigned i = 0; i < vm->vcpu_count; i++)
            vcpu_post(vm->vcpus[i], EVENT_FLUSH);
    as->spare = view_alloc(as->region_count + 1); /* if there is none, later */
}

static bool still_read(struct vm *vm, const struct flat_view *view, struct vcpu **reader)
{
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        *reader = vm->vcpus[i];
        if (atomic_load(&(*reader)->inside) &&
            atomic_load(&(*reader)->view_seen) < view->retired_at)
            return true;
    }
    return false;
}

void views_reclaim(struct vm *vm)
{
    struct flat_view **link = &vm->retired_views;
    unsigned left = 0;

    while (*link) {
        struct flat_view *view = *link;
        struct vcpu *reader;

        if (still_read(vm, view, &reader)) {
            /* The event asks it to leave and enter, which is a safepoint. */
            if (++left > RETIRED_FEW && !(atomic_load(&reader->events) & EVENT_EXCLUSIVE))
                vcpu_post(reader, EVENT_EXCLUSIVE);
            link = &view->next_retired;
            continue;
        }
        *link = view->next_retired;
        free(view);
    }
}

void views_free_all(struct vm *vm)
{
    while (vm->retired_views) {
        struct flat_view *view = vm->retired_views;

        vm->retired_views = view->next_retired;
        free(view);
    }
}

/* ---- address spaces and regions ---- */

void address_space_init(struct address_space *as, struct vm *vm, const char *name, bool is_memory)
{
    memset(as, 0, sizeof *as);
    as->vm = vm;
    as->name = name;
    as->is_memory = is_memory;
}

void address_space_destroy(struct address_space *as)
{
    free(atomic_load(&as->view));
    free(as->spare);
    atomic_store(&as->view, NULL);
    as->spare = NULL;
    as->regions = NULL;
}

void address_space_begin(struct address_space *as)
{
    vm_lock(as->vm);
    as->batch_depth++;
}

void address_space_commit(struct address_space *as)
{
    assert(as->batch_depth);
    if (!--as->batch_depth && as->batch_dirty)
        view_publish(as);
    vm_unlock(as->vm);
}

static bool region_is_sound(const struct region *r)
{
    unsigned min_size = r->ops && r->ops->min_size ? r->ops->min_size : 1;

    if (!r->size || r->size - 1 > UINT64_MAX - r->base || r->size % min_size)
        return false;
    if (!r->ram)
        return r->ops;
    return !(r->base % PAGE) && !(r->size % PAGE) && !(r->ram_offset % PAGE) &&
           r->ram_offset < r->ram->bytes && r->size <= r->ram->bytes - r->ram_offset;
}

int region_add(struct address_space *as, struct region *r)
{
    int code = 0;

    if (!region_is_sound(r))
        return -EINVAL;
    address_space_begin(as);
    if (!as->spare || as->spare->copies_capacity < as->region_count + 1) {
        struct flat_view *spare = view_alloc(as->region_count + 1);

        if (!spare) {
            code = -ENOMEM;
            goto out;
        }
        free(as->spare);
        as->spare = spare;
    }
    as->region_count++;
    r->as = as;
    r->enabled = true;
    r->sequence = as->next_sequence++;
    r->original = NULL;
    r->next = as->regions;
    as->regions = r;
    as->batch_dirty = true;
out:
    address_space_commit(as);
    return code;
}

void region_remove(struct region *r)
{
    struct address_space *as = r->as;

    if (!as)
        return;
    address_space_begin(as);
    for (struct region **link = &as->regions; *link; link = &(*link)->next) {
        if (*link == r) {
            *link = r->next;
            as->region_count--;
            break;
        }
    }
    r->as = NULL;
    r->enabled = false;
    as->batch_dirty = true;
    address_space_commit(as);
}

void region_move(struct region *r, uint64_t base)
{
    assert(!r->ram || !(base % PAGE));
    address_space_begin(r->as);
    r->as->batch_dirty |= r->base != base;
    r->base = base;
    address_space_commit(r->as);
}

void region_enable(struct region *r, bool enabled)
{
    address_space_begin(r->as);
    r->as->batch_dirty |= r->enabled != enabled;
    r->enabled = enabled;
    address_space_commit(r->as);
}

void region_retarget(struct region *r, struct ram_block *ram, uint64_t ram_offset, bool readonly)
{
    assert(ram || r->ops);
    assert(!ram || (!(ram_offset % PAGE) && ram_offset < ram->bytes &&
                    r->size <= ram->bytes - ram_offset));
    address_space_begin(r->as);
    r->ram = ram;
    r->ram_offset = ram_offset;
    r->readonly = readonly;
    r->as->batch_dirty = true;
    address_space_commit(r->as);
}

void address_space_listen(struct address_space *as, struct view_listener *l)
{
    struct flat_view *view;

    vm_lock(as->vm);
    l->next = as->listeners;
    as->listeners = l;
    view = atomic_load(&as->view);
    for (size_t i = 0; view && l->added && i < view->count; i++)
        l->added(l->ctx, &view->range[i]);
    vm_unlock(as->vm);
}
