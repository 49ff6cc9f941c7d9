/*
 * A tiny writer of ACPI Machine Language (ACPI specification, chapter 20) into
 * a buffer of the caller's: what a table needs that only the running machine
 * knows. Everything else is in dsdt.asl.
 */
#ifndef BOARD_AML_H
#define BOARD_AML_H

#include "base/base.h"

struct aml {
    uint8_t *data;
    size_t used, capacity; /* asserted: sizes are the board's own */
};

/* Name (path, value). path is in AML's form: "_UID", "\\_SB_" (a root prefix
 * and one segment of four characters). */
void aml_name_integer(struct aml *a, const char *path, uint64_t value);
void aml_name_string(struct aml *a, const char *path, const char *value);
/* Scope (path) {...} and Device (path) {...}: begin returns what end needs. */
size_t aml_scope_begin(struct aml *a, const char *path);
size_t aml_device_begin(struct aml *a, const char *path);
void aml_end(struct aml *a, size_t begin);

#endif
