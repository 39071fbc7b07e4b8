// The live page's server from outside: who is refused, what is bounded, that slow and hostile
// clients stop nobody, that news arrive while a run writes, and how drawings are centred.
#include "serve/center.h"
#include "serve/server.h"
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef BT_HAVE_MICROHTTPD
enum { LIMIT_S = 60 }; // for anything that is waited for
#define OURS  "Host: 127.0.0.1\r\n"
#define BYTES "Content-Type: application/octet-stream\r\n"

// ---- A run and its server ----------------------------------------------------------------------

static void append(const char *path, const char *text) {
    FILE *f = fopen(path, "a");
    check(f && fputs(text, f) >= 0 && !fclose(f), "%s cannot be written", path);
}

static const char *make_run(void) {
    static char path[PATH_BYTES], file[PATH_BYTES + 32];
    static int count; // the tests share a folder
    static const char record[] = "{\"status\": \"running\", \"model\": \"fc10\", \"settings\": {}}";
    static const char rows[] =
        "epoch,step,time_s,train_loss,train_acc,val_loss,val_acc,lr,images_per_s\n"
        "1,100,0.5,0.75,0.8,0.5,0.9,0.1,5000\n";
    snprintf(path, sizeof path, "%s/run%d", scratch(), count++);
    check(!mkdir(path, 0777), "no folder");
    // As a training holds it; it is let go with the process.
    check(!flock(open(path, O_RDONLY | O_CLOEXEC), LOCK_EX | LOCK_NB), "no lock");
    snprintf(file, sizeof file, "%s/run.json", path);
    write_file(file, record, sizeof record - 1);
    snprintf(file, sizeof file, "%s/metrics_train.csv", path);
    write_file(file, rows, sizeof rows - 1);
    return path;
}

static void add_checkpoint_of(const char *path, const char *spec, int side) {
    char file[PATH_BYTES + 64];
    bt_model *model;
    bt_context *ctx = open_cpu(1);
    bt_model_desc desc = {
        .spec = spec, .channels = 1, .height = side, .width = side, .classes = 10};
    ok(ctx, bt_model_make(ctx, &desc, &model));
    snprintf(file, sizeof file, "%s/checkpoints", path);
    check(!mkdir(file, 0777) || errno == EEXIST, "no folder");
    snprintf(file, sizeof file, "%s/checkpoints/last.safetensors", path);
    ok(ctx, bt_model_save(ctx, model, file));
    bt_close(ctx);
}

static void add_checkpoint(const char *path) {
    add_checkpoint_of(path, "conv2x5,relu,fc10", 28);
}

static server *open_server(const char *path, int seconds) {
    char why[512] = "";
    server *s = NULL;
    server_desc desc = {.run = path, .seconds = seconds};
    check(server_start(&desc, &s, why) == BT_OK, "%s", why);
    return s;
}

// ---- A client ----------------------------------------------------------------------------------

static int connect_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = LIMIT_S};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    check(s >= 0 && !connect(s, (struct sockaddr *)&address, sizeof address), "no connection: %s",
          strerror(errno));
    return s;
}

// Whether it could be sent: a server that refuses may close before it was told all.
static bool say(int s, const char *text, size_t bytes) {
    for (ssize_t n; bytes; text += n, bytes -= (size_t)n)
        if ((n = send(s, text, bytes, 0)) <= 0) return false;
    return true;
}

// Reads until `part` has come, or (NULL) to the end; to be freed.
static char *hear(int s, const char *part) {
    size_t n = 0, room = 1 << 16;
    char *text = allocate(room);
    for (ssize_t got; (got = recv(s, text + n, room - n - 1, 0)) > 0;) {
        text[n += (size_t)got] = 0;
        if (part && strstr(text, part)) return text;
        if (room - n < 4096) check((text = realloc(text, room *= 2)), "no memory");
    }
    if (part) test_fail(__FILE__, __LINE__, "'%s' did not come; what came: %.300s", part, text);
    return text;
}

static char *ask_bytes(int port, const char *head, const char *body, size_t bytes) {
    int s = connect_to(port);
    if (say(s, head, strlen(head))) say(s, body, bytes);
    char *answer = hear(s, NULL);
    close(s);
    return answer;
}

