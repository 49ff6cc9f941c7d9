/*
 * --net. Interface: nets.h.
 */
#include "cli/nets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "boot/image.h"
#include "vm/vm.h"

/* iPXE, from Debian's package: for BIOS and for UEFI in one file. */
#define IPXE_E1000 "/usr/lib/ipxe/qemu/efi-e1000.rom"
#define IPXE_VIRTIO "/usr/lib/ipxe/qemu/efi-virtio.rom"
#define ROM_MAX (1 * MiB)

/* ---- what it says ---- */

static bool is_word(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && !memcmp(text, word, length);
}

static int copy(char *out, size_t room, const char *what, const char *value, size_t length,
                struct error *err)
{
    if (!length || length >= room)
        return error_set(err, -EINVAL, "--net: %s has 1 to %zu characters", what, room - 1);
    memcpy(out, value, length);
    out[length] = '\0';
    return 0;
}

static bool parse_port(const char *text, size_t length, uint16_t *port)
{
    uint64_t value;
    char digits[8];

    if (!length || length >= sizeof digits)
        return false;
    memcpy(digits, text, length);
    digits[length] = '\0';
    if (!cli_parse_number(digits, &value) || value == 0 || value > UINT16_MAX)
        return false;
    *port = (uint16_t)value;
    return true;
}

static bool parse_address(const char *text, size_t length, uint8_t address[4])
{
    for (unsigned n = 0; n < 4; n++) {
        unsigned value = 0, digits = 0;

        for (; length && *text >= '0' && *text <= '9'; text++, length--, digits++)
            value = MIN(value * 10 + (unsigned)(*text - '0'), 256u);
        if (!digits || value > 255)
            return false;
        address[n] = (uint8_t)value;
        if (n == 3)
            return length == 0;
        if (!length || *text != '.')
            return false;
        text++, length--;
    }
    return false;
}

/* tcp:[ADDRESS:]PORT:GUESTPORT */
static int add_forward(struct cli_net_spec *net, const char *value, size_t length,
                       struct error *err)
{
    struct net_forward f = {.host = {127, 0, 0, 1}};
    const char *part[4];
    size_t part_length[4];
    unsigned parts = 0;

    for (size_t at = 0; at <= length && parts < 4; at++) {
        const char *end = memchr(value + at, ':', length - at);

        part[parts] = value + at;
        part_length[parts] = end ? (size_t)(end - value) - at : length - at;
        at += part_length[parts++];
    }
    if (net->forward_count == CLI_FORWARDS)
        return error_set(err, -E2BIG, "--net: more than %d forwarded ports", CLI_FORWARDS);
    if (parts >= 3 && is_word(part[0], part_length[0], "udp"))
        f.protocol = NET_UDP;
    else if (parts < 3 || !is_word(part[0], part_length[0], "tcp"))
        parts = 0;
    if ((parts != 3 && parts != 4) || part[parts - 1] + part_length[parts - 1] != value + length ||
        (parts == 4 && !parse_address(part[1], part_length[1], f.host)) ||
        !parse_port(part[parts - 2], part_length[parts - 2], &f.host_port) ||
        !parse_port(part[parts - 1], part_length[parts - 1], &f.guest_port))
        return error_set(err, -EINVAL,
                         "--net: '%.*s' is no port to forward: give tcp:127.0.0.1:2222:22 "
                         "(host's port, then the guest's; or udp; the address may be left out)",
                         (int)MIN(length, 64u), value);
    net->forward[net->forward_count++] = f;
    return 0;
}

static int parse_mac(struct cli_net_spec *net, const char *value, size_t length, struct error *err)
{
    static const char digits[] = "0123456789abcdef";

    if (length == NET_MAC_BYTES * 3 - 1) {
        unsigned n;

        for (n = 0; n < length; n++) {
            const char *digit;

            if (n % 3 == 2) {
                if (value[n] != ':')
                    break;
                continue;
            }
            digit = strchr(digits, value[n] >= 'A' ? value[n] | 0x20 : value[n]);
            if (!digit || !*digit)
                break;
            net->mac[n / 3] = (uint8_t)(net->mac[n / 3] << 4 | (digit - digits));
        }
        net->mac_given = n == length && !(net->mac[0] & 1);
    }
    return net->mac_given ? 0
                          : error_set(err, -EINVAL,
                                      "--net: '%.*s' is no address of one card: give "
                                      "mac=56:49:52:00:00:01",
                                      (int)MIN(length, 32u), value);
}

static int set_model(struct cli_net_spec *net, const char *value, size_t length, struct error *err)
{
    bool is_virtio = is_word(value, length, "virtio");

    if (!is_virtio && !is_word(value, length, "e1000"))
        return error_set(err, -EINVAL,
                         "--net: there is no model '%.*s': give model=virtio or model=e1000",
                         (int)MIN(length, 32u), value);
    net->model = is_virtio ? CLI_NET_VIRTIO : CLI_NET_E1000;
    net->model_given = true;
    return 0;
}

