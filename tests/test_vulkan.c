// The Vulkan device, below the library: memory, programs, barriers, submissions, times, exchanged
// kernels, failures, the cache on disk. All of it under the validation layers where they are
// installed. Failures are made by functions that take the place of Vulkan's own in bt_vk.
#include "device/depend.h"
#include "device/vulkan/vulkan_internal.h"

#define TESTED bt_device_vulkan
#include "device_calls.h"

#include <dirent.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

static bt_vk_functions real; // as the loader gave them

static bt_device *open_device(void) {
    bt_device *dev;
    bt_device_info info;
    if (!api->probe(0, &info)) skip_because(info.reason);
    bt_error_clear(&err);
    works(api->open(0, NULL, &err, &dev));
    if (!real.CreateInstance) real = bt_vk;
    return dev;
}

// Before each test, and after it: nothing is replaced, and the layers have nothing to say.
static int restore(void **state) {
    (void)state;
    if (real.CreateInstance) bt_vk = real;
    const char *first;
    int messages = bt_vulkan_validation_messages(&first);
    if (messages > 0) fprintf(stderr, "ERROR: %d validation messages: %s\n", messages, first);
    return messages > 0;
}

// ---- Things to run ----------------------------------------------------------------------------

static counter *make_counter(bool timed) {
    counter *c = allocate(sizeof *c);
    *c = counter_buffers(open_device());
    works(counter_program(c, timed));
    return c;
}

static void free_counter(counter *c) {
    counter_done(c);
    check(!c->dev->blocks && (c->dev->staging || !c->dev->used_bytes), "memory is not given back");
    api->close(c->dev);
    free(c);
}

// Memory that the host does not see well, as on a discrete GPU.
static VKAPI_ATTR void VKAPI_CALL uncached(VkPhysicalDevice gpu,
                                           VkPhysicalDeviceMemoryProperties *out) {
    real.GetPhysicalDeviceMemoryProperties(gpu, out);
    for (uint32_t i = 0; i < out->memoryTypeCount; i++)
        out->memoryTypes[i].propertyFlags &= ~(VkFlags)VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
}

static void use_staging(void) {
    api->close(open_device()); // fills bt_vk
    bt_vk.GetPhysicalDeviceMemoryProperties = uncached;
}

// ---- Probing ----------------------------------------------------------------------------------

// Runs fn in a child, which opens Vulkan anew; it returns a sentence, "" when all is well.
static const char *in_child(void (*fn)(char *sentence, size_t bytes)) {
    static char sentence[512];
    int ends[2];
    check(pipe(ends) == 0, "no pipe");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        memset(sentence, 0, sizeof sentence);
        fn(sentence, sizeof sentence);
        _exit(write(ends[1], sentence, sizeof sentence) != sizeof sentence);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], sentence, sizeof sentence);
    close(ends[0]);
    int status = -1;
    check(waitpid(child, &status, 0) == child && status == 0 && got == sizeof sentence,
          "the child ends with %d", status);
    return sentence;
}

static void without_drivers(char *sentence, size_t bytes) {
    setenv("VK_DRIVER_FILES", "/nonexistent.json", 1);
    setenv("VK_ICD_FILENAMES", "/nonexistent.json", 1);
    bt_device_info info;
    bt_device *dev;
    if (api->probe(0, &info)) return;
    api->open(0, NULL, &err, &dev);
    snprintf(sentence, bytes, "%s|%s", info.reason, err.text);
}

static void test_no_driver(void **state) {
    (void)state;
    const char *said = in_child(without_drivers);
    if (strstr(said, "libvulkan1")) skip_because("there is no Vulkan loader");
    check(strstr(said, "VK_DRIVER_FILES") && strstr(said, "mesa-vulkan-drivers") &&
              strstr(said, "|there is no device vulkan:0"),
          "without drivers it says \"%s\"", said);
}

