// What the commands of `bantam` share: the table of commands, error lines, and finding data sets
// and checkpoints. A command returns its exit code; the numbers are those of bt_status.
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "bantam.h"
#include "options.h"

enum { EXIT_INTERRUPTED = 130, PATH_BYTES = 1024 };

// Prints "bantam: <sentence>" on stderr and returns `code`.
int fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
// The same with the sentence of a context (NULL: out of memory), for a status that is not BT_OK.
int fail_status(const bt_context *ctx, bt_status status);
// A remark on stderr, unless --quiet.
void note(const settings *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Returns the status as exit code from the calling function after printing why.
#define CHECK(ctx, call)                                                  \
    do {                                                                  \
        bt_status check_status = (call);                                  \
        if (check_status != BT_OK) return fail_status(ctx, check_status); \
    } while (0)

// Opens a context (desc NULL: on the CPU), or prints why not.
int open_context(const bt_context_desc *desc, bt_context **out);
// Runs body(ctx, user) with a context that is closed afterwards.
int with_context(const bt_context_desc *desc, int (*body)(bt_context *ctx, void *user), void *user);
// A CPU context of one thread, for reading files.
int with_reader(int (*body)(bt_context *ctx, void *user), void *user);

// What --device, --threads, --precision and --overrides ask for.
bt_context_desc describe_context(const settings *s);
// with_context as the settings describe it. Refuses a precision that the device has not; one that
// makes no difference there is remarked upon.
int with_device(settings *s, int (*body)(bt_context *ctx, void *user), void *user);
// The precision that the commands on this context compute in: "fp32".
const char *precision_name(const bt_context *ctx, const settings *s);

// Settles which data set is meant: args[index], else --data, else MNIST where it is found, else
// digits, and says which of the last two.
int choose_data(settings *s, int index);
// The training or the test part of it; at most `limit` samples (0: all).
bt_status open_data(bt_context *ctx, const settings *s, bool test, int limit, bt_dataset **out);

// The checkpoint meant by a file, a run directory or a folder of checkpoints.
int find_checkpoint(const char *path, char out[PATH_BYTES]);

// Merges the options that `train` kept in a checkpoint: all of them for train, the data and the
// precision for others. step and data_sha256 may be NULL.
int merge_kept(bt_context *ctx, settings *s, const char *checkpoint, uint32_t *step,
               char data_sha256[65]);

// Prints one JSON object as a line on stdout and releases it.
int print_json(json_t *object);
json_t *real_or_null(double number); // JSON has no NaN
// The JSON of a regular file of at most `bytes_max` bytes; NULL: not there, larger or damaged.
json_t *json_of_file(const char *path, int64_t bytes_max);

double now_seconds(void); // monotonic
// "412k": three digits and a prefix.
const char *short_number(double number, char out[16]);

int command_train(settings *s);
int command_eval(settings *s);
int command_predict(settings *s);
int command_export(settings *s);
int command_sanity(settings *s);
int command_report(settings *s);
int command_serve(settings *s);
int command_parity(settings *s);
int command_bench(settings *s);
int command_kernels(settings *s);
int command_devices(settings *s);
int command_data(settings *s);
int command_inspect(settings *s);
int command_completion(settings *s);
int command_man(settings *s);

#endif