// Sends a request line with headers, "Connection: close" and a body.
static char *ask(int port, const char *line, const char *headers, const char *body, size_t bytes) {
    char head[2048], length[64] = "";
    if (bytes) snprintf(length, sizeof length, "Content-Length: %zu\r\n", bytes);
    snprintf(head, sizeof head, "%s HTTP/1.1\r\nConnection: close\r\n%s%s\r\n", line, headers,
             length);
    return ask_bytes(port, head, body, bytes);
}

static void answers(int port, int code, const char *part, const char *line, const char *headers,
                    const char *body, size_t bytes) {
    char want[32], *answer = ask(port, line, headers, body, bytes);
    snprintf(want, sizeof want, "HTTP/1.1 %d", code);
    check(!strncmp(answer, want, strlen(want)), "%s %s: %.200s instead of %d", line, headers,
          answer, code);
    check(!part || strstr(answer, part), "%s: no '%s' in %.3000s", line, part, answer);
    free(answer);
}

#define gets(code, part, line, headers) answers(server_port(s), code, part, line, headers, "", 0)

// ---- What is served ----------------------------------------------------------------------------

static void page_and_files(void **state) {
    (void)state;
    server *s = open_server(make_run(), 0);
    gets(200, "<section id=\"panel-loss\"", "GET /", OURS);
    gets(200, "id=\"draw-canvas\"", "GET /", OURS);
    gets(200, "default-src 'self'", "GET /", OURS);
    gets(200, "EventSource", "GET /live.js", OURS);
    gets(200, "1,100,0.5,0.75", "GET /files/metrics_train.csv", OURS);
    gets(200, "Content-Security-Policy: sandbox", "GET /files/metrics_train.csv", OURS);
    gets(404, NULL, "GET /files/trace.json", OURS);
    gets(404, NULL, "GET /nothing", OURS);
    server_stop(s);
}

static void names_of_this_machine_alone(void **state) {
    (void)state;
    server *s = open_server(make_run(), 0);
    gets(200, NULL, "GET /live.js", "Host: localhost:8028\r\n");
    gets(200, NULL, "GET /live.js", "Host: [::1]:1\r\n");
    gets(200, NULL, "GET /live.js", OURS "Origin: http://127.0.0.1\r\n");
    gets(403, "Host", "GET /", "Host: evil.example\r\n");
    gets(403, "Host", "GET /", "Host: localhost.evil.example\r\n");
    gets(403, "Host", "GET /", "Host: 127.0.0.1:80.evil.example\r\n");
    gets(403, "Origin", "GET /events", OURS "Origin: http://evil.example\r\n");
    gets(403, "Origin", "GET /", OURS "Origin: null\r\n");
    gets(403, "Origin", "POST /classify", OURS BYTES "Origin: http://127.0.0.1:81\r\n");
    gets(403, "Sec-Fetch-Site", "GET /events",
         OURS "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n");
    gets(200, NULL, "GET /", OURS "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n");
    gets(400, NULL, "GET /", "");
    server_stop(s);
}

static void no_paths_from_clients(void **state) {
    (void)state;
    static const char *const tricks[] = {"/files/../run.json",
                                         "/files/%2e%2e/%2e%2e/etc/passwd",
                                         "/files//etc/passwd",
                                         "/files/checkpoints/last.safetensors",
                                         "/files/",
                                         "/files/run.json%00.csv",
                                         "//",
                                         "/./run.json",
                                         "/files/..%5crun.json"};
    const char *path = make_run();
    server *s = open_server(path, 0);
    char line[200], file[PATH_BYTES + 32];
    for (size_t i = 0; i < sizeof tricks / sizeof *tricks; i++) {
        snprintf(line, sizeof line, "GET %s", tricks[i]);
        gets(404, NULL, line, OURS);
    }
    snprintf(file, sizeof file, "%s/trace.json", path);
    check(!mkfifo(file, 0600), "no pipe");
    gets(404, NULL, "GET /files/trace.json", OURS); // and does not hang
    server_stop(s);
}

