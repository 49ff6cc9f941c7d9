/*
 * `vireo doctor`: engines, host features, firmware files.
 *
 * Only looks: opens /dev/kvm and closes it, changes nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "base/host.h"
#include "cpu/x86/cpuid.h"
#include "debug/doctor.h"

struct doctor {
    void (*line)(void *ctx, const char *text);
    void *ctx;
};

static void say(const struct doctor *d, const char *format, ...) PRINTF_LIKE(2, 3);

static void say(const struct doctor *d, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    d->line(d->ctx, text);
}

/* The value after "key : " in the first matching line of /proc/cpuinfo. */
static bool cpuinfo(const char *key, char *value, size_t bytes)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char text[4096];
    bool found = false;

    if (!f)
        return false;
    while (!found && fgets(text, sizeof text, f)) {
        char *colon = strchr(text, ':');

        if (!colon || strncmp(text, key, strlen(key)))
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(value, bytes, "%s", colon);
        found = true;
    }
    fclose(f);
    return found;
}

static bool has_word(const char *words, const char *word)
{
    size_t length = strlen(word);

    while (*words) {
        size_t n = strcspn(words, " ");

        if (n == length && !memcmp(words, word, n))
            return true;
        words += n + strspn(words + n, " ");
    }
    return false;
}

/* ---- KVM ---- */

static void examine_kvm(const struct doctor *d)
{
    char flags[4096] = "";
    bool vmx, svm;
    int fd;

    cpuinfo("flags", flags, sizeof flags);
    vmx = has_word(flags, "vmx");
    svm = has_word(flags, "svm");
    fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        int version = ioctl(fd, KVM_GET_API_VERSION, 0);

        close(fd);
        if (version == KVM_API_VERSION)
            say(d, "  /dev/kvm   usable (%s); this version of Vireo has no engine for it yet",
                vmx   ? "VMX"
                : svm ? "SVM"
                      : "paravirtual");
        else
            say(d, "  /dev/kvm   answers with API version %d instead of %d: another kernel helps",
                version, KVM_API_VERSION);
        return;
    }
    if (errno == EACCES || errno == EPERM)
        say(d, "  /dev/kvm   there, but not yours: usermod -aG kvm $USER, and log in again");
    else if (errno == ENOENT && (vmx || svm))
        say(d,
            "  /dev/kvm   absent, though the processor has %s: modprobe %s, or start the "
            "container with --device /dev/kvm",
            vmx ? "VMX" : "SVM", vmx ? "kvm_intel" : "kvm_amd");
    else if (errno == ENOENT)
        say(d, "  /dev/kvm   absent, and the processor shows neither VMX nor SVM: switch it on in "
               "the firmware's setup, or, in a virtual machine, ask for nested virtualization");
    else
        say(d, "  /dev/kvm   there, but cannot be opened (%s): in a container, allow the device",
            strerror(errno));
    say(d, "             (no loss today: this version of Vireo needs no hardware virtualization)");
}

/* ---- processor ---- */

/* Features that guests get only where the host has them. */
static const enum x86_feature host_features[] = {
    X86_FEAT_SSE3,          X86_FEAT_SSSE3,
    X86_FEAT_SSE4_1,        X86_FEAT_SSE4_2,
    X86_FEAT_AES,           X86_FEAT_PCLMULQDQ,
    X86_FEAT_SHA,           X86_FEAT_GFNI,
    X86_FEAT_F16C,          X86_FEAT_FMA,
    X86_FEAT_AVX,           X86_FEAT_AVX2,
    X86_FEAT_VAES,          X86_FEAT_VPCLMULQDQ,
    X86_FEAT_AVX_VNNI,      X86_FEAT_AVX512F,
    X86_FEAT_AVX512DQ,      X86_FEAT_AVX512CD,
    X86_FEAT_AVX512BW,      X86_FEAT_AVX512VL,
    X86_FEAT_AVX512_IFMA,   X86_FEAT_AVX512_VBMI,
    X86_FEAT_AVX512_VBMI2,  X86_FEAT_AVX512_VNNI,
    X86_FEAT_AVX512_BITALG, X86_FEAT_AVX512_VPOPCNTDQ,
    X86_FEAT_AVX512_BF16,
};

