// The simulated Metal (sim/metal) itself: that it works, and that each of its rules, broken on
// purpose through objc_msgSend, is found. The device runs on it in test_metal.
#include "metal_messages.h"
#include "support.h"

#include <sys/wait.h>
#include <unistd.h>

// ---- Something to run -------------------------------------------------------------------------

// y[i] = x[i] * factor for i < n, by way of the neighbour; what can go wrong is chosen by `how`.
static const char kernel_text[] =
    "#include <metal_stdlib>\n"
    "using namespace metal;\n"
    "constant uint GROUP = 64u;\n"
    "struct bt_args {\n    uint n;\n    uint how;\n    float factor;\n};\n"
    "kernel void scale(device const float *x [[buffer(0)]],\n"
    "    device float *y [[buffer(1)]],\n"
    "    constant bt_args &bt_p [[buffer(2)]], uint lid [[thread_index_in_threadgroup]],\n"
    "    uint3 bt_group [[threadgroup_position_in_grid]],\n"
    "    uint3 bt_groups [[threadgroups_per_grid]]) {\n"
    "    threadgroup float tile[64];\n"
    "    float own[4];\n"
    "    uint i = bt_group.x * GROUP + lid;\n"
    "    tile[lid % 64u] = i < bt_p.n ? x[i] : 0.0f;\n"
    "    if (bt_p.how == 1u && lid == 3u) { return; }\n"
    "    if (bt_p.how != 2u || lid != 5u) { threadgroup_barrier(mem_flags::mem_threadgroup); }\n"
    "    else { threadgroup_barrier(mem_flags::mem_threadgroup); }\n"
    "    own[bt_p.how == 3u ? 4u + lid : lid % 4u] = tile[63u - lid % 64u];\n"
    "    if (bt_p.how == 4u) { tile[lid + 1u] = 1.0f; }\n"
    "    threadgroup_barrier(mem_flags::mem_threadgroup);\n"
    "    tile[63u - lid % 64u] = own[lid % 4u] * bt_p.factor;\n"
    "    threadgroup_barrier(mem_flags::mem_threadgroup);\n"
    "    if (i < bt_p.n || (bt_p.how == 5u && bt_group.x + 1u == bt_groups.x)) { y[i] = tile[lid % "
    "64u]; }\n"
    "    if (bt_p.how == 6u) { y[0] = x[bt_p.n]; }\n"
    "    if (bt_p.how == 7u) { y[0] = x[int(lid) - 1]; }\n"
    "}\n";

enum { N = 1000, GROUPS = 16, THREADS = 64 };
typedef struct args {
    uint32_t n, how;
    float factor;
} args;

static void *pool;
static id device, queue, library, function, pipeline, x, y;

static int before_each(void **state) {
    (void)state;
    reset();
    pool = pool_push();
    device = create_device();
    queue = get(device, "newCommandQueue");
    id error = NULL;
    library = library_of(device, kernel_text, &error);
    check(library, "the library fails: %s", said(error));
    function = function_of(library, "scale");
    pipeline = pipeline_of(device, function, NULL);
    x = buffer_of(device, N * sizeof(float));
    y = buffer_of(device, N * sizeof(float));
    for (int i = 0; i < N; i++) floats(x)[i] = (float)i;
    return 0;
}

static int after_each(void **state) {
    (void)state;
    id all[] = {y, x, pipeline, function, library, queue, device};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tell(all[i], "release");
    pool_pop(pool);
    return metal_nothing_left();
}

static id begin(id command) {
    id encoder = get(command, "computeCommandEncoder");
    set_pipeline(encoder, pipeline);
    set_buffer(encoder, x, 0, 0);
    set_buffer(encoder, y, 0, 1);
    set_bytes(encoder, &(args){N, 0, 2}, sizeof(args), 2);
    return encoder;
}

// A command buffer that was committed and does y = 2 x, or goes wrong in a way.
static id send(uint32_t how) {
    id command = get(queue, "commandBuffer"), encoder = begin(command);
    set_bytes(encoder, &(args){N, how, 2}, sizeof(args), 2);
    dispatch(encoder, GROUPS, THREADS);
    tell(encoder, "endEncoding");
    tell(command, "commit");
    return command;
}