static void test_probe(void **state) {
    (void)state;
    bt_device *dev = open_device();
    bt_device_info info;
    int count = 0;
    bool software = false;
    for (; api->probe(count, &info); count++) {
        check(info.available && strstr(info.description, "Vulkan 1.") && info.memory_bytes > 0,
              "vulkan:%d is \"%s\"", count, info.description);
        check(info.software || !software, "%s stands behind software", info.description);
        software = info.software;
        check(info.software == !!strstr(info.description, ", software"), "%s", info.description);
    }
    bt_device *none;
    check(strstr(info.reason, "the last Vulkan device is"), "the reason is \"%s\"", info.reason);
    fails(BT_ERROR_DEVICE, "no device vulkan:99", api->open(99, NULL, &err, &none));
    api->close(dev);
}

static void count_to_ten(char *sentence, size_t bytes) {
    counter *c = make_counter(false);
    float x[N] = {0};
    api->run(c->dev, c->program, 10, &err);
    api->read(c->dev, &c->x, 0, x, sizeof x, &err);
    snprintf(sentence, bytes, "%g", (double)x[N - 1]);
    free_counter(c);
}

static void test_fork(void **state) {
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip_because("ThreadSanitizer does not follow a fork");
#endif
    bt_device *dev = open_device();
    check(!strcmp(in_child(count_to_ten), "10"), "a child cannot use the device");
    api->close(dev);
}

// ---- Memory -----------------------------------------------------------------------------------

static int allocations, frees;
static VkDeviceSize allocation_limit;

static VKAPI_ATTR VkResult VKAPI_CALL counting_allocate(VkDevice dev,
                                                        const VkMemoryAllocateInfo *info,
                                                        const VkAllocationCallbacks *callbacks,
                                                        VkDeviceMemory *out) {
    if (info->allocationSize > allocation_limit) return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    allocations++;
    return real.AllocateMemory(dev, info, callbacks, out);
}

static VKAPI_ATTR void VKAPI_CALL counting_free(VkDevice dev, VkDeviceMemory memory,
                                                const VkAllocationCallbacks *callbacks) {
    frees += memory != VK_NULL_HANDLE;
    real.FreeMemory(dev, memory, callbacks);
}

static void count_memory(VkDeviceSize limit) {
    allocations = frees = 0;
    allocation_limit = limit;
    bt_vk.AllocateMemory = counting_allocate;
    bt_vk.FreeMemory = counting_free;
}

static void round_trip(bt_device *dev, size_t bytes, size_t offset) {
    uint8_t *want = allocate(bytes + 2 * offset), *got = allocate(bytes + 2 * offset);
    bt_buffer buffer;
    for (size_t i = 0; i < bytes + 2 * offset; i++) want[i] = (uint8_t)(i * 31 + i / 251);
    works(api->buffer_init(dev, bytes + 2 * offset, &err, &buffer));
    works(api->write(dev, &buffer, 0, want, bytes + 2 * offset, &err));
    memset(want + offset, 0x5a, bytes);
    works(api->write(dev, &buffer, offset, want + offset, bytes, &err));
    works(api->read(dev, &buffer, 0, got, bytes + 2 * offset, &err));
    check(!memcmp(want, got, bytes + 2 * offset), "%zu bytes at %zu are damaged", bytes, offset);
    fails(BT_ERROR_INTERNAL, "were asked for",
          api->read(dev, &buffer, offset + 1, got, bytes + offset, &err));
    api->buffer_done(dev, &buffer);
    free(want);
    free(got);
}

static void test_round_trips(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 3, 4, 5, 255, 256, 257, 100000, 9 << 20, 70 << 20};
    for (int staged = 0; staged < 2; staged++) {
        if (staged) use_staging();
        bt_device *dev = open_device();
        check(!staged || !dev->direct, "memory is still used directly");
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            round_trip(dev, sizes[i], sizes[i] % 13);
        const bt_device_counters *counters = api->counters(dev);
        check(counters->bytes_written > 79 << 20 && counters->bytes_read > 79 << 20,
              "%zu bytes were counted", (size_t)counters->bytes_written);
        check(!staged || counters->submissions > 40, "copies are not counted as submissions");
        api->close(dev);
    }
}