static void list_features(const struct doctor *d, const char *label, bool present)
{
    enum { WIDTH = 72 };
    char text[WIDTH + 1] = "";
    size_t used = 0, i;
    const char *first = label;

    for (i = 0; i < ARRAY_SIZE(host_features); i++) {
        const char *name = x86_feature_name(host_features[i]);

        if (x86_host_has(host_features[i]) != present)
            continue;
        if (used + strlen(name) + 1 > WIDTH) {
            say(d, "  %-10s %s", first, text);
            first = "";
            used = 0;
        }
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", used ? " " : "", name);
    }
    if (used)
        say(d, "  %-10s %s", first, text);
    else if (*first)
        say(d, "  %-10s none", first);
}

static void examine_processor(const struct doctor *d)
{
    char model[128] = "unknown", huge[128] = "";
    long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    FILE *f;

    cpuinfo("model name", model, sizeof model);
    say(d, "  processor  %s, %ld online", model, sysconf(_SC_NPROCESSORS_ONLN));
    list_features(d, "has", true);
    list_features(d, "lacks", false);
    say(d, "             (a guest gets the vector instructions that the host has; another host "
           "processor is the only help)");
    if (host_tsc_is_invariant())
        say(d, "  TSC        invariant, %llu MHz: guests read it without delay",
            (unsigned long long)(host_tsc_hz() / 1000000));
    else
        say(d, "  TSC        not invariant: guest time comes from the kernel's clock, which is "
               "slower to read; in a virtual machine, ask for the invtsc feature");
    if (pages > 0 && page > 0)
        say(d, "  memory     %llu MiB free",
            (unsigned long long)pages * (unsigned long long)page / MiB);
    f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    if (f) {
        if (!fgets(huge, sizeof huge, f))
            huge[0] = '\0';
        fclose(f);
    }
    if (strstr(huge, "[always]") || strstr(huge, "[madvise]"))
        say(d, "  huge pages available to guest memory");
    else
        say(d, "  huge pages off, which costs speed: echo madvise > "
               "/sys/kernel/mm/transparent_hugepage/enabled");
}

/* ---- firmware ---- */

static const struct {
    const char *name, *package, *use;
    const char *path[4];
} firmware_files[] = {
    {"SeaBIOS",
     "seabios",
     "vireo run --firmware bios",
     {"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin", NULL}},
    {"video BIOS",
     "seabios",
     "vireo run --vga std",
     {"/usr/share/seabios/vgabios-stdvga.bin", NULL}},
    {"OVMF",
     "ovmf",
     "vireo run --firmware uefi",
     {"/usr/share/OVMF/OVMF_CODE_4M.fd", NULL}},
};

static void examine_firmware(const struct doctor *d)
{
    size_t i, j;

    for (i = 0; i < ARRAY_SIZE(firmware_files); i++) {
        const char *found = NULL;
        struct stat st;

        for (j = 0; firmware_files[i].path[j] && !found; j++) {
            if (stat(firmware_files[i].path[j], &st) == 0 && S_ISREG(st.st_mode) &&
                access(firmware_files[i].path[j], R_OK) == 0)
                found = firmware_files[i].path[j];
        }
        if (found)
            say(d, "  %-10s %s, %llu KiB (%s)", firmware_files[i].name, found,
                (unsigned long long)st.st_size / KiB, firmware_files[i].use);
        else
            say(d, "  %-10s absent: apt-get install %s", firmware_files[i].name,
                firmware_files[i].package);
    }
}

void doctor_examine(void (*line)(void *ctx, const char *text), void *ctx)
{
    const struct doctor d = {.line = line, .ctx = ctx};

    say(&d, "engines");
    say(&d, "  interp     available: full emulation, on every x86-64 host");
    examine_kvm(&d);
    say(&d, "host");
    examine_processor(&d);
    say(&d, "firmware");
    examine_firmware(&d);
}