static void expect(float factor) {
    for (int i = 0; i < N; i++)
        check(floats(y)[i] == factor * (float)i, "element %d is %g, not %g", i,
              (double)floats(y)[i], (double)(factor * (float)i));
}

// ---- What works -------------------------------------------------------------------------------

static void test_runs(void **state) {
    (void)state;
    id command = send(0);
    check(number(command, "status") == 2, "it is not committed");
    tell(command, "waitUntilCompleted");
    check(number(command, "status") == 4 && !get(command, "error"), "it fails");
    expect(2);
    double start_s = real(command, "GPUStartTime"), end_s = real(command, "GPUEndTime");
    check(start_s > 0 && end_s > start_s, "it ran from %.9f to %.9f", start_s, end_s);
    id next = send(0);
    tell(next, "waitUntilCompleted");
    check(real(next, "GPUStartTime") > end_s, "the clock stands still");
    check(!strcmp(utf8(get(function, "name")), "scale"), "the function has another name");
    check(number(pipeline, "staticThreadgroupMemoryLength") == 256, "it has %lu bytes",
          number(pipeline, "staticThreadgroupMemoryLength"));
    nothing_found();
}

// commit returns before the work is done, and a queue does it in order.
static void test_late(void **state) {
    (void)state;
    id first = send(0), second = send(0);
    check(floats(y)[1] == 0 && state_now()->flying == 2, "it was done at once");
    tell(second, "waitUntilCompleted");
    check(number(first, "status") == 4, "the one before is not done");
    expect(2);
    id command = NULL;
    for (int i = 0; i < 64; i++) command = send(0);
    check(state_now()->flying == 64, "%d are under way", state_now()->flying);
    (void)send(0); // waits for the oldest
    check(state_now()->flying == 64, "%d are under way", state_now()->flying);
    for (int i = 0; i < 3 && number(command, "status") != 4;) i += number(command, "status") > 4;
    check(number(command, "status") == 4, "whoever asks for the status waits forever");
    nothing_found();
}

// What is sent before and after a barrier, and in another encoder, sees what was written.
static void test_in_order(void **state) {
    (void)state;
    id command = get(queue, "commandBuffer"), encoder = begin(command);
    dispatch(encoder, GROUPS, THREADS);
    barrier(encoder, 1);
    set_buffer(encoder, y, 0, 0);
    dispatch(encoder, GROUPS, THREADS);
    tell(encoder, "endEncoding");
    encoder = begin(command);
    set_buffer(encoder, y, 0, 0);
    dispatch(encoder, GROUPS, THREADS);
    tell(encoder, "endEncoding");
    tell(command, "commit");
    tell(command, "waitUntilCompleted");
    expect(8);
    nothing_found();
}

// A command buffer keeps what it uses: its contents stay until it is done, and no longer.
static void test_released_in_flight(void **state) {
    (void)state;
    id mine = buffer_of(device, N * sizeof(float));
    for (int i = 0; i < N; i++) floats(mine)[i] = (float)(3 * i);
    id command = get(queue, "commandBuffer"), encoder = begin(command);
    set_buffer(encoder, mine, 0, 0);
    dispatch(encoder, GROUPS, THREADS);
    tell(encoder, "endEncoding");
    tell(command, "commit");
    tell(mine, "release");
    check(state_now()->buffers == 3, "the buffer is gone");
    tell(command, "waitUntilCompleted");
    expect(6);
    check(state_now()->buffers == 2, "the buffer is still there");
    nothing_found();
    (void)floats(mine);
    found("-[MTLBuffer contents]: the object was released for the last time before");
}

// ---- Rules: objects ---------------------------------------------------------------------------

static void test_unknown_selector(void **state) {
    (void)state;
    check(!get(queue, "insertDebugCaptureBoundary"), "it gives something");
    found("-[MTLCommandQueue insertDebugCaptureBoundary]: unrecognized selector");
    tell(x, "commit"); // known, but not of this class
    found("-[MTLBuffer commit]: unrecognized selector");
    ((void (*)(id, SEL))message)(x, "length");
    found("a selector that sel_registerName did not give");
    check(!class_named("NSArray"), "there is a class");
    found("no class NSArray");
    check(!number(NULL, "length") && real(NULL, "GPUEndTime") == 0, "nil answers");
    nothing_found();
}

