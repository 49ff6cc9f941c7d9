/*
 * Errors of the host or of the configuration: a negative errno is returned,
 * and one line that says what is wrong and what to do is left in a
 * struct error that the caller owns. (A guest's misbehaviour is never an
 * error of this kind: it becomes an architectural fault or a device status.)
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "base/base.h"

struct error {
    char text[512]; /* one line, no newline; empty when nothing was said */
};

/* Fills err (which may be NULL) and returns code, so that
 * `return error_set(err, -ENOENT, "...")` reads well. */
int error_set(struct error *err, int code, const char *format, ...) PRINTF_LIKE(3, 4);

#endif
