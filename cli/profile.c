// Tables of profiles; see profile.h.
#include "profile.h"

#include "table.h"

// The share of its time that a launch would need at the device's best.
static double percent_of_roofline(const bt_profile_row *p, const bt_roofline *r) {
    if (!(p->seconds > 0 && r->gflops > 0 && r->gbytes_s > 0)) return 0;
    double arithmetic = 1e-9 * p->flops / r->gflops, memory = 1e-9 * p->bytes / r->gbytes_s;
    return 100 * (arithmetic > memory ? arithmetic : memory) / p->seconds;
}

json_t *profile_rows(const bt_profile_row *rows, int count, const bt_roofline *roofline) {
    json_t *list = json_array();
    double total = 0;
    for (int i = 0; i < count; i++) total += rows[i].seconds;
    for (int i = 0; i < count; i++) {
        const bt_profile_row *p = &rows[i];
        double seconds = p->seconds > 0 ? p->seconds : 1;
        json_array_append_new(
            list, json_pack("{s:s,s:s,s:I,s:f,s:f,s:f,s:f,s:f,s:f}", "operator", p->op, "kernel",
                            p->kernel ? p->kernel : "", "calls", (json_int_t)p->calls, "total_ms",
                            1e3 * p->seconds, "mean_us",
                            p->calls ? 1e6 * p->seconds / (double)p->calls : 0, "percent",
                            total > 0 ? 100 * p->seconds / total : 0, "gflops",
                            1e-9 * p->flops / seconds, "gbytes_s", 1e-9 * p->bytes / seconds,
                            "percent_of_roofline", percent_of_roofline(p, roofline)));
    }
    return list;
}

void profile_print(json_t *rows, const bt_roofline *roofline) {
    static const column columns[] = {{"operator", "operator", "%-37s"},
                                     {"kernel", "kernel", "%-19s"},
                                     {"calls", "calls", "%8lld"},
                                     {"total_ms", "total ms", "%9.2f"},
                                     {"mean_us", "mean us", "%9.2f"},
                                     {"percent", "%", "%6.2f"},
                                     {"gflops", "GFLOP/s", "%8.2f"},
                                     {"gbytes_s", "GB/s", "%7.2f"},
                                     {"percent_of_roofline", "% roof", "%6.1f"}};
    table_print(columns, sizeof columns / sizeof *columns, rows);
    const json_t *last = json_array_get(rows, json_array_size(rows) - 1); // launch gaps
    if (json_real_value(json_object_get(last, "percent")) > 25)
        puts("launch gaps: no launch ran; docs/profile.md says why, and what to do about it");
    printf("roofline measured on this device: %.*f GFLOP/s, %.*f GB/s\n", roofline->gflops < 1000,
           roofline->gflops, roofline->gbytes_s < 1000, roofline->gbytes_s);
}