static void test_over_release(void **state) {
    (void)state;
    id mine = buffer_of(device, 16);
    tell(mine, "retain");
    tell(mine, "release");
    check(number(mine, "length") == 16, "it is gone");
    tell(mine, "release");
    nothing_found();
    tell(mine, "release");
    found("-[MTLBuffer release]: the object was released for the last time before");
    id encoder = begin(get(queue, "commandBuffer"));
    set_buffer(encoder, mine, 0, 0);
    found("gets an object that was released for the last time where MTLBuffer belongs");
    set_buffer(encoder, pipeline, 0, 0);
    found("gets MTLComputePipelineState where MTLBuffer belongs");
    tell(encoder, "endEncoding");
    tell((char *)x + 8, "length");
    found("this is no object");
}

static void test_pools(void **state) {
    (void)state;
    void *inner = pool_push();
    id text = string("a");
    pool_pop(inner);
    (void)utf8(text);
    found("-[NSString UTF8String]: the object was released for the last time before");
    pool_pop(inner);
    found("gets a pool that is not in place");
    pool_pop(pool);
    text = string("b");
    found("object of NSString is autoreleased where no pool is in place");
    tell(text, "release");
    pool = pool_push();
}

// ---- Rules: memory ----------------------------------------------------------------------------

static void test_buffer_lengths(void **state) {
    (void)state;
    check(!buffer_of(device, 0), "there is a buffer of 0 bytes");
    found("the length is 0, but it must be 1 to");
    check(!buffer_of(device, number(device, "maxBufferLength") + 1), "there is a large buffer");
    found("(maxBufferLength)");
    wish_for(&(metal_sim_wish){.buffer_max = 100});
    check(!buffer_of(device, 101), "there is a large buffer");
    found("the length is 101, but it must be 1 to 100");
    id mine = ((id(*)(id, SEL, ulong, ulong))message)(
        device, selector("newBufferWithLength:options:"), 16, 2u << 4);
    check(!mine, "there is a private buffer");
    found("are not shared storage");
}

static void test_bindings(void **state) {
    (void)state;
    static const char bytes[5000];
    id command = get(queue, "commandBuffer"), encoder = begin(command);
    set_buffer(encoder, x, N * sizeof(float), 0);
    found("offset 4000 is outside of a buffer of 4000 bytes");
    set_buffer(encoder, x, 0, 31);
    found("setBuffer:offset:atIndex:]: index 31 is not 0 to 30");
    set_bytes(encoder, bytes, 4095, 2);
    nothing_found();
    set_bytes(encoder, bytes, 4096, 2);
    found("4096 bytes are not 1 to 4095");
    set_buffer(encoder, x, 2, 0);
    dispatch(encoder, 1, THREADS);
    found("kernel scale: offset 2 of \"x\", buffer 0, is no multiple of 4");
    set_buffer(encoder, NULL, 0, 0);
    dispatch(encoder, 1, THREADS);
    found("kernel scale: nothing is bound for \"x\", buffer 0");
    set_buffer(encoder, x, 0, 0);
    set_bytes(encoder, bytes, 8, 2);
    dispatch(encoder, 1, THREADS);
    found("kernel scale: 8 bytes are bound for \"bt_p\", buffer 2, that needs 12");
    tell(encoder, "endEncoding");
}

// ---- Rules: encoding --------------------------------------------------------------------------

static void test_encoding(void **state) {
    (void)state;
    id command = get(queue, "commandBuffer"), encoder = begin(command);
    tell(command, "commit");
    found("-[MTLCommandBuffer commit]: an encoder of it has not got endEncoding");
    check(!get(command, "computeCommandEncoder"), "there are two encoders");
    found("-[MTLCommandBuffer computeCommandEncoder]: an encoder of it has not got endEncoding");
    tell(encoder, "endEncoding");
    tell(encoder, "endEncoding");
    found("-[MTLComputeCommandEncoder endEncoding]: it has got endEncoding before");
    dispatch(encoder, 1, THREADS);
    found("dispatchThreadgroups:threadsPerThreadgroup:]: it has got endEncoding before");
    set_buffer(encoder, x, 0, 0);
    found("setBuffer:offset:atIndex:]: it has got endEncoding before");
    tell(command, "waitUntilCompleted");
    found("waitUntilCompleted]: it was not committed");
    tell(command, "commit");
    nothing_found();
    tell(command, "commit");
    found("-[MTLCommandBuffer commit]: it was committed before");
    check(!get(command, "computeCommandEncoder"), "there is an encoder");
    found("-[MTLCommandBuffer computeCommandEncoder]: it was committed before");
    void *inner = pool_push();
    (void)begin(get(queue, "commandBuffer"));
    pool_pop(inner);
    found("it is released without endEncoding");
    inner = pool_push();
    for (int i = 0; i < 64; i++) check(get(queue, "commandBuffer"), "there are only %d", i);
    check(!get(queue, "commandBuffer"), "there is another one");
    pool_pop(inner);
    found("64 command buffers are there that were never committed");
}