static void test_blocks(void **state) {
    (void)state;
    bt_device *dev = open_device();
    bt_buffer buffers[40];
    count_memory(UINT64_MAX);
    for (int i = 0; i < 40; i++)
        works(api->buffer_init(dev, (1 << 20) - (size_t)i, &err, &buffers[i]));
    check(allocations == 1, "40 buffers are %d allocations", allocations);
    for (int i = 0; i < 40; i++) {
        const bt_vk_range *range = buffers[i].handle;
        check(range->offset % BT_BINDING_ALIGN == 0 && range->block->address % 256 == 0 &&
                  (!range->next || range->next->offset >= range->offset + buffers[i].bytes),
              "buffer %d lies wrong", i);
    }
    size_t hole = ((bt_vk_range *)buffers[7].handle)->offset;
    api->buffer_done(dev, &buffers[7]);
    works(api->buffer_init(dev, 1000, &err, &buffers[7]));
    check(((bt_vk_range *)buffers[7].handle)->offset == hole, "a hole is not used again");
    for (int i = 0; i < 40; i++) api->buffer_done(dev, &buffers[i]);
    check(frees == 1 && !dev->blocks && dev->used_bytes == 0, "an empty block is kept");
    works(api->buffer_init(dev, 1000, &err, &buffers[0])); // closing frees what was forgotten
    api->close(dev);
    check(frees == allocations, "%d of %d blocks were freed", frees, allocations);
}

static void test_out_of_memory(void **state) {
    (void)state;
    bt_device *dev = open_device();
    bt_buffer buffer, none;
    count_memory(1 << 20);
    works(api->buffer_init(dev, 1000, &err, &buffer)); // no room for a whole block
    fails(BT_ERROR_MEMORY, "2000128 bytes", api->buffer_init(dev, 2000000, &err, &none));
    check(!none.handle, "there is a buffer all the same");
    allocation_limit = UINT64_MAX;
    fails(BT_ERROR_MEMORY, "bytes", api->buffer_init(dev, (size_t)1 << 50, &err, &none));
    fails(BT_ERROR_MEMORY, "bytes", api->buffer_init(dev, SIZE_MAX - 3, &err, &none));
    round_trip(dev, 2000000, 0);
    api->buffer_done(dev, &buffer);
    api->close(dev);
}

// ---- Programs ---------------------------------------------------------------------------------

static void test_thousand_steps(void **state) {
    (void)state;
    for (int staged = 0; staged < 2; staged++) {
        if (staged) use_staging();
        counter *c = make_counter(false);
        works(api->run(c->dev, c->program, 1000, &err));
        expect(c->dev, &c->x, 1000);
        works(api->run(c->dev, c->program, 17, &err));
        works(api->run(c->dev, c->program, 0, &err));
        works(api->wait(c->dev, &err));
        expect(c->dev, &c->y, 1017);
        works(api->write(c->dev, &c->x, 0, (float[N]){0}, sizeof(float[N]), &err));
        works(api->run(c->dev, c->program, 3, &err));
        expect(c->dev, &c->x, 3);
        uint64_t launches = api->counters(c->dev)->launches;
        check(launches == 2 * 1020, "%d launches were counted", (int)launches);
        free_counter(c);
    }
}

static void test_not_run(void **state) {
    (void)state;
    bt_device *dev = open_device();
    bt_buffer x = floats(dev, 0);
    bt_device_program *program = NULL;
    bt_launch launch = map_launch(BT_MAP_COPY, &x, NULL, &x, N);
    launch.dtype = BT_F64;
    bt_error_clear(&err);
    check(api->program_init(dev, &launch, 1, &(bt_program_use){0}, &err, &program) != BT_OK &&
              err.text[0] && !program,
          "double precision is not refused");
    bt_error_clear(&err);
    works(api->program_init(dev, NULL, 0, &(bt_program_use){.timed = true}, &err, &program));
    works(api->run(dev, program, 5, &err));
    api->program_done(dev, program);
    api->buffer_done(dev, &x);
    api->close(dev);
}

