// Whole-program kernels at run time: which one does a program, where its machine code comes from
// (compiled ahead, from the cache on disk, or by NVRTC now), and its launch.
#include "device/cuda/cuda_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const bt_whole bt_whole_mlp, bt_whole_cnn, bt_whole_infer_one, bt_whole_infer_mlp,
    bt_whole_infer_cnn;

const bt_whole *const bt_wholes[] = {
    &bt_whole_mlp,       // plan_mlp.c
    &bt_whole_cnn,       // plan_cnn.c
    &bt_whole_infer_one, // plan_infer.c
    &bt_whole_infer_mlp, &bt_whole_infer_cnn, NULL,
};

// ---- Code compiled ahead ----------------------------------------------------------------------

// ahead.txt is blocks, with an empty line after each: "NAME SOURCE", then the lines of defines.
static bool is_block_of(const char *block, const bt_whole_plan *plan, char name[64]) {
    char source[64];
    const char *defines = strchr(block, '\n');
    if (!defines || sscanf(block, "%63s %63s", name, source) != 2 || strcmp(source, plan->source))
        return false;
    size_t length = strlen(plan->defines);
    defines++;
    return !strncmp(defines, plan->defines, length) &&
           (defines[length] == '\n' || defines[length] == 0);
}

const bt_cuda_image *bt_cuda_ahead(const bt_whole_plan *plan) {
    const bt_cuda_image *list = bt_cuda_image_named("ahead.txt");
    char name[64], image[80];
    for (const char *block = list ? (const char *)list->begin : ""; *block;) {
        if (*block != '#' && *block != '\n' && is_block_of(block, plan, name)) {
            snprintf(image, sizeof image, "ahead_%s.cubin", name);
            return bt_cuda_image_named(image);
        }
        const char *next = strstr(block, "\n\n");
        block = next ? next + 2 : "";
    }
    return NULL;
}

// ---- Code compiled now ------------------------------------------------------------------------

// The text of a plan: its defines, its arguments, its source. To be freed.
static char *text_of(const bt_whole_plan *plan) {
    char *text = NULL;
    if (asprintf(&text, "%s\n#include \"args.h\"\n#include \"%s\"\n", plan->defines, plan->source) <
        0)
        return NULL;
    return text;
}

// Loads machine code that was not compiled ahead. *took false: `why` says why there is none.
static bt_status load_now(bt_device *dev, bt_cuda_whole *whole, bool *took, char why[BT_WHY_BYTES],
                          bt_error *err) {
    const char *source = whole->plan.source;
    size_t bytes = 0;
    char *text = text_of(&whole->plan);
    if (!text) snprintf(why, BT_WHY_BYTES, "there is no memory for the text of %s", source);
    unsigned char *code =
        text ? bt_cuda_cached(dev, text, source, &bytes, why, BT_WHY_BYTES) : NULL;
    *took = code != NULL;
    bt_status status = code ? bt_cuda_load(dev, code, source, &whole->module, err) : BT_OK;
    if (status != BT_OK) bt_cuda_cache_forget(dev, text);
    free(code);
    free(text);
    return status;
}

// *took: there is code, which is loaded unless the status says otherwise.
static bt_status load(bt_device *dev, bt_cuda_whole *whole, bool *took, char why[BT_WHY_BYTES],
                      bt_error *err) {
    const bt_whole_plan *plan = &whole->plan;
    // What is compiled ahead is for Hopper, with the instructions it alone has.
    const bt_cuda_image *ahead = dev->chip.capability == 90 ? bt_cuda_ahead(plan) : NULL;
    whole->ahead = ahead != NULL;
    if (!ahead) return load_now(dev, whole, took, why, err);
    *took = true;
    return bt_cuda_load(dev, ahead->begin, plan->source, &whole->module, err);
}

// ---- Making -----------------------------------------------------------------------------------

static void fill_args(bt_cuda_whole *whole, const bt_net *net) {
    whole->args = (bt_net_args){
        .bytes = (const unsigned char *)bt_cuda_address(&net->bytes),
        .labels = (const int *)bt_cuda_address(&net->labels),
        .index = (const int *)bt_cuda_address(&net->index),
        .state = (unsigned *)bt_cuda_address(&net->state),
        .params = (float *)bt_cuda_address(&net->params),
        .moment1 = (float *)bt_cuda_address(&net->moment[0]),
        .moment2 = (float *)bt_cuda_address(&net->moment[1]),
        .table = (const float *)bt_cuda_address(&net->table),
        .log = (float *)bt_cuda_address(&net->log),
        .predictions = (int *)bt_cuda_address(&net->predictions),
        .logits = (float *)bt_cuda_address(&net->logits),
        .probabilities = (float *)bt_cuda_address(&net->probabilities),
        .scratch = (void *)whole->scratch,
        .count = net->gather.count,
        .batch = net->gather.batch,
        .shuffle = net->gather.shuffle,
        .seed = net->gather.seed,
        .epoch_steps = net->step.epoch_steps,
        .rows = net->rows,
        .log_steps = net->step.log_steps,
        .prediction_count = net->step.prediction_count,
    };
}

typedef struct launch {
    CUlaunchConfig config;
    CUlaunchAttribute attributes[2];
} launch;

static void prepare(const bt_device *dev, const bt_whole_plan *plan, launch *out) {
    unsigned count = 0;
    *out = (launch){0};
    if (plan->cluster > 1)
        out->attributes[count++] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                                                       .value.clusterDim = {plan->cluster, 1, 1}};
    if (plan->resident) // the driver refuses what cannot be on the GPU at once
        out->attributes[count++] =
            (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value.cooperative = 1};
    out->config = (CUlaunchConfig){
        .gridDimX = plan->grid,
        .gridDimY = 1,
        .gridDimZ = 1,
        .blockDimX = plan->block,
        .blockDimY = 1,
        .blockDimZ = 1,
        .sharedMemBytes = (unsigned)plan->shared_bytes,
        .hStream = dev->stream,
        .attrs = out->attributes,
        .numAttrs = count,
    };
}