static void test_dispatches(void **state) {
    (void)state;
    id command = get(queue, "commandBuffer"), encoder = get(command, "computeCommandEncoder");
    dispatch(encoder, 1, 1);
    found("no pipeline state is set");
    tell(encoder, "endEncoding");
    encoder = begin(command);
    dispatch(encoder, 1, 1025);
    found("1025 x 1 x 1 threads is larger than 1024 (maxTotalThreadsPerThreadgroup)");
    dispatch(encoder, 0, THREADS);
    found("a grid of 0 x 1 x 1 groups of 64 x 1 x 1 threads has a 0");
    wish_for(&(metal_sim_wish){.threads_max = 32});
    check(number(pipeline, "maxTotalThreadsPerThreadgroup") == 32, "it allows more");
    dispatch(encoder, 1, THREADS);
    found("is larger than 32");
    barrier(encoder, 8);
    found("scope 8 is none of a compute encoder");
    tell(encoder, "endEncoding");
}

// A kernel may say how many threads its groups have at most.
static void test_most_threads(void **state) {
    (void)state;
    static const char text[] = "#include <metal_stdlib>\n"
                               "[[max_total_threads_per_threadgroup(48)]] kernel void few(\n"
                               "    device float *y [[buffer(0)]]) { y[0] = 1.0f; }\n"
                               "kernel void many(device float *y [[buffer(0)]]) { y[0] = 1.0f; }\n";
    id error = NULL, mine = library_of(device, text, &error);
    check(mine, "%s", said(error));
    id few = function_of(mine, "few"), many = function_of(mine, "many");
    id pipes[] = {pipeline_of(device, few, &error), pipeline_of(device, many, &error)};
    check(number(pipes[0], "maxTotalThreadsPerThreadgroup") == 48, "few has another limit");
    check(number(pipes[1], "maxTotalThreadsPerThreadgroup") == 1024, "many has a limit");
    id encoder = get(get(queue, "commandBuffer"), "computeCommandEncoder");
    set_pipeline(encoder, pipes[0]);
    dispatch(encoder, 1, 49);
    found("a group of 49 x 1 x 1 threads is larger than 48");
    tell(encoder, "endEncoding");
    id all[] = {pipes[0], pipes[1], few, many, mine};
    for (int i = 0; i < 5; i++) tell(all[i], "release");
}

static void test_threadgroup_memory(void **state) {
    (void)state;
    id error = NULL;
    wish_for(&(metal_sim_wish){.shared_max = 128});
    check(number(device, "maxThreadgroupMemoryLength") == 128, "there is more");
    check(!pipeline_of(device, function, &error), "there is a pipeline");
    check(strstr(said(error),
                 "Threadgroup memory size (256) exceeds the maximum threadgroup memory allowed"),
          "it says: %s", said(error));
    found("Threadgroup memory size (256) exceeds");
}

// ---- Rules: command buffers that keep nothing --------------------------------------------------

// One that does y = 2 mine, and is not committed.
static id unretained(id mine) {
    id command = get(queue, "commandBufferWithUnretainedReferences"), encoder = begin(command);
    set_buffer(encoder, mine, 0, 0);
    dispatch(encoder, GROUPS, THREADS);
    tell(encoder, "endEncoding");
    return command;
}

static id copy_of_x(void) {
    id mine = buffer_of(device, N * sizeof(float));
    memcpy(floats(mine), floats(x), N * sizeof(float));
    return mine;
}

static void test_unretained(void **state) {
    (void)state;
    id mine = copy_of_x(), command = unretained(mine);
    tell(command, "commit");
    tell(command, "waitUntilCompleted");
    expect(2);
    tell(mine, "release");
    check(state_now()->buffers == 2, "the buffer is kept");
    nothing_found();
}

