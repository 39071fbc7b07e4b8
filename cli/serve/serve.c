// `bantam serve`: the live page of a run that this or another process trains, or has trained.
#include "serve.h"

#include "report/run.h"

#include <signal.h>

int serve_begin(const settings *s, const char *folder, server **out) {
    char why[512];
    server_desc desc = {.run = folder,
                        .port = opt_int(s, "port"),
                        .or_another = opt(s, "port")->from == FROM_DEFAULT};
    bt_status status = server_start(&desc, out, why);
    return status == BT_OK ? 0 : fail((int)status, "%s", why);
}

static int choose_run(const settings *s, char path[PATH_BYTES]) {
    run r;
    char why[512];
    if (s->arg_count)
        snprintf(path, PATH_BYTES, "%s", s->args[0]);
    else if (!run_newest("results", path))
        return fail(BT_ERROR_DATA, "there is no run in results/; name a RUN, or make one with "
                                   "`bantam train --serve`");
    if (run_read(&r, path, why) != BT_OK) return fail(BT_ERROR_DATA, "%s", why);
    snprintf(path, PATH_BYTES, "%s", r.path);
    run_free(&r);
    return 0;
}

static void announce(const settings *s, int port, const char *folder) {
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    if (opt_flag(s, "json"))
        print_json(json_pack("{s:s,s:i,s:s}", "url", url, "port", port, "run_dir", folder));
    else
        printf("%s\n", url);
    fflush(stdout);
    note(s, "%s is shown there; Ctrl-C ends it", folder);
}

int command_serve(settings *s) {
    char path[PATH_BYTES];
    server *serving;
    sigset_t ends;
    int number, code = choose_run(s, path);
    if (code) return code;
    // Blocked here and so in the threads of the server, too: sigwait takes them.
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    code = serve_begin(s, path, &serving);
    if (code) return code;
    announce(s, server_port(serving), path);
    sigwait(&ends, &number);
    pthread_sigmask(SIG_UNBLOCK, &ends, NULL); // a second one does not wait for an analysis to end
    server_stop(serving);
    return 0;
}