static void test_barriers(void **state) {
    (void)state;
    bt_buffer b[8];
    for (int i = 0; i < 8; i++) b[i] = (bt_buffer){NULL, 4 * N};
    bool got[4] = {0};
    const bt_launch fan[] = {map_launch(BT_MAP_ADD, &b[0], &b[1], &b[2], N),
                             map_launch(BT_MAP_ADD, &b[0], &b[1], &b[3], N),
                             map_launch(BT_MAP_ADD, &b[2], &b[3], &b[4], N)};
    bt_place_barriers(fan, 3, NULL, NULL, got);
    check(got[0] && !got[1] && got[2], "a join: %d %d %d", got[0], got[1], got[2]);
    const bool solo[] = {true, true, true};
    bt_place_barriers(fan, 3, solo, NULL, got);
    check(!got[0] && !got[1] && !got[2], "one worker meets itself");
    const bt_launch chain[] = {map_launch(BT_MAP_ADD, &b[0], &b[1], &b[2], N),
                               map_launch(BT_MAP_COPY, &b[2], NULL, &b[3], N),
                               map_launch(BT_MAP_COPY, &b[3], NULL, &b[4], N)};
    bt_place_barriers(chain, 3, NULL, NULL, got);
    check(!got[0] && got[1] && got[2], "a chain: %d %d %d", got[0], got[1], got[2]);
    const int first_two[] = {0, 0, 1}, last_two[] = {0, 1, 1};
    bt_place_barriers(chain, 3, NULL, first_two, got);
    check(got[0] && !got[1] && got[2], "two as one, another: %d %d %d", got[0], got[1], got[2]);
    bt_place_barriers(chain, 3, NULL, last_two, got);
    check(got[0] && got[1] && !got[2], "one, two as one: %d %d %d", got[0], got[1], got[2]);
    const bt_launch round[] = {map_launch(BT_MAP_COPY, &b[0], NULL, &b[5], N),
                               map_launch(BT_MAP_COPY, &b[1], NULL, &b[6], N),
                               map_launch(BT_MAP_COPY, &b[6], NULL, &b[1], N)};
    bt_place_barriers(round, 3, NULL, NULL, got);
    check(got[0] && !got[1] && got[2], "a round: %d %d %d", got[0], got[1], got[2]);
    bt_launch parts[] = {map_launch(BT_MAP_COPY, &b[0], NULL, &b[1], N),
                         map_launch(BT_MAP_COPY, &b[0], NULL, &b[1], N)};
    parts[0].binding[2].bytes = parts[1].binding[2].offset = 2048;
    parts[1].binding[2].bytes = 1024;
    bt_place_barriers(parts, 2, NULL, NULL, got);
    check(got[0] && !got[1], "two parts of a buffer: %d %d", got[0], got[1]);
}

// Of random programs, run three times: between any two launches that touch the same buffer, which
// one of them writes, there is a barrier.
static void test_barriers_suffice(void **state) {
    (void)state;
    enum { LAUNCHES = 7, BUFFERS = 6 };
    bt_buffer b[BUFFERS];
    bt_launch launches[LAUNCHES];
    int uses[LAUNCHES][3], needless = 0;
    uint64_t seed = 1;
    for (int i = 0; i < BUFFERS; i++) b[i] = (bt_buffer){NULL, 4 * N};
    for (int round = 0; round < 500; round++) {
        int count = 1 + round % LAUNCHES;
        bool barrier[LAUNCHES] = {0};
        for (int i = 0; i < count; i++) {
            for (int k = 0; k < 3; k++) uses[i][k] = (int)test_random(&seed, 0, BUFFERS);
            launches[i] = map_launch(BT_MAP_ADD, &b[uses[i][0]], &b[uses[i][1]], &b[uses[i][2]], N);
        }
        bt_place_barriers(launches, count, NULL, NULL, barrier);
        needless += !barrier[0];
        for (int i = 0; i < 3 * count; i++)
            for (int j = i + 1; j < 3 * count && !barrier[j % count]; j++) {
                const int *p = uses[i % count], *q = uses[j % count];
                bool meet =
                    p[2] == q[0] || p[2] == q[1] || p[2] == q[2] || q[2] == p[0] || q[2] == p[1];
                check(!meet, "round %d: launch %d does not wait for %d", round, j, i);
            }
    }
    check(needless > 10, "steps are always kept apart");
}

