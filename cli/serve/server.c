// The HTTP server; see server.h. libmicrohttpd's one thread answers, live.c's thread renders. A
// connection that waits, for a page or for news, is suspended, and resumed at the next tick to look
// again. s->lock is taken before that of live.c and those of libmicrohttpd, never after.
#ifdef BT_HAVE_MICROHTTPD
#include "server.h"

#include "asset.h"
#include "classify.h"
#include "live.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 100,
    STREAMS_MAX = 16,
    BODY_MAX = 65536,
    POOL_BYTES = 32768, // of a connection: request line, headers, pieces of the answer
    BLOCK_BYTES = 16384,
    SECONDS = 10
};

typedef struct client { // a connection
    struct client *next, **link;
    server *server;
    struct MHD_Connection *connection;
    int socket;
    double deadline; // of the request, or of the answer; INFINITY: none
    bool suspended;

    uint8_t *body; // of the request
    size_t bytes;
    uint64_t ticket; // for a page; 0: none
    bool streaming;
    uint64_t seen; // of the panels
    text *event;   // on its way
    size_t event_at;
} client;

struct server {
    pthread_mutex_t lock; // of clients, what is in them but the request, streams, stopping
    client *clients;
    int streams;
    bool stopping;
    struct MHD_Daemon *daemon;
    live *live;
    classifier *classifier; // of the daemon's thread alone
    char run[PATH_BYTES];
    int port, seconds;
};

// ---- Answers -----------------------------------------------------------------------------------

static void set_deadline(client *c, double seconds) {
    pthread_mutex_lock(&c->server->lock);
    c->deadline = now_seconds() + seconds;
    pthread_mutex_unlock(&c->server->lock);
}

// `seconds`: in which all of it must be taken. INFINITY: as long as something of it is taken every
// now and then, which libmicrohttpd sees to, or news may come.
static enum MHD_Result send_within(client *c, double seconds, unsigned code, const char *type,
                                   struct MHD_Response *response) {
    static const char *const headers[][2] = {
        {"Cache-Control", "no-store"},
        {"Content-Security-Policy",
         "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
         "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Referrer-Policy", "no-referrer"},
        {"X-Content-Type-Options", "nosniff"},
    };
    if (!response) return MHD_NO;
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        MHD_add_response_header(response, headers[i][0], headers[i][1]);
    MHD_add_response_header(response, "Content-Type", type);
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, "Allow", "GET, HEAD; POST /classify");
    if (code == MHD_HTTP_SERVICE_UNAVAILABLE) {
        MHD_add_response_header(response, "Retry-After", "1");
        MHD_add_response_header(response, "Refresh", "1");
    }
    set_deadline(c, seconds);
    enum MHD_Result result = MHD_queue_response(c->connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result send_response(client *c, unsigned code, const char *type,
                                     struct MHD_Response *response) {
    return send_within(c, c->server->seconds, code, type, response);
}

// `words` are taken over; NULL: out of memory, and the connection ends.
static enum MHD_Result send_text(client *c, unsigned code, const char *type, char *words) {
    if (!words) return MHD_NO;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(words), words, MHD_RESPMEM_MUST_FREE);
    if (!response) free(words);
    return send_response(c, code, type, response);
}

static enum MHD_Result refuse(client *c, unsigned code, const char *sentence) {
    char *words = NULL;
    if (asprintf(&words, "%s\n", sentence) < 0) words = NULL;
    return send_text(c, code, "text/plain; charset=utf-8", words);
}

// ---- Waiting -----------------------------------------------------------------------------------

// Until the next tick; false: the server is about to stop. With the lock held.
static bool suspend(client *c) {
    if (c->server->stopping) return false;
    c->suspended = true;
    c->deadline = INFINITY; // it is the server's turn
    MHD_suspend_connection(c->connection);
    return true;
}

static void resume_all(server *s) {
    for (client *c = s->clients; c; c = c->next) {
        if (!c->suspended) continue;
        c->suspended = false;
        MHD_resume_connection(c->connection);
    }
}

// From the thread of live.c: who waits looks again, and who takes too long is cut off.
static bool tick(void *user) {
    server *s = user;
    double now = now_seconds();
    pthread_mutex_lock(&s->lock);
    for (client *c = s->clients; c; c = c->next)
        if (!c->suspended && now > c->deadline) shutdown(c->socket, SHUT_RDWR);
    resume_all(s);
    bool followed = s->streams > 0;
    pthread_mutex_unlock(&s->lock);
    return followed;
}

// ---- GET ---------------------------------------------------------------------------------------

static void drop_page(void *page) {
    text_drop(page);
}