static void test_freed_in_flight(void **state) {
    (void)state;
    for (int early = 0; early < 2; early++) {
        id mine = copy_of_x(), command = unretained(mine);
        if (early) tell(mine, "release");
        tell(command, "commit");
        if (!early) tell(mine, "release");
        check(state_now()->buffers == 2, "the buffer is kept");
        tell(command, "waitUntilCompleted");
        check(number(command, "status") == 5, "the command buffer does not fail");
        found("kernel scale: buffer freed while in flight: buffer 0 of a command buffer");
        check(floats(y)[1] == 0, "it ran all the same");
    }
    id command = unretained(x);
    tell(command, "commit");
    tell(pipeline, "release");
    tell(command, "waitUntilCompleted");
    found("MTLComputePipelineState freed while in flight");
    pipeline = pipeline_of(device, function, NULL);
}

static void test_freed_while_encoding(void **state) {
    (void)state;
    id mine = copy_of_x(), other = pipeline_of(device, function, NULL);
    id encoder = begin(get(queue, "commandBufferWithUnretainedReferences"));
    set_buffer(encoder, mine, 0, 0);
    tell(mine, "release");
    dispatch(encoder, GROUPS, THREADS);
    found("kernel scale: \"x\", buffer 0, was released for the last time since it was set");
    set_pipeline(encoder, other);
    tell(other, "release");
    dispatch(encoder, GROUPS, THREADS);
    found("the pipeline state was released for the last time since it was set");
    tell(encoder, "endEncoding");
}

// ---- Rules: concurrent encoders ----------------------------------------------------------------

// y = 2 x and then y = 2 y, twice, in an encoder of this type: whoever keeps the order gets 16 x.
static void in_chain(ulong type, ulong scope) {
    id command = get(queue, "commandBuffer"), encoder = encoder_of(command, type);
    set_pipeline(encoder, pipeline);
    set_buffer(encoder, x, 0, 0);
    set_buffer(encoder, y, 0, 1);
    set_bytes(encoder, &(args){N, 0, 2}, sizeof(args), 2);
    memset(floats(y), 0, N * sizeof(float));
    for (int i = 0; i < 4; i++) {
        dispatch(encoder, GROUPS, THREADS);
        set_buffer(encoder, y, 0, 0);
        if (scope) barrier(encoder, scope);
    }
    tell(encoder, "endEncoding");
    tell(command, "commit");
    tell(command, "waitUntilCompleted");
}

static void test_concurrent(void **state) {
    (void)state;
    in_chain(0, 0);
    expect(16);
    in_chain(0, 1);
    expect(16);
    in_chain(1, 1);
    expect(16);
    in_chain(1, 0); // backwards
    expect(2);
    in_chain(1, 2); // a barrier for textures
    expect(2);
    nothing_found();
    id command = get(queue, "commandBuffer");
    check(!encoder_of(command, 2), "there is an encoder");
    found("computeCommandEncoderWithDispatchType:]: there is no dispatch type 2");
    id encoder = encoder_of(command, 1);
    check(!encoder_of(command, 1), "there are two encoders");
    found("computeCommandEncoderWithDispatchType:]: an encoder of it has not got endEncoding");
    tell(encoder, "endEncoding");
}

// The order of encoders stays, whatever their types.
static void test_concurrent_ends(void **state) {
    (void)state;
    id command = get(queue, "commandBuffer");
    for (ulong i = 0; i < 4; i++) {
        id encoder = encoder_of(command, i % 2);
        set_pipeline(encoder, pipeline);
        set_buffer(encoder, i ? y : x, 0, 0);
        set_buffer(encoder, y, 0, 1);
        set_bytes(encoder, &(args){N, 0, 2}, sizeof(args), 2);
        dispatch(encoder, GROUPS, THREADS);
        tell(encoder, "endEncoding");
    }
    tell(command, "commit");
    tell(command, "waitUntilCompleted");
    expect(16);
    nothing_found();
}

// ---- Rules: function constants -----------------------------------------------------------------

enum { FLOAT = 3, INT = 29, UINT = 33, BOOL = 53 };