static int barriers;
static VKAPI_ATTR void VKAPI_CALL
counting_barrier(VkCommandBuffer commands, VkPipelineStageFlags from, VkPipelineStageFlags to,
                 VkDependencyFlags flags, uint32_t memory_count, const VkMemoryBarrier *memory,
                 uint32_t buffer_count, const VkBufferMemoryBarrier *buffer, uint32_t image_count,
                 const VkImageMemoryBarrier *image) {
    barriers++;
    real.CmdPipelineBarrier(commands, from, to, flags, memory_count, memory, buffer_count, buffer,
                            image_count, image);
}

// Only what depend.h asks for is recorded.
static void test_barriers_recorded(void **state) {
    (void)state;
    bt_device *dev = open_device();
    bt_buffer x[4];
    bt_device_program *program;
    for (int i = 0; i < 4; i++) x[i] = floats(dev, (float)i);
    const bt_launch launches[] = {map_launch(BT_MAP_ADD, &x[0], &x[1], &x[2], N),
                                  map_launch(BT_MAP_ADD, &x[0], &x[1], &x[3], N),
                                  map_launch(BT_MAP_ADD, &x[2], &x[3], &x[2], N)};
    works(api->program_init(dev, launches, 3, &(bt_program_use){0}, &err, &program));
    bt_vk.CmdPipelineBarrier = counting_barrier;
    barriers = 0;
    works(api->run(dev, program, 1, &err));
    check(barriers == 2, "%d barriers are in a step", barriers);
    bt_vk = real;
    expect(dev, &x[2], 2);
    api->program_done(dev, program);
    for (int i = 0; i < 4; i++) api->buffer_done(dev, &x[i]);
    api->close(dev);
}

// ---- Submissions and times --------------------------------------------------------------------

static const bt_device *clocked;
static double clock_step; // seconds that a step seems to take; a millisecond lies between runs
static uint64_t clock_now;

static VKAPI_ATTR VkResult VKAPI_CALL clock_results(VkDevice dev, VkQueryPool pool, uint32_t first,
                                                    uint32_t count, size_t bytes, void *out,
                                                    VkDeviceSize stride, VkQueryResultFlags flags) {
    VkResult result = real.GetQueryPoolResults(dev, pool, first, count, bytes, out, stride, flags);
    uint64_t *stamps = out;
    double period = (double)clocked->gpu.properties.limits.timestampPeriod * 1e-9;
    stamps[0] = clock_now += (uint64_t)(1e-3 / period);
    stamps[1] = clock_now += (uint64_t)(clock_step * clocked->slots[first / 2].steps / period);
    return result;
}

static int dispatches;
static VKAPI_ATTR void VKAPI_CALL counting_dispatch(VkCommandBuffer commands, uint32_t x,
                                                    uint32_t y, uint32_t z) {
    dispatches++;
    real.CmdDispatch(commands, x, y, z);
}

