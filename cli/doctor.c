// See doctor.h.
#include "doctor.h"

#include <math.h>
#include <stdlib.h>

static void print_new(doctor *d) {
    for (; d->printed < d->diagnosis.count; d->printed++) {
        const bt_finding *f = &d->diagnosis.findings[d->printed];
        note(d->s, "doctor: %s %s%s%s: %s. Try: %s.", bt_severity_name(f->severity), f->code,
             *f->layer ? " in " : "", f->layer, f->text, f->hint);
    }
}

bt_status doctor_before(doctor *d, const settings *s, bt_context *ctx, const bt_train_desc *desc) {
    *d = (doctor){.on = opt_flag(s, "doctor"), .s = s};
    if (!d->on) return BT_OK;
    bt_status status = bt_doctor_before(ctx, desc, &d->diagnosis);
    print_new(d);
    return status;
}

void doctor_progress(doctor *d, const bt_progress *now) {
    if (!d->on || now->event != BT_EVENT_EPOCH) return;
    bt_epoch *more = realloc(d->epochs, ((size_t)d->epoch_count + 1) * sizeof *more);
    if (!more) return; // one epoch less to judge by
    d->epochs = more;
    d->epochs[d->epoch_count++] = (bt_epoch){now->epoch, now->train_loss, now->train_accuracy,
                                             now->val_loss, now->val_accuracy};
}

bt_status doctor_after(doctor *d, bt_context *ctx, const bt_train_desc *desc) {
    if (!d->on) return BT_OK;
    bt_status status = bt_doctor_after(ctx, desc, d->epochs, d->epoch_count, &d->diagnosis);
    print_new(d);
    int count = d->diagnosis.count;
    if (count)
        note(d->s, "doctor: %d finding%s; looked at: %s", count, count > 1 ? "s" : "",
             d->diagnosis.looked_at);
    else
        note(d->s, "doctor: all is well; looked at: %s", d->diagnosis.looked_at);
    return status;
}

static json_t *list(const bt_diagnosis *diagnosis) {
    json_t *all = json_array();
    for (int i = 0; i < diagnosis->count; i++) {
        const bt_finding *f = &diagnosis->findings[i];
        json_array_append_new(all, json_pack("{s:s,s:s,s:s,s:s,s:s}", "severity",
                                             bt_severity_name(f->severity), "code", f->code,
                                             "layer", f->layer, "text", f->text, "hint", f->hint));
    }
    return all;
}

void doctor_record(const doctor *d, json_t *record, json_t *result) {
    if (!d->on) return;
    const bt_diagnosis *is = &d->diagnosis;
    json_object_set_new(record, "findings", list(is));
    json_object_set_new(record, "doctor",
                        json_pack("{s:s,s:o,s:o}", "looked_at", is->looked_at, "lr_low",
                                  real_or_null(is->lr_low), "lr_high", real_or_null(is->lr_high)));
    if (result) json_object_set_new(result, "findings", list(is));
}

void doctor_close(doctor *d) {
    free(d->epochs);
}