static void methods(void **state) {
    (void)state;
    server *s = open_server(make_run(), 0);
    gets(405, "Allow", "PUT /", OURS);
    gets(405, NULL, "DELETE /files/run.json", OURS);
    gets(405, NULL, "OPTIONS /classify", OURS);
    gets(405, NULL, "GET /classify", OURS);
    gets(405, NULL, "POST /", OURS BYTES);
    gets(405, NULL, "FROBNICATE /", OURS);
    gets(200, NULL, "HEAD /", OURS);
    gets(200, NULL, "HEAD /events", OURS);
    server_stop(s);
}

// ---- Drawings ----------------------------------------------------------------------------------

static void drawings(void **state) {
    (void)state;
    const char *path = make_run();
    server *s = open_server(path, 0);
    static char grey[65537];
    int port = server_port(s);
    answers(port, 200, "\"note\":\"There is no checkpoint yet", "POST /classify", OURS BYTES, grey,
            784);
    add_checkpoint(path);
    answers(port, 200, "\"class\":null", "POST /classify", OURS BYTES, grey, 784);
    memset(grey + 100 * 196, 255, 196 * 20);
    answers(port, 200, "\"probabilities\":[", "POST /classify", OURS BYTES, grey, 196 * 196);
    answers(port, 400, "no square", "POST /classify", OURS BYTES, grey, 785);
    answers(port, 400, "no square", "POST /classify", OURS BYTES, "", 0);
    answers(port, 415, NULL, "POST /classify", OURS "Content-Type: text/plain\r\n", grey, 784);
    answers(port, 413, NULL, "POST /classify", OURS BYTES, grey, sizeof grey);
    server_stop(s);
}

// Of pictures that nobody can draw, of layers that would take gigabytes, and minutes.
static void oversized_networks(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        int side;
        const char *part;
    } tries[] = {{"pool1500,fc10", 3000, "3000 x 3000 pixels"},
                 {"conv64x1,pool512,fc10", 1024, "computes 6.71e+07 numbers"},
                 {"conv4x11p5,conv16x11p5,pool256,fc10", 512, "2.16e+09 multiplications"},
                 {"pool64,fc10", 1024, "\"probabilities\":["}};
    static char grey[100 * 100];
    const char *path = make_run();
    server *s = open_server(path, 0);
    memset(grey + 2000, 255, 500);
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        add_checkpoint_of(path, tries[i].spec, tries[i].side);
        answers(server_port(s), 200, tries[i].part, "POST /classify", OURS BYTES, grey,
                sizeof grey);
    }
    server_stop(s);
}

// A body that claims nothing and does not end.
static void endless_body(void **state) {
    (void)state;
    server *s = open_server(make_run(), 0);
    static char chunk[4096 + 8];
    static const char head[] = "POST /classify HTTP/1.1\r\nConnection: close\r\n" OURS BYTES
                               "Transfer-Encoding: chunked\r\n\r\n";
    int c = connect_to(server_port(s));
    int n = snprintf(chunk, sizeof chunk, "1000\r\n");
    memcpy(chunk + n + 4096, "\r\n", 2);
    check(say(c, head, sizeof head - 1), "the headers are not taken");
    for (int i = 0; i < 100 && say(c, chunk, (size_t)n + 4098); i++) continue;
    say(c, "0\r\n\r\n", 5);
    char *answer = hear(c, NULL);
    check(!strncmp(answer, "HTTP/1.1 413", 12), "%.200s", answer);
    free(answer);
    close(c);
    server_stop(s);
}

static void equal_to_predict(void **state) {
    (void)state;
    const char *path = make_run();
    add_checkpoint(path);
    server *s = open_server(path, 0);
    bt_context *ctx = open_cpu(1);
    bt_dataset *digits;
    bt_model *model;
    char file[PATH_BYTES + 64];
    float want[10];
    snprintf(file, sizeof file, "%s/checkpoints/last.safetensors", path);
    ok(ctx, bt_dataset_open(ctx, &(bt_dataset_desc){.name = "digits", .test = true, .limit = 20},
                            &digits));
    ok(ctx, bt_model_load(ctx, file, BT_F32, &model));
    for (int i = 0; i < 20; i++) {
        const char *image = (const char *)bt_dataset_image(digits, i);
        ok(ctx, bt_predict(ctx, model, (const uint8_t *)image, 1, want));
        char *answer = ask(server_port(s), "POST /classify", OURS BYTES, image, 784);
        json_t *json = json_loads(strstr(answer, "\r\n\r\n") + 4, 0, NULL);
        for (size_t k = 0; k < 10; k++) {
            double p = json_real_value(json_array_get(json_object_get(json, "probabilities"), k));
            check(p - (double)want[k] < 1e-5 && (double)want[k] - p < 1e-5,
                  "image %d, class %zu: %g, predict says %g", i, k, p, (double)want[k]);
        }
        json_decref(json);
        free(answer);
    }
    bt_close(ctx);
    server_stop(s);
}

