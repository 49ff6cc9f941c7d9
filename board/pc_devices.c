/*
 * Optional devices, as --device NAME[,key=value]... asks for them.
 *
 * A table says what there is and which keys each takes; pc_device_check and
 * pc_devices_create read the same table.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "board/pc_internal.h"
#include "dev/misc/debug_exit.h"
#include "dev/misc/testdev.h"
#include "dev/pci/pci_bridge.h"

#define MAX_KEYS 4
#define ROOT_PORTS 6

struct device_key {
    const char *name;
    uint64_t value; /* default */
    uint64_t min, max;
};

struct device_kind {
    const char *name;
    struct device_key key[MAX_KEYS]; /* up to the first without a name */
    int (*create)(struct pc *pc, const uint64_t *value, struct error *err);
};

static int create_debug_exit(struct pc *pc, const uint64_t *value, struct error *err)
{
    return debug_exit_create(pc->vm, (uint16_t)value[0], (unsigned)value[1], err) ? 0 : -ENOMEM;
}

static int create_testdev(struct pc *pc, const uint64_t *value, struct error *err)
{
    struct irq_line gsi[TESTDEV_GSI_COUNT];

    for (unsigned n = 0; n < TESTDEV_GSI_COUNT; n++)
        gsi[n] = n < PC_ISA_IRQS ? pc_isa_line(pc, n, SOURCE_TESTDEV)
                                 : pc_ioapic_line(pc, n, SOURCE_TESTDEV);
    return testdev_create(pc->vm, gsi, err) ? 0 : -ENOMEM;
}

/* At 1CH.0 and on, where the ICH9 has them. Nothing is behind them. */
static int create_root_ports(struct pc *pc, const uint64_t *value, struct error *err)
{
    static const char *const name[ROOT_PORTS] = {"root-port1", "root-port2", "root-port3",
                                                 "root-port4", "root-port5", "root-port6"};

    for (unsigned n = 0; n < value[0]; n++) {
        if (!pcie_root_port_create(pc->vm, pc->pci, PCI_DEVFN(28, n), n + 1, name[n], err))
            return -ENOMEM;
    }
    return 0;
}

static const struct device_kind kinds[] = {
    {"debug-exit",
     {{"port", DEBUG_EXIT_PORT, 0, 0xfffc}, {"size", DEBUG_EXIT_BYTES, 1, 4}},
     create_debug_exit},
    {"root-ports", {{"count", 1, 1, ROOT_PORTS}}, create_root_ports},
    {"testdev", {{NULL, 0, 0, 0}}, create_testdev},
};

static int set_key(const struct device_kind *kind, const char *item, size_t length,
                   uint64_t value[MAX_KEYS], struct error *err)
{
    size_t name_length = strcspn(item, "=,");
    char *end;

    for (unsigned n = 0; n < MAX_KEYS && kind->key[n].name; n++) {
        const struct device_key *key = &kind->key[n];

        if (strlen(key->name) != name_length || memcmp(key->name, item, name_length) != 0)
            continue;
        if (name_length + 1 >= length)
            break;
        errno = 0;
        value[n] = strtoull(item + name_length + 1, &end, 0);
        if (errno || end != item + length || item[name_length + 1] == '-' || value[n] < key->min ||
            value[n] > key->max)
            return error_set(err, -EINVAL,
                             "--device %s: '%.*s' is not a number from %llu to "
                             "%llu (0x%llx)",
                             kind->name, (int)length, item, (unsigned long long)key->min,
                             (unsigned long long)key->max, (unsigned long long)key->max);
        return 0;
    }
    if (!kind->key[0].name)
        return error_set(err, -EINVAL, "--device %s takes no options, '%.*s' was given", kind->name,
                         (int)length, item);
    return error_set(err, -EINVAL, "--device %s has no option '%.*s'; there are %s=N%s%s%s",
                     kind->name, (int)length, item, kind->key[0].name,
                     kind->key[1].name ? " and " : "", kind->key[1].name ? kind->key[1].name : "",
                     kind->key[1].name ? "=N" : "");
}

static int parse(const char *spec, const struct device_kind **kind, uint64_t value[MAX_KEYS],
                 struct error *err)
{
    size_t length = strcspn(spec, ",");

    *kind = NULL;
    for (size_t n = 0; n < ARRAY_SIZE(kinds); n++)
        if (strlen(kinds[n].name) == length && memcmp(kinds[n].name, spec, length) == 0)
            *kind = &kinds[n];
    if (!*kind)
        return error_set(err, -EINVAL,
                         "there is no device '%.*s'; --device takes debug-exit, "
                         "root-ports or testdev",
                         (int)length, spec);
    for (unsigned n = 0; n < MAX_KEYS; n++)
        value[n] = (*kind)->key[n].value;
    for (spec += length; *spec == ','; spec += length) {
        int ret;

        spec++;
        length = strcspn(spec, ",");
        ret = set_key(*kind, spec, length, value, err);
        if (ret)
            return ret;
    }
    if ((*kind)->create == create_debug_exit && value[1] == 3)
        return error_set(err, -EINVAL, "--device debug-exit: size is 1, 2 or 4");
    return 0;
}

int pc_device_check(const char *spec, struct error *err)
{
    const struct device_kind *kind;
    uint64_t value[MAX_KEYS];

    return parse(spec, &kind, value, err);
}

int pc_devices_create(struct pc *pc, const struct pc_config *config, struct error *err)
{
    bool seen[ARRAY_SIZE(kinds)] = {false};

    for (unsigned n = 0; n < config->device_count; n++) {
        const struct device_kind *kind;
        uint64_t value[MAX_KEYS];
        int ret = parse(config->devices[n], &kind, value, err);

        if (ret)
            return ret;
        if (seen[kind - kinds])
            return error_set(err, -EEXIST, "--device %s was given twice", kind->name);
        seen[kind - kinds] = true;
        ret = kind->create(pc, value, err);
        if (ret)
            return ret;
    }
    return 0;
}
