// The HTTP server of the live page: 127.0.0.1 alone, for browsers of this machine. It believes
// nobody: web pages from elsewhere are told apart by Host and Origin, and requests, connections,
// time and memory are bounded. It has threads of its own.
#ifndef CLI_SERVE_SERVER_H
#define CLI_SERVE_SERVER_H

#include "cli.h"

typedef struct server server;

typedef struct server_desc {
    const char *run; // a run directory
    int port;        // 0: one that is free
    bool or_another; // if the port is taken, one that is free
    int seconds;     // for a client to send a request, or to take the answer; 0: 10
} server_desc;

// BT_OK, or BT_ERROR_USAGE, BT_ERROR_DEVICE or BT_ERROR_MEMORY and a sentence.
bt_status server_start(const server_desc *desc, server **out, char why[512]);
int server_port(const server *s);
void server_stop(server *s); // may be NULL

#endif
