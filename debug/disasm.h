/*
 * Disassembly for people: one instruction as text, Intel syntax.
 */
#ifndef DEBUG_DISASM_H
#define DEBUG_DISASM_H

#include "base/base.h"

/* bits: 16, 32 or 64. Writes the text, or what is wrong with the bytes; the
 * instruction's length, 0 where there is none. */
unsigned debug_disassemble(char *text, size_t text_bytes, uint64_t rip, unsigned bits,
                           const uint8_t *code, size_t code_bytes);

#endif
