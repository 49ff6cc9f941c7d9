/*
 * Stands for user.c in a build without libslirp (meson: -Dslirp=disabled).
 */
#include <errno.h>

#include "backend/net/net.h"

bool net_user_available(void)
{
    return false;
}

struct net *net_user_create(struct vm *vm, const struct net_user_config *config, struct error *err)
{
    error_set(err, -ENOTSUP,
              "--net user: this vireo was built without libslirp; install libslirp-dev and build "
              "again, or give --net tap,name=NAME or --net none");
    return NULL;
}
