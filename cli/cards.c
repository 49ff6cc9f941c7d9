/*
 * --rng, --console, --balloon and --share. Interface: cards.h.
 */
#include "cli/cards.h"

#include <errno.h>
#include <stdio.h>

#define STATS_SECONDS_MAX 86400

/* SIZE[,stats=SECONDS] */
static int parse_balloon(const char *spec, struct virtio_balloon_config *config, struct error *err)
{
    size_t length = strcspn(spec, ",");
    char size[32];
    uint64_t seconds;

    *config = (struct virtio_balloon_config){.name = "virtio-balloon0"};
    snprintf(size, sizeof size, "%.*s", (int)MIN(length, sizeof size), spec);
    if (strlen(size) != length || !cli_parse_size(size, &config->target_bytes) ||
        config->target_bytes > PC_MAX_MEMORY)
        return error_set(err, -EINVAL, "--balloon %.64s: give a size first, such as 256M or 0",
                         spec);
    if (!spec[length])
        return 0;
    if (strncmp(spec + length, ",stats=", 7) || !cli_parse_number(spec + length + 7, &seconds) ||
        !seconds || seconds > STATS_SECONDS_MAX)
        return error_set(err, -EINVAL,
                         "--balloon has no option '%.64s': there is stats=SECONDS, 1 to %d",
                         spec + length + 1, STATS_SECONDS_MAX);
    config->stats_interval_ns = seconds * NS_PER_SEC;
    return 0;
}

/* DIR,tag=NAME[,readonly]; a comma in DIR is written twice. */
struct share_spec {
    char path[4096];
    char tag[SHARE_TAG_BYTES];
    bool readonly;
};

static int parse_share(const char *spec, struct share_spec *share, struct error *err)
{
    const char *at = spec;
    size_t used = 0;

    memset(share, 0, sizeof *share);
    for (; *at && !(at[0] == ',' && at[1] != ','); at++) {
        at += *at == ',';
        if (used + 1 >= sizeof share->path)
            return error_set(err, -ENAMETOOLONG, "--share: the folder's name is too long");
        share->path[used++] = *at;
    }
    while (*at == ',') {
        size_t length = strcspn(++at, ",");

        if (length == 8 && !memcmp(at, "readonly", length)) {
            share->readonly = true;
        } else if (length > 4 && !memcmp(at, "tag=", 4)) {
            if (length - 4 >= sizeof share->tag)
                return error_set(err, -EINVAL, "--share: a tag has 1 to %zu characters",
                                 sizeof share->tag - 1);
            memcpy(share->tag, at + 4, length - 4);
            share->tag[length - 4] = '\0';
        } else {
            return error_set(err, -EINVAL,
                             "--share has no option '%.*s': there are tag=NAME and readonly (a "
                             "comma in a folder's name is written ,,)",
                             (int)MIN(length, 64u), at);
        }
        at += length;
    }
    if (!share->path[0] || !share->tag[0])
        return error_set(err, -EINVAL,
                         "--share %.64s: give a folder and a name to mount it by: DIR,tag=NAME",
                         spec);
    return 0;
}

static int check_shares(const struct cli_options *o, struct error *err)
{
    struct share_spec one, other;

    if (o->share.count > CLI_MAX_SHARES)
        return error_set(err, -E2BIG, "--share is given more than %d times: leave some out",
                         CLI_MAX_SHARES);
    for (unsigned n = 0; n < o->share.count; n++) {
        int ret = parse_share(o->share.item[n], &one, err);

        for (unsigned i = 0; i < n && !ret; i++) {
            ret = parse_share(o->share.item[i], &other, err);
            if (!ret && !strcmp(one.tag, other.tag))
                ret = error_set(err, -EEXIST, "--share: two folders have the tag '%s'", one.tag);
        }
        if (ret)
            return ret;
    }
    return 0;
}

int cli_cards_check(const struct cli_options *o, struct error *err)
{
    struct virtio_balloon_config balloon;
    int ret = o->balloon ? parse_balloon(o->balloon, &balloon, err) : 0;

    if (!ret && o->balloon && balloon.target_bytes > o->memory_bytes)
        return error_set(err, -EINVAL, "--balloon %.64s: the guest has less memory than that",
                         o->balloon);
    return ret ? ret : check_shares(o, err);
}

static int add_share(struct cli_cards *cards, const char *text, bool private, struct vm *vm,
                     struct pc_config *board, struct error *err)
{
    struct cli_share *s = &cards->share[cards->shares];
    struct share_config config;
    struct share_spec spec;
    int ret = parse_share(text, &spec, err);

    if (ret)
        return ret;
    config = (struct share_config){
        .path = spec.path, .tag = spec.tag, .readonly = spec.readonly || private};
    snprintf(s->name, sizeof s->name, "virtio-9p%u", cards->shares);
    s->config = (struct virtio_9p_config){.name = s->name, .share = share_open(vm, &config, err)};
    if (!s->config.share)
        return -EINVAL;
    cards->shares++;
    return pc_add_card(board, virtio_9p_create, &s->config, err);
}

int cli_cards_add(struct cli_cards *cards, const struct cli_options *o,
                  struct char_backend *console, bool private, struct vm *vm,
                  struct pc_config *board, struct error *err)
{
    int ret = 0;

    if (o->rng) {
        cards->rng = (struct virtio_rng_config){.name = "virtio-rng0"};
        ret = pc_add_card(board, virtio_rng_create, &cards->rng, err);
    }
    if (!ret && o->console) {
        cards->console = (struct virtio_console_config){.name = "virtio-console0",
                                                        .chars = console};
        ret = pc_add_card(board, virtio_console_create, &cards->console, err);
    }
    if (!ret && o->balloon) {
        ret = parse_balloon(o->balloon, &cards->balloon, err);
        if (!ret)
            ret = pc_add_card(board, virtio_balloon_create, &cards->balloon, err);
    }
    for (unsigned n = 0; n < o->share.count && !ret; n++)
        ret = add_share(cards, o->share.item[n], private, vm, board, err);
    return ret;
}

void cli_cards_close(struct cli_cards *cards)
{
    while (cards->shares)
        share_close(cards->share[--cards->shares].config.share);
}
