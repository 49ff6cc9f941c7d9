/*
 * Differences between this host and Vireo's processor that are right, each
 * with its reason: what must not run in the child, and what does not count
 * when it has run.
 */
#include "tests/insn/insn.h"

static const struct {
    ZydisMnemonic mnemonic;
    const char *why;
} never[] = {
    {ZYDIS_MNEMONIC_SYSCALL, "enters the host's kernel"},
    {ZYDIS_MNEMONIC_SYSENTER, "enters the host's kernel"},
    {ZYDIS_MNEMONIC_CPUID, "the model's, not the host's"},
    {ZYDIS_MNEMONIC_RDTSC, "time"},
    {ZYDIS_MNEMONIC_RDTSCP, "time, and the host's processor number"},
    {ZYDIS_MNEMONIC_RDPID, "the host's processor number"},
    {ZYDIS_MNEMONIC_RDPMC, "the host's counters, if CR4.PCE lets us"},
    {ZYDIS_MNEMONIC_RDRAND, "random"},
    {ZYDIS_MNEMONIC_RDSEED, "random"},
    {ZYDIS_MNEMONIC_XGETBV, "the host kernel's XCR0; XINUSE as the host tracks it"},
    {ZYDIS_MNEMONIC_SGDT, "the host kernel emulates what UMIP forbids"},
    {ZYDIS_MNEMONIC_SIDT, "the host kernel emulates what UMIP forbids"},
    {ZYDIS_MNEMONIC_SLDT, "the host kernel emulates what UMIP forbids"},
    {ZYDIS_MNEMONIC_STR, "the host kernel emulates what UMIP forbids"},
    {ZYDIS_MNEMONIC_SMSW, "the host kernel emulates what UMIP forbids"},
};

const char *known_never(ZydisMnemonic m)
{
    for (unsigned n = 0; n < ARRAY_SIZE(never); n++) {
        if (never[n].mnemonic == m)
            return never[n].why;
    }
    return NULL;
}

uint32_t known_ignore(const struct insn_case *k, const struct insn_result *host,
                      const struct insn_result *guest)
{
    return 0;
}