// `one` uses three constants, one of them by way of a function; `two` uses none.
static const char constants_text[] =
    "#include <metal_stdlib>\n"
    "using namespace metal;\n"
    "constant uint bt_present [[function_constant(0)]];\n"
    "constant float bt_factor [[function_constant(7)]];\n"
    "constant bool bt_never [[function_constant(8)]];\n"
    "constant int bt_shift [[function_constant(2)]];\n"
    "static float shifted(float v) { return v + float(bt_shift); }\n"
    "kernel void one(device float *y [[buffer(0)]], uint lid [[thread_index_in_threadgroup]]) {\n"
    "    y[lid] = bt_factor * shifted(float(lid)) + ((bt_present & 2u) != 0u ? 0.5f : 0.0f);\n"
    "}\n"
    "kernel void two(device float *y [[buffer(0)]], uint lid [[thread_index_in_threadgroup]]) {\n"
    "    y[lid] = 3.0f;\n"
    ""
    "}\n";

static id constants_library(void) {
    id error = NULL, made = library_of(device, constants_text, &error);
    check(made, "the library fails: %s", said(error));
    return made;
}

static id values_of(uint32_t present, float factor, int32_t shift) {
    id values = get(class_named("MTLFunctionConstantValues"), "new");
    set_constant(values, &present, UINT, 0);
    set_constant(values, &factor, FLOAT, 7);
    set_constant(values, &shift, INT, 2);
    return values;
}

static void run_with(id made) { // on y, by 4 threads
    id command = get(queue, "commandBuffer"), encoder = get(command, "computeCommandEncoder");
    set_pipeline(encoder, made);
    set_buffer(encoder, y, 0, 0);
    dispatch(encoder, 1, 4);
    tell(encoder, "endEncoding");
    tell(command, "commit");
    tell(command, "waitUntilCompleted");
}

// Two functions of one library with other values take turns; values are copied when one is made.
static void test_constants(void **state) {
    (void)state;
    int compiled = state_now()->compiled;
    id mine = constants_library(), values = values_of(2, 10, -1), made[2], pipes[2];
    made[0] = specialized(mine, "one", values, NULL);
    set_constant(values, &(float){100}, FLOAT, 7);
    set_constant(values, &(uint32_t){1}, UINT, 0);
    set_constant(values, &(uint32_t){1}, UINT, 99); // of nothing: ignored
    made[1] = specialized(mine, "one", values, NULL);
    tell(values, "release");
    for (int i = 0; i < 2; i++) pipes[i] = pipeline_of(device, made[i], NULL);
    for (int i = 0; i < 4; i++) {
        run_with(pipes[i % 2]);
        float want = i % 2 ? 200 : 20.5f; // of thread 3
        check(floats(y)[3] == want, "run %d gives %g, not %g", i, (double)floats(y)[3],
              (double)want);
    }
    check(state_now()->compiled <= compiled + 1, "other values are compiled anew");
    nothing_found();
    id all[] = {pipes[0], pipes[1], made[0], made[1], mine};
    for (int i = 0; i < 5; i++) tell(all[i], "release");
}

static void test_constants_missing(void **state) {
    (void)state;
    id mine = constants_library(), error = NULL, plain = function_of(mine, "one");
    check(plain && !pipeline_of(device, plain, &error), "there is a pipeline");
    check(strstr(said(error), "function one cannot be used to build a pipeline state"),
          "it says: %s", said(error));
    found("Use newFunctionWithName:constantValues:error: to get the specialized function");
    id other = function_of(mine, "two"), pipe = pipeline_of(device, other, NULL);
    check(pipe, "a function without constants needs some");
    id values = get(class_named("MTLFunctionConstantValues"), "new");
    set_constant(values, &(uint32_t){1}, UINT, 0);
    check(!specialized(mine, "one", values, &error) && number(error, "code") == 3,
          "there is a function");
    check(strstr(said(error), "uses the constant bt_factor, function_constant(7)"), "it says: %s",
          said(error));
    check(!specialized(mine, "three", values, &error) && number(error, "code") == 5,
          "there is a function");
    nothing_found();
    id all[] = {pipe, other, plain, values, mine};
    for (int i = 0; i < 5; i++) tell(all[i], "release");
}

