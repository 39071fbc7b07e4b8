// Recording launches as a CUDA graph. Its edges are what the launches need and nothing more, so
// that independent ones, such as the two gradients of a layer, run side by side.
#include "device/cuda/cuda_internal.h"

#include <stdlib.h>
#include <string.h>

#include "device/depend.h"

// ---- What a launch waits for ------------------------------------------------------------------

// The launches are repeated, so what launch i waits for is a set of distances back, at most
// `count`: a launch of two steps ago comes before the one of the same kind a step ago.
typedef struct waits {
    int *distance; // of launch i: distance[first[i]] ... distance[first[i + 1] - 1]
    int *first;
    int *followers; // how many launches wait for launch i
} waits;

typedef struct bits {
    uint64_t *word;
    size_t words; // of a row
} bits;

static bool bit(const bits *b, int row, int column) {
    return b->word[(size_t)row * b->words + (size_t)column / 64] >> (column % 64) & 1;
}

// Row `to` gets row `from`, and bit `from`.
static void take(bits *b, int to, int from) {
    uint64_t *out = b->word + (size_t)to * b->words;
    const uint64_t *in = b->word + (size_t)from * b->words;
    for (size_t i = 0; i < b->words; i++) out[i] |= in[i];
    out[from / 64] |= (uint64_t)1 << (from % 64);
}

static bool uses_scratch(const bt_cuda_tape *tape, int launch) {
    for (int i = tape->first[launch]; i < tape->first[launch + 1]; i++)
        if (tape->nodes[i].scratch) return true;
    return false;
}

static bool must_wait(const bt_cuda_tape *tape, int earlier, int later) {
    return bt_launches_depend(&tape->launches[earlier], &tape->launches[later]) ||
           (uses_scratch(tape, earlier) && uses_scratch(tape, later));
}

// Of two steps in a row, which launches come before which; what is known already is not repeated.
// `before` has a row for each of the 2 * count launches.
static void find_waits(const bt_cuda_tape *tape, bits *before, waits *out) {
    int count = tape->count, used = 0;
    for (int i = 0; i < 2 * count; i++) {
        if (i >= count) out->first[i - count] = used;
        for (int j = i - 1; j >= 0 && j >= i - count; j--) {
            if (bit(before, i, j) || !must_wait(tape, j % count, i % count)) continue;
            take(before, i, j);
            if (i < count) continue;
            out->distance[used++] = i - j;
            out->followers[j % count]++;
        }
    }
    out->first[count] = used;
}

static bt_status make_waits(const bt_cuda_tape *tape, waits *out, bt_error *err) {
    size_t count = (size_t)tape->count;
    bits before = {.words = (2 * count + 63) / 64};
    before.word = calloc(2 * count * before.words + 1, sizeof *before.word);
    out->distance = calloc(count * count + 1, sizeof *out->distance);
    out->first = calloc(count + 1, sizeof *out->first);
    out->followers = calloc(count + 1, sizeof *out->followers);
    bt_status status = before.word && out->distance && out->first && out->followers
                           ? BT_OK
                           : bt_fail_memory(err, "the graph of a program", count * count);
    if (status == BT_OK) find_waits(tape, &before, out);
    free(before.word);
    return status;
}

// ---- Recording --------------------------------------------------------------------------------

typedef struct recorder {
    bt_device *dev;
    const bt_cuda_tape *tape;
    CUgraph graph;
    CUgraphNode *last; // the last node of each launch
    waits waits;
} recorder;

static bt_status add_node(recorder *r, const bt_cuda_node *node, CUgraphNode *out, bt_error *err) {
    size_t bytes = node->args_bytes;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, (void *)node->args,
                     CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
    void *one[] = {(void *)node->args};
    CUDA_KERNEL_NODE_PARAMS params = {
        .func = node->function,
        .gridDimX = node->grid[0],
        .gridDimY = node->grid[1],
        .gridDimZ = node->grid[2],
        .blockDimX = node->block,
        .blockDimY = 1,
        .blockDimZ = 1,
        .sharedMemBytes = node->shared,
        .kernelParams = node->one ? one : NULL,
        .extra = node->one ? NULL : extra,
    };
    CUresult result = bt_cu.cuGraphAddKernelNode(out, r->graph, NULL, 0, &params);
    if (result == CUDA_SUCCESS && node->cluster) {
        CUlaunchAttributeValue value = {.clusterDim = {node->cluster, 1, 1}};
        result = bt_cu.cuGraphKernelNodeSetAttribute(*out, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                                                     &value);
    }
    return bt_cuda_check(r->dev, result, "recording a launch", err);
}

