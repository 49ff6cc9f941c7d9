/*
 * The 9P2000.L server behind a share: what its files have in common.
 *
 *   nine.c        messages: from bytes to a handler, and back
 *   nine_fid.c    fids: what the guest has walked to and opened
 *   nine_file.c   handlers that open, read, write, list, lock
 *   nine_tree.c   handlers that walk, make, rename, remove, and tell of files
 *   nine_xattr.c  extended attributes
 *   nine_host.c   the host's files: from a path in the folder to a descriptor
 *
 * A fid knows a path below the folder, not a descriptor, until it is opened: so
 * the host's limit of descriptors bounds open files and nothing else. When the
 * guest renames, the paths of fids at or below it follow.
 *
 * Threading: one message at a time.
 */
#ifndef BACKEND_SHARE_NINE_H
#define BACKEND_SHARE_NINE_H

#include <sys/stat.h>

#include "backend/share/share.h"

enum nine_limits {
    NINE_HEADER = 7,
    NINE_PATH_MAX = 4095,
    NINE_NAME_MAX = 255,
    NINE_WALK_MAX = 16,
    NINE_FIDS_MAX = 8192,
    NINE_OPEN_MAX = 512,
    NINE_XATTR_MAX = 65536,
    NINE_BUCKETS = 1024,
    NINE_MESSAGE_LINEAR = 8192, /* longer than any message without its data */
    NINE_REPLY_LINEAR = 65536,
};

enum nine_type { /* of requests; the reply's is one more */
    NINE_LERROR = 6,
    NINE_STATFS = 8,
    NINE_LOPEN = 12,
    NINE_LCREATE = 14,
    NINE_SYMLINK = 16,
    NINE_MKNOD = 18,
    NINE_RENAME = 20,
    NINE_READLINK = 22,
    NINE_GETATTR = 24,
    NINE_SETATTR = 26,
    NINE_XATTRWALK = 30,
    NINE_XATTRCREATE = 32,
    NINE_READDIR = 40,
    NINE_FSYNC = 50,
    NINE_LOCK = 52,
    NINE_GETLOCK = 54,
    NINE_LINK = 70,
    NINE_MKDIR = 72,
    NINE_RENAMEAT = 74,
    NINE_UNLINKAT = 76,
    NINE_VERSION = 100,
    NINE_AUTH = 102,
    NINE_ATTACH = 104,
    NINE_FLUSH = 108,
    NINE_WALK = 110,
    NINE_READ = 116,
    NINE_WRITE = 118,
    NINE_CLUNK = 120,
    NINE_REMOVE = 122,
};

enum nine_kind {
    NINE_CLOSED,
    NINE_FILE,
    NINE_DIRECTORY,
    NINE_XATTR_READ,
    NINE_XATTR_WRITE,
};

struct nine_fid {
    uint32_t number;
    enum nine_kind kind;
    char *path; /* below the folder, "" is the folder; owned */
    int fd;     /* NINE_FILE, NINE_DIRECTORY */
    /* NINE_XATTR_*: */
    char xattr_name[NINE_NAME_MAX + 1];
    uint8_t *xattr;
    uint32_t xattr_bytes;
    int xattr_flags;
    struct nine_fid *next;
};

struct nine {
    int root;
    dev_t root_device;
    bool readonly;
    bool has_openat2;
    uint32_t message_max; /* agreed on; 0: no session yet */
    struct nine_fid *bucket[NINE_BUCKETS];
    unsigned fids, open_files;
    uint8_t reply[NINE_REPLY_LINEAR];
};

/* What is left of a message. Reading past its end makes it bad, and zeroes. */
struct nine_reader {
    const uint8_t *at;
    size_t left;
    bool is_bad;
};

struct nine_writer {
    uint8_t *data;
    size_t used, room;
    bool is_full;
};

/* One message being answered. */
struct nine_call {
    struct nine *nine;
    const struct share_request *request;
    struct nine_reader in;
    struct nine_writer out; /* from behind the header */
    uint32_t message_bytes; /* by its own size field */
    uint64_t data_at;       /* Twrite: where in the message its data begin */
    uint32_t data_bytes;    /* Rread: bytes in the reply behind what `out` has */
    uint32_t reply_max;     /* how long the reply may be */
};

/* ---- nine.c ---- */