static void test_constants_misuse(void **state) {
    (void)state;
    id mine = constants_library(), error = NULL, values = values_of(1, 1, 1);
    set_constant(values, &(float){1}, FLOAT, 0);
    check(!specialized(mine, "one", values, &error), "there is a function");
    found("the value of function_constant(0) has type 3, but bt_present is of type 33");
    set_constant(values, &(float){1}, 4, 0); // float2
    found("type 4 is none of uint (33), int (29), float (3) and bool (53)");
    set_constant(values, NULL, FLOAT, 0);
    found("setConstantValue:type:atIndex:]: the value is NULL");
    set_constant(values, &(float){1}, FLOAT, 65536);
    found("index 65536 is not 0 to 65535");
    check(!specialized(mine, "one", NULL, &error), "there is a function");
    found("gets nil where MTLFunctionConstantValues belongs");
    tell(values, "release");
    // Lines keep their numbers behind constants, and a constant is none that one could write.
    check(!library_of(device,
                      "#include <metal_stdlib>\n"
                      "constant bool on [[function_constant(0)]];\n"
                      "kernel void bad(device float *y [[buffer(0)]]) { on = true; }\n",
                      &error) &&
              strstr(said(error), "program_source:3:"),
          "it says: %s", said(error));
    check(!library_of(device,
                      "#include <metal_stdlib>\n"
                      "constant uint a [[function_constant(0)]];\n"
                      "constant uint b = a + 1u;\n"
                      "kernel void bad(device float *y [[buffer(0)]]) { y[0] = float(b); }\n",
                      &error) &&
              strstr(said(error), "no function constant like a"),
          "it says: %s", said(error));
    nothing_found();
    tell(mine, "release");
}

// ---- Rules: kernels ---------------------------------------------------------------------------

// Goes wrong in this way, which is found, and fails the command buffer.
static void expect_broken(uint32_t how, const char *part) {
    id command = send(how);
    tell(command, "waitUntilCompleted");
    check(number(command, "status") == 5, "way %u: the command buffer does not fail", how);
    id error = get(command, "error");
    check(number(error, "code") == 3 &&
              !strcmp(utf8(get(error, "domain")), "MTLCommandBufferErrorDomain"),
          "way %u: it fails with %lu of %s", how, number(error, "code"),
          utf8(get(error, "domain")));
    found(part);
}

static void test_kernel_misuse(void **state) {
    (void)state;
    expect_broken(1, "thread 0: waits at a barrier that thread 3 ended without");
    expect_broken(2, "thread 5: waits at a barrier while thread 0 waits at line");
    expect_broken(3,
                  "program_source:21: kernel scale, group (0,0,0), thread 0: index 4 is outside");
    expect_broken(4, "thread 63: index 64 is outside of an array");
    expect_broken(5, "thread 63: element 1023 of \"y\", buffer 1, which has 1000, is touched");
    expect_broken(6, "thread 0: element 1000 of \"x\", buffer 0, which has 1000, is touched");
    expect_broken(7, "thread 0: element -1 of \"x\", buffer 0, which has 1000, is touched");
    id command = send(0); // the next one works
    tell(command, "waitUntilCompleted");
    expect(2);
    nothing_found();
}

// A binding ends where its buffer does, wherever it begins.
static void test_offset_ends(void **state) {
    (void)state;
    id command = get(queue, "commandBuffer"), encoder = begin(command);
    set_buffer(encoder, x, 256, 0);
    dispatch(encoder, GROUPS, THREADS);
    tell(encoder, "endEncoding");
    tell(command, "commit");
    tell(command, "waitUntilCompleted");
    found("element 936 of \"x\", buffer 0, which has 936, is touched");
    check(floats(y)[1] == 2 * 65, "element 1 is %g", (double)floats(y)[1]);
}

// ---- Failures on demand -----------------------------------------------------------------------

static void test_no_device(void **state) {
    (void)state;
    wish_for(&(metal_sim_wish){.no_device = true});
    check(!create_device(), "there is a device");
    wish_for(&(metal_sim_wish){.not_unified = true});
    check(!(unsigned char)number(device, "hasUnifiedMemory"), "memory is unified");
}

