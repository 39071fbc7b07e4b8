// The command from outside: what it prints and writes, that every wrong input ends in one sentence
// on stderr and the documented exit code, and that interrupted runs go on to the same bits.
#include "data/safetensors.h"
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <png.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct ran {
    int code;        // exit code; 128 + n: killed by signal n
    char *out, *err; // to be freed with done()
} ran;

typedef struct how {
    long file_bytes_max; // 0: no limit
    const char *env;     // "NAME=value"
    const char *input;   // file for stdin
    int signal;          // sent as soon as the first epoch is reported
} how;

static char *text_of(const char *path) {
    size_t n;
    char *text = (char *)read_file(path, &n);
    return text ? text : allocate(1);
}

static void child(const how *h, char **argv, int err) {
    int out = open(in_scratch("stdout"), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    int in = open(h->input ? h->input : "/dev/null", O_RDONLY);
    dup2(in, 0), dup2(out, 1), dup2(err, 2);
    if (h->env) putenv((char *)(uintptr_t)h->env);
    if (h->file_bytes_max) {
        struct rlimit limit = {(rlim_t)h->file_bytes_max, (rlim_t)h->file_bytes_max};
        signal(SIGXFSZ, SIG_IGN); // write() fails then, as on a full disk
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    execv(argv[0], argv);
    _exit(127);
}

// Collects what comes from `fd`; sends the signal when an epoch is there.
static char *follow(int fd, pid_t pid, int signal_number) {
    size_t n = 0, room = 4096;
    char *text = allocate(room);
    for (ssize_t got; (got = read(fd, text + n, room - n - 1)) > 0;) {
        n += (size_t)got;
        text[n] = 0;
        if (signal_number && strstr(text, "epoch")) {
            kill(pid, signal_number);
            signal_number = 0;
        }
        if (n + 1024 > room) {
            text = realloc(text, room *= 2);
            check(text, "no memory");
        }
    }
    return text;
}

static ran run_words(const how *h, const char *words) {
    char binary[600], *argv[64] = {binary}, *text = strdup(words), *save = NULL;
    const char *build = getenv("BUILD");
    snprintf(binary, sizeof binary, "%s/bantam", build ? build : "build");
    int count = 1, ends[2];
    for (char *word = strtok_r(text, " ", &save); word && count < 63;
         word = strtok_r(NULL, " ", &save))
        argv[count++] = word;
    check(!pipe(ends), "no pipe");
    scratch();
    fflush(NULL);
    pid_t pid = fork();
    check(pid >= 0, "cannot fork");
    if (pid == 0) child(h, argv, ends[1]);
    close(ends[1]);
    ran r = {.err = follow(ends[0], pid, h->signal)};
    close(ends[0]);
    int status;
    waitpid(pid, &status, 0);
    r.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    r.out = text_of(in_scratch("stdout"));
    free(text);
    return r;
}

static void done(ran *r) {
    free(r->out);
    free(r->err);
}

// A command line; @ stands for the scratch folder.
static ran cli(const how *h, const char *format) {
    char words[4096] = "";
    for (const char *at = format; *at; at++) {
        size_t n = strlen(words);
        snprintf(words + n, sizeof words - n, "%.*s", *at == '@' ? (int)strlen(scratch()) : 1,
                 *at == '@' ? scratch() : at);
    }
    return run_words(h, words);
}

static const how plain = {0};

// The command must succeed; returns what it printed, to be freed.
static char *fine(const char *words) {
    ran r = cli(&plain, words);
    check(r.code == 0, "bantam %s: exit %d: %s", words, r.code, r.err);
    free(r.err);
    return r.out;
}

// The command must end with this code, one short sentence that contains `part`, and no result.
static void wrong(const how *h, int code, const char *part, const char *words) {
    ran r = cli(h, words);
    check(r.code == code, "bantam %s: exit %d and not %d: %s", words, r.code, code, r.err);
    const char *last = strstr(r.err, "bantam: ");
    check(last && strchr(last, '\n') == last + strlen(last) - 1, "bantam %s: not one line: %s",
          words, r.err);
    check(strlen(last) > 25 && strstr(last, part), "bantam %s: does not say \"%s\": %s", words,
          part, last);
    check(!strstr(r.out, "test_acc"), "bantam %s: prints a result", words);
    done(&r);
}

#define SMALL "train fc16,relu,fc10 digits --limit 600 "

static double number(const json_t *o, const char *key) {
    const json_t *value = json_object_get(o, key);
    check(json_is_number(value), "the JSON object has no number \"%s\"", key);
    return json_number_value(value);
}

static json_t *parse(const char *text) {
    json_error_t err;
    json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, &err);
    check(json_is_object(o), "no JSON object: %s: %.200s", err.text, text);
    return o;
}

static void check_svg(const char *path) {
    char *svg = text_of(path);
    check(strstr(svg, "<svg") && strstr(svg, "</svg>") && !strstr(svg, "nan"), "%s is no chart",
          path);
    free(svg);
}

// ---- What works -------------------------------------------------------------------------------

static int lines(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

static void check_run_folder(int epochs) {
    char *csv = text_of(in_scratch("run/metrics_train.csv")),
         *ops = text_of(in_scratch("run/op_timings.csv"));
    check(!strncmp(csv, "epoch,step,time_s,train_loss,train_acc,val_loss,val_acc,lr,images_per_s\n",
                   72),
          "metrics_train.csv begins %.80s", csv);
    check(lines(csv) == 1 + epochs, "%d lines for %d epochs", lines(csv), epochs);
    static const char columns[] =
        "operator,kernel,calls,total_ms,mean_us,percent,gflops,gbytes_s,percent_of_roofline\n";
    check(!strncmp(ops, columns, strlen(columns)), "op_timings.csv begins %.90s", ops);
    double percent = 0;
    char *save = NULL;
    for (char *line = strtok_r(ops, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *at = line;
        for (int comma = 0; comma < 5 && at; comma++)
            at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL;
        if (at) percent += strtod(at, NULL);
    }
    check(percent > 99.9 && percent < 100.1, "the percentages sum to %g", percent);
    free(csv), free(ops);
    check_svg(in_scratch("run/loss.svg"));
    check_svg(in_scratch("run/throughput.svg"));
    char *text = text_of(in_scratch("run/run.json"));
    json_t *run = parse(text), *roofline = json_object_get(run, "roofline");
    check(number(roofline, "gflops") > 0 && number(roofline, "gbytes_s") > 0, "roofline of %s",
          text);
    json_decref(run);
    free(text);
    text = text_of(in_scratch("run/trace.json"));
    run = parse(text);
    check(json_array_size(json_object_get(run, "traceEvents")) > 50, "trace.json is %.200s", text);
    json_decref(run);
    free(text);
}

static void test_train_eval_predict(void **state) {
    (void)state;
    char *out = fine(SMALL "--epochs 3 --seed 7 --out @/run --json --profile --quiet");
    json_t *o = parse(out);
    static const char *keys[] = {"test_acc", "test_loss",    "epochs", "steps",
                                 "train_s",  "images_per_s", "params"};
    for (int i = 0; i < 7; i++) number(o, keys[i]);
    check(number(o, "epochs") == 3 && number(o, "params") == 784 * 16 + 16 + 170 &&
              number(o, "steps") == 3 * 9,
          "%s", out);
    check(json_is_string(json_object_get(o, "device")) &&
              json_is_string(json_object_get(o, "run_dir")),
          "%s", out);
    check_run_folder(3);
    double accuracy = number(o, "test_acc");
    free(out);
    json_decref(o);

    out = fine("eval @/run/checkpoints/last.safetensors digits --json");
    o = parse(out);
    check(number(o, "test_acc") == accuracy, "eval finds %g, train found %g", number(o, "test_acc"),
          accuracy);
    free(out);
    json_decref(o);
    out = fine("eval @/run/checkpoints/last.safetensors digits --limit 200");
    check(strstr(out, "accuracy") && strstr(out, "precision") && lines(out) > 11, "eval prints %s",
          out);
    free(out);
    out = fine("inspect @/run/checkpoints/best.safetensors");
    check(strstr(out, "0.weight") && strstr(out, "fc16,relu,fc10"), "inspect prints %.300s", out);
    free(out);

    uint8_t grey[784];
    for (int i = 0; i < 784; i++)
        grey[i] = (uint8_t)(i / 28 > 6 && i / 28 < 22 && i % 28 > 12 && i % 28 < 16 ? 255 : 0);
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = 28, .height = 28, .format = PNG_FORMAT_GRAY};
    check(png_image_write_to_file(&image, in_scratch("one.png"), 0, grey, 0, NULL),
          "cannot write one.png");
    out = fine("predict @/run/checkpoints/last.safetensors @/one.png");
    ran piped =
        cli(&(how){.input = in_scratch("one.png")}, "predict @/run/checkpoints/last.safetensors -");
    check(piped.code == 0 && strlen(out) > 2, "predict prints \"%s\" and, piped, exit %d: %s", out,
          piped.code, piped.err);
    done(&piped);
    free(out);
}

static void test_lists(void **state) {
    (void)state;
    char *out = fine("devices");
    check(strstr(out, "cpu"), "devices prints %s", out);
    free(out);
    out = fine("data list");
    check(strstr(out, "digits") && strstr(out, "mnist") && strstr(out, "fashion-mnist"),
          "data list prints %s", out);
    free(out);
    out = fine("--version");
    check(strstr(out, BT_VERSION_TEXT), "--version prints %s", out);
    free(out);
    out = fine("help train");
    check(strstr(out, "--epochs") && strstr(out, "--init-from"), "help train prints %s", out);
    free(out);
}

static void test_sanity(void **state) {
    (void)state;
    free(fine("sanity mlp"));
    if (!quick()) free(fine("sanity lenet"));
}

static void test_parity(void **state) {
    (void)state;
    char *out = fine("parity fc16,relu,fc10");
    check(lines(out) > 10, "parity prints %s", out);
    free(out);
}

// Command line before environment before config file before defaults; what is resolved can be
// given back as a config file.
static void test_precedence(void **state) {
    (void)state;
    static const char config[] = "{\"epochs\": 3, \"batch\": 16, \"lr\": 0.25}";
    static const struct {
        const char *option, *origin;
        double value;
    } want[] = {{"epochs", "command line", 2},
                {"batch", "environment", 24},
                {"lr", "config", 0.25},
                {"momentum", "default", 0.9}};
    write_file(in_scratch("config.json"), config, sizeof config - 1);
    ran r = cli(&(how){.env = "BANTAM_BATCH=24"},
                SMALL "--config @/config.json --epochs 2 --print-config");
    check(r.code == 0, "exit %d: %s", r.code, r.err);
    write_file(in_scratch("resolved.json"), r.out, strlen(r.out));
    for (int again = 0; again < 2; again++) {
        json_t *o = parse(r.out);
        for (int i = 0; i < 4; i++) {
            const json_t *option = json_object_get(o, want[i].option);
            const char *origin = json_string_value(json_object_get(option, "origin"));
            check(number(option, "value") == want[i].value, "%s is %g", want[i].option,
                  number(option, "value"));
            check(again || (origin && strstr(origin, want[i].origin)), "%s comes from %s",
                  want[i].option, origin ? origin : "nowhere");
        }
        json_decref(o);
        done(&r);
        r = cli(&plain, "train fc16,relu,fc10 --config @/resolved.json --print-config");
        check(r.code == 0, "the resolved options are no config file: %s", r.err);
    }
    done(&r);
}

static void test_loss_log(void **state) {
    (void)state;
    free(fine(SMALL "--val-split 0 --epochs 2 --batch 100 --shuffle off --loss-log @/loss.csv "
                    "--out @/logged --quiet"));
    char *csv = text_of(in_scratch("loss.csv")), *line = strchr(csv, '\n');
    check(!strncmp(csv, "step,loss\n", 10) && lines(csv) == 13, "%d lines: %.100s", lines(csv),
          csv);
    for (int i = 0; i < 12; i++, line = strchr(line + 1, '\n')) {
        int step;
        double loss;
        check(sscanf(line, "\n%d,%lf", &step, &loss) == 2 && step == i + 1 && loss > 0 && loss < 5,
              "line %d is %.40s", i, line);
    }
    free(csv);
}

// ---- What is wrong ----------------------------------------------------------------------------

static void test_usage(void **state) {
    (void)state;
    static const struct {
        const char *words, *part;
    } all[] = {
        {"trian", "did you mean 'train'"},
        {"train", "MODEL"},
        {"eval", "CKPT"},
        {"train mpl digits", "mlp"},
        {"train fc10,rleu,fc10 digits", "relu"},
        {"train conv8x99,fc10 digits", "conv8x99"},
        {"train fc7 digits", "10"},
        {SMALL "--epohcs 3", "--epochs"},
        {SMALL "--epochs", "--epochs"},
        {SMALL "--epochs x", "--epochs"},
        {SMALL "--epochs -1", "--epochs"},
        {SMALL "--epochs 3x", "--epochs"},
        {SMALL "--lr nan", "--lr"},
        {SMALL "--opt adma", "adam"},
        {SMALL "--sched cosin", "cosine"},
        {SMALL "--precision fp8", "--precision"},
        {SMALL "--val-split 2", "--val-split"},
        {SMALL "--config @/nowhere.json", "nowhere.json"},
        {"train mlp digist", "digits"},
        {"data get nosuch", "nosuch"},
        {"data frob", "frob"},
        {"help frob", "frob"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bool config = strstr(all[i].words, "nowhere.json");
        ran r = cli(&plain, all[i].words);
        check(r.code == 2 || (config && r.code == 3), "bantam %s: exit %d: %s", all[i].words,
              r.code, r.err);
        int code = r.code;
        done(&r);
        wrong(&plain, code, all[i].part, all[i].words);
    }
    static const char config[] = "{\"epohcs\": 3}";
    write_file(in_scratch("wrong.json"), config, sizeof config - 1);
    wrong(&plain, 2, "epochs", SMALL "--config @/wrong.json");
    wrong(&(how){.env = "BANTAM_EPOCHS=many"}, 2, "BANTAM_EPOCHS", SMALL);
}

// What is asked of the CPU beyond f32 is either done, refused at once, or said to make no
// difference.
static void test_precision(void **state) {
    (void)state;
    ran r = cli(&plain, SMALL "--epochs 1 --precision tf32 --overrides off --out @/tf32");
    check(r.code == 0 && strstr(r.err, "--precision tf32 makes no difference: cpu:0") &&
              strstr(r.err, "on cpu:0 in fp32: "),
          "exit %d: %s", r.code, r.err);
    done(&r);
    char *record = text_of(in_scratch("tf32/run.json"));
    json_t *run = parse(record);
    const char *used =
        json_string_value(json_object_get(json_object_get(run, "device"), "precision"));
    check(used && !strcmp(used, "fp32"), "run.json says %s", used ? used : "nothing");
    json_decref(run);
    free(record);

    free(fine(SMALL "--epochs 1 --precision fp64 --out @/fp64"));
    char *text = fine("eval @/fp64 --limit 50 --json");
    json_t *o = parse(text);
    check(!strcmp(json_string_value(json_object_get(o, "precision")), "fp64"), "%s", text);
    json_decref(o);
    free(text);
    wrong(&plain, 2, "fp64 needs --device cpu", "eval @/fp64 --limit 50 --device sim");
    r = cli(&plain, SMALL "--device sim --precision fp64 --out @/sim");
    check(r.code == 2 && lines(r.err) == 1 && strstr(r.err, "sim computes in f32"), "exit %d: %s",
          r.code, r.err);
    done(&r);
    wrong(&plain, 2, "did you mean tf32?", SMALL "--precision tf23");
    wrong(&plain, 2, "did you mean bf16?", "bench --precision pf16");
    wrong(&plain, 2, "is none of on|off", SMALL "--overrides maybe");
    wrong(&plain, 2, "--overrides off", SMALL "--watch-kernels kernels --overrides on");
}

static void test_no_gpu(void **state) {
    (void)state;
    bt_device_info all[32];
    int count = bt_devices(all, 32);
    for (int i = 0; i < count && i < 32; i++)
        if (all[i].available && !all[i].software && strncmp(all[i].name, "cpu", 3) != 0)
            skip_because("this machine has a GPU");
    wrong(&plain, 4, "gpu", "gpu-mlp digits --epochs 1");
    wrong(&plain, 4, "gpu", "gpu-cnn digits --epochs 1");
    wrong(&plain, 4, "abacus", SMALL "--device abacus");
}

static void test_bad_files(void **state) {
    (void)state;
    free(fine(SMALL "--epochs 1 --out @/victim --quiet"));
    size_t size;
    uint8_t *bytes = read_file(in_scratch("victim/checkpoints/last.safetensors"), &size);
    check(bytes, "there is no checkpoint");
    write_file(in_scratch("cut.safetensors"), bytes, size / 2);
    bytes[size - 9] ^= 1;
    write_file(in_scratch("flipped.safetensors"), bytes, size);
    write_file(in_scratch("long.safetensors"), bytes, size);
    FILE *longer = fopen(in_scratch("long.safetensors"), "ab");
    check(longer && fputc('x', longer) == 'x' && !fclose(longer), "cannot write");
    write_file(in_scratch("text.safetensors"), "hello, world", 12);
    write_file(in_scratch("empty.safetensors"), "", 0);
    free(bytes);
    static const char *names[] = {"nowhere", "cut", "flipped", "long", "text", "empty"};
    for (int i = 0; i < 6; i++) {
        char words[128];
        snprintf(words, sizeof words, "eval @/%s.safetensors digits", names[i]);
        wrong(&plain, 3, names[i], words);
        snprintf(words, sizeof words, "predict @/%s.safetensors @/x.png", names[i]);
        wrong(&plain, 3, names[i], words);
        snprintf(words, sizeof words, SMALL "--init-from @/%s.safetensors --out @/never", names[i]);
        wrong(&plain, 3, names[i], words);
        snprintf(words, sizeof words, "inspect @/%s.safetensors", names[i]);
        wrong(&plain, 3, names[i], words);
    }
    wrong(&plain, 3, "no?where", "eval no\033where digits"); // nothing for a terminal to obey
    wrong(&plain, 3, "nowhere.png", "predict @/victim/checkpoints/last.safetensors @/nowhere.png");
    wrong(&plain, 3, "text.safetensors",
          "predict @/victim/checkpoints/last.safetensors @/text.safetensors");
    wrong(&plain, 3, "last.safetensors",
          "train lenet digits --init-from @/victim/checkpoints/last.safetensors --out @/never");
}

static void test_bad_data(void **state) {
    (void)state;
    uint8_t images[16 + 4 * 25] = {0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 5},
                            labels[8 + 4] = {0, 0, 8, 1, 0, 0, 0, 4, 0, 1, 2, 3};
    static const char *parts[] = {"train", "t10k"};
    mkdir(in_scratch("five"), 0777);
    for (int i = 0; i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "five/%s-images-idx3-ubyte", parts[i]);
        write_file(in_scratch(name), images, sizeof images);
        snprintf(name, sizeof name, "five/%s-labels-idx1-ubyte", parts[i]);
        write_file(in_scratch(name), labels, sizeof labels);
    }
    free(fine(SMALL "--epochs 1 --out @/of28 --quiet"));
    wrong(&plain, 3, "5",
          "eval @/of28/checkpoints/last.safetensors @/five"); // 5 x 5 images for a 28 x 28 model
    // Classes that only one of model, training part and test part has.
    free(fine("train fc4 @/five --epochs 1 --val-split 0 --out @/of4 --quiet"));
    labels[11] = 1;
    write_file(in_scratch("five/t10k-labels-idx1-ubyte"), labels, sizeof labels);
    free(fine("eval @/of4/checkpoints/last.safetensors @/five"));
    labels[11] = 9;
    write_file(in_scratch("five/t10k-labels-idx1-ubyte"), labels, sizeof labels);
    free(fine("train fc10 @/five --epochs 1 --val-split 0 --out @/of10 --quiet"));
    images[11] = 4, images[15] = 4; // 4 x 4
    write_file(in_scratch("five/t10k-images-idx3-ubyte"), images, 16 + 4 * 16);
    wrong(&plain, 3, "images of 4 x 4", "train fc10 @/five --val-split 0 --out @/never");
    images[11] = 5, images[15] = 5;
    write_file(in_scratch("five/train-images-idx3-ubyte"), images, sizeof images - 1);
    wrong(&plain, 3, "train-images", "train fc10 @/five --out @/never");
    write_file(in_scratch("five/train-images-idx3-ubyte"), labels, sizeof labels);
    wrong(&plain, 3, "train-images", "train fc10 @/five --out @/never");
    unlink(in_scratch("five/train-images-idx3-ubyte"));
    wrong(&plain, 3, "five", "train fc10 @/five --out @/never");
    wrong(&plain, 3, "no-folder", "train fc10 @/no-folder --out @/never");
}

static void test_unwritable(void **state) {
    (void)state;
    write_file(in_scratch("file"), "x", 1);
    wrong(&plain, 6, "file", SMALL "--out @/file/run");
    wrong(&plain, 6, "loss.csv", SMALL "--out @/unwritable --loss-log @/nowhere/loss.csv");
    // A full disk: no file may grow beyond 20 000 bytes, and the checkpoint has 50 000 and more.
    wrong(&(how){.file_bytes_max = 20000}, 6, "safetensors",
          SMALL "--epochs 1 --out @/full --quiet");
    DIR *left = opendir(in_scratch("full/checkpoints"));
    for (struct dirent *entry; left && (entry = readdir(left));) {
        check(entry->d_name[0] == '.' && strlen(entry->d_name) <= 2,
              "half a checkpoint was left: %s", entry->d_name);
    }
    if (left) closedir(left);
    if (!access("/dev/full", W_OK))
        wrong(&plain, 6, "/dev/full",
              SMALL "--epochs 2 --out @/full2 --quiet --loss-log /dev/full");
}

static void test_diverges(void **state) {
    (void)state;
    wrong(&plain, 5, "loss",
          SMALL
          "--epochs 5 --lr 100 --wd 10 --opt sgd --sched const --batch 8 --out @/diverged --quiet");
}

// ---- Interrupted ------------------------------------------------------------------------------

static void same_tensors(const char *a, const char *b) {
    bt_error err = {0};
    bt_st_file x = {0}, y = {0};
    check(bt_st_open(a, &err, &x) == BT_OK && bt_st_open(b, &err, &y) == BT_OK, "%s", err.text);
    check(x.tensor_count == y.tensor_count && x.tensor_count > 4, "%d and %d tensors",
          x.tensor_count, y.tensor_count);
    for (int i = 0; i < x.tensor_count; i++) {
        const bt_st_tensor *t = bt_st_find(&y, x.tensors[i].name);
        check(t && !memcmp(t->data, x.tensors[i].data, t->bytes), "%s differs after the resume",
              x.tensors[i].name);
    }
    bt_st_close(&x);
    bt_st_close(&y);
}

#define LONG "train fc32,relu,fc10 digits --limit 5000 --epochs 12 "

static void test_interrupted(void **state) {
    (void)state;
    free(fine(LONG "--out @/whole --quiet"));
    char *whole = text_of(in_scratch("whole/metrics_train.csv"));
    static const struct { int signal, code; } all[] = {{SIGINT, 130}, {SIGTERM, 75}};
    for (int i = 0; i < 2; i++) {
        char words[128], folder[32], path[128];
        snprintf(folder, sizeof folder, "broken-%d", i);
        snprintf(words, sizeof words, LONG "--out @/%s", folder);
        ran r = cli(&(how){.signal = all[i].signal}, words);
        check(r.code == all[i].code, "after signal %d: exit %d: %s", all[i].signal, r.code, r.err);
        check(strstr(r.err, "--resume"), "it does not say how to go on: %s", r.err);
        done(&r);
        snprintf(words, sizeof words, "train --resume @/%s --quiet", folder);
        free(fine(words));
        snprintf(path, sizeof path, "%s/checkpoints/last.safetensors", folder);
        same_tensors(in_scratch("whole/checkpoints/last.safetensors"), in_scratch(path));
        // The table goes on where it stopped: every epoch once.
        snprintf(path, sizeof path, "%s/metrics_train.csv", folder);
        char *csv = text_of(in_scratch(path));
        check(lines(csv) == lines(whole), "%d lines of metrics and not %d", lines(csv),
              lines(whole));
        free(csv);
    }
    free(whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_train_eval_predict),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_sanity),
        cmocka_unit_test(test_parity),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_loss_log),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_precision),
        cmocka_unit_test(test_no_gpu),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_bad_data),
        cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_diverges),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
