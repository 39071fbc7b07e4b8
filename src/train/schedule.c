// The learning rate as a pure function of the settings and the step: nothing is carried from step
// to step, so nothing is lost when a run is resumed. In double precision.
#include "train/train.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

// 0.1^k in the k-th third of the run.
static double factor_step(double step, double steps) {
    return pow(0.1, floor(3 * step / steps));
}

// (1 + cos(pi step / steps)) / 2. Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5 with
// eta_min = 0 and one period.
static double factor_cosine(double step, double steps) {
    return 0.5 * (1 + cos(pi * step / steps));
}

// Up linearly from 1/25 to 1 in the first 30 % of the steps, then down to 0 as half a cosine.
// Smith, "A disciplined approach to neural network hyper-parameters", 2018, section 4.1, in the
// form that PyTorch's OneCycleLR has by default (div_factor 25, pct_start 0.3, cosine), but for the
// straight rise.
static double factor_onecycle(double step, double steps) {
    double up = 0.3 * steps;
    if (step < up) return 0.04 + 0.96 * step / up;
    return factor_cosine(step - up, steps - up);
}

bt_hyper bt_schedule_at(const bt_train_desc *desc, uint32_t step, uint32_t steps,
                        uint32_t epoch_steps) {
    double factor = 1;
    if (step > steps) step = steps;
    if (desc->schedule == BT_SCHEDULE_STEP) factor = factor_step(step, steps);
    if (desc->schedule == BT_SCHEDULE_COSINE) factor = factor_cosine(step, steps);
    if (desc->schedule == BT_SCHEDULE_ONECYCLE) factor = factor_onecycle(step, steps);
    // Warm-up multiplies what the schedule says: (step + 1) / warmup steps, at most 1. Goyal et
    // al., "Accurate, large minibatch SGD", 2017, section 2.2.
    double warmup = desc->warmup * epoch_steps;
    if (step + 1.0 < warmup) factor *= (step + 1.0) / warmup;
    bt_hyper hyper = desc->hyper;
    hyper.lr *= factor;
    return hyper;
}