// ---- Hostile clients ---------------------------------------------------------------------------

static void huge_headers(void **state) {
    (void)state;
    server *s = open_server(make_run(), 1);
    size_t n = 1 << 20;
    char *head = allocate(n + 1), *answer;
    memset(head, 'a', n);
    memcpy(head, "GET / HTTP/1.1\r\n" OURS "X: ", 37);
    answer = ask_bytes(server_port(s), head, "", 0);
    check(!*answer || !strncmp(answer, "HTTP/1.1 4", 10), "%.100s", answer);
    free(answer);
    memcpy(head, "GET /", 5);
    memset(head + 5, '/', 100);
    answer = ask_bytes(server_port(s), head, "", 0);
    check(!*answer || !strncmp(answer, "HTTP/1.1 4", 10), "%.100s", answer);
    free(answer);
    free(head);
    gets(200, NULL, "GET /live.js", OURS);
    server_stop(s);
}

static void rubbish(void **state) {
    (void)state;
    server *s = open_server(make_run(), 1);
    uint64_t random = 1;
    char bytes[300];
    for (int i = 0; i < 200; i++) {
        int n = 1 + (int)test_random(&random, 0, 299), c = connect_to(server_port(s));
        snprintf(bytes, sizeof bytes, "GET /events HTTP/1.1\r\n" OURS "\r\n");
        for (int k = i % 2 ? 0 : (int)test_random(&random, 0, 30); k < n; k++)
            bytes[k] = (char)test_random(&random, 0, 256);
        say(c, bytes, (size_t)n);
        if (i % 3 == 0) shutdown(c, SHUT_WR);
        close(c);
    }
    gets(200, "<section", "GET /", OURS);
    server_stop(s);
}

// 200 connections that say nothing, or half of something, are cut off; who comes then is served.
static void idle_connections(void **state) {
    (void)state;
    server *s = open_server(make_run(), 1);
    int idle[200];
    for (int i = 0; i < 200; i++) {
        idle[i] = connect_to(server_port(s));
        if (i % 2) say(idle[i], "GET / HT", 8);
    }
    gets(200, "<section", "GET /", OURS);
    for (int i = 0; i < 200; i++) {
        char *rest = hear(idle[i], NULL); // ends: the server closed
        free(rest);
        close(idle[i]);
    }
    server_stop(s);
}

// A byte now and then does not hold a connection.
static void dripping_client(void **state) {
    (void)state;
    server *s = open_server(make_run(), 1);
    int c = connect_to(server_port(s));
    struct pollfd p = {.fd = c, .events = POLLIN};
    int bytes = 0;
    say(c, "GET / HTTP/1.1\r\nX: ", 19);
    while (bytes < 10 * LIMIT_S && poll(&p, 1, 100) == 0 && say(c, "a", 1)) bytes++;
    check(bytes < 10 * LIMIT_S, "still connected after %d s", LIMIT_S);
    close(c);
    server_stop(s);
}

enum { PAGE = 2 << 20, PAGES = 10 }; // several pages fit in no socket

// How many bytes of PAGES pages come to a client who begins to read after `ms`.
static size_t read_late(server *s, int ms) {
    static char bytes[PAGE];
    int c = connect_to(server_port(s));
    size_t heard = 0;
    for (int k = 0; k < PAGES; k++) say(c, "GET / HTTP/1.1\r\n" OURS "\r\n", 35);
    gets(200, "<section", "GET /", OURS); // others are served meanwhile
    poll(NULL, 0, ms);
    for (ssize_t got; (got = recv(c, bytes, sizeof bytes, 0)) > 0;) heard += (size_t)got;
    close(c);
    return heard;
}

