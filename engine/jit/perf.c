/*
 * Where units are, for people: the map that perf(1) reads (tools/perf,
 * Documentation/jit-interface.txt in Linux: "START SIZE name" in hexadecimal,
 * one line a piece of code, in /tmp/perf-PID.map), and the host code of a
 * guest address.
 *
 * Threading: the processor's own thread, or with the processor stopped. Lines
 * of several processors do not mix: each is one write to the file's end.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/jit/jit.h"

void jit_perf_open(struct x86_vcpu *c)
{
    struct jit *j = jit_of(c);
    char path[48];

    j->perf_fd = -1;
    if (!c->engine_options.perf_map)
        return;
    snprintf(path, sizeof path, "/tmp/perf-%ld.map", (long)getpid());
    /* The first starts afresh: the file may be of another process of our number. */
    j->perf_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW |
                                (c->vcpu.index == 0 ? O_TRUNC : 0), 0644);
    if (j->perf_fd < 0)
        vlog(c->vm->log, ENGINE, WARN, "no --perf-map: cannot write %s: %s", path,
             strerror(errno));
}

void jit_perf_close(struct jit *j)
{
    if (j->perf_fd >= 0)
        close(j->perf_fd);
    j->perf_fd = -1;
}

void jit_perf_note(struct x86_vcpu *c, const struct jit_unit *u, gva_t rip)
{
    struct jit *j = jit_of(c);
    uint32_t size = u->key & MODE_SIZE;
    char line[160];
    int n;

    if (j->perf_fd < 0)
        return;
    n = snprintf(line, sizeof line, "%llx %x guest:%llx%s\n",
                 (unsigned long long)(uintptr_t)jit_exec(j, u->entry_flags), u->code_bytes,
                 (unsigned long long)rip,
                 size == MODE_64 ? "" : size == MODE_32 ? ":32" : ":16");
    n += snprintf(line + n, sizeof line - (size_t)n, "%llx %x stubs:%llx\n",
                  (unsigned long long)(uintptr_t)jit_exec(j, u->cold), u->cold_bytes,
                  (unsigned long long)rip);
    if (write(j->perf_fd, line, (size_t)n) == n)
        return;
    vlog(c->vm->log, ENGINE, WARN, "--perf-map ends here: cannot write: %s", strerror(errno));
    jit_perf_close(j);
}

size_t jit_host_code(struct x86_vcpu *c, gva_t lin, const uint8_t **code)
{
    struct jit *j = jit_of(c);
    uint64_t bytes = 1, offset;
    struct ram_block *block;
    struct jit_unit *u;
    const uint8_t *host;
    struct walk w;

    if (!walk_look(c, lin, &w))
        return 0;
    host = as_map(&c->vm->memory, w.gpa, &bytes, false, &block, &offset);
    if (!host)
        return 0;
    u = jit_find_covering(j, host, jit_key(c));
    if (!u)
        return 0;
    *code = jit_exec(j, u->entry_flags);
    return u->code_bytes;
}
