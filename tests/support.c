// Helpers of all test programs; see support.h.
#include "support.h"

#include "base/temporary.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

// A failure's sentence goes to stderr; the results on stdout must not stay behind it.
__attribute__((constructor)) static void line_buffered(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
}

void test_fail(const char *file, int line, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fprintf(stderr, "ERROR: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    _fail(file, line);
}

void test_ok(bt_context *ctx, bt_status status, const char *call, const char *file, int line) {
    if (status == BT_OK) return;
    test_fail(file, line, "%s gives %s: %s", call, bt_status_name(status),
              ctx ? bt_error_text(ctx) : "no context");
}

void test_refused(bt_context *ctx, bt_status want, const char *part, bt_status status,
                  const char *call, const char *file, int line) {
    const char *text = bt_error_text(ctx);
    if (status != want) {
        test_fail(file, line, "%s gives %s, not %s: \"%s\"", call, bt_status_name(status),
                  bt_status_name(want), text);
    }
    if (strlen(text) < 10 || (part && !strstr(text, part))) {
        test_fail(file, line, "%s does not say \"%s\": \"%s\"", call, part ? part : "", text);
    }
    bt_error_reset(ctx);
}

void skip_because(const char *reason) {
    printf("# skipped: %s\n", reason);
    fflush(stdout);
    skip();
}

bool quick(void) {
    const char *text = getenv("BT_TEST_QUICK");
    return text && *text;
}

const char *test_device = "cpu";

bt_context *open_cpu(int threads) {
    bt_context *ctx = NULL;
    bt_context_desc desc = {.device = test_device, .threads = threads};
    bt_status status = bt_open(&desc, &ctx);
    test_ok(ctx, status, "bt_open", __FILE__, __LINE__);
    return ctx;
}

void *allocate(size_t bytes) {
    void *memory = calloc(bytes ? bytes : 1, 1);
    if (!memory) test_fail(__FILE__, __LINE__, "no memory for %zu bytes", bytes);
    return memory;
}

double test_random(uint64_t *state, double low, double high) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * (double)(*state >> 40) / (double)(1u << 24);
}

static char folder[256];

static void remove_folder(void) {
    char path[1024];
    DIR *dir = opendir(folder);
    if (!dir) return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "rm -rf '%s/%s'", folder, entry->d_name);
        if (system(path)) break;
    }
    closedir(dir);
    rmdir(folder);
}

const char *scratch(void) {
    if (!*folder) {
        if (!bt_temporary_folder(folder, sizeof folder))
            test_fail(__FILE__, __LINE__, "cannot make %s", folder);
        atexit(remove_folder);
    }
    return folder;
}

const char *in_scratch(const char *name) {
    static char paths[16][512];
    static int next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", scratch(), name);
    return path;
}

int shell(char *out, size_t out_bytes, const char *format, ...) {
    char command[8192];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command - 8, format, args);
    va_end(args);
    strcat(command, " 2>&1");
    FILE *pipe = popen(command, "r");
    check(pipe, "cannot run %s", command);
    size_t n = 0;
    for (int c; (c = fgetc(pipe)) != EOF;) {
        if (n == out_bytes - 1) memmove(out, out + out_bytes / 2, n -= out_bytes / 2);
        out[n++] = (char)c;
    }
    while (n > 0 && out[n - 1] == '\n') n--;
    out[n] = 0;
    return pclose(pipe);
}

void write_file(const char *path, const void *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    check(file && fwrite(bytes, 1, count, file) == count && !fclose(file), "cannot write %s", path);
}

uint8_t *read_file(const char *path, size_t *count) {
    FILE *file = fopen(path, "rb");
    struct stat info;
    if (!file || fstat(fileno(file), &info)) return NULL;
    *count = (size_t)info.st_size;
    uint8_t *bytes = allocate(*count + 1);
    check(fread(bytes, 1, *count, file) == *count, "cannot read %s", path);
    fclose(file);
    return bytes;
}

double *read_doubles(bt_context *ctx, bt_tensor t, size_t *count) {
    bt_dtype dtype = bt_tensor_dtype(ctx, t);
    size_t n = bt_shape_count(bt_tensor_shape(ctx, t)), bytes = n * bt_dtype_size(dtype);
    void *raw = allocate(bytes);
    double *out = allocate(n * sizeof *out);
    ok(ctx, bt_read(ctx, t, raw, bytes));
    for (size_t i = 0; i < n; i++) {
        switch (dtype) {
        case BT_F32: out[i] = ((float *)raw)[i]; break;
        case BT_F64: out[i] = ((double *)raw)[i]; break;
        case BT_I32: out[i] = ((int32_t *)raw)[i]; break;
        case BT_U8: out[i] = ((uint8_t *)raw)[i]; break;
        }
    }
    free(raw);
    if (count) *count = n;
    return out;
}

static void *pack(bt_dtype dtype, const double *values, size_t n) {
    void *raw = allocate(n * bt_dtype_size(dtype));
    for (size_t i = 0; i < n; i++) {
        switch (dtype) {
        case BT_F32: ((float *)raw)[i] = (float)values[i]; break;
        case BT_F64: ((double *)raw)[i] = values[i]; break;
        case BT_I32: ((int32_t *)raw)[i] = (int32_t)values[i]; break;
        case BT_U8: ((uint8_t *)raw)[i] = (uint8_t)values[i]; break;
        }
    }
    return raw;
}

bt_tensor from_doubles(bt_context *ctx, bt_dtype dtype, bt_shape shape, const double *values,
                       bool input) {
    void *raw = pack(dtype, values, bt_shape_count(shape));
    bt_tensor t = input ? bt_input(ctx, dtype, shape, raw) : bt_from(ctx, dtype, shape, raw);
    free(raw);
    return t;
}

void write_doubles(bt_context *ctx, bt_tensor t, const double *values, size_t count) {
    bt_dtype dtype = bt_tensor_dtype(ctx, t);
    void *raw = pack(dtype, values, count);
    ok(ctx, bt_write(ctx, t, raw, count * bt_dtype_size(dtype)));
    free(raw);
}
