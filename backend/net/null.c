/*
 * A network card without a cable: what it sends is gone. Interface: net.h.
 * Synchronous, so that deterministic machines may have it.
 */
#include <stdlib.h>

#include "backend/net/host.h"

static int null_send(void *host, struct net_frame *f)
{
    return 0;
}

static void null_destroy(void *host)
{
}

static const struct net_host_ops null_ops = {
    .name = "none",
    .takes = NET_TAKES_CHECKSUM | NET_TAKES_TCPV4 | NET_TAKES_TCPV6,
    .is_synchronous = true,
    .send = null_send,
    .destroy = null_destroy,
};

struct net *net_null_create(struct vm *vm, struct error *err)
{
    return net_create(vm, &null_ops, NULL, err);
}