int nine_open(struct nine *n, const char *path, bool readonly);
void nine_close(struct nine *n);
/* All fids go. */
void nine_forget(struct nine *n);
/* Returns how long the reply is. */
uint32_t nine_handle(struct nine *n, const struct share_request *r);

uint8_t nine_get8(struct nine_reader *r);
uint16_t nine_get16(struct nine_reader *r);
uint32_t nine_get32(struct nine_reader *r);
uint64_t nine_get64(struct nine_reader *r);
/* A string of at most room - 1 bytes without NUL; makes the message bad else. */
void nine_get_string(struct nine_reader *r, char *out, size_t room);
void nine_put8(struct nine_writer *w, uint8_t v);
void nine_put16(struct nine_writer *w, uint16_t v);
void nine_put32(struct nine_writer *w, uint32_t v);
void nine_put64(struct nine_writer *w, uint64_t v);
void nine_put_string(struct nine_writer *w, const char *s);
void nine_put_qid(struct nine_writer *w, const struct nine *n, const struct stat *st);
/* Spans of a part of others; returns how many. */
unsigned nine_slice(const struct share_span *from, unsigned count, uint64_t offset, uint64_t bytes,
                    struct share_span *out, unsigned room);

/* ---- nine_fid.c ---- */

struct nine_fid *nine_find(struct nine *n, uint32_t number);
/* -EBADF: number is taken; -EMFILE, -ENOMEM. Copies path. */
int nine_add(struct nine *n, uint32_t number, const char *path, struct nine_fid **fid);
/* Closes and frees. */
void nine_drop(struct nine *n, struct nine_fid *fid);
int nine_set_path(struct nine_fid *fid, const char *path);
/* from and what is below it is now at to. */
void nine_renamed(struct nine *n, const char *from, const char *to);
/* "parent/name" or "name"; -ENAMETOOLONG. */
int nine_join(char out[NINE_PATH_MAX + 1], const char *parent, const char *name);
/* May a file be called that? 0, -EINVAL, -ENAMETOOLONG. */
int nine_check_name(const char *name);

/* ---- nine_host.c ---- */

/* A descriptor of what is at a path, symbolic links never followed; -errno. */
int nine_host_open(const struct nine *n, const char *path, int flags);
/* Of the directory that holds it; *name is its last component, within path.
 * -EBUSY: that is the folder itself. */
int nine_host_parent(const struct nine *n, const char *path, const char **name);
/* What the host knows by /proc/self/fd, of a descriptor that is only a place. */
#define NINE_PROC_BYTES 32
void nine_host_proc(char out[NINE_PROC_BYTES], int fd);
int nine_host_chmod(int fd, mode_t mode);
/* Of a fid: its open file, or what is at its path. *close_it: the caller closes. */
int nine_host_place(const struct nine *n, const struct nine_fid *fid, bool *close_it);

/* ---- handlers: 0, or the negative errno that the guest gets ---- */

int nine_lopen(struct nine_call *c);
int nine_lcreate(struct nine_call *c);
int nine_read(struct nine_call *c);
int nine_write(struct nine_call *c);
int nine_readdir(struct nine_call *c);
int nine_fsync(struct nine_call *c);
int nine_lock(struct nine_call *c);
int nine_getlock(struct nine_call *c);

int nine_attach(struct nine_call *c);
int nine_walk(struct nine_call *c);
int nine_clunk(struct nine_call *c);
int nine_statfs(struct nine_call *c);
int nine_getattr(struct nine_call *c);
int nine_setattr(struct nine_call *c);
int nine_symlink(struct nine_call *c);
int nine_mknod(struct nine_call *c);
int nine_mkdir(struct nine_call *c);
int nine_link(struct nine_call *c);
int nine_readlink(struct nine_call *c);
int nine_rename(struct nine_call *c);
int nine_renameat(struct nine_call *c);
int nine_unlinkat(struct nine_call *c);
int nine_remove(struct nine_call *c);

int nine_xattrwalk(struct nine_call *c);
int nine_xattrcreate(struct nine_call *c);
/* Reading and writing an attribute's fid, and what its clunk does. */
int nine_xattr_read(struct nine_call *c, struct nine_fid *fid, uint64_t offset, uint32_t bytes);
int nine_xattr_write(struct nine_call *c, struct nine_fid *fid, uint64_t offset, uint32_t bytes);
int nine_xattr_clunk(struct nine *n, struct nine_fid *fid);

#endif