// Who does not read what he asked for is cut off. (A machine that is busy may take its time.)
static void client_who_does_not_read(void **state) {
    (void)state;
    static const char start[] = "{\"status\": \"running\", \"settings\": {\"lr\": {\"value\": \"";
    static char record[PAGE + sizeof start + 32];
    const char *path = make_run();
    char file[PATH_BYTES + 32];
    int n = snprintf(record, sizeof record, "%s%0*d\"}}}", start, PAGE, 0);
    snprintf(file, sizeof file, "%s/run.json", path);
    write_file(file, record, (size_t)n);
    server *s = open_server(path, 1);
    size_t heard = (size_t)PAGES * PAGE;
    for (int ms = 1500; heard >= (size_t)PAGES * PAGE && ms < 15000; ms *= 2)
        heard = read_late(s, ms);
    check(heard < (size_t)PAGES * PAGE, "who does not read still got %zu bytes", heard);
    server_stop(s);
}

// A request has its time from its first line on, however long the connection was idle before.
static void late_request(void **state) {
    (void)state;
    server *s = open_server(make_run(), 3);
    static const char request[] = "GET /live.js HTTP/1.1\r\n" OURS "\r\n";
    int c = connect_to(server_port(s));
    check(say(c, request, sizeof request - 1), "not taken");
    free(hear(c, "EventSource"));
    poll(NULL, 0, 2000);
    check(say(c, request, 23), "not taken");
    poll(NULL, 0, 2000);
    check(say(c, request + 23, sizeof request - 24), "cut off before its time");
    free(hear(c, "HTTP/1.1 200"));
    close(c);
    server_stop(s);
}

// A file may take longer than a page: over a slow line all of it comes; who stops reading is cut
// off.
static void slow_downloads(void **state) {
    (void)state;
    enum { FILE_BYTES = 64 << 20, STEPS = 28 };
    static const char request[] =
        "GET /files/trace.json HTTP/1.1\r\nConnection: close\r\n" OURS "\r\n";
    static char piece[FILE_BYTES / STEPS];
    const char *path = make_run();
    char file[PATH_BYTES + 32];
    snprintf(file, sizeof file, "%s/trace.json", path);
    write_file(file, "{}", 2);
    check(!truncate(file, FILE_BYTES), "no file");
    server *s = open_server(path, 2);
    int c[2];
    size_t heard[2] = {0};
    for (int i = 0; i < 2; i++) {
        c[i] = connect_to(server_port(s));
        setsockopt(c[i], SOL_SOCKET, SO_RCVBUF, &(int){1 << 18}, sizeof(int)); // grows no more
        check(say(c[i], request, sizeof request - 1), "not taken");
    }
    for (int k = 0; k < STEPS; k++) {
        ssize_t n = recv(c[0], piece, sizeof piece, MSG_WAITALL);
        heard[0] += n > 0 ? (size_t)n : 0;
        poll(NULL, 0, 3600 / STEPS);
    }
    for (int i = 0; i < 2; i++) {
        for (ssize_t n; (n = recv(c[i], piece, sizeof piece, 0)) > 0;) heard[i] += (size_t)n;
        close(c[i]);
    }
    check(heard[0] > FILE_BYTES, "only %zu bytes of %d came", heard[0], FILE_BYTES);
    check(heard[1] < FILE_BYTES, "who does not read still got %zu bytes", heard[1]);
    server_stop(s);
}

// ---- News --------------------------------------------------------------------------------------

static int follow(int port) {
    static const char request[] = "GET /events HTTP/1.1\r\n" OURS "\r\n";
    int c = connect_to(port);
    check(say(c, request, sizeof request - 1), "not taken");
    return c;
}

static void news_while_a_run_writes(void **state) {
    (void)state;
    const char *path = make_run();
    char file[PATH_BYTES + 32], row[100], name[32];
    snprintf(file, sizeof file, "%s/metrics_train.csv", path);
    server *s = open_server(path, 0);
    int c = follow(server_port(s));
    free(hear(c, "panel-settings")); // the last one: everything is there
    for (int epoch = 2; epoch < 6; epoch++) {
        snprintf(row, sizeof row, "%d,%d00,1.5,0.5,0.9,0.%d,0.9,0.1,5000\n", epoch, epoch,
                 10 + epoch);
        append(file, row);
        snprintf(name, sizeof name, "\"id\":\"panel-loss\"");
        free(hear(c, name));
    }
    close(c);
    // Who comes again gets everything, also what did not change.
    static const char *const all[] = {"event: panel\ndata: {\"id\":\"panel-summary\"",
                                      "event: panel\ndata: {\"id\":\"panel-settings\""};
    for (int i = 0; i < 2; i++) {
        c = follow(server_port(s));
        free(hear(c, all[i]));
        close(c);
    }
    server_stop(s);
}

