/*
 * --net: what it says, and the networks behind it.
 */
#ifndef CLI_NETS_H
#define CLI_NETS_H

#include "backend/net/net.h"
#include "board/pc.h"
#include "cli/options.h"
#include "dev/net/e1000.h"
#include "dev/virtio/virtio_net.h"

#define CLI_NETS 8
#define CLI_FORWARDS 32

enum cli_net_kind { CLI_NET_USER, CLI_NET_TAP, CLI_NET_NONE };
enum cli_net_model { CLI_NET_VIRTIO, CLI_NET_E1000 };

/*
 * user[,forward=tcp:[ADDRESS:]PORT:GUESTPORT]...[,restrict][,tftp=DIR][,bootfile=NAME]
 * tap,name=NAME | none; each with [,model=virtio|e1000][,mac=ADDRESS][,rom=FILE|none]
 */
struct cli_net_spec {
    enum cli_net_kind kind;
    enum cli_net_model model;
    bool model_given, mac_given;
    uint8_t mac[NET_MAC_BYTES];
    char tap[16];
    char tftp[512], boot_file[128];
    char rom[512]; /* "": chosen */
    bool is_restricted;
    struct net_forward forward[CLI_FORWARDS];
    unsigned forward_count;
};

int cli_net_parse(const char *spec, struct cli_net_spec *net, struct error *err);
/* What can be said before anything is opened. */
int cli_nets_check(const struct cli_options *o, struct error *err);

struct cli_nets {
    struct net *net[CLI_NETS];
    const char *name[CLI_NETS];
    struct e1000_config e1000[CLI_NETS];
    struct virtio_net_config virtio[CLI_NETS];
    void *rom[CLI_NETS];
    unsigned count;
};

/*
 * Makes them and gives the board a card for each. Without --net: user mode, and
 * none in a deterministic machine. After a failure there is nothing to close.
 */
int cli_nets_open(struct cli_nets *nets, const struct cli_options *o, struct vm *vm,
                  struct pc_config *board, struct error *err);
/* One line each, for --stats. */
void cli_nets_report(const struct cli_nets *nets, void (*line)(void *ctx, const char *text),
                     void *ctx);
/* After the last run, before the vm is destroyed. */
void cli_nets_close(struct cli_nets *nets);

#endif