// The first run finds out how long a step takes; the second one finds all of it recorded.
static void test_submissions(void **state) {
    (void)state;
    static const struct {
        double seconds; // of a step
        uint32_t steps;
        uint64_t want[2]; // submissions of the first run, and the second
    } cases[] = {{1e-6, 1000, {2, 1}},
                 {1e-6, 10001, {4, 3}},
                 {9e-3, 1000, {38, 38}}, // 27 a time
                 {1, 5, {5, 5}},
                 {0, 100, {2, 1}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        counter *c = make_counter(false);
        clocked = c->dev;
        clock_step = cases[i].seconds;
        bt_vk.GetQueryPoolResults = clock_results;
        bt_vk.CmdDispatch = counting_dispatch;
        double seconds[2], total, want = 0;
        for (int run = 0; run < 2; run++) {
            uint64_t before = api->counters(c->dev)->submissions;
            dispatches = 0;
            works(api->run(c->dev, c->program, cases[i].steps, &err));
            works(api->wait(c->dev, &err));
            uint64_t sent = api->counters(c->dev)->submissions - before;
            check(sent == cases[i].want[run], "%u steps of %g s in run %d are %d submissions",
                  cases[i].steps, cases[i].seconds, run, (int)sent);
            check((dispatches == 0) == (run == 1), "run %d records %d launches", run, dispatches);
            want += cases[i].steps * cases[i].seconds + 1e-3 * (double)(sent - 1);
        }
        api->times(c->dev, c->program, seconds, &total);
        check(fabs(total - want) < 1e-6, "in all %.9f s, not %.9f", total, want);
        bt_vk = real;
        expect(c->dev, &c->x, 2 * (float)cases[i].steps);
        free_counter(c);
    }
}

static void test_times(void **state) {
    (void)state;
    double seconds[2] = {1, 1}, total = 1;
    counter *c = make_counter(true);
    api->times(c->dev, c->program, seconds, &total);
    check(seconds[0] == 0 && seconds[1] == 0 && total == 0, "there are times before any run");
    works(api->run(c->dev, c->program, 100, &err));
    api->times(c->dev, c->program, seconds, &total);
    check(seconds[0] > 0 && seconds[1] > 0, "the launches take %g and %g s", seconds[0],
          seconds[1]);
    check(seconds[0] + seconds[1] <= total * (1 + 1e-9), "%g + %g s exceed their sum %g",
          seconds[0], seconds[1], total);
    double before = total;
    works(api->run(c->dev, c->program, 1, &err));
    api->times(c->dev, c->program, seconds, &total);
    check(total > before, "the total stays %g s", total);
    expect(c->dev, &c->x, 101);
    free_counter(c);
    c = make_counter(false);
    works(api->run(c->dev, c->program, 100, &err));
    api->times(c->dev, c->program, seconds, &total);
    check(seconds[0] == 0 && total > 0, "a program that is not timed: %g of %g s", seconds[0],
          total);
    free_counter(c);
}

// ---- Exchanging kernels -----------------------------------------------------------------------

static const char seven[] =
    "#version 450\n"
    "#extension GL_EXT_buffer_reference : require\n"
    "#extension GL_GOOGLE_cpp_style_line_directive : require\n"
    "layout(local_size_x = 256) in;\n"
    "layout(buffer_reference, std430, buffer_reference_align = 4) buffer F { float v[]; };\n"
    "layout(push_constant, std430) uniform P { F a, b, y; uint op, dim[4], as[4], bs[4]; } p;\n"
    "#line 70 \"kernels/map.k\"\n"
    "void main() {\n"
    "    uint i = gl_WorkGroupID.x * 256u + gl_LocalInvocationID.x;\n"
    "    if (i < p.dim[3]) p.y.v[i] = p.a.v[i] + 7.0;\n"
    "}\n";

static void test_swap(void **state) {
    (void)state;
    counter *c = make_counter(false);
    if (system("glslc --version >/dev/null 2>&1")) {
        free_counter(c);
        skip_because("there is no glslc");
    }
    uint32_t grid[3];
    int index;
    bt_launch launch = map_launch(BT_MAP_ADD, &c->x, &c->one, &c->y, N);
    works(bt_portable_pick(bt_portable_table, bt_portable_count, &launch, grid, &err, &index));
    const bt_portable *rules = &bt_portable_table[index];
    works(api->run(c->dev, c->program, 20, &err));
    char broken[sizeof seven];
    memcpy(broken, seven, sizeof seven);
    memcpy(strstr(broken, "7.0"), "bad", 3);
    fails(BT_ERROR_DATA, "kernels/map.k:72", api->kernel_swap(c->dev, index, rules, broken, &err));
    setenv("BANTAM_GLSLC", "/nonexistent/glslc", 1);
    fails(BT_ERROR_DATA, "Debian: glslc", api->kernel_swap(c->dev, index, rules, seven, &err));
    unsetenv("BANTAM_GLSLC");
    works(api->run(c->dev, c->program, 1, &err)); // the old one is still there
    expect(c->dev, &c->x, 21);
    bt_portable narrow = *rules; // rules that soon are gone
    uint32_t four[] = {BT_RULE_NUMBER, 4, BT_RULE_END};
    narrow.grid[0] = four;
    narrow.grid[1] = narrow.grid[2] = NULL;
    works(api->kernel_swap(c->dev, index, &narrow, seven, &err));
    memset(four, 0xff, sizeof four);
    works(api->write(c->dev, &c->x, 0, (float[N]){0}, sizeof(float[N]), &err));
    works(api->run(c->dev, c->program, 20, &err));
    works(bt_portable_pick(c->dev->table, bt_portable_count, &launch, grid, &err, &index));
    check(grid[0] == 4 && grid[1] == 1, "the grid is %u x %u", grid[0], grid[1]);
    float y;
    works(api->read(c->dev, &c->y, 0, &y, sizeof y, &err));
    check(y >= 140, "the new kernel is not used: %g", (double)y);
    fails(BT_ERROR_USAGE, "no kernel -1", api->kernel_swap(c->dev, -1, rules, seven, &err));
    free_counter(c);
}

// ---- A device that is lost --------------------------------------------------------------------

static VkResult failure;
static VKAPI_ATTR VkResult VKAPI_CALL failing_submit(VkQueue queue, uint32_t count,
                                                     const VkSubmitInfo *info, VkFence fence) {
    (void)queue, (void)count, (void)info, (void)fence;
    return failure;
}
static VKAPI_ATTR VkResult VKAPI_CALL failing_wait(VkDevice dev, const VkSemaphoreWaitInfo *info,
                                                   uint64_t timeout) {
    (void)dev, (void)info, (void)timeout;
    return failure;
}

static void test_lost(void **state) {
    (void)state;
    failure = VK_ERROR_DEVICE_LOST;
    for (int waiting = 0; waiting < 2; waiting++) {
        counter *c = make_counter(waiting);
        if (waiting)
            bt_vk.WaitSemaphores = failing_wait;
        else
            bt_vk.QueueSubmit = failing_submit;
        const char *when = waiting ? "was lost while waiting" : "was lost while sending";
        bt_buffer none;
        float x;
        double seconds[2], total;
        fails(BT_ERROR_DEVICE, when, api->run(c->dev, c->program, 3, &err));
        bt_vk = real; // it stays lost
        fails(BT_ERROR_DEVICE, when, api->run(c->dev, c->program, 3, &err));
        fails(BT_ERROR_DEVICE, when, api->wait(c->dev, &err));
        fails(BT_ERROR_DEVICE, when, api->read(c->dev, &c->x, 0, &x, sizeof x, &err));
        fails(BT_ERROR_DEVICE, when, api->write(c->dev, &c->x, 0, &x, sizeof x, &err));
        fails(BT_ERROR_DEVICE, when, api->buffer_init(c->dev, 4, &err, &none));
        fails(BT_ERROR_DEVICE, when,
              api->kernel_swap(c->dev, 0, &bt_portable_table[0], seven, &err));
        api->times(c->dev, c->program, seconds, &total);
        real.DeviceWaitIdle(c->dev->handle); // it only seems lost
        free_counter(c);
    }
}

static void test_other_failures(void **state) {
    (void)state;
    counter *c = make_counter(false);
    bt_vk.QueueSubmit = failing_submit;
    failure = VK_ERROR_OUT_OF_HOST_MEMORY;
    fails(BT_ERROR_MEMORY, "out of host memory", api->run(c->dev, c->program, 3, &err));
    failure = VK_ERROR_UNKNOWN;
    fails(BT_ERROR_DEVICE, "VkResult -13", api->run(c->dev, c->program, 3, &err));
    bt_vk = real; // neither is for ever
    works(api->run(c->dev, c->program, 3, &err));
    expect(c->dev, &c->x, 3);
    free_counter(c);
}

// ---- The cache on disk ------------------------------------------------------------------------

static size_t cache_given;
static VKAPI_ATTR VkResult VKAPI_CALL watching_cache(VkDevice dev,
                                                     const VkPipelineCacheCreateInfo *info,
                                                     const VkAllocationCallbacks *callbacks,
                                                     VkPipelineCache *out) {
    cache_given = info->initialDataSize;
    return real.CreatePipelineCache(dev, info, callbacks, out);
}

// Opens, runs and closes; returns how many bytes the driver was given.
static size_t cached_run(void) {
    api->close(open_device());
    bt_vk.CreatePipelineCache = watching_cache;
    counter *c = make_counter(false);
    works(api->run(c->dev, c->program, 1, &err));
    free_counter(c);
    return cache_given;
}

static const char *cache_file(const char *folder) {
    static char path[1024];
    int count = 0;
    DIR *dir = opendir(folder);
    check(dir != NULL, "there is no %s", folder);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        check(!strncmp(entry->d_name, "vulkan-", 7), "%s is in the cache", entry->d_name);
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        count++;
    }
    closedir(dir);
    check(count == 1, "%d files are in the cache", count);
    return path;
}

