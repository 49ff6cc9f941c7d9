/*
 * --rng, --console and --balloon: virtio devices besides disks and networks.
 */
#ifndef CLI_CARDS_H
#define CLI_CARDS_H

#include "backend/char/char.h"
#include "board/pc.h"
#include "cli/options.h"
#include "dev/virtio/virtio_balloon.h"
#include "dev/virtio/virtio_console.h"
#include "dev/virtio/virtio_rng.h"

struct cli_cards {
    struct virtio_rng_config rng;
    struct virtio_console_config console;
    struct virtio_balloon_config balloon_config;
    struct virtio_balloon *balloon; /* once the board is there; or NULL */
};

/* What can be said before a machine is built. */
int cli_cards_check(const struct cli_options *o, struct error *err);
/* Adds what the options ask for, behind the cards that are there. console: of
 * --console, the caller's, who destroys it before the vm. cards has to live until
 * the board is built. */
int cli_cards_add(struct cli_cards *cards, const struct cli_options *o,
                  struct char_backend *console, struct pc_config *board, struct error *err);

#endif