static int set_item(struct cli_net_spec *net, const char *item, size_t length, struct error *err)
{
    size_t key = strcspn(item, "=,");
    const char *value = item + key + 1;
    size_t value_length = key < length ? length - key - 1 : 0;
    bool is_user = net->kind == CLI_NET_USER;

    if (is_user && is_word(item, length, "restrict")) {
        net->is_restricted = true;
        return 0;
    }
    if (key < length) {
        if (is_user && is_word(item, key, "forward"))
            return add_forward(net, value, value_length, err);
        if (is_user && is_word(item, key, "tftp"))
            return copy(net->tftp, sizeof net->tftp, "tftp", value, value_length, err);
        if (is_user && is_word(item, key, "bootfile"))
            return copy(net->boot_file, sizeof net->boot_file, "bootfile", value, value_length,
                        err);
        if (net->kind == CLI_NET_TAP && is_word(item, key, "name"))
            return copy(net->tap, sizeof net->tap, "the name of an interface", value, value_length,
                        err);
        if (is_word(item, key, "model"))
            return set_model(net, value, value_length, err);
        if (is_word(item, key, "mac"))
            return parse_mac(net, value, value_length, err);
        if (is_word(item, key, "rom"))
            return copy(net->rom, sizeof net->rom, "rom", value, value_length, err);
    }
    return error_set(err, -EINVAL, "--net %s has no option '%.*s': there are %smodel=, mac= and "
                     "rom=", is_user ? "user" : net->kind == CLI_NET_TAP ? "tap" : "none",
                     (int)MIN(length, 64u), item,
                     is_user ? "forward=, restrict, tftp=, bootfile=, "
                     : net->kind == CLI_NET_TAP ? "name=, " : "");
}

int cli_net_parse(const char *spec, struct cli_net_spec *net, struct error *err)
{
    size_t length = strcspn(spec, ",");

    memset(net, 0, sizeof *net);
    if (is_word(spec, length, "user"))
        net->kind = CLI_NET_USER;
    else if (is_word(spec, length, "tap"))
        net->kind = CLI_NET_TAP;
    else if (is_word(spec, length, "none"))
        net->kind = CLI_NET_NONE;
    else
        return error_set(err, -EINVAL, "--net %.*s: give user, tap,name=NAME or none",
                         (int)MIN(length, 64u), spec);
    for (spec += length; *spec == ','; spec += 1 + length) {
        int ret;

        length = strcspn(spec + 1, ",");
        ret = set_item(net, spec + 1, length, err);
        if (ret)
            return ret;
        if (!spec[1])
            break;
    }
    if (net->kind == CLI_NET_TAP && !net->tap[0])
        return error_set(err, -EINVAL, "--net tap: give the interface: --net tap,name=tap0");
    return 0;
}

int cli_nets_check(const struct cli_options *o, struct error *err)
{
    if (o->net.count > CLI_NETS)
        return error_set(err, -E2BIG, "--net is given more than %d times: leave some out",
                         CLI_NETS);
    for (unsigned n = 0; n < o->net.count; n++) {
        struct cli_net_spec net;
        int ret = cli_net_parse(o->net.item[n], &net, err);

        if (ret)
            return ret;
        if (net.kind == CLI_NET_NONE && !net.model_given && o->net.count > 1)
            return error_set(err, -EINVAL,
                             "--net none excludes other networks: leave one of them out");
        if (o->deterministic && net.kind != CLI_NET_NONE)
            return error_set(err, -EINVAL,
                             "--net %.64s: what comes from a network is not repeatable: give "
                             "--net none",
                             o->net.item[n]);
    }
    return 0;
}

/* ---- cards ---- */

/* The same at each start, because guests remember it. Behind a tap it meets
 * others, so it depends on host and interface. */