static enum MHD_Result send_page(client *c, text *page) {
    struct MHD_Response *response = MHD_create_response_from_buffer_with_free_callback_cls(
        page->bytes, page->data, drop_page, page);
    if (!response) text_drop(page);
    return send_response(c, MHD_HTTP_OK, "text/html; charset=utf-8", response);
}

// Called again each time the connection is resumed.
static enum MHD_Result get_page(client *c) {
    server *s = c->server;
    bool failed;
    if (!c->ticket) c->ticket = live_ask(s->live);
    text *page = live_page(s->live, c->ticket, &failed);
    if (page) return send_page(c, page);
    pthread_mutex_lock(&s->lock);
    bool waits = !failed && suspend(c);
    pthread_mutex_unlock(&s->lock);
    if (waits) return MHD_YES;
    return refuse(c, MHD_HTTP_SERVICE_UNAVAILABLE,
                  "The run directory cannot be read, or has no run.json yet; try again soon.");
}

static bool hung_up(const client *c) {
    char next;
    ssize_t n = recv(c->socket, &next, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static ssize_t read_events(void *user, uint64_t at, char *out, size_t bytes_max) {
    client *c = user;
    server *s = c->server;
    (void)at; // pieces come in order
    if (!c->event) {
        c->event = live_event(s->live, &c->seen);
        c->event_at = 0;
    }
    if (!c->event) {
        if (hung_up(c)) return MHD_CONTENT_READER_END_WITH_ERROR;
        pthread_mutex_lock(&s->lock);
        bool waits = suspend(c);
        pthread_mutex_unlock(&s->lock);
        return waits ? 0 : MHD_CONTENT_READER_END_OF_STREAM;
    }
    size_t left = c->event->bytes - c->event_at, n = left < bytes_max ? left : bytes_max;
    memcpy(out, c->event->data + c->event_at, n);
    c->event_at += n;
    if (n == left) {
        text_drop(c->event);
        c->event = NULL;
    }
    return (ssize_t)n;
}

static enum MHD_Result get_events(client *c) {
    server *s = c->server;
    pthread_mutex_lock(&s->lock);
    c->streaming = s->streams < STREAMS_MAX;
    s->streams += c->streaming;
    pthread_mutex_unlock(&s->lock);
    if (!c->streaming)
        return refuse(c, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "As many pages follow this run already as may; close one.");
    c->seen = 0;
    c->event = text_make(strdup("retry: 2000\n\n"));
    c->event_at = 0;
    live_wake(s->live);
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_events, c, NULL);
    return send_within(c, INFINITY, MHD_HTTP_OK, "text/event-stream", response);
}

static enum MHD_Result get_script(client *c) {
    return send_text(c, MHD_HTTP_OK, "text/javascript; charset=utf-8",
                     strdup(asset_text("live.js")));
}

static enum MHD_Result get_file(client *c, const char *name) {
    static const char *const files[][2] = {
        {"run.json", "application/json"},
        {"metrics_train.csv", "text/csv; charset=utf-8"},
        {"metrics_steps.csv", "text/csv; charset=utf-8"},
        {"op_timings.csv", "text/csv; charset=utf-8"},
        {"trace.json", "application/json"},
        {"loss.svg", "image/svg+xml"},
        {"throughput.svg", "image/svg+xml"},
        {"report.html", "text/html; charset=utf-8"},
    };
    char path[PATH_BYTES + 32];
    const char *type = NULL;
    struct stat info;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (strcmp(files[i][0], name)) continue;
        type = files[i][1];
        snprintf(path, sizeof path, "%s/%s", c->server->run, files[i][0]);
    }
    // (Not blocking: of a pipe somebody may have put there.)
    int file = type ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (file >= 0 && !fstat(file, &info) && S_ISREG(info.st_mode)) {
        struct MHD_Response *response = MHD_create_response_from_fd64((uint64_t)info.st_size, file);
        if (!response) return close(file), MHD_NO;
        // (Beside the policy of all answers: a file of a run that came from elsewhere may do
        // nothing, not even lead away. A whole file may take long over a forwarded port.)
        MHD_add_response_header(response, "Content-Security-Policy", "sandbox");
        return send_within(c, INFINITY, MHD_HTTP_OK, type, response);
    }
    if (file >= 0) close(file);
    return refuse(c, MHD_HTTP_NOT_FOUND, "The run has no such file, or not yet.");
}

// ---- POST --------------------------------------------------------------------------------------

