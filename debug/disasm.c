/*
 * Disassembly through Zydis' formatter.
 *
 * Threading: no state.
 */
#include <stdio.h>

#include <Zydis/Zydis.h>

#include "debug/disasm.h"

unsigned debug_disassemble(char *text, size_t text_bytes, uint64_t rip, unsigned bits,
                           const uint8_t *code, size_t code_bytes)
{
    ZydisMachineMode mode = bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                            : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                         : ZYDIS_MACHINE_MODE_LEGACY_16;
    ZydisDisassembledInstruction z;

    if (code_bytes == 0) {
        snprintf(text, text_bytes, "(the instruction could not be read)");
        return 0;
    }
    if (!ZYAN_SUCCESS(ZydisDisassembleIntel(mode, rip, code, code_bytes, &z))) {
        snprintf(text, text_bytes, "(not an instruction)");
        return 0;
    }
    snprintf(text, text_bytes, "%s", z.text);
    return z.info.length;
}