static void choose_mac(struct cli_net_spec *spec, unsigned index)
{
    uint64_t hash = 0xCBF29CE484222325; /* FNV-1a */
    char text[320] = "";

    if (spec->mac_given)
        return;
    memcpy(spec->mac, "VIR", 3); /* administered locally, of one card */
    if (spec->kind == CLI_NET_TAP) {
        if (gethostname(text, 256) < 0)
            text[0] = '\0';
        text[255] = '\0';
        strcat(strcat(text, "/"), spec->tap);
    }
    for (const char *c = text; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001B3;
    if (!text[0])
        hash = index + 1;
    spec->mac[3] = (uint8_t)(hash >> 16);
    spec->mac[4] = (uint8_t)(hash >> 8);
    spec->mac[5] = (uint8_t)hash;
}

/* The default: iPXE, where firmware would have nothing else to boot from. */
static int open_rom(struct cli_nets *nets, unsigned n, const struct cli_net_spec *spec,
                    const struct cli_options *o, struct error *err)
{
    const char *ipxe = spec->model == CLI_NET_E1000 ? IPXE_E1000 : IPXE_VIRTIO;
    const char *path = spec->rom;
    struct image image;
    int ret;

    if (!strcmp(path, "none"))
        return 0;
    if (!path[0]) {
        bool is_wanted = o->firmware && spec->kind != CLI_NET_NONE &&
                         (!(o->disk.count + o->cdrom.count) || spec->boot_file[0]);

        if (!is_wanted || access(ipxe, R_OK) < 0)
            return 0;
        path = ipxe;
    }
    ret = image_open(&image, path, "network adapter's ROM", err);
    if (ret)
        return ret;
    if (!image.bytes || image.bytes > ROM_MAX)
        ret = error_set(err, -EINVAL, "the network adapter's ROM '%s' has more than 1 MiB, or none",
                        path);
    if (!ret) {
        nets->rom[n] = malloc(image.bytes);
        ret = nets->rom[n] ? image_read(&image, 0, nets->rom[n], image.bytes, err)
                           : error_set(err, -ENOMEM, "out of memory");
        nets->e1000[n].rom_bytes = nets->virtio[n].rom_bytes = image.bytes;
    }
    image_close(&image);
    return ret;
}

static struct net *open_net(const struct cli_net_spec *spec, struct vm *vm, struct error *err)
{
    const struct net_user_config user = {
        .forwards = spec->forward,
        .forward_count = spec->forward_count,
        .is_restricted = spec->is_restricted,
        .tftp = spec->tftp[0] ? spec->tftp : NULL,
        .boot_file = spec->boot_file[0] ? spec->boot_file : NULL,
    };

    switch (spec->kind) {
    case CLI_NET_USER:
        return net_user_create(vm, &user, err);
    case CLI_NET_TAP:
        return net_tap_create(vm, spec->tap, err);
    case CLI_NET_NONE:
    default:
        return net_null_create(vm, err);
    }
}

static int add(struct cli_nets *nets, const char *text, const struct cli_options *o, struct vm *vm,
               struct pc_config *board, struct error *err)
{
    static const char *const names[CLI_NETS] = {"nic0", "nic1", "nic2", "nic3",
                                                "nic4", "nic5", "nic6", "nic7"};
    unsigned n = nets->count;
    struct cli_net_spec spec;
    int ret = cli_net_parse(text, &spec, err);

    if (ret || (spec.kind == CLI_NET_NONE && !spec.model_given))
        return ret;
    choose_mac(&spec, n);
    nets->net[n] = open_net(&spec, vm, err);
    if (!nets->net[n])
        return -EINVAL;
    nets->count++;
    nets->name[n] = names[n];
    nets->e1000[n] = (struct e1000_config){.name = names[n], .net = nets->net[n]};
    nets->virtio[n] = (struct virtio_net_config){.name = names[n], .net = nets->net[n]};
    memcpy(nets->e1000[n].mac, spec.mac, sizeof spec.mac);
    memcpy(nets->virtio[n].mac, spec.mac, sizeof spec.mac);
    ret = open_rom(nets, n, &spec, o, err);
    if (ret)
        return ret;
    nets->e1000[n].rom = nets->virtio[n].rom = nets->rom[n];
    if (spec.model == CLI_NET_E1000)
        return pc_add_card(board, e1000_card, &nets->e1000[n], err);
    return pc_add_card(board, virtio_net_create, &nets->virtio[n], err);
}

int cli_nets_open(struct cli_nets *nets, const struct cli_options *o, struct vm *vm,
                  struct pc_config *board, struct error *err)
{
    int ret = cli_nets_check(o, err);

    memset(nets, 0, sizeof *nets);
    if (!ret && !o->net.count && !vm->deterministic && net_user_available())
        ret = add(nets, "user", o, vm, board, err);
    for (unsigned n = 0; n < o->net.count && !ret; n++)
        ret = add(nets, o->net.item[n], o, vm, board, err);
    if (ret)
        cli_nets_close(nets);
    return ret;
}

void cli_nets_report(const struct cli_nets *nets, void (*line)(void *ctx, const char *text),
                     void *ctx)
{
    for (unsigned n = 0; n < nets->count; n++) {
        struct net_counters c = net_count(nets->net[n]);
        char text[160];

        snprintf(text, sizeof text,
                 "network card %s: %llu packets (%llu bytes) sent, %llu (%llu bytes) received, "
                 "%llu dropped",
                 nets->name[n], (unsigned long long)c.sent, (unsigned long long)c.sent_bytes,
                 (unsigned long long)c.received, (unsigned long long)c.received_bytes,
                 (unsigned long long)c.dropped);
        line(ctx, text);
    }
}

void cli_nets_close(struct cli_nets *nets)
{
    for (unsigned n = 0; n < nets->count; n++) {
        net_destroy(nets->net[n]);
        free(nets->rom[n]);
    }
    nets->count = 0;
}