static enum MHD_Result post_drawing(client *c) {
    char why[512], *json = NULL;
    set_deadline(c, INFINITY); // it has sent all; the network's time is not its own
    switch (classify(c->server->classifier, c->body, c->bytes, &json, why)) {
    case BT_OK: return send_text(c, MHD_HTTP_OK, "application/json", json);
    case BT_ERROR_USAGE: return refuse(c, MHD_HTTP_BAD_REQUEST, why);
    default: return refuse(c, MHD_HTTP_INTERNAL_SERVER_ERROR, why);
    }
}

static enum MHD_Result too_large(client *c) {
    return refuse(c, MHD_HTTP_CONTENT_TOO_LARGE, "A drawing has at most 65536 bytes.");
}

static const char *header(const client *c, const char *name) {
    return MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, name);
}

// What can be said of a POST before its body is there; then makes room for that.
static enum MHD_Result begin_post(client *c, const char *url) {
    const char *type = header(c, "Content-Type"), *length = header(c, "Content-Length");
    if (strcmp(url, "/classify"))
        return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "Drawings go to /classify.");
    // (Of a type that other sites' forms cannot send.)
    if (!type || strcasecmp(type, "application/octet-stream"))
        return refuse(c, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE,
                      "A drawing is sent as application/octet-stream: a square of grey bytes.");
    if (length && strtod(length, NULL) > BODY_MAX) return too_large(c);
    c->body = malloc(BODY_MAX);
    c->bytes = 0;
    return c->body ? MHD_YES : MHD_NO;
}

// What does not fit is counted and dropped.
static void take_body(client *c, const char *data, size_t bytes) {
    if (c->body && bytes <= BODY_MAX && c->bytes <= BODY_MAX - bytes)
        memcpy(c->body + c->bytes, data, bytes);
    if (c->bytes <= BODY_MAX) c->bytes += bytes;
}

// ---- Requests ----------------------------------------------------------------------------------

// A name of this machine, with any port: it may be forwarded. Other names that lead here belong to
// somebody who wants a browser to take this server for his (DNS rebinding).
static bool host_is_ours(const char *host) {
    static const char *const names[] = {"127.0.0.1", "localhost", "[::1]"};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(names[i]);
        if (strncasecmp(host, names[i], n)) continue;
        if (!host[n] ||
            (host[n] == ':' && strspn(host + n + 1, "0123456789") == strlen(host + n + 1)))
            return true;
    }
    return false;
}

static const char *refusal(const client *c) {
    const char *host = header(c, "Host"), *source = header(c, "Origin");
    const char *site = header(c, "Sec-Fetch-Site"), *mode = header(c, "Sec-Fetch-Mode");
    if (!host || !host_is_ours(host))
        return "This server answers to 127.0.0.1 and localhost alone (Host).";
    if (source && (strncasecmp(source, "http://", 7) || strcasecmp(source + 7, host)))
        return "This server answers to its own page alone (Origin).";
    bool foreign = site && strcasecmp(site, "same-origin") && strcasecmp(site, "none");
    if (foreign && (!mode || strcasecmp(mode, "navigate"))) // links from elsewhere may lead here
        return "This server answers to its own page alone (Sec-Fetch-Site).";
    return NULL;
}

// Names are compared as they were sent: what needs %20 or %00 is no name of ours.
static size_t keep_escapes(void *user, struct MHD_Connection *connection, char *name) {
    (void)user, (void)connection;
    return strlen(name);
}

static enum MHD_Result get(client *c, const char *url) {
    if (!strcmp(url, "/")) return get_page(c);
    if (!strcmp(url, "/live.js")) return get_script(c);
    if (!strcmp(url, "/events")) return get_events(c);
    if (!strncmp(url, "/files/", 7)) return get_file(c, url + 7);
    if (!strcmp(url, "/classify"))
        return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "Drawings are sent with POST.");
    return refuse(c, MHD_HTTP_NOT_FOUND, "There is no such page; the run is at /.");
}

