/*
 * dsdt.asl as iasl compiled it when Vireo was built.
 */
#include "board/acpi.h"

/* iasl writes a writable array "unsigned char dsdt_aml_code[]"; nothing here
 * may be writable. */
#define unsigned static const unsigned
#include "dsdt.hex"
#undef unsigned

const uint8_t *const dsdt_aml = dsdt_aml_code;
const size_t dsdt_aml_bytes = sizeof dsdt_aml_code;