// Can all blocks of the plan be on the GPU at once?
static bt_status check_room(bt_device *dev, const bt_cuda_whole *whole, bool *fits,
                            char why[BT_WHY_BYTES], bt_error *err) {
    const bt_whole_plan *plan = &whole->plan;
    int most = 0;
    launch at;
    prepare(dev, plan, &at);
    CUresult result;
    if (plan->cluster > 1) {
        result = bt_cu.cuOccupancyMaxActiveClusters(&most, whole->function, &at.config);
        most *= (int)plan->cluster;
    } else {
        result = bt_cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(
            &most, whole->function, (int)plan->block, plan->shared_bytes);
        most *= dev->chip.sms;
    }
    BT_TRY(bt_cuda_check(dev, result, "asking how many blocks fit", err));
    *fits = most > 0 && (!plan->resident || (unsigned)most >= plan->grid);
    if (!*fits)
        snprintf(why, BT_WHY_BYTES, "%s needs %u blocks on the GPU at once, and %d fit",
                 plan->source, plan->grid, most);
    return BT_OK;
}

// *took: the plan can be run.
static bt_status make(bt_device *dev, bt_cuda_whole *whole, bool *took, char why[BT_WHY_BYTES],
                      bt_error *err) {
    const bt_whole_plan *plan = &whole->plan;
    BT_TRY(load(dev, whole, took, why, err));
    if (!*took) return BT_OK;
    BT_TRY(bt_cuda_check(dev,
                         bt_cu.cuModuleGetFunction(&whole->function, whole->module, plan->entry),
                         "finding a whole-program kernel", err));
    BT_TRY(bt_cuda_allow(dev, whole->function, plan->shared_bytes, plan->cluster, err));
    BT_TRY(check_room(dev, whole, took, why, err));
    if (!*took || plan->scratch_bytes == 0) return BT_OK;
    BT_TRY(bt_cuda_alloc(dev, plan->scratch_bytes, "a whole-program kernel", &whole->scratch, err));
    return bt_cuda_check(dev,
                         bt_cu.cuMemsetD8Async(whole->scratch, 0, plan->scratch_bytes, dev->stream),
                         "zeroing its scratch memory", err);
}

// The kernel that was written for networks of this kind: its reason for stepping aside counts.
static const bt_whole *meant_for(const bt_net *net) {
    bool convolves = net->layer[0].kind == BT_NET_CONV;
    if (net->trains) return convolves ? &bt_whole_cnn : &bt_whole_mlp;
    return convolves ? &bt_whole_infer_cnn : &bt_whole_infer_mlp;
}

// The first kernel that takes the network, in whole->plan. false: `why` says why none does.
static bool find_plan(const bt_device *dev, const bt_net *net, bt_whole_plan *plan,
                      char why[BT_WHY_BYTES]) {
    const bt_gpu gpu = {.capability = dev->chip.capability,
                        .sms = dev->chip.sms,
                        .shared_max = dev->chip.shared_max,
                        .precision = dev->precision};
    for (int i = 0; bt_wholes[i]; i++) {
        char reason[BT_WHY_BYTES] = "";
        memset(plan, 0, sizeof *plan);
        if (bt_wholes[i]->plan(net, &gpu, plan, reason)) return true;
        if (bt_wholes[i] == meant_for(net)) memcpy(why, reason, sizeof reason);
    }
    return false;
}

bt_status bt_cuda_whole_make(bt_device *dev, const bt_launch *launches, int count,
                             const bt_program_use *use, bt_cuda_whole **out, char why[BT_WHY_BYTES],
                             bt_error *err) {
    bt_net net;
    bool took = false;
    *out = NULL;
    if (!bt_net_read(launches, count, use, &net, why)) return BT_OK;
    bt_cuda_whole *whole = calloc(1, sizeof *whole);
    if (!whole) return bt_fail_memory(err, "a whole-program kernel", sizeof *whole);
    bt_status status = BT_OK;
    if (find_plan(dev, &net, &whole->plan, why)) status = make(dev, whole, &took, why, err);
    if (status == BT_OK && took) {
        fill_args(whole, &net);
        *out = whole;
        return BT_OK;
    }
    bt_cuda_whole_free(dev, whole);
    if (status == BT_OK || dev->lost.status != BT_OK) return status;
    snprintf(why, BT_WHY_BYTES, "%.150s", err->text); // the launches may do what it cannot
    bt_error_clear(err);
    return BT_OK;
}

bt_status bt_cuda_whole_run(bt_device *dev, bt_cuda_whole *whole, uint32_t steps, bt_error *err) {
    launch at;
    prepare(dev, &whole->plan, &at);
    whole->args.steps = steps;
    void *params[] = {&whole->args};
    BT_TRY(bt_cuda_check(dev, bt_cu.cuLaunchKernelEx(&at.config, whole->function, params, NULL),
                         "launching a whole-program kernel", err));
    dev->counters.submissions++;
    dev->counters.launches++;
    return BT_OK;
}

void bt_cuda_whole_free(bt_device *dev, bt_cuda_whole *whole) {
    if (!whole) return;
    bt_cuda_free(dev, whole->scratch, whole->plan.scratch_bytes);
    if (whole->module) bt_cu.cuModuleUnload(whole->module);
    free(whole);
}