static client *client_of(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

// With the first line of a request, whose time begins: it had none while the connection was idle.
static void *on_first_line(void *user, const char *uri, struct MHD_Connection *connection) {
    client *c = client_of(connection);
    (void)user, (void)uri;
    if (c) set_deadline(c, c->server->seconds);
    return NULL; // on_request's first *state
}

// libmicrohttpd calls it with the headers, with each piece of a body, at the end of the body, and
// after the connection was suspended.
static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *bytes, void **state) {
    client *c = client_of(connection);
    bool reads = !strcmp(method, "GET") || !strcmp(method, "HEAD"), begins = !*state;
    (void)user, (void)version;
    if (!c) return MHD_NO;
    *state = c;
    if (*bytes) {
        take_body(c, data, *bytes);
        *bytes = 0;
        return MHD_YES;
    }
    const char *why = begins ? refusal(c) : NULL;
    if (why) return refuse(c, MHD_HTTP_FORBIDDEN, why);
    if (reads) return begins ? MHD_YES : get(c, url); // (an answer at the first call would close)
    if (strcmp(method, "POST"))
        return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "This server knows GET, HEAD and POST.");
    if (begins) return begin_post(c, url);
    return c->bytes > BODY_MAX ? too_large(c) : post_drawing(c);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code) {
    client *c = *state;
    (void)user, (void)connection, (void)code;
    if (!c) return;
    free(c->body);
    text_drop(c->event);
    pthread_mutex_lock(&c->server->lock);
    c->server->streams -= c->streaming;
    c->streaming = false;
    c->deadline = now_seconds() + c->server->seconds;
    pthread_mutex_unlock(&c->server->lock);
    c->body = NULL, c->event = NULL, c->bytes = 0, c->ticket = 0;
}

static void open_client(server *s, struct MHD_Connection *connection, void **context) {
    client *c = calloc(1, sizeof *c);
    *context = c;
    if (!c) return;
    c->server = s, c->connection = connection;
    c->socket = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    pthread_mutex_lock(&s->lock);
    c->deadline = now_seconds() + s->seconds;
    c->next = s->clients, c->link = &s->clients;
    if (c->next) c->next->link = &c->next;
    s->clients = c;
    pthread_mutex_unlock(&s->lock);
}

static void close_client(server *s, client *c) {
    pthread_mutex_lock(&s->lock);
    *c->link = c->next;
    if (c->next) c->next->link = c->link;
    pthread_mutex_unlock(&s->lock);
    free(c);
}

static void on_connection(void *user, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code) {
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        open_client(user, connection, context);
    else if (*context)
        close_client(user, *context);
}

// ---- Starting and stopping ---------------------------------------------------------------------

// A listening socket; -1, and errno.
static int listen_at(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1, s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0) return -1;
    fcntl(s, F_SETFD, FD_CLOEXEC);
    fcntl(s, F_SETFL, O_NONBLOCK);
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (!bind(s, (struct sockaddr *)&address, sizeof address) && !listen(s, 64)) return s;
    int error = errno;
    close(s);
    errno = error;
    return -1;
}

static int port_of(int listening) {
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    return getsockname(listening, (struct sockaddr *)&address, &bytes) ? 0
                                                                       : ntohs(address.sin_port);
}

static bt_status start(server *s, int listening, char why[512]) {
    s->classifier = classifier_make(s->run);
    s->daemon = MHD_start_daemon(
        MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
        on_request, s, MHD_OPTION_LISTEN_SOCKET, listening, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_URI_LOG_CALLBACK,
        on_first_line, s, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES, MHD_OPTION_UNESCAPE_CALLBACK,
        keep_escapes, NULL, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)s->seconds,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (s->daemon && s->classifier) return BT_OK;
    snprintf(why, 512, "the server of the live page does not start: %s", strerror(errno));
    return BT_ERROR_MEMORY;
}

bt_status server_start(const server_desc *desc, server **out, char why[512]) {
    int listening = listen_at(desc->port);
    if (listening < 0 && desc->or_another) listening = listen_at(0);
    if (listening < 0) {
        bool taken = errno == EADDRINUSE;
        snprintf(why, 512, "port %d of 127.0.0.1 %s: %s; --port 0 takes one that is free",
                 desc->port, taken ? "is taken" : "cannot be used", strerror(errno));
        return BT_ERROR_USAGE;
    }
    server *s = calloc(1, sizeof *s);
    if (!s) {
        close(listening);
        snprintf(why, 512, "out of memory for the server");
        return BT_ERROR_MEMORY;
    }
    pthread_mutex_init(&s->lock, NULL);
    snprintf(s->run, sizeof s->run, "%s", desc->run);
    s->port = port_of(listening);
    s->seconds = desc->seconds ? desc->seconds : SECONDS;
    s->live = live_start(desc->run, tick, s);
    bt_status status = s->live ? start(s, listening, why) : BT_ERROR_MEMORY;
    if (!s->daemon) close(listening);
    if (!s->live) snprintf(why, 512, "out of memory or threads for the server");
    if (status != BT_OK) {
        server_stop(s);
        s = NULL;
    }
    *out = s;
    return status;
}

int server_port(const server *s) {
    return s->port;
}

void server_stop(server *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    resume_all(s);
    pthread_mutex_unlock(&s->lock);
    if (s->live) live_stop(s->live);
    if (s->daemon) MHD_stop_daemon(s->daemon);
    live_free(s->live);
    classifier_free(s->classifier);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

#endif