static void bounded_followers(void **state) {
    (void)state;
    server *s = open_server(make_run(), 0);
    int clients[16];
    for (int i = 0; i < 16; i++) {
        clients[i] = follow(server_port(s));
        free(hear(clients[i], "panel-settings"));
    }
    gets(503, "Retry-After", "GET /events", OURS);
    for (int i = 0; i < 16; i++) close(clients[i]);
    // Their places become free again.
    bool served = false;
    for (double end = now_seconds() + LIMIT_S; !served && now_seconds() < end;) {
        int c = follow(server_port(s));
        char *answer = hear(c, "\r\n\r\n");
        served = strstr(answer, "200 OK");
        free(answer);
        close(c);
    }
    check(served, "no place became free");
    server_stop(s);
}

static void stops_with_followers(void **state) {
    (void)state;
    server *s = open_server(make_run(), 0);
    int c = follow(server_port(s));
    free(hear(c, "panel-settings"));
    server_stop(s);
    free(hear(c, NULL)); // the stream has ended
    close(c);
}

// ---- The command -------------------------------------------------------------------------------

// Starts bantam with these words, and reads the first line that it writes to stdout or stderr (2).
static void start_command(char *const words[], int where, char line[128], pid_t *pid) {
    char program[PATH_BYTES];
    const char *build = getenv("BUILD");
    int ends[2];
    snprintf(program, sizeof program, "%s/bantam", build ? build : "build");
    check(!pipe(ends), "no pipe");
    fflush(NULL);
    *pid = fork();
    if (*pid == 0) {
        dup2(ends[1], where);
        execv(program, words);
        _exit(127);
    }
    close(ends[1]);
    FILE *out = fdopen(ends[0], "r");
    check(fgets(line, 128, out), "it says nothing");
    fclose(out);
}

static void command_until_ctrl_c(void **state) {
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM};
    const char *path = make_run();
    for (int i = 0; i < 2; i++) {
        pid_t pid;
        int status, port = 0;
        char line[128] = "", *words[] = {"bantam",  "serve", (char *)(uintptr_t)path, "--port", "0",
                                         "--quiet", NULL};
        start_command(words, 1, line, &pid);
        check(sscanf(line, "http://127.0.0.1:%d/", &port) == 1, "it says '%s'", line);
        int c = follow(port);
        free(hear(c, "panel-settings"));
        answers(port, 200, "<section", "GET /", OURS, "", 0);
        kill(pid, signals[i]);
        check(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status),
              "ends with %d", status);
        close(c);
    }
}

// Its address is no note: nobody could find a page at a free port without it.
static void quiet_training_names_its_port(void **state) {
    (void)state;
    char line[128] = "", folder[PATH_BYTES + 32];
    int status, port = 0;
    pid_t pid;
    snprintf(folder, sizeof folder, "%s/quiet", scratch());
    char *words[] = {"bantam",  "train",  "mlp", "digits", "--limit", "100",    "--epochs", "1",
                     "--serve", "--port", "0",   "--out",  folder,    "--json", "--quiet",  NULL};
    start_command(words, 2, line, &pid);
    check(sscanf(line, "live page: http://127.0.0.1:%d/", &port) == 1, "it says '%s'", line);
    answers(port, 200, "EventSource", "GET /live.js", OURS, "", 0);
    kill(pid, SIGTERM);
    check(waitpid(pid, &status, 0) == pid && WIFEXITED(status), "ends with %d", status);
}

static void taken_port(void **state) {
    (void)state;
    const char *path = make_run();
    server *s = open_server(path, 0), *second = NULL;
    char why[512] = "";
    server_desc desc = {.run = path, .port = server_port(s)};
    check(server_start(&desc, &second, why) == BT_ERROR_USAGE && strstr(why, "taken"), "%s", why);
    desc.or_another = true;
    check(server_start(&desc, &second, why) == BT_OK, "%s", why);
    check(server_port(second) != server_port(s), "the same port");
    server_stop(second);
    server_stop(s);
}
#endif

