// What stands for the server in a build without libmicrohttpd.
#ifndef BT_HAVE_MICROHTTPD
#include "server.h"

bt_status server_start(const server_desc *desc, server **out, char why[512]) {
    (void)desc;
    *out = NULL;
    snprintf(why, 512,
             "this build has no live page: it needs libmicrohttpd-dev, then `make`; "
             "`bantam report` writes the page to a file");
    return BT_ERROR_DEVICE;
}

int server_port(const server *s) {
    (void)s;
    return 0;
}

void server_stop(server *s) {
    (void)s;
}
#endif
