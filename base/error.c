/*
 * struct error: the one line a person reads when the host or the configuration
 * is at fault. Interface: base/error.h. Threading: the struct is its caller's.
 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

int error_set(struct error *err, int code, const char *format, ...)
{
    va_list args;

    if (!err)
        return code;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    /* Names of files and of sections in saved state end up here: one line stays
     * one line, whatever they hold. */
    for (char *p = err->text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    return code;
}
