// See group.h. A value is followed from the launch that writes it to the next that writes over it:
// who reads it in between decides whether it may stay out of memory.
#include "device/cpu/group.h"

#include "device/depend.h"

// The order in which autodiff emits the gradients of a convolution decides these numbers; where it
// is another one, values may overlap, and the launches are not joined.
const unsigned char bt_cpu_joined[BT_KERNEL_COUNT] = {
    [BT_KERNEL_conv2d] = 1,
    [BT_KERNEL_max_pool_grad] = 6,
    [BT_KERNEL_conv2d_grad_input] = 4,
    [BT_KERNEL_conv2d_grad_weight] = 4,
};

typedef struct program {
    const bt_launch *launches;
    int count;
    const bt_program_use *use;
} program;

// The readers of a value, or more than are of interest.
enum { READERS_MAX = 6 };
typedef struct readers {
    int launch[READERS_MAX];
    int count;
    bool outside; // it is read after runs, or by more than READERS_MAX
} readers;

static bool overlap(const bt_binding *a, const bt_binding *b) {
    return a->buffer && a->buffer == b->buffer && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

static bool same(const bt_binding *a, const bt_binding *b) {
    return a->buffer && a->buffer == b->buffer && a->offset == b->offset && a->bytes == b->bytes;
}

static bool touches(const bt_launch *l, const bt_binding *at, const char *letters) {
    for (int i = 0; i < l->binding_count; i++)
        if (strchr(letters, bt_kernel_table[l->kernel].bindings[i]) && overlap(&l->binding[i], at))
            return true;
    return false;
}

static void add_reader(readers *r, int launch) {
    if (r->count == READERS_MAX)
        r->outside = true;
    else
        r->launch[r->count++] = launch;
}

// Who reads what launch `writer` has written to `at`? Launches before it see it in the next step.
static readers readers_of(const program *p, int writer, const bt_binding *at) {
    readers r = {.count = 0};
    for (int n = 1; n < p->count; n++) {
        int i = (writer + n) % p->count;
        for (int j = 0; i == 0 && j < p->use->output_count; j++)
            r.outside = r.outside || overlap(&p->use->outputs[j], at);
        if (touches(&p->launches[i], at, "rRuU")) add_reader(&r, i);
        if (touches(&p->launches[i], at, "wWuU")) return r;
    }
    for (int j = 0; writer == 0 && j < p->use->output_count; j++)
        r.outside = r.outside || overlap(&p->use->outputs[j], at);
    return r;
}

// The reader with this kernel; -1: none.
static int reader_with(const program *p, const readers *r, bt_kernel_id kernel) {
    for (int i = 0; i < r->count; i++)
        if (p->launches[r->launch[i]].kernel == kernel) return r->launch[i];
    return -1;
}

static bool only(const readers *r, int a, int b, int c) {
    for (int i = 0; i < r->count; i++)
        if (r->launch[i] != a && r->launch[i] != b && r->launch[i] != c) return false;
    return !r->outside;
}

// Can all parts run where the first stands? What was between them must not mind, no part may write
// over what another one still reads, and the last launch ends the step on its own.
static bool can_join(const program *p, const bt_cpu_group *g) {
    for (int i = 1; i < BT_CPU_PARTS_MAX; i++) {
        int part = g->part[i];
        if (part < 0) continue;
        if (part <= g->part[0] || part == p->count - 1) return false;
        for (int between = g->part[0] + 1; between < part; between++) {
            bool member = false;
            for (int j = 0; j < BT_CPU_PARTS_MAX; j++) member |= g->part[j] == between;
            if (!member && bt_launches_depend(&p->launches[between], &p->launches[part]))
                return false;
        }
    }
    return true;
}

// `at`, which the group writes, shares no memory with anything that it reads or writes elsewhere.
static bool apart(const program *p, const bt_cpu_group *g, int writer, int b,
                  const bt_binding *left_out, int left_out_count) {
    const bt_binding *at = &p->launches[writer].binding[b];
    for (int i = 0; i < BT_CPU_PARTS_MAX; i++)
        for (int j = 0; g->part[i] >= 0 && j < p->launches[g->part[i]].binding_count; j++) {
            const bt_binding *other = &p->launches[g->part[i]].binding[j];
            bool absent = g->part[i] == writer && j == b;
            for (int k = 0; k < left_out_count; k++) absent = absent || same(other, &left_out[k]);
            if (!absent && overlap(other, at)) return false;
        }
    return true;
}

typedef struct pair {
    bt_cpu_group forward, backward; // backward.part[0] < 0: there is none
} pair;

// The gradients of convolution `conv` and of its pooling, whose positions are read by pool_grad.
static bool find_backward(const program *p, int conv, int pool, const readers *y, pair *out) {
    const bt_launch *l = p->launches;
    readers positions = readers_of(p, pool, &l[pool].binding[2]);
    int pool_grad = reader_with(p, &positions, BT_KERNEL_max_pool_grad), dz_by = pool_grad;
    if (pool_grad < 0 || !only(&positions, pool_grad, -1, -1) ||
        !same(&l[pool_grad].binding[1], &l[pool].binding[2]) ||
        memcmp(l[pool_grad].scalars, l[pool].scalars, sizeof(bt_pool_args)))
        return false;
    readers dy = readers_of(p, pool_grad, &l[pool_grad].binding[2]);
    int relu = reader_with(p, y, BT_KERNEL_map), dz_binding = 2;
    if (relu >= 0) {
        bt_map_args map;
        memcpy(&map, l[relu].scalars, sizeof map);
        const bt_binding *b = l[relu].binding;
        if (map.op != BT_MAP_RELU_GRAD || !same(&b[0], &l[conv].binding[3]) ||
            !same(&b[1], &l[pool_grad].binding[2]) || b[2].bytes != b[1].bytes ||
            !only(&dy, relu, -1, -1))
            return false;
        dz_by = relu;
    }
    readers dz = relu >= 0 ? readers_of(p, relu, &l[relu].binding[2]) : dy;
    const bt_binding *at = &l[dz_by].binding[dz_binding];
    int weight = reader_with(p, &dz, BT_KERNEL_conv2d_grad_weight);
    int bias = reader_with(p, &dz, BT_KERNEL_reduce_sum);
    int input = reader_with(p, &dz, BT_KERNEL_conv2d_grad_input);
    bt_conv_args forward;
    memcpy(&forward, l[conv].scalars, sizeof forward);
    if (weight < 0 || !only(&dz, weight, bias, input) || !same(&l[weight].binding[0], at) ||
        !same(&l[weight].binding[1], &l[conv].binding[0]) ||
        memcmp(l[weight].scalars, l[conv].scalars, offsetof(bt_conv_args, epilogue)))
        return false;
    bt_reduce_args sum = {0};
    if (bias >= 0) memcpy(&sum, l[bias].scalars, sizeof sum);
    if (bias >= 0 && (!same(&l[bias].binding[0], at) || sum.inner != 1 || sum.mean ||
                      sum.n != forward.oh * forward.ow || sum.outer != forward.n * forward.o))
        return false;
    if (input >= 0 &&
        (!same(&l[input].binding[0], at) || !same(&l[input].binding[1], &l[conv].binding[1]) ||
         memcmp(l[input].scalars, l[conv].scalars, offsetof(bt_conv_args, epilogue))))
        return false;
    // The derivative is that of the activation which the convolution has.
    if ((forward.epilogue == BT_MAP_RELU) != (relu >= 0)) return false;
    out->backward = (bt_cpu_group){BT_CPU_CONV_POOL_GRAD, {pool_grad, relu, weight, bias, input}};
    bt_binding left_out[] = {l[pool_grad].binding[2], *at, l[conv].binding[3]};
    return can_join(p, &out->backward) && apart(p, &out->backward, weight, 2, left_out, 3) &&
           (bias < 0 || apart(p, &out->backward, bias, 1, left_out, 3)) &&
           (input < 0 || apart(p, &out->backward, input, 2, left_out, 3));
}

// A convolution and the pooling of its output that nobody else needs, or needs only for gradients
// that can be fused too.
static bool find_pair(const program *p, int conv, bt_cpu_takes takes, pair *out) {
    const bt_launch *l = p->launches;
    if (l[conv].kernel != BT_KERNEL_conv2d || l[conv].dtype != BT_F32) return false;
    readers y = readers_of(p, conv, &l[conv].binding[3]);
    int pool = reader_with(p, &y, BT_KERNEL_max_pool), relu = reader_with(p, &y, BT_KERNEL_map);
    bt_conv_args c;
    bt_pool_args s;
    memcpy(&c, l[conv].scalars, sizeof c);
    if (pool < 0 || !only(&y, pool, relu, -1) || !same(&l[pool].binding[0], &l[conv].binding[3]))
        return false;
    memcpy(&s, l[pool].scalars, sizeof s);
    if (s.planes != c.n * c.o || s.h != c.oh || s.w != c.ow || !takes(&c, &s)) return false;
    *out = (pair){{BT_CPU_CONV_POOL, {conv, pool, -1, -1, -1}}, {.part = {-1, -1, -1, -1, -1}}};
    bool positions = l[pool].binding[2].buffer;
    if (!can_join(p, &out->forward) || !apart(p, &out->forward, pool, 1, &l[conv].binding[3], 1) ||
        (positions && !apart(p, &out->forward, pool, 2, &l[conv].binding[3], 1)))
        return false;
    return positions ? find_backward(p, conv, pool, &y, out) : relu < 0;
}

int bt_cpu_group_launches(const bt_launch *launches, int count, const bt_program_use *use,
                          bt_cpu_takes takes, bt_cpu_group *groups) {
    const program p = {launches, count, use};
    for (int i = 0; i < count; i++) groups[i] = (bt_cpu_group){BT_CPU_SINGLE, {i, -1, -1, -1, -1}};
    pair found;
    for (int i = 0; takes && i < count; i++) {
        if (!find_pair(&p, i, takes, &found)) continue;
        groups[i] = found.forward;
        if (found.backward.part[0] >= 0) groups[found.backward.part[0]] = found.backward;
    }
    // Groups stand at their first launch; where the others stood there is nothing now.
    int kept = 0;
    for (int i = 0; i < count; i++) {
        bool inside = false;
        for (int g = 0; g < kept && !inside; g++)
            for (int j = 1; j < BT_CPU_PARTS_MAX; j++) inside |= groups[g].part[j] == i;
        if (!inside) groups[kept++] = groups[i];
    }
    return kept;
}

bool bt_cpu_read_by(const bt_launch *launches, int count, int writer, int b, int reader) {
    const bt_program_use none = {0};
    readers r =
        readers_of(&(program){launches, count, &none}, writer, &launches[writer].binding[b]);
    for (int i = 0; i < r.count; i++)
        if (r.launch[i] == reader) return true;
    return false;
}