static void test_cache(void **state) {
    (void)state;
    const char *home = in_scratch("cache"), *folder = in_scratch("cache/bantam");
    setenv("XDG_CACHE_HOME", home, 1);
    check(cached_run() == 0, "a cache was there before");
    size_t bytes, given = cached_run();
    check(given > 0, "the cache is not used");
    const char *path = cache_file(folder);
    uint8_t *whole = read_file(path, &bytes);
    check(whole && bytes == given + 48, "the file has %zu bytes, not %zu", bytes, given + 48);
    static const size_t damaged[] = {0, 8, 20, 24, 40, 48};
    for (size_t i = 0; i < 1 + sizeof damaged / sizeof *damaged; i++) {
        size_t at = i == 0 ? bytes - 1 : damaged[i - 1];
        whole[at] ^= 0x40;
        write_file(path, whole, bytes);
        whole[at] ^= 0x40;
        check(cached_run() == 0, "byte %zu was damaged, and the cache used", at);
        check(cached_run() > 0, "a damaged cache is not written again");
    }
    static const size_t lengths[] = {0, 1, 47, 48, 49};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        write_file(path, whole, lengths[i]);
        check(cached_run() == 0, "a file of %zu bytes was used", lengths[i]);
    }
    free(whole);
    setenv("XDG_CACHE_HOME", "/proc/none/of/these", 1);
    check(cached_run() == 0, "a folder that is not there has a cache");
    setenv("XDG_CACHE_HOME", home, 1);
}

int main(void) {
    setenv("BANTAM_VULKAN_VALIDATION", "1", 0);
    setenv("XDG_CACHE_HOME", scratch(), 1);
#define T(name) cmocka_unit_test_setup_teardown(name, restore, restore)
    const struct CMUnitTest tests[] = {
        T(test_no_driver),
        T(test_probe),
        T(test_fork),
        T(test_round_trips),
        T(test_blocks),
        T(test_out_of_memory),
        T(test_thousand_steps),
        T(test_not_run),
        T(test_barriers),
        T(test_barriers_suffice),
        T(test_barriers_recorded),
        T(test_submissions),
        T(test_times),
        T(test_swap),
        T(test_lost),
        T(test_other_failures),
        T(test_cache),
    };
    return cmocka_run_group_tests_name("vulkan", tests, NULL, NULL);
}
