// See depend.h.
#include "device/depend.h"

#include "device/kernels.h"

static bool overlap(const bt_binding *a, const bt_binding *b) {
    return a->buffer && a->buffer == b->buffer && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

static bool reads_only(const bt_launch *launch, int i) {
    char letter = bt_kernel_table[launch->kernel].bindings[i];
    return letter == 'r' || letter == 'R';
}

bool bt_launches_depend(const bt_launch *a, const bt_launch *b) {
    for (int i = 0; i < a->binding_count; i++)
        for (int j = 0; j < b->binding_count; j++)
            if (!(reads_only(a, i) && reads_only(b, j)) && overlap(&a->binding[i], &b->binding[j]))
                return true;
    return false;
}

// Does launch `next` depend on one of launches [begin, end)?
static bool waits(const bt_launch *launches, const bool *solo, int begin, int end, int next) {
    for (int i = begin; i < end; i++)
        if (!(solo && solo[i] && solo[next]) && bt_launches_depend(&launches[i], &launches[next]))
            return true;
    return false;
}

void bt_place_barriers(const bt_launch *launches, int count, const bool *solo, const int *group,
                       bool *barrier) {
    int first = count, since = 0; // the first barrier within a step, and the last
    for (int i = 0, begin = 0; i < count; i++) {
        barrier[i] = false;
        if (!group || i == 0 || group[i] != group[i - 1]) begin = i;
        if (!waits(launches, solo, since, begin, i)) continue;
        barrier[begin] = true;
        if (first == count) first = begin;
        since = begin;
    }
    // Nothing stands between the end of a step and the beginning of the next but this.
    for (int i = 0; i < first && !barrier[0]; i++)
        barrier[0] = waits(launches, solo, since, count, i);
}