static bt_status add_edge(recorder *r, CUgraphNode from, CUgraphNode to, bool early,
                          bt_error *err) {
    const CUgraphEdgeData edge = {.from_port = early, .type = early};
    return bt_cuda_check(r->dev, bt_cu.cuGraphAddDependencies(r->graph, &from, &to, &edge, 1),
                         "recording a dependency", err);
}

static bt_status add_event(recorder *r, CUgraphNode *last, CUevent event, bt_error *err) {
    CUgraphNode from = *last;
    return bt_cuda_check(
        r->dev, bt_cu.cuGraphAddEventRecordNode(last, r->graph, &from, from != NULL, event),
        "recording the clock", err);
}

// The launches one after the other, each between two events.
static bt_status record_timed(recorder *r, bt_error *err) {
    const bt_cuda_tape *tape = r->tape;
    CUgraphNode last = NULL, node;
    for (int i = 0; i < tape->count; i++) {
        BT_TRY(add_event(r, &last, tape->events[2 * i], err));
        for (int j = tape->first[i]; j < tape->first[i + 1]; j++, last = node) {
            BT_TRY(add_node(r, &tape->nodes[j], &node, err));
            BT_TRY(add_edge(r, last, node, false, err));
        }
        BT_TRY(add_event(r, &last, tape->events[2 * i + 1], err));
    }
    return BT_OK;
}

// Launch `i` of the tape as number `at` of the graph.
static bt_status record_launch(recorder *r, int i, size_t at, bt_error *err) {
    const bt_cuda_node *nodes = r->tape->nodes;
    int begin = r->waits.first[i], end = r->waits.first[i + 1];
    CUgraphNode node;
    for (int j = r->tape->first[i]; j < r->tape->first[i + 1]; j++) {
        BT_TRY(add_node(r, &nodes[j], &node, err));
        if (j > r->tape->first[i]) BT_TRY(add_edge(r, r->last[at], node, nodes[j].early, err));
        for (int k = begin; k < end && j == r->tape->first[i]; k++) {
            size_t distance = (size_t)r->waits.distance[k];
            if (distance > at) continue;
            // Where launches part or meet, starting early costs more than it gains (measured).
            size_t from = (at - distance) % (size_t)r->tape->count;
            bool early = nodes[j].early && end - begin == 1 && r->waits.followers[from] == 1;
            BT_TRY(add_edge(r, r->last[at - distance], node, early, err));
        }
        r->last[at] = node;
    }
    return BT_OK;
}

static bt_status record(recorder *r, uint32_t steps, bt_error *err) {
    size_t count = (size_t)r->tape->count;
    BT_TRY(bt_cuda_check(r->dev, bt_cu.cuGraphCreate(&r->graph, 0), "recording", err));
    if (r->tape->events) return record_timed(r, err);
    BT_TRY(make_waits(r->tape, &r->waits, err));
    r->last = calloc(count * steps + 1, sizeof(CUgraphNode));
    if (!r->last) return bt_fail_memory(err, "the graph of a program", count * steps);
    for (size_t at = 0; at < count * steps; at++)
        BT_TRY(record_launch(r, (int)(at % count), at, err));
    return BT_OK;
}

bt_status bt_cuda_record(bt_device *dev, const bt_cuda_tape *tape, uint32_t steps, CUgraphExec *out,
                         bt_error *err) {
    recorder r = {.dev = dev, .tape = tape};
    bt_status status = record(&r, steps, err);
    if (status == BT_OK)
        status =
            bt_cuda_check(dev, bt_cu.cuGraphInstantiate(out, r.graph, 0), "preparing a graph", err);
    if (r.graph) bt_cu.cuGraphDestroy(r.graph);
    free(r.waits.distance);
    free(r.waits.first);
    free(r.waits.followers);
    free(r.last);
    return status;
}
