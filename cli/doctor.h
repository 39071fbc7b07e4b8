// `train --doctor`: what the library's doctor finds before and after a training, as lines on stderr
// and as JSON for run.json and --json.
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include "cli.h"

typedef struct doctor {
    bool on;
    const settings *s;
    bt_diagnosis diagnosis;
    int printed; // findings
    bt_epoch *epochs;
    int epoch_count;
} doctor;

// Does nothing, like all of these, without --doctor.
bt_status doctor_before(doctor *d, const settings *s, bt_context *ctx, const bt_train_desc *desc);
// Notes the figures of an epoch.
void doctor_progress(doctor *d, const bt_progress *now);
bt_status doctor_after(doctor *d, bt_context *ctx, const bt_train_desc *desc);
// Puts the findings into run.json, and into the result that --json prints (NULL: none).
void doctor_record(const doctor *d, json_t *record, json_t *result);
void doctor_close(doctor *d);

#endif
