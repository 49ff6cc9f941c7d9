/*
 * --rng, --console, --balloon and --share: virtio devices besides disks and networks.
 */
#ifndef CLI_CARDS_H
#define CLI_CARDS_H

#include "backend/char/char.h"
#include "board/pc.h"
#include "cli/options.h"
#include "dev/virtio/virtio_9p.h"
#include "dev/virtio/virtio_balloon.h"
#include "dev/virtio/virtio_console.h"
#include "dev/virtio/virtio_rng.h"

#define CLI_MAX_SHARES 8

struct cli_share {
    char name[24];
    struct virtio_9p_config config;
};

struct cli_cards {
    struct cli_share share[CLI_MAX_SHARES];
    unsigned shares;
    struct virtio_rng_config rng;
    struct virtio_console_config console;
    struct virtio_balloon_config balloon;
};

/* What can be said before a machine is built. */
int cli_cards_check(const struct cli_options *o, struct error *err);
/* Adds what the options ask for, behind the cards that are there. console: of
 * --console, the caller's, who destroys it before the vm. private: shared folders
 * are only read (machines that run side by side). cards has to live as long as the
 * board; after a failure it is closed like any other. */
int cli_cards_add(struct cli_cards *cards, const struct cli_options *o,
                  struct char_backend *console, bool private, struct vm *vm,
                  struct pc_config *board, struct error *err);
/* After the last run, before the vm is destroyed. */
void cli_cards_close(struct cli_cards *cards);

#endif
