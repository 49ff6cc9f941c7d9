/*
 * --rng, --console and --balloon. Interface: cards.h.
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

int cli_cards_check(const struct cli_options *o, struct error *err)
{
    struct virtio_balloon_config balloon;
    int ret = o->balloon ? parse_balloon(o->balloon, &balloon, err) : 0;

    if (!ret && o->balloon && balloon.target_bytes > o->memory_bytes)
        return error_set(err, -EINVAL, "--balloon %.64s: the guest has less memory than that",
                         o->balloon);
    return ret;
}

int cli_cards_add(struct cli_cards *cards, const struct cli_options *o,
                  struct char_backend *console, struct pc_config *board, struct error *err)
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
        ret = parse_balloon(o->balloon, &cards->balloon_config, err);
        cards->balloon_config.out = &cards->balloon;
        if (!ret)
            ret = pc_add_card(board, virtio_balloon_create, &cards->balloon_config, err);
    }
    return ret;
}