// ---- Centring ----------------------------------------------------------------------------------

static void centre_of_mass(void **state) {
    (void)state;
    static uint8_t grey[196 * 196], out[28 * 28];
    uint64_t random = 7;
    for (int i = 0; i < 50; i++) {
        int w = (int)test_random(&random, 5, 120), h = (int)test_random(&random, 5, 120);
        int left = (int)test_random(&random, 0, 196 - w),
            top = (int)test_random(&random, 0, 196 - h);
        memset(grey, 0, sizeof grey);
        for (int y = 0; y < h; y++) memset(grey + (top + y) * 196 + left, 255, (size_t)w);
        check(center_drawing(grey, 196, out, 28, 28), "nothing found");
        double sum = 0, x_sum = 0, y_sum = 0;
        int wide = 0, high = 0;
        for (int y = 0; y < 28; y++) {
            int row = 0;
            for (int x = 0; x < 28; x++) {
                double v = out[y * 28 + x];
                sum += v, x_sum += v * (x + .5), y_sum += v * (y + .5), row += v > 0;
            }
            high += row > 0;
            if (row > wide) wide = row;
        }
        check((wide > high ? wide : high) == 20, "a box of %d x %d became %d x %d", w, h, wide,
              high);
        double ratio = (double)w / h, now = (double)wide / high,
               worst = 1.0 / (wide < high ? wide : high);
        check(now / ratio < 1 + worst && ratio / now < 1 + worst, "%d x %d became %d x %d", w, h,
              wide, high);
        x_sum /= sum, y_sum /= sum;
        check(x_sum > 13.4 && x_sum < 14.6 && y_sum > 13.4 && y_sum < 14.6,
              "centre of mass at %g, %g", x_sum, y_sum);
    }
}

// Heavier at one end: the centre of mass is in the middle, not the box; and all of it stays inside.
static void lopsided(void **state) {
    (void)state;
    static uint8_t grey[100 * 100], out[28 * 28], small[5 * 7];
    for (int y = 10; y < 90; y++) memset(grey + y * 100 + 10, y < 30 ? 255 : 20, y < 30 ? 80 : 4);
    check(center_drawing(grey, 100, out, 28, 28), "nothing found");
    int first = 28, last = 0;
    for (int i = 0; i < 28 * 28; i++)
        if (out[i]) first = i / 28 < first ? i / 28 : first, last = i / 28;
    check(first == 8 && last == 27, "rows %d to %d", first, last);
    memset(grey, 0, sizeof grey);
    check(!center_drawing(grey, 100, out, 28, 28), "found something in nothing");
    memset(grey, 255, sizeof grey);
    check(center_drawing(grey, 100, small, 5, 7), "nothing found");
    check(center_drawing(grey, 1, out, 28, 28), "one pixel is a drawing");
}

int main(void) {
    signal(SIGPIPE, SIG_IGN); // (see say)
    struct CMUnitTest tests[] = {
        cmocka_unit_test(centre_of_mass),
        cmocka_unit_test(lopsided),
#ifdef BT_HAVE_MICROHTTPD
        cmocka_unit_test(page_and_files),
        cmocka_unit_test(names_of_this_machine_alone),
        cmocka_unit_test(no_paths_from_clients),
        cmocka_unit_test(methods),
        cmocka_unit_test(drawings),
        cmocka_unit_test(oversized_networks),
        cmocka_unit_test(endless_body),
        cmocka_unit_test(equal_to_predict),
        cmocka_unit_test(huge_headers),
        cmocka_unit_test(rubbish),
        cmocka_unit_test(idle_connections),
        cmocka_unit_test(dripping_client),
        cmocka_unit_test(client_who_does_not_read),
        cmocka_unit_test(late_request),
        cmocka_unit_test(slow_downloads),
        cmocka_unit_test(news_while_a_run_writes),
        cmocka_unit_test(bounded_followers),
        cmocka_unit_test(stops_with_followers),
        cmocka_unit_test(command_until_ctrl_c),
        cmocka_unit_test(quiet_training_names_its_port),
        cmocka_unit_test(taken_port),
#endif
    };
    return cmocka_run_group_tests_name("serve", tests, NULL, NULL);
}