static void test_compile_errors(void **state) {
    (void)state;
    id error = NULL;
    check(!library_of(device,
                      "#include <metal_stdlib>\nusing namespace metal;\n"
                      "kernel void bad(device float *y [[buffer(0)]],\n"
                      "    uint lid [[thread_index_in_threadgroup]]) {\n    y[lid] = z;\n}\n",
                      &error),
          "it compiles");
    check(strstr(said(error), "program_source:5:") && number(error, "code") == 3 &&
              !strcmp(utf8(get(error, "domain")), "MTLLibraryErrorDomain"),
          "it says: %s", said(error));
    check(!library_of(device,
                      "#include <metal_stdlib>\n"
                      "kernel void bad(device const float *y [[buffer(0)]]) { y[0] = 1.0f; }\n",
                      &error),
          "a constant is written");
    wish_for(&(metal_sim_wish){.compile_error = "it is Friday"});
    check(!library_of(device, kernel_text, &error) && !strcmp(said(error), "it is Friday"),
          "it compiles");
    wish_for(&(metal_sim_wish){.pipeline_error = "too many registers"});
    check(!pipeline_of(device, function, &error) && !strcmp(said(error), "too many registers"),
          "there is a pipeline");
    wish_for(&(metal_sim_wish){.no_function = true});
    check(!function_of(library, "scale"), "there is a function");
    reset();
    check(!function_of(library, "scales"), "there is a function");
    nothing_found();
}

static void test_command_error(void **state) {
    (void)state;
    wish_for(&(metal_sim_wish){
        .command_error = "Caused GPU Timeout Error", .command_code = 2, .command_after = 1});
    id command[3] = {send(0), send(0), send(0)};
    tell(command[2], "waitUntilCompleted");
    for (int i = 0; i < 3; i++)
        check(number(command[i], "status") == (i == 1 ? 5 : 4), "command buffer %d is %lu", i,
              number(command[i], "status"));
    id error = get(command[1], "error");
    check(number(error, "code") == 2 && !strcmp(said(error), "Caused GPU Timeout Error"),
          "it says: %s", said(error));
    nothing_found();
}

static void test_out_of_memory(void **state) {
    (void)state;
    wish_for(&(metal_sim_wish){.memory_max = 1 << 20});
    check(!buffer_of(device, 2 << 20), "there is memory");
    id mine = buffer_of(device, 1000);
    check(mine && floats(mine)[0] == 0, "there is no memory");
    tell(mine, "release");
    nothing_found();
}

// The same text is compiled once.
static void test_cache(void **state) {
    (void)state;
    int compiled = state_now()->compiled, made = state_now()->libraries_made;
    tell(library_of(device, kernel_text, NULL), "release");
    check(state_now()->compiled == compiled && state_now()->libraries_made == made + 1,
          "it was compiled again");
}

// A process that breaks a rule, and has no test that would see it, fails: this one as `--misuse`.
static int misuse(void) {
    void *unused = NULL;
    if (metal_start_messages(&unused)) return 1;
    id one = create_device();
    (void)buffer_of(one, 0);
    tell(one, "release");
    return 0;
}

static void test_process_fails(void **state) {
    (void)state;
    char self[1024], output[512];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    check(length > 0, "there is no /proc");
    self[length] = '\0';
    int status = shell(output, sizeof output, "'%s' --misuse", self);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 86 && strstr(output, "the length is 0"),
          "it ends with status %d, and says: %s", status, output);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--misuse")) return misuse();
#define TEST(f) cmocka_unit_test_setup_teardown(f, before_each, after_each)
    const struct CMUnitTest simulator[] = {
        TEST(test_runs),
        TEST(test_late),
        TEST(test_in_order),
        TEST(test_released_in_flight),
        TEST(test_unknown_selector),
        TEST(test_over_release),
        TEST(test_pools),
        TEST(test_buffer_lengths),
        TEST(test_bindings),
        TEST(test_encoding),
        TEST(test_dispatches),
        TEST(test_threadgroup_memory),
        TEST(test_most_threads),
        TEST(test_unretained),
        TEST(test_freed_in_flight),
        TEST(test_freed_while_encoding),
        TEST(test_concurrent),
        TEST(test_concurrent_ends),
        TEST(test_constants),
        TEST(test_constants_missing),
        TEST(test_constants_misuse),
        TEST(test_kernel_misuse),
        TEST(test_offset_ends),
        TEST(test_no_device),
        TEST(test_compile_errors),
        TEST(test_command_error),
        TEST(test_out_of_memory),
        TEST(test_cache),
        TEST(test_process_fails),
    };
    return cmocka_run_group_tests(simulator, metal_start_messages, NULL);
}
